//! From a recipe's data section to a tokenizer and token shards, kept beside the run so that the next start
//! finds them; or to samples with masks or answers that are compared or judged, which are made again at every start.

mod answers;
mod checks;
mod lint;
mod samples;

use std::fs;
use std::path::Path;

pub(crate) use lint::lint_samples;
pub(crate) use samples::read_options;
use tempfile::TempDir;
use tritforge_data::{
    Corpus, Document, Fingerprint, Format, Hub, Mixture, MixturePart, Packing, RustSources, Split,
    TextSource, TokenizeOptions, cached_or_tokenize_parts, rust_sources, split,
};
use tritforge_report::{Progress, Sink};
use tritforge_support::counted;
use tritforge_text::{SpecialTokens, Tokenizer};

use crate::objective::DataKind;
use crate::recipe::{DataSource, Recipe, SHARD_TOKENS, SplitKind, TokenizerKind};
use crate::training_data::{LabelledData, PreferenceData, SampleData, TextData, TrainingData};
use crate::{TrainError, identity, init};

/// What a run trains on and is measured by.
#[derive(Debug)]
pub struct Prepared {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// What is learned and held out.
    pub data: TrainingData,
    /// Changes with the data, the split and the tokenizer.
    pub fingerprint: String,
}

impl Prepared {
    /// The texts, of a recipe without `data.records`.
    pub fn text(&self) -> Option<&TextData> {
        match &self.data {
            TrainingData::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The samples, of a recipe with `data.records`.
    pub fn samples(&self) -> Option<&SampleData> {
        match &self.data {
            TrainingData::Samples(samples) => Some(samples),
            _ => None,
        }
    }

    /// The pairs of answers, of a recipe with `[dpo]`, `[orpo]` or `[simpo]`.
    pub fn pairs(&self) -> Option<&PreferenceData> {
        match &self.data {
            TrainingData::Pairs(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The answers, of a recipe with `[kto]`.
    pub fn labelled(&self) -> Option<&LabelledData> {
        match &self.data {
            TrainingData::Labelled(answers) => Some(answers),
            _ => None,
        }
    }
}

/// The recipe with data that nothing is left of on the disk: what the run's directory already has is used,
/// otherwise it is made in a directory that is removed with the result.
pub(crate) fn elsewhere(recipe: &Recipe) -> Result<(Recipe, TempDir), TrainError> {
    let dir = tempfile::tempdir().map_err(TrainError::io(&std::env::temp_dir(), "create a directory in"))?;
    let mut elsewhere = recipe.clone();
    if !recipe.run.out.join("data").is_dir() {
        elsewhere.run.out = dir.path().to_path_buf();
    }
    Ok((elsewhere, dir))
}

/// Reads the text, makes or loads the tokenizer, and writes the token shards into `<run.out>/data`. What is
/// there already from the same text and tokenizer is used again. `sink` hears what is going on.
///
/// # Errors
/// If text or tokenizer cannot be read, there is too little text, or the directory cannot be written.
pub fn prepare(recipe: &Recipe, sink: &dyn Sink) -> Result<Prepared, TrainError> {
    prepare_in(recipe, &recipe.run.out.join("data"), sink)
}

/// Like [`prepare`], with tokenizer and shards in a directory that runs may share: what one of them made the others
/// find. It is not to be made by several processes at a time.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_in(recipe: &Recipe, dir: &Path, sink: &dyn Sink) -> Result<Prepared, TrainError> {
    fs::create_dir_all(dir).map_err(TrainError::io(dir, "create"))?;
    match recipe.objective.chosen().data() {
        DataKind::Pairs => return answers::prepare_pairs(recipe, dir, sink),
        DataKind::Labelled => return answers::prepare_labelled(recipe, dir, sink),
        DataKind::Targets => {}
    }
    if recipe.data.samples.records.is_some() {
        return samples::prepare_samples(recipe, dir, sink);
    }
    let how = split_of(recipe);
    let (mut train, mut held_out, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    for (documents, weight) in texts(recipe, sink)? {
        let (mut more, mut more_held_out) = split(documents, how)?;
        parts.push((train.len()..train.len() + more.len(), weight));
        train.append(&mut more);
        held_out.append(&mut more_held_out);
    }
    let tokenizer = tokenizer(recipe, &train, &held_out, &[], dir, sink)?;
    let json = tokenizer.to_json()?;
    let shards = |documents: &[Document], name: &str, shard_tokens: usize| {
        let tokenize = TokenizeOptions {
            vocab_size: tokenizer.vocab_size(),
            eos: tokenizer.eos(),
            // Shards of another size are cut at other documents.
            fingerprint: match shard_tokens {
                SHARD_TOKENS | usize::MAX => Fingerprint::of(json.as_bytes(), documents, tokenizer.eos()),
                size => Fingerprint::of(format!("{json}{size}").as_bytes(), documents, tokenizer.eos()),
            },
        };
        let encode = |text: &str| tokenizer.encode(text, false);
        let total = documents.iter().map(|d| d.text.len() as u64).sum();
        let task = format!("tokenizing {name}");
        let progress = |done| sink.progress(&Progress { task: &task, done, total });
        cached_or_tokenize_parts(documents, &dir.join(name), shard_tokens, &tokenize, encode, progress)
    };
    let mut mixture = Vec::new();
    for (part, (range, weight)) in parts.iter().enumerate() {
        let name = if part == 0 { "train.bin".to_string() } else { format!("train-{}.bin", part + 1) };
        let shards = shards(&train[range.clone()], &name, recipe.data.shard_tokens)?;
        mixture.push(MixturePart { shards, weight: *weight });
    }
    let train_tokens = Mixture::new(mixture)?;
    // Evaluations go through one shard, whatever its size.
    let held_out_shard = shards(&held_out, "held_out.bin", usize::MAX)?.remove(0);
    sink.message(&format!(
        "{} for training, {} held out; vocabulary {}, {:.2} bytes per token",
        counted(train_tokens.len(), "token"),
        held_out_shard.len(),
        tokenizer.vocab_size(),
        held_out_shard.bytes_per_token()
    ));
    say_shares(recipe, &train_tokens, sink);
    let prints = train_tokens.parts().iter().map(|p| format!("{}-", p.shards[0].fingerprint()));
    let mut fingerprint = prints.collect::<String>() + &held_out_shard.fingerprint().to_string();
    // What else the order of the samples depends on; nothing for a recipe that says nothing of it.
    match recipe.data.packing {
        Packing::Concat => {}
        Packing::Documents => fingerprint += "-documents",
        Packing::Masked => fingerprint += "-masked",
    }
    if parts.len() > 1 {
        fingerprint.extend(parts.iter().map(|(_, weight)| format!("-{weight}")));
    }
    let text = TextData { train: train_tokens, held_out: held_out_shard, documents: (train, held_out) };
    Ok(Prepared { tokenizer, data: TrainingData::Text(text), fingerprint })
}

/// How a recipe's data is split.
pub(crate) fn split_of(recipe: &Recipe) -> Split {
    let fraction = recipe.data.held_out;
    match recipe.data.split {
        SplitKind::Contiguous => Split::Contiguous { fraction },
        SplitKind::Document => Split::ByDocument { fraction, seed: recipe.split_seed() },
    }
}

/// The documents of each text with its weight. Sources without weights are one text.
fn texts(recipe: &Recipe, sink: &dyn Sink) -> Result<Vec<(Vec<Document>, f64)>, TrainError> {
    let data = &recipe.data;
    match data.source {
        DataSource::Files if data.sources.is_empty() => {
            let sources = data.train.iter().map(|path| TextSource {
                path: path.clone(),
                format: Format::Auto,
                column: data.column.clone(),
            });
            let corpus = Corpus::read_sources(&sources.collect::<Vec<_>>())?;
            sink.message(&describe(&corpus));
            Ok(vec![(corpus.documents, 1.0)])
        }
        DataSource::Files => {
            let mut texts = Vec::new();
            for source in &data.sources {
                let text = TextSource {
                    path: source.path.clone(),
                    format: source.format,
                    column: source.column.clone(),
                };
                let corpus = Corpus::read_sources(&[text])?;
                sink.message(&format!("{}: {}", source.path.display(), describe(&corpus)));
                texts.push((corpus.documents, source.weight));
            }
            if texts.iter().all(|(_, weight)| weight.is_none()) {
                return Ok(vec![(texts.into_iter().flat_map(|(documents, _)| documents).collect(), 1.0)]);
            }
            Ok(texts.into_iter().map(|(documents, weight)| (documents, weight.unwrap_or(1.0))).collect())
        }
        DataSource::RustSources => {
            let (documents, report) = rust_sources(&RustSources::default())?;
            sink.message(&format!(
                "Rust sources of {}: {}, {:.1} MB",
                counted(report.packages, "package"),
                counted(report.files, "file"),
                report.bytes as f64 / 1e6
            ));
            Ok(vec![(documents, 1.0)])
        }
    }
}

/// What was read, and what was left out.
fn describe(corpus: &Corpus) -> String {
    let mut text =
        format!("{}, {}", counted(corpus.documents.len(), "document"), counted(corpus.bytes(), "byte"));
    if corpus.files != corpus.documents.len() {
        text += &format!(" from {}", counted(corpus.files, "file"));
    }
    if corpus.dropped > 0 {
        text += &format!("; dropped {} without text", corpus.dropped);
    }
    if let Some(first) = corpus.skipped.first() {
        let (count, path, offset) = (corpus.skipped.len(), first.path.display(), first.offset);
        text += &format!(
            "; skipped {count}, not UTF-8 (first: {path} at byte {offset})",
            count = counted(count, "file")
        );
    }
    text
}

/// How often a run goes through each part of a mixture.
fn say_shares(recipe: &Recipe, mixture: &Mixture, sink: &dyn Sink) {
    if mixture.parts().len() < 2 {
        return;
    }
    let train = &recipe.train;
    let tokens =
        (train.batch_size * train.gradient_accumulation * recipe.data.seq_len) as f64 * train.steps as f64;
    let total: f64 = mixture.parts().iter().map(|p| p.weight).sum();
    for (part, source) in mixture.parts().iter().zip(&recipe.data.sources) {
        let share = part.weight / total;
        sink.message(&format!(
            "{}: {}, {:.1} % of the samples, {:.2} epochs",
            source.path.display(),
            counted(part.len(), "token"),
            share * 100.0,
            share * tokens / part.len().max(1) as f64
        ));
    }
}

/// The recipe's tokenizer. One that is trained here gets tokens for `marks`.
fn tokenizer(
    recipe: &Recipe,
    train: &[Document],
    held_out: &[Document],
    marks: &[String],
    dir: &Path,
    sink: &dyn Sink,
) -> Result<Tokenizer, TrainError> {
    let texts = || train.iter().map(|d| d.text.as_str());
    match recipe.tokenizer.kind {
        TokenizerKind::Base => {
            // The recipe's validation made sure of the base.
            let base = recipe.model.base.as_deref().unwrap_or(Path::new(""));
            init::base(base)?.tokenizer()?.ok_or_else(|| {
                let base = base.display();
                let message = format!(
                    "model.base = \"{base}\": found no tokenizer in it; set tokenizer.kind = \"file\" and \
                     tokenizer.path"
                );
                TrainError::State(message)
            })
        }
        TokenizerKind::File => {
            // The recipe's validation made sure of the path.
            let path = recipe.tokenizer.path.as_deref().unwrap_or(Path::new("tokenizer.json"));
            match path.to_str().filter(|text| text.starts_with("hf://")) {
                Some(address) => Ok(Tokenizer::from_file(&Hub::from_env().tokenizer_file(address)?)?),
                None => Ok(Tokenizer::from_file(path)?),
            }
        }
        // A character that only the held-out text has would have no token: as in nanoGPT, all text counts.
        TokenizerKind::Characters => {
            let all = texts().chain(held_out.iter().map(|d| d.text.as_str()));
            let special = SpecialTokens { others: marks.to_vec(), ..SpecialTokens::none() };
            Ok(Tokenizer::characters(all, &special)?)
        }
        TokenizerKind::Bpe => {
            let size = recipe.tokenizer.vocab_size;
            let mut key = format!("bpe {size} {}", Fingerprint::of_text(train));
            marks.iter().for_each(|mark| key += &format!(" {mark}"));
            let (key_path, path) = (dir.join("tokenizer.key"), dir.join("tokenizer.json"));
            // With the SHA-256 of the file, so that one that was changed is not taken for it.
            let whole = |json: &[u8]| format!("{key} {}", identity::of_bytes(json));
            if let (Ok(found), Ok(json)) = (fs::read_to_string(&key_path), fs::read(&path))
                && found == whole(&json)
                && let Ok(tokenizer) = Tokenizer::from_file(&path)
            {
                return Ok(tokenizer);
            }
            sink.message(&format!("training a byte-level BPE of {size}", size = counted(size, "token")));
            let special = SpecialTokens { others: marks.to_vec(), ..SpecialTokens::default() };
            let tokenizer = Tokenizer::train_bpe(texts(), size, &special)?;
            // The key comes last: without it the file counts as absent.
            let _ = fs::remove_file(&key_path);
            let json = tokenizer.to_json()?;
            fs::write(&path, &json).map_err(TrainError::io(&path, "write"))?;
            fs::write(&key_path, whole(json.as_bytes())).map_err(TrainError::io(&key_path, "write"))?;
            Ok(tokenizer)
        }
    }
}
