//! What a run learns from and is measured by: texts as token shards, or samples with masks. Both give batches for training and
//! for evaluation.

use tritforge_data::{
    Batch, BatchPosition, Batches, BigramBaseline, Document, Mixture, Report, Sample, SampleBatches, Shard,
    bigram_baseline, eval_windows, sample_windows,
};
use tritforge_text::ChatTemplate;

use crate::TrainError;
use crate::recipe::Recipe;

/// What a run learns from.
#[derive(Debug)]
pub enum Material {
    /// Texts, all of which is learned.
    Text(TextData),
    /// Samples of which some tokens are learned.
    Samples(Box<SampleData>),
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

impl Material {
    /// Batches for training, from a position on.
    ///
    /// # Errors
    /// If there is too little, or the position is another data set's.
    pub(crate) fn batches(&self, recipe: &Recipe, position: BatchPosition) -> Result<Draws<'_>, TrainError> {
        let (seq_len, packing) = (recipe.data.seq_len, recipe.data.packing);
        Ok(match self {
            Self::Text(text) => Draws::Text(Batches::packed(&text.train, seq_len, packing, position)?),
            Self::Samples(samples) => {
                Draws::Samples(SampleBatches::new(&samples.train, seq_len, packing, position)?)
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
    ) -> Result<Box<dyn Iterator<Item = Batch> + '_>, TrainError> {
        Ok(match self {
            Self::Text(text) => Box::new(eval_windows(&text.held_out, seq_len, sequences)?.map(|windows| {
                Batch { inputs: windows.inputs, targets: windows.targets, segments: Vec::new() }
            })),
            Self::Samples(samples) => Box::new(sample_windows(&samples.held_out, seq_len, sequences)?),
        })
    }

    /// Bytes of held-out text that a target stands for, in the mean.
    pub fn bytes_per_token(&self) -> f64 {
        match self {
            Self::Text(text) => text.held_out.bytes_per_token(),
            Self::Samples(samples) => {
                let bytes: usize = samples.held_out.iter().map(|sample| sample.bytes).sum();
                let targets: usize = samples.held_out.iter().map(Sample::targets).sum();
                bytes as f64 / targets as f64
            }
        }
    }

    /// Inputs of an evaluation, about.
    pub fn held_out_tokens(&self) -> usize {
        match self {
            Self::Text(text) => text.held_out.len(),
            Self::Samples(samples) => samples.held_out.iter().map(Sample::inputs).sum(),
        }
    }
}

/// Batches of either kind of material.
#[derive(Debug)]
pub(crate) enum Draws<'a> {
    Text(Batches<'a>),
    Samples(SampleBatches<'a>),
}

impl Draws<'_> {
    /// The next `batch_size` rows.
    pub(crate) fn next_batch(&mut self, batch_size: usize) -> Result<Batch, TrainError> {
        Ok(match self {
            Self::Text(batches) => batches.next_batch(batch_size)?,
            Self::Samples(batches) => batches.next_batch(batch_size)?,
        })
    }

    /// Where the next batch begins.
    pub(crate) fn position(&self) -> BatchPosition {
        match self {
            Self::Text(batches) => batches.position(),
            Self::Samples(batches) => batches.position(),
        }
    }
}
