//! Hidden states of all calibration sequences, [sequences, length, hidden_size], and how blocks turn them into the
//! next.

use tritforge_export::LoadedModel;
use tritforge_model::{BlockStack, Workspace};

use crate::{Calibration, QuantizeError};

/// Hidden states between two blocks.
#[derive(Debug, Clone)]
pub(crate) struct States {
    values: Vec<f32>,
    /// Numbers of a sequence.
    sequence: usize,
}

impl States {
    /// Those in front of the first block: the rows of the embedding.
    pub(crate) fn embedded(model: &LoadedModel, calibration: &Calibration) -> Result<Self, QuantizeError> {
        let (vocab, width) = (model.config().vocab_size, model.config().hidden_size);
        if let Some(bad) = calibration.ids.iter().find(|id| **id as usize >= vocab) {
            let path = model.path().to_path_buf();
            let message = format!("the tokenizer gives token {bad}, but the embedding has {vocab} rows");
            return Err(QuantizeError::Source { path, message });
        }
        let table = model.values("model.embed_tokens.weight", &[vocab, width])?;
        let row = |id: &u32| &table[*id as usize * width..][..width];
        let values = calibration.ids.iter().flat_map(row).copied().collect();
        Ok(Self { values, sequence: calibration.length * width })
    }

    /// Number of sequences.
    pub(crate) fn sequences(&self) -> usize {
        self.values.len() / self.sequence
    }

    /// All numbers.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The states of these sequences, one after the other.
    pub(crate) fn gather(&self, sequences: &[usize], out: &mut Vec<f32>) {
        out.clear();
        for s in sequences {
            out.extend_from_slice(&self.values[s * self.sequence..][..self.sequence]);
        }
    }

    /// The states behind the first `blocks` of the stack, `batch` sequences at a time.
    pub(crate) fn through(
        &self,
        stack: &BlockStack,
        blocks: usize,
        batch: usize,
    ) -> Result<Self, QuantizeError> {
        let mut workspace = Workspace::new(true);
        let mut values = Vec::with_capacity(self.values.len());
        for x in self.values.chunks(batch * self.sequence) {
            values.extend_from_slice(stack.forward(&mut workspace, x, x.len() / self.sequence, blocks)?);
        }
        Ok(Self { values, sequence: self.sequence })
    }

    /// The mean magnitude, which a few large numbers hardly move.
    pub(crate) fn mean_magnitude(&self) -> f32 {
        let sum: f64 = self.values.iter().map(|x| f64::from(x.abs())).sum();
        (sum / self.values.len().max(1) as f64) as f32
    }
}
