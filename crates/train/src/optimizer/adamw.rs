//! AdamW (arXiv 1711.05101): one parallel pass over a parameter, its gradient and its two moments.

use half::bf16;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;
use tritforge_kernels::CounterRng;

use super::algorithm::{Algorithm, ParameterShape, StateTensor, Update};
use super::storage::{Buffer, Stored, StoredType};
use super::{CHUNK, Rule, Step};
use crate::recipe::{Keys, Range};

/// AdamW (arXiv 1711.05101).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct AdamW {
    /// Decay rates of the two moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { betas: (0.9, 0.95), eps: 1e-8 }
    }
}

impl AdamW {
    /// Reads its keys, for AdamW itself and for those that leave parameters to it.
    pub(super) fn keys(keys: &mut Keys<'_>) -> Self {
        let default = Self::default();
        Self {
            betas: keys.pair("betas", Range::at_least(0.0).below(1.0)).unwrap_or(default.betas),
            eps: keys.number("eps", Range::above(0.0)).unwrap_or(default.eps),
        }
    }
}

impl Algorithm for AdamW {
    fn read(keys: &mut Keys<'_>) -> Rule {
        Rule::AdamW(Self::keys(keys))
    }

    fn state(&self, parameter: ParameterShape<'_>) -> Vec<StateTensor> {
        StateTensor::like(parameter, &["first", "second"])
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
fn step<M: Stored>(rule: AdamW, update: Update<'_>) {
    let Update { values, gradient, state, step, t, noise, .. } = update;
    match state {
        [Buffer::F32(m), Buffer::F32(v)] => moments::<M, f32>(rule, values, gradient, m, v, step, t, noise),
        [Buffer::Bf16(m), Buffer::Bf16(v)] => moments::<M, _>(rule, values, gradient, m, v, step, t, noise),
        // `Optimizer::check` lets no other state through.
        _ => {}
    }
}

fn moments<M: Stored, S: Stored>(
    rule: AdamW,
    parameter: &mut [f32],
    gradient: &[f32],
    first: &mut [S],
    second: &mut [S],
    step: Step,
    t: u64,
    noise: CounterRng,
) {
    let (b1, b2) = rule.betas;
    let bias = |beta: f64| 1.0 - beta.powf(t as f64);
    let keep = (1.0 - step.lr * step.weight_decay) as f32;
    let rate = (step.lr / bias(b1)) as f32;
    let root = (1.0 / bias(b2).sqrt()) as f32;
    let (b1, b2, eps, scale) = (b1 as f32, b2 as f32, rule.eps as f32, step.gradient_scale as f32);
    parameter
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
        .enumerate()
        .for_each(|(chunk, ((p, g), (m, v)))| {
            let base = (chunk * CHUNK) as u32;
            for (i, (((p, g), m), v)) in p.iter_mut().zip(g).zip(m).zip(v).enumerate() {
                let random = if S::ROUNDS || M::ROUNDS { noise.bits(base + i as u32) } else { 0 };
                let g = g * scale;
                let m1 = b1 * m.load() + (1.0 - b1) * g;
                let v1 = b2 * v.load() + (1.0 - b2) * g * g;
                let p1 = *p * keep - rate * m1 / (v1.sqrt() * root + eps);
                *m = S::store(m1, random);
                *v = S::store(v1, random >> 16);
                // Weights and moments round independently enough when the halves are mixed.
                *p = M::store(p1, random ^ (random >> 11)).load();
            }
        });
}
