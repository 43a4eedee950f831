//! From a recipe's records to samples with masks: read, filtered, split, rendered by a
//! chat template, encoded.
//!
//! Samples are kept in memory and made again at every start: what they are depends on the files, the recipe
//! and the tokenizer alone, and their fingerprint is part of every checkpoint.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use tritforge_data::{
    Batches, Body, ChatTurn, Document, Example, Examples, Format, Packing, ReadOptions, RecordKind, Report,
    Sample, SampleBatches, SampleOptions, Supplied, TextSource, sample_fingerprint, samples, split_examples,
};
use tritforge_report::Sink;
use tritforge_support::counted;
use tritforge_text::{
    ChatTemplate, EncodeOptions, Masked, TemplateArguments, TemplateInputs, TextError, Tokenizer, Turn,
};

use super::checks::{all_is_written, arguments_are_used, learns_all};
use super::{Prepared, split_of, tokenizer};
use crate::TrainError;
use crate::objective::Objective;
use crate::recipe::samples::MODEL;
use crate::recipe::{Loss, Recipe};
use crate::training_data::{SampleData, TrainingData};

/// What was left out, an object a line.
const DROPPED: &str = "dropped.jsonl";

/// The samples of a recipe with `data.records`.
pub(super) fn prepare_samples(recipe: &Recipe, dir: &Path, sink: &dyn Sink) -> Result<Prepared, TrainError> {
    let mut read = Read::new(recipe, dir, sink)?;
    for example in read.train.iter().chain(&read.held_out) {
        let (found, sections) = match &example.body {
            Body::Preference { .. } => ("a pair of answers", Objective::of_pairs()),
            Body::Labelled { .. } => ("an answer with a label", Objective::of_labelled()),
            Body::Turns(_) | Body::Text(_) => continue,
        };
        return Err(TrainError::State(format!(
            "{}: found {found}: add a {sections} section to train on preferences, or set data.records \
             and data.columns to a prompt and its answer",
            example.source
        )));
    }
    let bytes = token_bytes(&read.tokenizer);
    let mut report = std::mem::take(&mut read.report);
    let mut make = |examples: &[Example]| {
        samples(
            examples,
            options(recipe, &bytes),
            |body, supplied| read.encode(recipe.data.samples.loss, body, supplied),
            &mut report,
        )
    };
    let (train, held_out) = (make(&read.train)?, make(&read.held_out)?);
    read.report = report;
    for (name, side) in [("training", &train), ("held-out", &held_out)] {
        if side.is_empty() {
            return Err(TrainError::State(format!("no {name} samples left: {}", read.report.summary())));
        }
    }
    if let Some(mark) = train.first().and_then(|s| unlearned_end(&read.tokenizer, &s.ids, &s.mask)) {
        sink.message(&format!(
            "warning: the template writes {mark} after answers but leaves it out of the loss, so the model \
             will not learn to stop: put it into the generation block"
        ));
    }
    let prints = [&train, &held_out].map(|side| sample_fingerprint(side).to_string());
    let fingerprint = fingerprint(recipe, &prints);
    read.finish(dir, sink)?;
    let count = |side: &[Sample]| {
        let tokens: usize = side.iter().map(|sample| sample.ids.len()).sum();
        let targets: usize = side.iter().map(Sample::targets).sum();
        (side.len(), tokens, targets)
    };
    let ((samples, tokens, targets), (held, held_tokens, held_targets)) = (count(&train), count(&held_out));
    sink.message(&format!(
        "{samples} for training, {tokens}, {:.1} % in the loss; {held} held out, \
         {held_tokens}, {held_targets} in the loss; vocabulary {}",
        100.0 * targets as f64 / tokens as f64,
        read.tokenizer.vocab_size(),
        held_tokens = counted(held_tokens, "token"),
        tokens = counted(tokens, "token"),
        samples = counted(samples, "sample")
    ));
    let position = Batches::start(recipe.order_seed());
    let rows = SampleBatches::new(&train, recipe.data.seq_len, recipe.data.packing, position)?.rows();
    let drawn =
        (recipe.train.batch_size * recipe.train.gradient_accumulation) as f64 * recipe.train.steps as f64;
    sink.message(&format!(
        "{rows} of {} per epoch, {:.2} epochs in total",
        counted(recipe.data.seq_len, "token"),
        drawn / rows as f64,
        rows = counted(rows, "row")
    ));
    let Read { tokenizer, template, report, .. } = read;
    let data = TrainingData::Samples(Box::new(SampleData { template, train, held_out, report }));
    Ok(Prepared { tokenizer, data, fingerprint })
}

pub(super) fn options<'a>(recipe: &Recipe, token_bytes: &'a [u32]) -> SampleOptions<'a> {
    SampleOptions {
        seq_len: recipe.data.seq_len,
        truncation: recipe.data.samples.truncation,
        on_bad: recipe.data.samples.on_bad_sample,
        token_bytes,
    }
}

/// How the recipe's records are read.
pub(crate) fn read_options(recipe: &Recipe) -> ReadOptions {
    let keys = &recipe.data.samples;
    ReadOptions {
        kind: keys.records.unwrap_or(RecordKind::Auto),
        columns: keys.columns.clone(),
        on_bad: keys.on_bad_sample,
        keep_empty: keys.keep_empty,
        drop_duplicates: keys.drop_duplicates,
        max_samples: keys.max_samples,
    }
}

pub(super) fn fingerprint(recipe: &Recipe, prints: &[String; 2]) -> String {
    // What else the order of the samples depends on.
    let packing = if recipe.data.packing == Packing::Masked { "masked" } else { "documents" };
    format!("{}-{}-samples-{packing}", prints[0], prints[1])
}

/// Examples that were read, with what turns them into ids.
pub(super) struct Read {
    pub(super) train: Vec<Example>,
    pub(super) held_out: Vec<Example>,
    pub(super) report: Report,
    pub(super) tokenizer: Tokenizer,
    pub(super) template: ChatTemplate,
    /// Whether the template writes something by which an answer ends.
    pub(super) ends_answers: bool,
}

impl Read {
    pub(super) fn new(recipe: &Recipe, dir: &Path, sink: &dyn Sink) -> Result<Self, TrainError> {
        let keys = &recipe.data.samples;
        let source = |path: &Path, format| TextSource { format, ..TextSource::new(path) };
        let mut sources: Vec<TextSource> =
            recipe.data.train.iter().map(|path| source(path, Format::Auto)).collect();
        sources.extend(recipe.data.sources.iter().map(|s| source(&s.path, s.format)));
        let Examples { examples, report } = Examples::read(&sources, &read_options(recipe))?;
        let (train, held_out) = split_examples(examples, split_of(recipe))?;
        let read = Self::with(recipe, dir, sink, train, held_out, report)?;
        let mut all = read.train.iter().chain(&read.held_out);
        all.clone().try_for_each(|example| all_is_written(example, read.template.source()))?;
        if keys.loss == Loss::All {
            all.try_for_each(learns_all)?;
        }
        Ok(read)
    }

    /// Examples with the recipe's template and tokenizer; whether the one knows all of the others is not checked.
    pub(super) fn with(
        recipe: &Recipe,
        dir: &Path,
        sink: &dyn Sink,
        train: Vec<Example>,
        held_out: Vec<Example>,
        report: Report,
    ) -> Result<Self, TrainError> {
        let arguments = TemplateArguments::new(recipe.data.samples.chat_template_kwargs.clone())?;
        let template = named_template(recipe)?.map(|template| template.with_arguments(arguments.clone()));
        // A tokenizer that is trained here sees the text that it will encode.
        let texts = |examples: &[Example]| -> Vec<Document> {
            examples.iter().map(|e| Document::new(e.source.clone(), rendered(e, template.as_ref()))).collect()
        };
        let marks = template.as_ref().map(|template| marks(template.source())).unwrap_or_default();
        let tokenizer = tokenizer(recipe, &texts(&train), &texts(&held_out), &marks, dir, sink)?;
        let template = match template {
            Some(template) => template,
            // It may have variables that the model was trained with before.
            None => tokenizer.chat_template()?.map(|own| {
                let all = own.arguments().with(&arguments);
                own.with_arguments(all)
            }).ok_or_else(|| {
                TrainError::State(format!(
                    "the tokenizer has no chat template: set data.template to one of {}, or to a Jinja file, \
                     as in data.template = \"alpaca\"",
                    ChatTemplate::names().map(|name| format!("\"{name}\"")).join(", ")
                ))
            })?,
        };
        let unknown: Vec<String> =
            self::marks(template.source()).into_iter().filter(|mark| tokenizer.id(mark).is_none()).collect();
        if !unknown.is_empty() {
            sink.message(&format!(
                "warning: {} in the template are not tokens of the vocabulary and are encoded as plain text",
                unknown.join(", ")
            ));
        }
        arguments_are_used(arguments.entries(), template.source())?;
        // The checkpoint's template is the one that its model was trained with, with what the recipe gives it.
        let tokenizer = tokenizer.with_chat_template(Some(&template));
        let ends_answers = tokenizer.turn_end(&template).written;
        Ok(Self { train, held_out, report, tokenizer, template, ends_answers })
    }

    /// The ids of an example with a mask over what is learned of it.
    pub(super) fn encode(
        &self,
        loss: Loss,
        body: &Body,
        supplied: &Supplied,
    ) -> Result<(Vec<u32>, Vec<bool>), TextError> {
        let Masked { ids, mask } = match body {
            Body::Turns(said) => {
                let turns: Vec<_> = said
                    .iter()
                    .map(|said| Turn { message: &said.message, answer: said.answer, learn: said.learn })
                    .collect();
                let inputs = TemplateInputs { tools: &supplied.tools, arguments: Some(&supplied.arguments) };
                let mut masked = self.tokenizer.encode_turns_with(&self.template, &turns, inputs)?;
                // Where the template writes nothing by which the last answer ends, EOS does.
                if !self.ends_answers
                    && masked.mask.last() == Some(&true)
                    && let Some(eos) = self.tokenizer.eos()
                {
                    masked.ids.push(eos);
                    masked.mask.push(true);
                }
                masked
            }
            Body::Text(text) => {
                let options = EncodeOptions { add_bos: self.tokenizer.adds_bos(), parse_special: false };
                let mut ids = self.tokenizer.encode_with(text, options)?;
                ids.extend(self.tokenizer.eos());
                Masked { mask: vec![true; ids.len()], ids }
            }
            Body::Preference { .. } | Body::Labelled { .. } => Masked::default(),
        };
        let mask = if loss == Loss::All { vec![true; mask.len()] } else { mask };
        Ok((ids, mask))
    }

    /// Notes on the disk what was left out, and says what was read.
    pub(super) fn finish(&self, dir: &Path, sink: &dyn Sink) -> Result<(), TrainError> {
        sink.message(&self.report.summary());
        let path = dir.join(DROPPED);
        if self.report.dropped.is_empty() {
            // One of an earlier start would be wrong now.
            let _ = fs::remove_file(&path);
            return Ok(());
        }
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::new(File::create(&path)?);
            for dropped in &self.report.dropped {
                serde_json::to_writer(&mut file, dropped)?;
                file.write_all(b"\n")?;
            }
            file.flush()
        };
        write().map_err(TrainError::io(&path, "write"))?;
        sink.message(&format!("dropped records: {}", path.display()));
        Ok(())
    }
}

/// The template that a recipe names; `None` for that of the tokenizer.
fn named_template(recipe: &Recipe) -> Result<Option<ChatTemplate>, TrainError> {
    let name = match recipe.data.samples.template.as_deref() {
        None | Some(MODEL) => return Ok(None),
        Some(name) => name,
    };
    if let Some(template) = ChatTemplate::named(name) {
        return Ok(Some(template));
    }
    let source = fs::read_to_string(name).map_err(TrainError::io(Path::new(name), "read"))?;
    Ok(Some(ChatTemplate::new(source)?))
}

/// The text of an example, for a tokenizer that is to be trained; what a template refuses is met again when
/// it is encoded.
fn rendered(example: &Example, template: Option<&ChatTemplate>) -> String {
    match (&example.body, template) {
        (Body::Text(text), _) => text.clone(),
        (Body::Turns(said) | Body::Labelled { turns: said, .. }, Some(template)) => {
            let messages: Vec<_> = said.iter().map(|said| &said.message).collect();
            let Supplied { tools, arguments } = &example.supplied;
            let inputs = TemplateInputs { tools, arguments: Some(arguments) };
            template
                .render_with(&messages, inputs, false, None, None)
                .map(|found| found.text)
                .unwrap_or_default()
        }
        (body, _) => body.messages().into_iter().filter_map(ChatTurn::content).collect::<Vec<_>>().join("\n"),
    }
}

/// The marks that a template writes, `<|…|>`: without a token of their own they cost many.
fn marks(source: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut rest = source;
    while let Some(start) = rest.find("<|") {
        rest = &rest[start..];
        let Some(end) = rest.find("|>") else { break };
        let mark = &rest[..end + 2];
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if end > 2 && mark[2..end].chars().all(name) && !found.iter().any(|known| known == mark) {
            found.push(mark.to_string());
        }
        rest = &rest[2..];
    }
    found
}

/// The special token behind a sample's last answer, if that ends with none.
pub(super) fn unlearned_end(tokenizer: &Tokenizer, ids: &[u32], mask: &[bool]) -> Option<String> {
    let last = mask.iter().rposition(|target| *target)?;
    let next = ids.get(last + 1).filter(|id| tokenizer.is_special(**id))?;
    if tokenizer.is_special(ids[last]) { None } else { tokenizer.token(*next) }
}

/// Bytes that each id adds to a text; special tokens stand for none.
pub(super) fn token_bytes(tokenizer: &Tokenizer) -> Vec<u32> {
    let bytes = |id| match tokenizer.is_special(id) {
        true => 0,
        false => tokenizer.bytes(id).map_or(0, |bytes| bytes.len() as u32),
    };
    (0..tokenizer.vocab_size() as u32).map(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_of_a_template_are_found_once() {
        let llama3 = ChatTemplate::named("llama3").unwrap();
        assert_eq!(marks(llama3.source()), ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]);
        assert_eq!(marks("a <|b c|> <|x|><|x|> <|> |> <||>"), ["<|x|>"]);
    }
}
