//! Lion (arXiv 2302.06675, Algorithm 2): the sign of an interpolated momentum; half of AdamW's state.

use rayon::prelude::*;
use tritforge_kernels::CounterRng;

use super::storage::{Buffer, Stored};
use super::{CHUNK, Step};

/// The constants of Lion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lion {
    /// Weight of the momentum in the update, and its decay rate.
    pub betas: (f64, f64),
}

/// A step of one parameter.
pub(super) fn step<M: Stored>(
    rule: Lion,
    parameter: &mut [f32],
    gradient: &[f32],
    momentum: &mut [Buffer],
    step: Step,
    noise: CounterRng,
) {
    match momentum {
        [Buffer::F32(m)] => update::<M, f32>(rule, parameter, gradient, m, step, noise),
        [Buffer::Bf16(m)] => update::<M, _>(rule, parameter, gradient, m, step, noise),
        // `Optimizer::check` lets no other state through.
        _ => {}
    }
}

fn update<M: Stored, S: Stored>(
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
