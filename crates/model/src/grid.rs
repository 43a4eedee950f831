//! Weights that are ternary themselves while they are trained: put onto their levels where a run begins, and rounded
//! onto them at random after every step (DQT, arXiv 2412.04787).

use std::sync::{Mutex, PoisonError};

use tritforge_config::{WeightQuant, WeightQuantizer};
use tritforge_kernels::{CounterRng, parallel_for_each};
use tritforge_ternary::{Scales, stored_scales};

use crate::linear::Linear;
use crate::{Decoder, ModelError};

impl Decoder {
    /// Puts the weights of a quantizer without latent weights onto their levels: by the codes and scales of absmean. Of any
    /// other quantizer nothing happens. To be followed by [`Decoder::requantize`].
    ///
    /// # Errors
    /// If a weight cannot be quantized.
    pub fn put_on_grid(&mut self) -> Result<(), ModelError> {
        self.each_on_grid(|_, linear, latent| {
            let ((rows, cols), (_, granularity)) = (linear.dims(), linear.quantizer());
            // What is on its levels stays there: absmean would shrink them.
            if stored_scales(latent, [rows, cols], granularity).is_err() {
                let absmean = WeightQuantizer::default().fit(granularity, latent, [rows, cols])?;
                let values = linear.ternary_values(latent, &absmean);
                latent.copy_from_slice(&values);
            }
            Ok(())
        })
    }

    /// Rounds the weights, which a step of the optimizer has moved, onto the levels that they had before: down or up at
    /// random, so that they are kept on average. Of quantizers with latent weights nothing happens. To be followed by
    /// [`Decoder::requantize`].
    ///
    /// # Errors
    /// If the weights were changed and quantized again since the step.
    pub fn round_onto_grid(&mut self, seed: u64) -> Result<(), ModelError> {
        self.each_on_grid(|number, linear, latent| {
            let scale = linear.scales().and_then(Scales::of_tensor).ok_or(ModelError::Stale)?;
            let noise = CounterRng::new(seed, 0, number);
            for (i, w) in latent.iter_mut().enumerate() {
                *w = round_at_random(*w, scale, noise.bits(i as u32));
            }
            Ok(())
        })
    }

    fn each_on_grid(
        &mut self,
        change: impl Fn(usize, &Linear, &mut [f32]) -> Result<(), ModelError> + Sync,
    ) -> Result<(), ModelError> {
        if self.config().weights != WeightQuant::Absmean || !self.config().quantizer.on_grid() {
            return Ok(());
        }
        let faults = Mutex::new(Vec::new());
        let linears = self.blocks.iter_mut().flat_map(|block| &mut block.projections).enumerate();
        parallel_for_each(linears, |(number, linear)| {
            if let Err(error) = linear.change_latent(|linear, latent| change(number, linear, latent)) {
                faults.lock().unwrap_or_else(PoisonError::into_inner).push(error);
            }
        });
        match faults.into_inner().unwrap_or_else(PoisonError::into_inner).pop() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// `w` on the levels −scale, 0 and scale: one of the two around it, the nearer more probably; beyond them the last.
fn round_at_random(w: f32, scale: f32, bits: u32) -> f32 {
    let u = (w / scale).clamp(-1.0, 1.0);
    // One of 2²⁴ numbers in [0, 1): a level stays.
    let drawn = (bits >> 8) as f32 * (1.0 / 16_777_216.0);
    let down = u.floor();
    scale * if drawn < u - down { down + 1.0 } else { down }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_stay_and_others_are_kept_on_average() {
        let noise = CounterRng::new(1, 2, 3);
        let n = 40_000;
        for w in [-3.0f32, -2.0, -1.5, -0.02, 0.0, 0.7, 1.99, 2.0, 5.0] {
            let mut sum = 0f64;
            for i in 0..n {
                let rounded = round_at_random(w, 2.0, noise.bits(i));
                assert!([-2.0, 0.0, 2.0].contains(&rounded));
                assert!([0.0, 2.0].iter().all(|level| w.abs() != *level) || rounded == w);
                sum += f64::from(rounded);
            }
            let mean = sum / f64::from(n);
            assert!((mean - f64::from(w.clamp(-2.0, 2.0))).abs() < 5.0 / f64::from(n).sqrt(), "{w}: {mean}");
        }
    }
}
