//! What a run learns from and is measured by: texts as token shards, samples with masks, or answers that are compared or judged.
//! All give batches for training and for evaluation.

use tritforge_data::{
    Batch, BatchPosition, Batches, BigramBaseline, Document, LabelledBatches, LabelledSample, Mixture,
    Preference, PreferenceBatches, Report, Sample, SampleBatches, Shard, bigram_baseline, eval_windows,
    row_batch, sample_windows,
};
use tritforge_text::ChatTemplate;

use crate::TrainError;
use crate::recipe::Recipe;

/// What a run learns from.
#[derive(Debug)]
pub enum TrainingData {
    /// Texts, all of which is learned.
    Text(TextData),
    /// Samples of which some tokens are learned.
    Samples(Box<SampleData>),
    /// Pairs of answers that are compared.
    Pairs(Box<PreferenceData>),
    /// Answers that are judged.
    Labelled(Box<LabelledData>),
}

/// Texts as token shards.
#[derive(Debug)]
pub struct TextData {
    /// Tokens for training.
    pub train: Mixture,
    /// Tokens for evaluation.
    pub held_out: Shard,
    pub(crate) documents: (Vec<Document>, Vec<Document>),
}

/// Samples with masks.
#[derive(Debug)]
pub struct SampleData {
    /// How messages became text.
    pub template: ChatTemplate,
    /// Samples for training.
    pub train: Vec<Sample>,
    /// Samples for evaluation.
    pub held_out: Vec<Sample>,
    /// What was read, left out and cut.
    pub report: Report,
}

/// Pairs of answers.
#[derive(Debug)]
pub struct PreferenceData {
    /// How messages became text.
    pub template: ChatTemplate,
    /// Pairs for training.
    pub train: Vec<Preference>,
    /// Pairs for evaluation.
    pub held_out: Vec<Preference>,
    /// What was read, left out and cut.
    pub report: Report,
}

/// Answers that are judged.
#[derive(Debug)]
pub struct LabelledData {
    /// How messages became text.
    pub template: ChatTemplate,
    /// Answers for training.
    pub train: Vec<LabelledSample>,
    /// Answers for evaluation.
    pub held_out: Vec<LabelledSample>,
    /// What was read, left out and cut.
    pub report: Report,
}

/// The samples of pairs: the chosen answer before the other.
pub(crate) fn both(pairs: &[Preference]) -> Vec<&Sample> {
    pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]).collect()
}

/// Samples once, in order, a row each, in batches of at most `sequences` rows, but whole groups of `group` rows and at least one.
pub(crate) fn row_batches(
    rows: Vec<&Sample>,
    seq_len: usize,
    sequences: usize,
    group: usize,
) -> impl Iterator<Item = Result<Batch, TrainError>> {
    let size = (sequences / group).max(1) * group;
    let starts = (0..rows.len()).step_by(size);
    starts.map(move |start| Ok(row_batch(&rows[start..rows.len().min(start + size)], seq_len)?))
}

/// A batch of rows of `seq_len` as the model takes it.
pub(crate) fn rows(batch: &Batch, seq_len: usize) -> tritforge_model::Batch<'_> {
    tritforge_model::Batch {
        ids: &batch.inputs,
        targets: &batch.targets,
        sequences: batch.inputs.len() / seq_len,
        segments: &batch.segments,
    }
}

impl TextData {
    /// The held-out text, one document after the other.
    pub fn held_out_text(&self) -> String {
        self.documents.1.iter().map(|d| d.text.as_str()).collect()
    }

    /// What bigram models of tokens and of bytes reach on the held-out text.
    ///
    /// # Errors
    /// If there is too little text.
    pub fn bigram(&self) -> Result<BigramBaseline, TrainError> {
        let (train, held_out) = &self.documents;
        Ok(bigram_baseline(&self.train, &self.held_out, train, held_out)?)
    }
}

impl TrainingData {
    /// Batches for training, from a position on.
    ///
    /// # Errors
    /// If there is too little, or the position is another data set's.
    pub(crate) fn batches(
        &self,
        recipe: &Recipe,
        position: BatchPosition,
    ) -> Result<DataLoader<'_>, TrainError> {
        let (seq_len, packing) = (recipe.data.seq_len, recipe.data.packing);
        Ok(match self {
            Self::Text(text) => DataLoader::Text(Batches::packed(&text.train, seq_len, packing, position)?),
            Self::Samples(samples) => {
                DataLoader::Samples(SampleBatches::new(&samples.train, seq_len, packing, position)?)
            }
            Self::Pairs(pairs) => DataLoader::Pairs(PreferenceBatches::new(&pairs.train, seq_len, position)?),
            Self::Labelled(answers) => {
                DataLoader::Labelled(LabelledBatches::new(&answers.train, seq_len, position)?)
            }
        })
    }

    /// All that is held out, once, in batches of at most `sequences` rows.
    ///
    /// # Errors
    /// If there is nothing to score.
    pub(crate) fn held_out(
        &self,
        seq_len: usize,
        sequences: usize,
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_>, TrainError> {
        Ok(match self {
            Self::Text(text) => Box::new(eval_windows(&text.held_out, seq_len, sequences)?.map(|windows| {
                Ok(Batch { inputs: windows.inputs, targets: windows.targets, segments: Vec::new() })
            })),
            Self::Samples(samples) => {
                Box::new(sample_windows(&samples.held_out, seq_len, sequences)?.map(Ok))
            }
            Self::Pairs(pairs) => Box::new(row_batches(both(&pairs.held_out), seq_len, sequences, 2)),
            Self::Labelled(answers) => {
                let rows = answers.held_out.iter().map(|answer| &answer.sample).collect();
                Box::new(row_batches(rows, seq_len, sequences, 1))
            }
        })
    }

    /// The template by which a model that learns answers is asked.
    pub(crate) fn template(&self) -> Option<&ChatTemplate> {
        match self {
            Self::Text(_) => None,
            Self::Samples(samples) => Some(&samples.template),
            Self::Pairs(pairs) => Some(&pairs.template),
            Self::Labelled(answers) => Some(&answers.template),
        }
    }

    /// Bytes of held-out text that a target stands for, in the mean; of pairs, those of the chosen answers, of judged answers
    /// those of the good ones (of all, where there is none).
    pub fn bytes_per_token(&self) -> f64 {
        match self {
            Self::Text(text) => text.held_out.bytes_per_token(),
            Self::Samples(samples) => bytes_per_target(&samples.held_out),
            Self::Pairs(pairs) => bytes_per_target(pairs.held_out.iter().map(|pair| &pair.chosen)),
            Self::Labelled(answers) => {
                let all = answers.held_out.iter().zip(counts(&answers.held_out));
                bytes_per_target(all.filter(|(_, counts)| *counts).map(|(answer, _)| &answer.sample))
            }
        }
    }

    /// Inputs of an evaluation, about.
    pub(crate) fn held_out_tokens(&self) -> usize {
        match self {
            Self::Text(text) => text.held_out.len(),
            Self::Samples(samples) => samples.held_out.iter().map(Sample::inputs).sum(),
            Self::Pairs(pairs) => {
                pairs.held_out.iter().map(|pair| pair.chosen.inputs() + pair.rejected.inputs()).sum()
            }
            Self::Labelled(answers) => answers.held_out.iter().map(|answer| answer.sample.inputs()).sum(),
        }
    }
}

/// Of each held-out answer, whether its cross-entropy counts: that of good ones does, and where there is none, that of all.
pub(crate) fn counts(held_out: &[LabelledSample]) -> impl Iterator<Item = bool> + '_ {
    let any = held_out.iter().any(|answer| answer.desirable);
    held_out.iter().map(move |answer| answer.desirable || !any)
}

fn bytes_per_target<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> f64 {
    let (bytes, targets) = samples.into_iter().fold((0, 0), |(b, t), s| (b + s.bytes, t + s.targets()));
    bytes as f64 / targets as f64
}

/// Batches of any kind of training data.
#[derive(Debug)]
pub(crate) enum DataLoader<'a> {
    Text(Batches<'a>),
    Samples(SampleBatches<'a>),
    Pairs(PreferenceBatches<'a>),
    Labelled(LabelledBatches<'a>),
}

impl DataLoader<'_> {
    /// The next `batch_size` rows, or pairs of rows, with the numbers of the pairs or answers in the training data; of
    /// other material none.
    pub(crate) fn next_batch(&mut self, batch_size: usize) -> Result<(Batch, Vec<usize>), TrainError> {
        Ok(match self {
            Self::Text(batches) => (batches.next_batch(batch_size)?, Vec::new()),
            Self::Samples(batches) => (batches.next_batch(batch_size)?, Vec::new()),
            Self::Pairs(batches) => batches.next_batch(batch_size)?,
            Self::Labelled(batches) => batches.next_batch(batch_size)?,
        })
    }

    /// Where the next batch begins.
    pub(crate) fn position(&self) -> BatchPosition {
        match self {
            Self::Text(batches) => batches.position(),
            Self::Samples(batches) => batches.position(),
            Self::Pairs(batches) => batches.position(),
            Self::Labelled(batches) => batches.position(),
        }
    }
}
