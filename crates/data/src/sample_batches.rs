//! Batches of samples with masks, in an order that can be taken up again at any point.
//!
//! Every epoch shuffles the samples by its seed and number. With [`Packing::Masked`] whole samples share a
//! row, each with positions and attention of its own; with [`Packing::Documents`] a row is one sample and
//! padding.

use std::collections::VecDeque;

use tritforge_support::counted;

use crate::batches::{rng, shuffled};
use crate::{Batch, BatchPosition, DataError, IGNORE_INDEX, Packing, Sample};

/// Rows that are filled at the same time: enough for samples of different lengths to find their places.
const OPEN_ROWS: usize = 64;

/// An endless sequence of batches of samples.
#[derive(Debug)]
pub struct SampleBatches<'a> {
    samples: &'a [Sample],
    seq_len: usize,
    packing: Packing,
    position: BatchPosition,
    /// The samples of each row of the epoch.
    rows: Vec<Vec<usize>>,
}

impl<'a> SampleBatches<'a> {
    /// Batches of rows of `seq_len` inputs, from a position on, whose index counts rows of the epoch.
    ///
    /// # Errors
    /// If there are no samples, one is longer than a row, samples are to be concatenated without a mask, or
    /// the position is beyond its epoch.
    pub fn new(
        samples: &'a [Sample],
        seq_len: usize,
        packing: Packing,
        position: BatchPosition,
    ) -> Result<Self, DataError> {
        check(samples.iter(), seq_len)?;
        if packing == Packing::Concat {
            return Err(DataError::NoText(
                "samples cannot be concatenated: use packing = \"masked\" or \"documents\"".to_string(),
            ));
        }
        let mut batches = Self { samples, seq_len, packing, position, rows: Vec::new() };
        batches.enter(position.epoch);
        if position.index > batches.rows.len() as u64 {
            return Err(DataError::Value {
                what: "position in the epoch",
                found: position.index,
                expected: format!(
                    "the epoch has {}: the position belongs to a different data set",
                    counted(batches.rows.len(), "row")
                ),
            });
        }
        Ok(batches)
    }

    /// Where the next batch begins.
    pub fn position(&self) -> BatchPosition {
        self.position
    }

    /// Rows of the current epoch.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The next `batch_size` rows. A batch may hold the end of an epoch and the beginning of the next.
    ///
    /// # Errors
    /// If `batch_size` is 0.
    pub fn next_batch(&mut self, batch_size: usize) -> Result<Batch, DataError> {
        check_size(batch_size)?;
        let mut batch = Batch { inputs: Vec::new(), targets: Vec::new(), segments: Vec::new() };
        for _ in 0..batch_size {
            if self.position.index == self.rows.len() as u64 {
                (self.position.epoch, self.position.index) = (self.position.epoch + 1, 0);
                self.enter(self.position.epoch);
            }
            let row = &self.rows[self.position.index as usize];
            fill(&mut batch, row.iter().map(|sample| &self.samples[*sample]), self.seq_len);
            self.position.index += 1;
        }
        Ok(batch)
    }

    /// Lays out an epoch.
    fn enter(&mut self, number: u64) {
        let order = shuffled(self.samples.len(), &mut rng(self.position.seed, 0, number));
        self.rows = match self.packing {
            Packing::Masked => pack(self.samples, &order, self.seq_len),
            Packing::Documents | Packing::Concat => order.into_iter().map(|sample| vec![sample]).collect(),
        };
    }
}

/// All samples once, in order, packed into rows of which each batch has at most `sequences`.
///
/// # Errors
/// If there are no samples, or one is longer than a row.
pub fn sample_windows(
    samples: &[Sample],
    seq_len: usize,
    sequences: usize,
) -> Result<impl Iterator<Item = Batch>, DataError> {
    check(samples.iter(), seq_len)?;
    check_size(sequences)?;
    let order: Vec<usize> = (0..samples.len()).collect();
    let rows = pack(samples, &order, seq_len);
    let groups: Vec<Vec<Vec<usize>>> = rows.chunks(sequences).map(<[_]>::to_vec).collect();
    Ok(groups.into_iter().map(move |rows| {
        let mut batch = Batch { inputs: Vec::new(), targets: Vec::new(), segments: Vec::new() };
        for row in rows {
            fill(&mut batch, row.iter().map(|sample| &samples[*sample]), seq_len);
        }
        batch
    }))
}

/// Puts whole samples into rows: each into the first open row that has room.
fn pack(samples: &[Sample], order: &[usize], seq_len: usize) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut open: VecDeque<(usize, usize)> = VecDeque::new();
    for sample in order {
        let inputs = samples[*sample].inputs();
        match open.iter_mut().find(|(_, room)| *room >= inputs) {
            Some((row, room)) => {
                rows[*row].push(*sample);
                *room -= inputs;
            }
            None => {
                if open.len() == OPEN_ROWS {
                    open.pop_front();
                }
                open.push_back((rows.len(), seq_len - inputs));
                rows.push(vec![*sample]);
            }
        }
    }
    rows
}

/// Appends a row: samples one after the other, and padding.
pub(crate) fn fill<'a>(batch: &mut Batch, samples: impl IntoIterator<Item = &'a Sample>, seq_len: usize) {
    let end = batch.inputs.len() + seq_len;
    for sample in samples {
        batch.segments.push(batch.inputs.len());
        batch.inputs.extend_from_slice(&sample.ids[..sample.inputs()]);
        let targets = sample.ids.iter().zip(&sample.mask).skip(1);
        batch.targets.extend(targets.map(|(id, target)| if *target { *id } else { IGNORE_INDEX }));
    }
    if batch.inputs.len() < end {
        batch.segments.push(batch.inputs.len());
        batch.inputs.resize(end, 0);
        batch.targets.resize(end, IGNORE_INDEX);
    }
}

pub(crate) fn check<'a>(samples: impl Iterator<Item = &'a Sample>, seq_len: usize) -> Result<(), DataError> {
    let mut any = false;
    for sample in samples {
        any = true;
        if sample.ids.len() < 2 || sample.inputs() > seq_len || sample.mask.len() != sample.ids.len() {
            let message = format!(
                "{} with a mask of {}: expected at least 2 and at most seq_len + 1 = {}",
                counted(sample.ids.len(), "token"),
                sample.mask.len(),
                seq_len.saturating_add(1)
            );
            return Err(DataError::Example { source_of: sample.source.clone(), message });
        }
    }
    if any { Ok(()) } else { Err(DataError::NoText("there are no samples".to_string())) }
}

pub(crate) fn check_size(batch_size: usize) -> Result<(), DataError> {
    if batch_size > 0 {
        return Ok(());
    }
    Err(DataError::Value { what: "batch_size", found: 0, expected: "expected at least 1".to_string() })
}
