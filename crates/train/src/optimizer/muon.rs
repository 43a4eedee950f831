//! Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks"): momentum whose singular
//! values are all brought near 1, for hidden matrices.
//!
//! The update's scale is that of arXiv 2502.16982 (equation 4): 0.2·√max(rows, columns) gives every matrix an
//! update of AdamW's usual size, so that one learning rate and one weight decay serve the matrices and what
//! is left to AdamW.

use candle_core::{Device, Tensor};
use half::bf16;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;
use tritforge_kernels::CounterRng;

use super::algorithm::{Algorithm, ParameterShape, StateTensor, Update};
use super::storage::{Buffer, Stored, StoredType};
use super::{AdamW, CHUNK, Rule, Step};
use crate::recipe::{Keys, Range};

/// Muon (arXiv 2502.16982) for the projections, AdamW for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Muon {
    /// AdamW's constants, for the parameters that are left to it.
    #[serde(flatten)]
    pub adamw: AdamW,
    /// Decay rate of the momentum, which is Nesterov's.
    pub momentum: f64,
}

impl Default for Muon {
    fn default() -> Self {
        Self { adamw: AdamW::default(), momentum: 0.95 }
    }
}

impl Algorithm for Muon {
    fn read(keys: &mut Keys<'_>) -> Rule {
        let adamw = AdamW::keys(keys);
        let momentum = keys.number("momentum", Range::at_least(0.0).below(1.0));
        keys.instead("momentum", "the other optimizers use betas");
        Rule::Muon(Self { adamw, momentum: momentum.unwrap_or(Self::default().momentum) })
    }

    fn state(&self, parameter: ParameterShape<'_>) -> Vec<StateTensor> {
        if parameter.hidden {
            StateTensor::like(parameter, &["momentum"])
        } else {
            self.adamw.state(parameter)
        }
    }

    fn step(&self, update: Update<'_>) -> candle_core::Result<()> {
        let Some(shape) = update.hidden else { return self.adamw.step(update) };
        let Update { values, gradient, state, step: at, noise, master, .. } = update;
        match master {
            StoredType::F32 => step::<f32>(*self, values, shape, gradient, state, at, noise),
            StoredType::Bf16 => step::<bf16>(*self, values, shape, gradient, state, at, noise),
        }
    }
}

/// Coefficients of the quintic iteration: steepest at 0 among those that keep singular values within about
/// 0.7 and 1.2.
const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
/// Iterations.
const ITERATIONS: usize = 5;
/// The smallest norm that is divided by.
const EPS: f64 = 1e-7;

/// A step of one matrix, [rows, columns] row-major. Three matrices of its size are needed meanwhile.
fn step<M: Stored>(
    rule: Muon,
    parameter: &mut [f32],
    [rows, columns]: [usize; 2],
    gradient: &[f32],
    momentum: &mut [Buffer],
    step: Step,
    noise: CounterRng,
) -> candle_core::Result<()> {
    let direction = match momentum {
        [Buffer::F32(m)] => accumulate(rule, gradient, m, step, noise),
        [Buffer::Bf16(m)] => accumulate(rule, gradient, m, step, noise),
        // `Optimizer::check` lets no other state through.
        _ => return Ok(()),
    };
    let update = orthogonalize(Tensor::from_vec(direction, (rows, columns), &Device::Cpu)?)?;
    let update = update.flatten_all()?.to_vec1::<f32>()?;
    let keep = (1.0 - step.lr * step.weight_decay) as f32;
    let rate = (step.lr * 0.2 * (rows.max(columns) as f64).sqrt()) as f32;
    parameter.par_chunks_mut(CHUNK).zip(update.par_chunks(CHUNK)).enumerate().for_each(|(chunk, (p, u))| {
        let base = (chunk * CHUNK) as u32;
        for (i, (p, u)) in p.iter_mut().zip(u).enumerate() {
            let random = if M::ROUNDS { noise.bits(base + i as u32) >> 16 } else { 0 };
            *p = M::store(*p * keep - rate * u, random).load();
        }
    });
    Ok(())
}

/// Moves the momentum towards the gradient and returns where Nesterov's rule looks: a step of the same kind
/// ahead.
fn accumulate<S: Stored>(
    rule: Muon,
    gradient: &[f32],
    momentum: &mut [S],
    step: Step,
    noise: CounterRng,
) -> Vec<f32> {
    let (beta, scale) = (rule.momentum as f32, step.gradient_scale as f32);
    let mut direction = vec![0f32; gradient.len()];
    direction
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks(CHUNK))
        .zip(momentum.par_chunks_mut(CHUNK))
        .enumerate()
        .for_each(|(chunk, ((d, g), m))| {
            let base = (chunk * CHUNK) as u32;
            for (i, ((d, g), m)) in d.iter_mut().zip(g).zip(m).enumerate() {
                let random = if S::ROUNDS { noise.bits(base + i as u32) } else { 0 };
                let g = g * scale;
                let new = beta * m.load() + (1.0 - beta) * g;
                *d = beta * new + (1.0 - beta) * g;
                *m = S::store(new, random);
            }
        });
    direction
}

/// Newton and Schulz's iteration `X ← aX + (bA + cA²)X` with `A = XXᵀ` on the matrix over its norm.
fn orthogonalize(matrix: Tensor) -> candle_core::Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    // The smaller side makes the smaller A.
    let tall = rows > columns;
    let x = if tall { matrix.t()?.contiguous()? } else { matrix };
    let norm = super::sum_of_squares(&x.flatten_all()?.to_vec1::<f32>()?).sqrt().max(EPS);
    let mut x = (x / norm)?;
    let (a, b, c) = COEFFICIENTS;
    for _ in 0..ITERATIONS {
        let gram = x.matmul(&x.t()?)?;
        let polynomial = (gram.affine(b, 0.0)? + gram.matmul(&gram)?.affine(c, 0.0)?)?;
        x = (x.affine(a, 0.0)? + polynomial.matmul(&x)?)?;
    }
    if tall { x.t()?.contiguous() } else { Ok(x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singular_values_come_near_one() {
        // A rotation times a diagonal: its orthogonal factor is the rotation.
        let (cos, sin) = (0.6f32, 0.8f32);
        for (s, t) in [(1.0, 1.0), (5.0, 1.0), (1e-3, 2e-3)] {
            let m = Tensor::new(&[[cos * s, -sin * t, 0.0], [sin * s, cos * t, 0.0]], &Device::Cpu).unwrap();
            for m in [m.clone(), m.t().unwrap().contiguous().unwrap()] {
                let x = orthogonalize(m).unwrap();
                let x = if x.dims()[0] == 3 { x.t().unwrap() } else { x };
                let gram = x.matmul(&x.t().unwrap()).unwrap().to_vec2::<f32>().unwrap();
                // Its eigenvalues are the squares of X's singular values.
                let (half, product) = ((gram[0][0] + gram[1][1]) / 2.0, gram[0][0] * gram[1][1]);
                let root = (half * half - product + gram[0][1] * gram[0][1]).max(0.0).sqrt();
                let singular = [(half - root).sqrt(), (half + root).sqrt()];
                assert!(singular.iter().all(|s| (0.67..1.22).contains(s)), "{singular:?} of {s} and {t}");
            }
        }
        let zero = Tensor::zeros((3, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(orthogonalize(zero).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }
}
