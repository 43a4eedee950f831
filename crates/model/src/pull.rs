//! The pull of latent weights towards their ternary values, after a step of the optimizer (as in CAGE; the
//! dampening penalty of arXiv 2203.11086, ½λ · Σ (W − s · q)², decoupled from the gradient as weight decay is).

use std::sync::{Mutex, PoisonError};

use tritforge_kernels::parallel_for_each;

use crate::{Decoder, ModelError};

impl Decoder {
    /// Moves every latent weight by `rate` of its distance from its ternary value: `W ← W − rate · (W − s · q)`, with
    /// codes and scales of the weights as they are. To be followed by [`Decoder::requantize`].
    ///
    /// # Errors
    /// If a weight cannot be quantized.
    pub fn pull_towards_codes(&mut self, rate: f32) -> Result<(), ModelError> {
        let faults = Mutex::new(Vec::new());
        let linears = self.blocks.iter_mut().flat_map(|block| &mut block.projections);
        parallel_for_each(linears, |linear| {
            if let Err(error) = linear.pull_towards_codes(rate) {
                faults.lock().unwrap_or_else(PoisonError::into_inner).push(error);
            }
        });
        match faults.into_inner().unwrap_or_else(PoisonError::into_inner).pop() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
