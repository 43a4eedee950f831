//! AdamW (arXiv 1711.05101): one parallel pass over a parameter, its gradient and its two moments.

use rayon::prelude::*;
use tritforge_kernels::CounterRng;

use super::storage::{Buffer, Stored};
use super::{CHUNK, Step};

/// The constants of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay rates of the first and second moment.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// Step number `t` (from 1) of one parameter.
pub(super) fn step<M: Stored>(
    rule: AdamW,
    parameter: &mut [f32],
    gradient: &[f32],
    moments: &mut [Buffer],
    step: Step,
    t: u64,
    noise: CounterRng,
) {
    match moments {
        [Buffer::F32(m), Buffer::F32(v)] => update::<M, f32>(rule, parameter, gradient, m, v, step, t, noise),
        [Buffer::Bf16(m), Buffer::Bf16(v)] => update::<M, _>(rule, parameter, gradient, m, v, step, t, noise),
        // `Optimizer::check` lets no other state through.
        _ => {}
    }
}

fn update<M: Stored, S: Stored>(
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
