//! From a recipe's records to answers that are compared, in pairs, or that are judged one by one.

use std::path::Path;

use tritforge_data::{
    Example, LabelledSample, Preference, Report, labelled_samples, preferences, sample_fingerprint,
};
use tritforge_report::Sink;
use tritforge_support::counted;

use super::Prepared;
use super::samples::{Read, fingerprint, options, token_bytes};
use crate::TrainError;
use crate::recipe::{Loss, Recipe};
use crate::training_data::{LabelledData, PreferenceData, TrainingData, both};

/// The pairs of answers of a recipe with an objective of pairs.
pub(super) fn prepare_pairs(recipe: &Recipe, dir: &Path, sink: &dyn Sink) -> Result<Prepared, TrainError> {
    let mut read = Read::new(recipe, dir, sink)?;
    let bytes = token_bytes(&read.tokenizer);
    let (train, held_out) = made(&mut read, "pair", |read, examples, report| {
        preferences(
            examples,
            options(recipe, &bytes),
            |body, supplied| read.encode(Loss::Completions, body, supplied),
            report,
        )
        .map_err(TrainError::from)
    })?;
    let digest = |side: &[Preference]| sample_fingerprint(both(side)).to_string();
    let fingerprint = fingerprint(recipe, &[digest(&train), digest(&held_out)]);
    read.finish(dir, sink)?;
    sink.message(&format!("{} for training, {} held out", counted(train.len(), "pair"), held_out.len()));
    let Read { tokenizer, template, report, .. } = read;
    let data = TrainingData::Pairs(Box::new(PreferenceData { template, train, held_out, report }));
    Ok(Prepared { tokenizer, data, fingerprint })
}

/// The answers of a recipe with an objective of judged ones, each of a pair by itself. Both are on the same side of the split.
pub(super) fn prepare_labelled(recipe: &Recipe, dir: &Path, sink: &dyn Sink) -> Result<Prepared, TrainError> {
    let mut read = Read::new(recipe, dir, sink)?;
    let bytes = token_bytes(&read.tokenizer);
    let (train, held_out) = made(&mut read, "answer", |read, examples, report| {
        labelled_samples(
            examples,
            options(recipe, &bytes),
            |body, supplied| read.encode(Loss::Completions, body, supplied),
            report,
        )
        .map_err(TrainError::from)
    })?;
    let digest = |side: &[LabelledSample]| {
        let samples = side.iter().map(|answer| &answer.sample);
        let labels: String = side.iter().map(|answer| if answer.desirable { '+' } else { '-' }).collect();
        let labels = tritforge_data::Fingerprint::of(labels.as_bytes(), &[], None);
        format!("{}-labels-{labels}", sample_fingerprint(samples))
    };
    let fingerprint = fingerprint(recipe, &[digest(&train), digest(&held_out)]);
    read.finish(dir, sink)?;
    sink.message(&format!("{} for training, {} held out", counted(train.len(), "answer"), held_out.len()));
    let Read { tokenizer, template, report, .. } = read;
    let data = TrainingData::Labelled(Box::new(LabelledData { template, train, held_out, report }));
    Ok(Prepared { tokenizer, data, fingerprint })
}

/// What `make` makes of the training and of the held-out examples, neither of which may be nothing.
fn made<T>(
    read: &mut Read,
    what: &str,
    make: impl Fn(&Read, &[Example], &mut Report) -> Result<Vec<T>, TrainError>,
) -> Result<(Vec<T>, Vec<T>), TrainError> {
    let mut report = std::mem::take(&mut read.report);
    let train = make(read, &read.train, &mut report)?;
    let held_out = make(read, &read.held_out, &mut report)?;
    read.report = report;
    for (name, side) in [("training", &train), ("held-out", &held_out)] {
        if side.is_empty() {
            return Err(TrainError::State(format!("no {name} {what}s left: {}", read.report.summary())));
        }
    }
    Ok((train, held_out))
}
