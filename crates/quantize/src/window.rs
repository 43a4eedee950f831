//! A window of blocks, trained to give the states that the full-precision model has behind it.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha20Rng;
use tritforge_model::{BlockStack, Gradients, Parameter, Workspace};
use tritforge_train::{AdamW, Optimizer, OptimizerConfig, ParameterStep, Rule, Step, StoredType};

use crate::huber::{distance, huber};
use crate::states::States;
use crate::{Options, QuantizeError};

/// What a window starts from and is to give.
pub(crate) struct Task<'a> {
    /// The window's first block and its last, for messages.
    pub(crate) blocks: (usize, usize),
    /// The states in front of it, as the ternary blocks before it give them.
    pub(crate) inputs: &'a States,
    /// The states behind it of the full-precision model.
    pub(crate) targets: &'a States,
    /// Where the loss becomes linear: the mean magnitude of the targets.
    pub(crate) delta: f32,
}

impl Task<'_> {
    /// The loss over all sequences, by the weights as they will be deployed.
    pub(crate) fn distance(&self, stack: &BlockStack, batch: usize) -> Result<f64, QuantizeError> {
        let outputs = self.inputs.through(stack, usize::MAX, batch)?;
        Ok(distance(outputs.values(), self.targets.values(), self.delta))
    }

    /// Trains the window's parameters in place; afterwards all of the quantization is seen. `progress` hears steps done,
    /// their number, and the loss of the newest.
    pub(crate) fn train(
        &self,
        stack: &mut BlockStack,
        options: &Options,
        progress: &mut dyn FnMut(usize, usize, f64),
    ) -> Result<(), QuantizeError> {
        let sequences = self.inputs.sequences();
        let steps = options.epochs * sequences.div_ceil(options.batch);
        let mut optimizer = optimizer(stack.parameters(), options);
        let mut gradients = Gradients::new(stack.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        let mut rng = ChaCha20Rng::seed_from_u64(options.seed ^ self.blocks.0 as u64);
        let mut order: Vec<usize> = (0..sequences).collect();
        let (mut x, mut target) = (Vec::new(), Vec::new());
        let mut step = 0;
        for _ in 0..options.epochs {
            order.shuffle(&mut rng);
            for batch in order.chunks(options.batch) {
                stack.requantize(blend(step, steps, options.soft))?;
                self.inputs.gather(batch, &mut x);
                self.targets.gather(batch, &mut target);
                gradients.clear();
                let loss = stack.forward_backward(
                    &mut workspace,
                    &x,
                    batch.len(),
                    |y, dy| huber(y, &target, self.delta, dy),
                    &mut gradients,
                )?;
                let norm = gradients.norm();
                if !(loss.is_finite() && norm.is_finite()) {
                    let (first, last) = self.blocks;
                    let lr = options.learning_rate;
                    let loss = if loss.is_finite() { norm } else { loss };
                    return Err(QuantizeError::Diverged { first, last, step, loss, lr });
                }
                let lr = options.learning_rate * rate(step, steps);
                let of_step = Step { lr, weight_decay: 0.0, gradient_scale: 1.0, decays: false };
                optimizer.step(stack.parameters(), &gradients.iter().collect::<Vec<_>>(), of_step)?;
                step += 1;
                progress(step, steps, loss);
            }
        }
        Ok(stack.requantize(1.0)?)
    }
}

/// AdamW whose rate is in units of each parameter's mean magnitude.
fn optimizer(parameters: &[Parameter], options: &Options) -> Optimizer {
    let config = OptimizerConfig {
        rule: Rule::AdamW(AdamW { betas: (0.9, 0.99), eps: 1e-12 }),
        state: StoredType::F32,
        master: StoredType::F32,
        seed: options.seed,
    };
    let mut optimizer = Optimizer::new(config, parameters);
    let mean = |p: &Parameter| {
        let sum: f64 = p.tensor.read().iter().map(|x| f64::from(x.abs())).sum();
        sum / p.tensor.len().max(1) as f64
    };
    let each = parameters.iter().map(|p| ParameterStep { lr_ratio: mean(p), weight_decay: None });
    optimizer.set_each(each.collect());
    optimizer
}

/// The part of the quantization that a step sees: from 0 it rises to 1 at `soft` of all steps.
fn blend(step: usize, steps: usize, soft: f64) -> f32 {
    let rise = steps as f64 * soft;
    if step as f64 >= rise { 1.0 } else { (step as f64 / rise) as f32 }
}

/// The part of the learning rate that a step has: up over the first tenth of all steps, then down to 0 along a cosine.
fn rate(step: usize, steps: usize) -> f64 {
    let warmup = (steps / 10).max(1);
    if step < warmup {
        return (step + 1) as f64 / (warmup + 1) as f64;
    }
    let done = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
    0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantization_sets_in_and_the_rate_comes_and_goes() {
        assert_eq!([0, 25, 50, 99].map(|step| blend(step, 100, 0.5)), [0.0, 0.5, 1.0, 1.0]);
        assert_eq!(blend(0, 100, 0.0), 1.0);
        let rates: Vec<f64> = (0..100).map(|step| rate(step, 100)).collect();
        assert!(rates.iter().all(|rate| *rate > 0.0 && *rate <= 1.0));
        assert_eq!(rates.iter().copied().fold(0.0, f64::max), rates[10]);
        assert!(rates[99] < 1e-3);
        assert_eq!(rate(0, 1), 0.5);
    }
}
