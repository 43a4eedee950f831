//! Training samples from shards, in an order that can be taken up again at any point.
//!
//! An epoch cuts the tokens of a text into windows of `seq_len + 1` that overlap by one token (so that each
//! token is a target once) and shuffles them. Where the first window begins and in which order they come
//! depends on the seed and the epoch's number alone, so a position is three numbers. With
//! [`Packing::Documents`] a window is a document, or a part of one. Of several texts each goes through epochs
//! of its own; which one gives the next sample follows from the weights and the number of samples drawn.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::mixture::next_part;
use crate::{DataError, IGNORE_INDEX, Mixture, Shard};

/// Where a run stands in its data: all that the next batch depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchPosition {
    /// The seed of all epochs.
    pub seed: u64,
    /// The epoch, from 0. Stays 0 in a mixture, whose parts have epochs of their own.
    pub epoch: u64,
    /// Windows of the epoch that were drawn; in a mixture, of all parts since the beginning.
    pub index: u64,
}

/// How documents fill samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// Documents follow each other, and a sample begins and ends anywhere: no place is lost, attention
    /// crosses documents.
    #[default]
    Concat,
    /// A sample holds tokens of one document, from its beginning or from where the sample before it ended;
    /// what it does not fill is padding without targets. Attention and positions never cross documents.
    Documents,
    /// As [`Packing::Concat`], but documents are kept apart: attention stays within a document's part of the
    /// sample, positions count from where it begins, and a document's last token has no target. The model is
    /// to be given [`Batch::segments`].
    Masked,
}

/// Samples for one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Input ids, [batch, `seq_len`] row-major; id 0 where a sample is padded.
    pub inputs: Vec<u32>,
    /// The token after each input, [batch, `seq_len`] row-major; [`IGNORE_INDEX`] where a sample is padded,
    /// and where documents are kept apart and another one begins.
    pub targets: Vec<u32>,
    /// Positions in `inputs` at which a segment begins, ascending: every sample's first position, every
    /// document's, and the padding's. What stands in a segment is of one document.
    pub segments: Vec<usize>,
}

impl Batch {
    /// Number of targets that count.
    pub fn scored(&self) -> usize {
        self.targets.iter().filter(|t| **t != IGNORE_INDEX).count()
    }
}

/// Texts to draw from, with their weights.
#[derive(Debug)]
pub struct Texts<'a> {
    texts: Vec<(Vec<&'a Shard>, f64)>,
}

impl<'a> From<&'a Shard> for Texts<'a> {
    fn from(shard: &'a Shard) -> Self {
        Self { texts: vec![(vec![shard], 1.0)] }
    }
}

impl<'a> From<&'a Mixture> for Texts<'a> {
    fn from(mixture: &'a Mixture) -> Self {
        Self { texts: mixture.parts().iter().map(|p| (p.shards.iter().collect(), p.weight)).collect() }
    }
}

/// An endless sequence of batches.
#[derive(Debug)]
pub struct Batches<'a> {
    streams: Vec<Stream<'a>>,
    weights: Vec<f64>,
    /// Windows that each stream gave since the beginning.
    drawn: Vec<u64>,
    seq_len: usize,
    position: BatchPosition,
}

impl<'a> Batches<'a> {
    /// The position before the first batch.
    pub fn start(seed: u64) -> BatchPosition {
        BatchPosition { seed, epoch: 0, index: 0 }
    }

    /// Batches of windows of `seq_len` inputs from a [`Shard`] or a [`Mixture`], from a position on.
    ///
    /// # Errors
    /// If `seq_len` is 0, a text has fewer than `seq_len + 1` tokens, or its epochs have fewer windows than
    /// the position says were drawn.
    pub fn new(
        texts: impl Into<Texts<'a>>,
        seq_len: usize,
        position: BatchPosition,
    ) -> Result<Self, DataError> {
        Self::packed(texts, seq_len, Packing::Concat, position)
    }

    /// Like [`Self::new`] with a packing.
    ///
    /// # Errors
    /// As [`Self::new`]; unless documents are concatenated, if no document of a text has two tokens.
    pub fn packed(
        texts: impl Into<Texts<'a>>,
        seq_len: usize,
        packing: Packing,
        position: BatchPosition,
    ) -> Result<Self, DataError> {
        let texts = texts.into().texts;
        let (mut weights, mut drawn) = (Vec::new(), vec![0u64; texts.len()]);
        let mut streams = Vec::new();
        for (part, (shards, weight)) in texts.into_iter().enumerate() {
            weights.push(weight);
            streams.push(Stream::new(shards, seq_len, packing, position.seed, part as u64)?);
        }
        if let [stream] = streams.as_mut_slice() {
            stream.enter(position.epoch, position.index)?;
        } else {
            for _ in 0..position.index {
                let part = next_part(&weights, &drawn);
                drawn[part] += 1;
            }
            for (stream, drawn) in streams.iter_mut().zip(&drawn) {
                stream.skip(*drawn)?;
            }
        }
        Ok(Self { streams, weights, drawn, seq_len, position })
    }

    /// Where the next batch begins.
    pub fn position(&self) -> BatchPosition {
        self.position
    }

    /// Windows of the current epoch; in a mixture, of the current epochs of all parts.
    pub fn windows(&self) -> usize {
        self.streams.iter().map(|s| s.epoch.order.len()).sum()
    }

    /// The next `batch_size` windows. A batch may hold the end of an epoch and the beginning of the next.
    ///
    /// # Errors
    /// If `batch_size` is 0.
    pub fn next_batch(&mut self, batch_size: usize) -> Result<Batch, DataError> {
        if batch_size == 0 {
            return Err(DataError::Value {
                what: "batch_size",
                found: 0,
                expected: "expected at least 1".to_string(),
            });
        }
        let mut batch = Batch { inputs: Vec::new(), targets: Vec::new(), segments: Vec::new() };
        for _ in 0..batch_size {
            let part = next_part(&self.weights, &self.drawn);
            let stream = &mut self.streams[part];
            stream.draw(self.seq_len, &mut batch);
            self.drawn[part] += 1;
            if let [stream] = self.streams.as_slice() {
                (self.position.epoch, self.position.index) = (stream.number, stream.index);
            } else {
                self.position.index += 1;
            }
        }
        Ok(batch)
    }
}

/// The samples of one text.
#[derive(Debug)]
struct Stream<'a> {
    shards: Vec<&'a Shard>,
    /// Where each shard begins in the text's tokens.
    begins: Vec<usize>,
    windows: Windows,
    /// Whether the first token of a document is no target.
    masked: bool,
    seed: u64,
    part: u64,
    /// The current epoch's number.
    number: u64,
    /// Windows of it that were drawn.
    index: u64,
    epoch: Epoch,
}

/// What an epoch is cut into.
#[derive(Debug)]
enum Windows {
    /// Windows of `seq_len` from anywhere in so many tokens.
    Concat { tokens: usize, seq_len: usize },
    /// First token and number of inputs of each row.
    Rows(Vec<(usize, usize)>),
}

impl<'a> Stream<'a> {
    /// The samples of a text from its first epoch's first on.
    fn new(
        shards: Vec<&'a Shard>,
        seq_len: usize,
        packing: Packing,
        seed: u64,
        part: u64,
    ) -> Result<Self, DataError> {
        let mut begins = Vec::new();
        let mut tokens = 0;
        for shard in &shards {
            begins.push(tokens);
            tokens += shard.len();
        }
        let needed = if packing == Packing::Documents { seq_len.min(1) } else { seq_len };
        check_seq_len(tokens, needed, "a training sample of seq_len + 1 tokens")?;
        let windows = match packing {
            Packing::Concat => Windows::Concat { tokens, seq_len },
            Packing::Masked => {
                // Something must be left to learn.
                rows(&shards, &begins, seq_len)?;
                Windows::Concat { tokens, seq_len }
            }
            Packing::Documents => Windows::Rows(rows(&shards, &begins, seq_len)?),
        };
        let epoch = windows.epoch(seed, part, 0);
        let masked = packing == Packing::Masked;
        Ok(Self { shards, begins, windows, masked, seed, part, number: 0, index: 0, epoch })
    }

    /// Goes to a position.
    fn enter(&mut self, number: u64, index: u64) -> Result<(), DataError> {
        self.epoch = self.windows.epoch(self.seed, self.part, number);
        if index > self.epoch.order.len() as u64 {
            return Err(DataError::Value {
                what: "position in the epoch",
                found: index,
                expected: format!(
                    "{} has {} windows: the position belongs to a different data set",
                    self.shards[0].path().display(),
                    self.epoch.order.len()
                ),
            });
        }
        (self.number, self.index) = (number, index);
        Ok(())
    }

    /// Goes on by so many windows from the very first.
    fn skip(&mut self, mut windows: u64) -> Result<(), DataError> {
        let mut number = 0;
        loop {
            let count = self.windows.count(self.seed, self.part, number);
            if windows <= count {
                return self.enter(number, windows);
            }
            windows -= count;
            number += 1;
        }
    }

    /// Appends the next window to a batch.
    fn draw(&mut self, seq_len: usize, batch: &mut Batch) {
        if self.index == self.epoch.order.len() as u64 {
            (self.number, self.index) = (self.number + 1, 0);
            self.epoch = self.windows.epoch(self.seed, self.part, self.number);
        }
        let window = self.epoch.order[self.index as usize];
        let (start, inputs) = match &self.windows {
            Windows::Concat { .. } => (self.epoch.offset + window * seq_len, seq_len),
            Windows::Rows(rows) => rows[window],
        };
        let row = batch.inputs.len();
        let tokens = self.tokens(start, inputs + 1);
        batch.inputs.extend_from_slice(&tokens[..inputs]);
        batch.targets.extend_from_slice(&tokens[1..]);
        batch.segments.push(row);
        let known = batch.segments.len();
        // A document that begins right behind the window is a segment of no input, but its first token is a
        // target.
        self.segments(start, inputs + 1, row, &mut batch.segments);
        if self.masked {
            batch.segments[known..].iter().for_each(|at| batch.targets[at - 1] = IGNORE_INDEX);
        }
        batch.segments.pop_if(|at| *at == row + inputs);
        if inputs < seq_len {
            batch.segments.push(row + inputs);
            batch.inputs.resize(row + seq_len, 0);
            batch.targets.resize(row + seq_len, IGNORE_INDEX);
        }
        self.index += 1;
    }

    /// Tokens from a position on, across shards.
    fn tokens(&self, start: usize, count: usize) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(count);
        for (shard, begin) in self.shards.iter().zip(&self.begins) {
            if begin + shard.len() > start && tokens.len() < count {
                let from = (start + tokens.len()).saturating_sub(*begin);
                tokens.extend(shard.tokens(from, count - tokens.len()));
            }
        }
        tokens
    }

    /// The documents that begin within so many tokens after a window's first, as positions in the batch.
    fn segments(&self, start: usize, tokens: usize, row: usize, segments: &mut Vec<usize>) {
        for (shard, begin) in self.shards.iter().zip(&self.begins) {
            let from = (start + 1).saturating_sub(*begin);
            let to = (start + tokens).saturating_sub(*begin).min(shard.len());
            if from < to {
                segments.extend(shard.document_starts(from..to).iter().map(|at| row + begin + at - start));
            }
        }
    }
}

/// The rows of all documents: first token and number of inputs.
fn rows(shards: &[&Shard], begins: &[usize], seq_len: usize) -> Result<Vec<(usize, usize)>, DataError> {
    let mut rows = Vec::new();
    for (shard, begin) in shards.iter().zip(begins) {
        let ends = shard.documents().skip(1).chain([shard.len()]);
        for (start, end) in shard.documents().zip(ends) {
            // The last token is only a target.
            let inputs = end - start - 1;
            rows.extend(
                (0..inputs).step_by(seq_len).map(|at| (begin + start + at, seq_len.min(inputs - at))),
            );
        }
    }
    if rows.is_empty() {
        let path = shards.first().map_or_else(String::new, |s| s.path().display().to_string());
        let message = format!("{path}: no document has at least two tokens, so there is nothing to train on");
        return Err(DataError::NoText(message));
    }
    Ok(rows)
}

/// A text must have a window of `seq_len` inputs and as many targets.
pub(crate) fn check_seq_len(tokens: usize, seq_len: usize, purpose: &'static str) -> Result<(), DataError> {
    if seq_len == 0 {
        return Err(DataError::Value {
            what: "seq_len",
            found: 0,
            expected: "expected at least 1".to_string(),
        });
    }
    if tokens <= seq_len {
        return Err(DataError::TooShort {
            tokens,
            needed: seq_len.saturating_add(1),
            purpose,
            advice: "give more text, or lower seq_len",
        });
    }
    Ok(())
}

/// One pass through a text.
#[derive(Debug)]
struct Epoch {
    /// Where window 0 begins; below `seq_len`, so that epochs differ in where they cut. 0 for rows.
    offset: usize,
    /// The windows in the order in which they come.
    order: Vec<usize>,
}

impl Windows {
    fn epoch(&self, seed: u64, part: u64, number: u64) -> Epoch {
        let mut rng = rng(seed, part, number);
        let (offset, count) = self.cut(&mut rng);
        Epoch { offset, order: shuffled(count, &mut rng) }
    }

    /// Windows of an epoch, at least 1.
    fn count(&self, seed: u64, part: u64, number: u64) -> u64 {
        self.cut(&mut rng(seed, part, number)).1 as u64
    }

    /// Where an epoch's window 0 begins, and how many windows there are.
    fn cut(&self, rng: &mut ChaCha20Rng) -> (usize, usize) {
        match self {
            Self::Concat { tokens, seq_len } => {
                // At least one window must remain: tokens > seq_len.
                let offset = below(rng, (*seq_len).min(tokens - seq_len));
                (offset, (tokens - 1 - offset) / seq_len)
            }
            Self::Rows(rows) => (0, rows.len()),
        }
    }
}

/// The numbers from 0 to `count`, shuffled.
pub(crate) fn shuffled(count: usize, rng: &mut ChaCha20Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    // Fisher and Yates, written out: the order of old checkpoints must not change with a library.
    for last in (1..order.len()).rev() {
        order.swap(last, below(rng, last + 1));
    }
    order
}

/// The random numbers of a part's epoch.
pub(crate) fn rng(seed: u64, part: u64, epoch: u64) -> ChaCha20Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..24].copy_from_slice(&part.to_le_bytes());
    ChaCha20Rng::from_seed(key)
}

/// A uniform number below `bound` ≥ 1, by the high half of a 128-bit product; its bias is below bound / 2⁶⁴.
fn below(rng: &mut ChaCha20Rng, bound: usize) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}
