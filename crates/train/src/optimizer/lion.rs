//! Lion (arXiv 2302.06675, Algorithm 2): the sign of an interpolated momentum; half of AdamW's state.

use half::bf16;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;
use tritforge_kernels::CounterRng;

use super::algorithm::{Algorithm, Defaults, ParameterShape, StateTensor, Update};
use super::storage::{Buffer, Stored, StoredType};
use super::{CHUNK, Rule, Step};
use crate::recipe::{Keys, Range};

/// Lion (arXiv 2302.06675), with half of AdamW's state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Lion {
    /// The momentum's weight in the update and its decay rate.
    pub betas: (f64, f64),
}

impl Default for Lion {
    fn default() -> Self {
        Self { betas: (0.9, 0.99) }
    }
}

impl Algorithm for Lion {
    fn read(keys: &mut Keys<'_>) -> Rule {
        let betas = keys.pair("betas", Range::at_least(0.0).below(1.0));
        Rule::Lion(Self { betas: betas.unwrap_or(Self::default().betas) })
    }

    /// Lion's update is larger than AdamW's: its paper takes a learning rate 3 to 10 times smaller, a decay as
    /// much larger.
    fn defaults(&self) -> Defaults {
        let adamw = Defaults::default();
        Defaults { lr: adamw.lr / 10.0, weight_decay: adamw.weight_decay * 10.0, ..adamw }
    }

    fn state(&self, parameter: ParameterShape<'_>) -> Vec<StateTensor> {
        StateTensor::like(parameter, &["momentum"])
    }

    fn step(&self, update: Update<'_>) -> candle_core::Result<()> {
        match update.master {
            StoredType::F32 => step::<f32>(*self, update),
            StoredType::Bf16 => step::<bf16>(*self, update),
        }
        Ok(())
    }
}

/// A step of one parameter, whose weights are kept as `M`.
fn step<M: Stored>(rule: Lion, update: Update<'_>) {
    let Update { values, gradient, state, step, noise, .. } = update;
    match state {
        [Buffer::F32(m)] => momentum::<M, f32>(rule, values, gradient, m, step, noise),
        [Buffer::Bf16(m)] => momentum::<M, _>(rule, values, gradient, m, step, noise),
        // `Optimizer::check` lets no other state through.
        _ => {}
    }
}

fn momentum<M: Stored, S: Stored>(
    rule: Lion,
    parameter: &mut [f32],
    gradient: &[f32],
    momentum: &mut [S],
    step: Step,
    noise: CounterRng,
) {
    let (b1, b2) = (rule.betas.0 as f32, rule.betas.1 as f32);
    let keep = (1.0 - step.lr * step.weight_decay) as f32;
    let (lr, scale) = (step.lr as f32, step.gradient_scale as f32);
    parameter
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(momentum.par_chunks_mut(CHUNK))
        .enumerate()
        .for_each(|(chunk, ((p, g), m))| {
            let base = (chunk * CHUNK) as u32;
            for (i, ((p, g), m)) in p.iter_mut().zip(g).zip(m).enumerate() {
                let random = if S::ROUNDS || M::ROUNDS { noise.bits(base + i as u32) } else { 0 };
                let (g, old) = (g * scale, m.load());
                let direction = b1 * old + (1.0 - b1) * g;
                // `signum` of 0 is 1; the paper's sign is 0.
                let sign = if direction == 0.0 { 0.0 } else { direction.signum() };
                *m = S::store(b2 * old + (1.0 - b2) * g, random);
                *p = M::store(*p * keep - lr * sign, random >> 16).load();
            }
        });
}
