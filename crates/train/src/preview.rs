//! A look at a recipe's data before anything is trained: samples as the model will see them, what it will
//! learn of them, how long they are, what was left out.

use std::fmt;

use tritforge_data::{Batches, IGNORE_INDEX, Report, Sample, SampleBatches};
use tritforge_report::{Progress, Sink};
use tritforge_text::Tokenizer;

use crate::prepare::{Prepared, elsewhere, prepare};
use crate::recipe::Recipe;
use crate::training_data::both;
use crate::{TrainError, TrainingData};

/// What [`preview`] found.
#[derive(Debug)]
pub struct Preview {
    /// The first samples of the training data.
    pub shown: Vec<PreviewSample>,
    /// What was read, left out and cut; of texts nothing is.
    pub report: Option<Report>,
    /// All training data.
    pub train: Lengths,
    /// All held-out data.
    pub held_out: Lengths,
    /// Rows of an epoch, and the share of their places that is not padding.
    pub rows: (usize, f64),
}

/// A sample as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewSample {
    /// Where it stands, or what it is.
    pub source: String,
    /// Its text, each part with whether it is learned.
    pub parts: Vec<(String, bool)>,
    /// Its tokens.
    pub tokens: usize,
    /// Those that are learned.
    pub targets: usize,
}

/// How long samples are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lengths {
    /// Tokens of each sample, ascending.
    pub tokens: Vec<usize>,
    /// Tokens of all that are learned.
    pub targets: usize,
    /// Bytes of text that these spell.
    pub bytes: usize,
}

impl Lengths {
    fn of<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Self {
        let mut lengths = Self::default();
        for sample in samples {
            lengths.tokens.push(sample.ids.len());
            lengths.targets += sample.targets();
            lengths.bytes += sample.bytes;
        }
        lengths.tokens.sort_unstable();
        lengths
    }

    /// Tokens of all samples.
    pub fn total(&self) -> usize {
        self.tokens.iter().sum()
    }

    /// The length that a share of the samples does not exceed; `None` without samples.
    pub fn percentile(&self, share: f64) -> Option<usize> {
        let last = self.tokens.len().checked_sub(1)?;
        Some(self.tokens[((share * self.tokens.len() as f64).ceil() as usize).saturating_sub(1).min(last)])
    }

    /// Samples by length: the lower ends of `bins` ranges of equal width, and how many lie in each.
    pub fn histogram(&self, bins: usize) -> Vec<(usize, usize)> {
        let (Some(first), Some(last)) = (self.tokens.first(), self.tokens.last()) else { return Vec::new() };
        let width = (last - first + 1).div_ceil(bins.max(1));
        let mut counts: Vec<(usize, usize)> = (*first..=*last).step_by(width).map(|low| (low, 0)).collect();
        self.tokens.iter().for_each(|tokens| counts[(tokens - first) / width].1 += 1);
        counts
    }
}

/// Of what preparing says, the warnings and how far it is.
struct Warnings<'a>(&'a dyn Sink);

impl Sink for Warnings<'_> {
    fn message(&self, text: &str) {
        if text.starts_with("warning") {
            self.0.message(text);
        }
    }

    fn progress(&self, progress: &Progress<'_>) {
        self.0.progress(progress);
    }
}

/// Prepares a recipe's data and shows `samples` of it. Nothing is left on the disk where nothing was. `sink`
/// hears what may be wrong; the rest is in the result.
///
/// # Errors
/// As [`crate::prepare`].
pub fn preview(recipe: &Recipe, samples: usize, sink: &dyn Sink) -> Result<Preview, TrainError> {
    let (recipe, _removed) = elsewhere(recipe)?;
    let prepared = prepare(&recipe, &Warnings(sink))?;
    let seq_len = recipe.data.seq_len;
    match &prepared.data {
        TrainingData::Pairs(data) => {
            let names = ["chosen", "rejected"].into_iter().cycle();
            let sides = [both(&data.train), both(&data.held_out)];
            rows(&recipe, &prepared, (sides, &data.report), names, 2 * samples)
        }
        TrainingData::Labelled(data) => {
            let labels = data.train.iter().map(|answer| answer.desirable);
            let names = labels.map(|good| if good { "desirable" } else { "undesirable" });
            let sides =
                [&data.train, &data.held_out].map(|side| side.iter().map(|a| &a.sample).collect::<Vec<_>>());
            rows(&recipe, &prepared, (sides, &data.report), names, samples)
        }
        TrainingData::Samples(data) => {
            let packing = recipe.data.packing;
            let rows =
                SampleBatches::new(&data.train, seq_len, packing, Batches::start(recipe.order_seed()))?
                    .rows();
            let inputs: usize = data.train.iter().map(Sample::inputs).sum();
            let shown = data.train.iter().take(samples);
            Ok(Preview {
                shown: shown
                    .map(|s| show(&prepared.tokenizer, s, s.source.clone()))
                    .collect::<Result<_, _>>()?,
                report: Some(data.report.clone()),
                train: Lengths::of(&data.train),
                held_out: Lengths::of(&data.held_out),
                rows: (rows, inputs as f64 / (rows * seq_len) as f64),
            })
        }
        TrainingData::Text(text) => {
            let start = Batches::start(recipe.order_seed());
            let mut batches = Batches::packed(&text.train, seq_len, recipe.data.packing, start)?;
            let rows = batches.windows();
            let mut shown = Vec::new();
            for row in 0..samples.min(rows) {
                let batch = batches.next_batch(1)?;
                let (ids, mask): (Vec<u32>, Vec<bool>) = batch
                    .inputs
                    .iter()
                    .zip(&batch.targets)
                    .map(|(input, target)| {
                        (if *target == IGNORE_INDEX { *input } else { *target }, *target != IGNORE_INDEX)
                    })
                    .unzip();
                let sample = Sample { ids, mask, source: String::new(), bytes: 0 };
                shown.push(show(&prepared.tokenizer, &sample, format!("sample {}", row + 1))?);
            }
            let lengths = |tokens: usize, bytes: u64| Lengths {
                tokens: vec![tokens],
                targets: tokens.saturating_sub(1),
                bytes: bytes as usize,
            };
            let shards = text.train.parts().iter().flat_map(|part| &part.shards);
            Ok(Preview {
                shown,
                report: None,
                train: lengths(text.train.len(), shards.map(|shard| shard.text_bytes()).sum()),
                held_out: lengths(text.held_out.len(), text.held_out.text_bytes()),
                rows: (rows, 1.0),
            })
        }
    }
}

/// Answers with their prompts, a row each, of training and held out; the first `shown` of them, each called by its name.
fn rows(
    recipe: &Recipe,
    prepared: &Prepared,
    ([train, held_out], report): ([Vec<&Sample>; 2], &Report),
    names: impl Iterator<Item = &'static str>,
    shown: usize,
) -> Result<Preview, TrainError> {
    let named = train.iter().zip(names).take(shown);
    let shown = named
        .map(|(sample, name)| show(&prepared.tokenizer, sample, format!("{}, {name}", sample.source)))
        .collect::<Result<_, _>>()?;
    let rows = train.len();
    let (train, held_out) = (Lengths::of(train), Lengths::of(held_out));
    let filled = train.total().saturating_sub(rows) as f64 / (rows * recipe.data.seq_len) as f64;
    Ok(Preview { shown, report: Some(report.clone()), train, held_out, rows: (rows, filled) })
}

fn show(tokenizer: &Tokenizer, sample: &Sample, source: String) -> Result<PreviewSample, TrainError> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for run in sample.mask.chunk_by(|a, b| a == b) {
        parts.push((tokenizer.decode(&sample.ids[start..start + run.len()])?, run[0]));
        start += run.len();
    }
    Ok(PreviewSample { source, parts, tokens: sample.ids.len(), targets: sample.targets() })
}

impl fmt::Display for PreviewSample {
    /// The text, with brackets around what is learned.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|(text, learned)| match learned {
            true => write!(f, "⟦{text}⟧"),
            false => f.write_str(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_counted_in_ranges_of_equal_width() {
        let lengths = Lengths { tokens: vec![2, 3, 3, 10, 11], ..Lengths::default() };
        assert_eq!(lengths.histogram(2), [(2, 3), (7, 2)]);
        assert_eq!(lengths.histogram(100).len(), 10);
        assert_eq!([0.0, 0.5, 0.9, 1.0].map(|share| lengths.percentile(share).unwrap()), [2, 3, 11, 11]);
        assert_eq!((Lengths::default().percentile(0.5), Lengths::default().histogram(3)), (None, Vec::new()));
    }
}
