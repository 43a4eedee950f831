//! The reference of an objective over answers: what it thinks of every one of them, computed once and kept in the
//! run's directory.
//!
//! The reference is the model as the run begins, or a model that the recipe names. It never changes, so
//! neither do its log-probabilities: training needs no second model in memory, and a resumed run reads the
//! bits that the run began with.

use std::fs;
use std::path::Path;

use tritforge_data::{Fingerprint, Sample};
use tritforge_export::{ExportError, ImportOptions, LoadedModel, Located, locate};
use tritforge_model::Decoder;
use tritforge_support::counted;

use crate::objective::RunStart;
use crate::objective::log_probs::sequence_log_probs;
use crate::optimizer::round_to_master;
use crate::trainer::eval_sequences;
use crate::training_data::row_batches;
use crate::{TrainError, identity, init};

/// The file in `<run.out>/data`.
const FILE: &str = "reference.bin";
/// What it begins with.
const MAGIC: &[u8; 8] = b"TRITREF1";

/// Log-probabilities of answers, in the order in which they were given.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::objective) struct Reference {
    pub(in crate::objective) train: Vec<f64>,
    pub(in crate::objective) held_out: Vec<f64>,
}

/// Which model is the reference, or what the run begins with, by its content.
pub(in crate::objective) fn fingerprint(
    named: Option<&Path>,
    base: Option<&Path>,
) -> Result<String, TrainError> {
    let fault = |e: ExportError| TrainError::State(format!("the reference of the answers: {e}"));
    // The recipe's validation made sure of a base.
    let path = named.or(base).unwrap_or(Path::new(""));
    match locate(path).map_err(fault)? {
        // Its manifest says what its files hold: they need not be read.
        Located::Checkpoint(checkpoint) => Ok(checkpoint.fingerprint()?),
        other => {
            let model = LoadedModel::of(other, &ImportOptions::default(), &[]).map_err(fault)?;
            identity::of_model(&model)
        }
    }
}

impl Reference {
    /// What the reference, the model of this fingerprint, thinks of a run's answers, `[train, held_out]`: as the run's directory
    /// has it, or else computed and put there. Where the model of the run's beginning is the reference, it is made again
    /// for a run that goes on.
    pub(in crate::objective) fn open(
        named: Option<&Path>,
        run: &RunStart<'_>,
        answers: [Vec<&Sample>; 2],
        fingerprint: &str,
    ) -> Result<Self, TrainError> {
        let (recipe, config) = (run.recipe, run.config);
        let dir = recipe.run.out.join("data");
        let file = dir.join(FILE);
        // Everything that the numbers depend on; a reference with a name has a shape of its own.
        let shape = if named.is_some() { String::new() } else { config.to_json() };
        let (data, master) = (&run.prepared.fingerprint, recipe.optim.master_dtype);
        // Answers are cut to it, those of other prompts among them.
        let longest = recipe.data.seq_len;
        let key = format!("{data} {fingerprint} {master:?} {longest} {shape}");
        let key = Fingerprint::of(key.as_bytes(), &[], None);
        if let Some(found) = read(&file, &key, [answers[0].len(), answers[1].len()]) {
            return Ok(found);
        }
        let other;
        let model = match (named, run.resumed) {
            (None, None) => run.model,
            (None, Some(_)) => {
                let mut model = init::model(recipe, config)?;
                round_to_master(master, model.parameters());
                model.requantize()?;
                other = model;
                &other
            }
            (Some(path), _) => {
                other = opened(path, recipe.objective.name(), config.vocab_size)?;
                &other
            }
        };
        let count = answers[0].len() + answers[1].len();
        run.sink.message(&format!("computing the reference's log-probabilities of {count} answers"));
        let [train, held_out] = answers;
        let score = |answers: Vec<&Sample>| {
            let sources: Vec<&str> = answers.iter().map(|answer| answer.source.as_str()).collect();
            let found = log_probs(model, answers, recipe.data.seq_len)?;
            match found.iter().position(|p| !p.is_finite()) {
                None => Ok(found),
                Some(bad) => Err(TrainError::State(format!(
                    "{}: the reference gives the answer the log-probability {}: expected a finite number",
                    sources[bad], found[bad]
                ))),
            }
        };
        let reference = Self { train: score(train)?, held_out: score(held_out)? };
        fs::create_dir_all(&dir).map_err(TrainError::io(&dir, "create"))?;
        reference.write(&file, &key)?;
        Ok(reference)
    }

    /// The numbers of some pairs for training, one after the other.
    pub(super) fn of(&self, pairs: &[usize]) -> Vec<f64> {
        pairs.iter().flat_map(|pair| &self.train[2 * pair..][..2]).copied().collect()
    }

    /// The file holds its magic, the fingerprint of all that it depends on, and the numbers as little-endian
    /// f64, those of training first.
    fn write(&self, file: &Path, key: &Fingerprint) -> Result<(), TrainError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(key.0);
        bytes.extend(self.train.iter().chain(&self.held_out).flat_map(|p| p.to_le_bytes()));
        let temporary = file.with_extension("tmp");
        fs::write(&temporary, bytes).map_err(TrainError::io(&temporary, "write"))?;
        fs::rename(&temporary, file).map_err(TrainError::io(file, "rename into"))
    }
}

/// A reference that the recipe names.
fn opened(path: &Path, section: &str, vocab_size: usize) -> Result<Decoder, TrainError> {
    let fault =
        |message: String| TrainError::State(format!("{section}.reference = {}: {message}", path.display()));
    let opened = LoadedModel::open(path, &ImportOptions::default()).map_err(|e| fault(e.to_string()))?;
    let model = opened.decoder().map_err(|e| fault(e.to_string()))?;
    let found = model.config().vocab_size;
    if found != vocab_size {
        return Err(fault(format!(
            "a vocabulary of {found}, but the model has {vocab_size}: both must use the same tokenizer",
            found = counted(found, "token")
        )));
    }
    Ok(model)
}

/// What a model thinks of answers.
pub(in crate::objective) fn log_probs(
    model: &Decoder,
    answers: Vec<&Sample>,
    seq_len: usize,
) -> Result<Vec<f64>, TrainError> {
    let mut out = Vec::with_capacity(answers.len());
    for rows in row_batches(answers, seq_len, eval_sequences(seq_len, model.config().vocab_size), 1) {
        let rows = rows?;
        let batch = crate::training_data::rows(&rows, seq_len);
        out.extend(sequence_log_probs(model, &batch)?);
    }
    Ok(out)
}

/// None if the file is not there, depends on something else, was cut short, or has NaN or infinity.
fn read(file: &Path, key: &Fingerprint, [train, held_out]: [usize; 2]) -> Option<Reference> {
    let bytes = fs::read(file).ok()?;
    let numbers = bytes.strip_prefix(MAGIC)?.strip_prefix(&key.0)?;
    if numbers.len() != 8 * (train + held_out) {
        return None;
    }
    let numbers: Vec<f64> = numbers.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    if !numbers.iter().all(|number| number.is_finite()) {
        return None;
    }
    let (train, held_out) = numbers.split_at(train);
    Some(Reference { train: train.to_vec(), held_out: held_out.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_to_the_bit_and_only_for_what_it_was_computed_from() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let reference =
            Reference { train: vec![-0.1, -1.0 / 3.0, -7.25, -1e-300], held_out: vec![-2.0, f64::MIN] };
        let key = |text: &str| Fingerprint::of(text.as_bytes(), &[], None);
        reference.write(&file, &key("a")).unwrap();
        assert_eq!(read(&file, &key("a"), [4, 2]), Some(reference.clone()));
        assert_eq!(read(&file, &key("b"), [4, 2]), None);
        assert_eq!(read(&file, &key("a"), [4, 4]), None);
        assert_eq!(reference.of(&[1, 0]), [-7.25, -1e-300, -0.1, -1.0 / 3.0]);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(read(&file, &key("a"), [4, 2]), None);
        assert_eq!(read(&dir.path().join("none"), &key("a"), [4, 2]), None);
    }
}
