//! The pull of latent weights towards their ternary values, after a step of the optimizer (as in CAGE; the
//! dampening penalty of arXiv 2203.11086, ½λ · Σ (W − s · q)², decoupled from the gradient as weight decay is).

use std::sync::{Mutex, PoisonError};

use tritforge_config::WeightQuant;
use tritforge_kernels::parallel_for_each;

use crate::{Decoder, ModelError};

impl Decoder {
    /// Moves every latent weight by `rate` of its distance from its ternary value: `W ← W − rate · (W − s · q)`, with
    /// codes and scales of the weights as they are. To be followed by [`Decoder::requantize`].
    ///
    /// # Errors
    /// If a weight cannot be quantized.
    pub fn pull_towards_codes(&mut self, rate: f32) -> Result<(), ModelError> {
        if self.config().weights != WeightQuant::Absmean {
            return Ok(());
        }
        let faults = Mutex::new(Vec::new());
        let linears = self.blocks.iter_mut().flat_map(|block| &mut block.projections);
        parallel_for_each(linears, |linear| {
            let pulled = linear.change_latent(|linear, latent| {
                let values = linear.ternary_values(latent, &linear.fit(latent)?);
                latent.iter_mut().zip(values).for_each(|(w, value)| *w -= rate * (*w - value));
                Ok(())
            });
            if let Err(error) = pulled {
                faults.lock().unwrap_or_else(PoisonError::into_inner).push(error);
            }
        });
        match faults.into_inner().unwrap_or_else(PoisonError::into_inner).pop() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
