//! AdamW (arXiv 1711.05101), in place: one parallel pass over each parameter, no temporaries, state that can be stored.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, bail};
use rayon::prelude::*;
use tritforge_nn::{DecayGroup, Parameter};

/// Elements of one parallel piece; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 15;

/// The constants of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay rates of the first and second moment.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, of the parameters in [`DecayGroup::Decay`].
    pub weight_decay: f64,
}

/// AdamW with its moments, one pair of vectors a parameter, in f32.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    moments: Vec<Moments>,
    steps: u64,
}

/// First and second moment of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Vec<f32>,
    /// Running mean of its square.
    pub second: Vec<f32>,
}

impl AdamW {
    /// An optimizer for these parameters, its moments 0.
    pub fn new(config: AdamWConfig, parameters: &[Parameter]) -> Self {
        let zeros = |p: &Parameter| Moments {
            first: vec![0.0; p.var.elem_count()],
            second: vec![0.0; p.var.elem_count()],
        };
        Self { config, moments: parameters.iter().map(zeros).collect(), steps: 0 }
    }

    /// An optimizer as it was after `steps` steps; the moments in the order of the parameters.
    pub fn restore(config: AdamWConfig, moments: Vec<Moments>, steps: u64) -> Self {
        Self { config, moments, steps }
    }

    /// The moments, in the order of the parameters.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step: `gradients` in the order of the parameters, each multiplied by `gradient_scale` (1, or what clipping makes
    /// of it); a parameter without one stays as it is.
    ///
    /// # Errors
    /// If a gradient's shape is not its parameter's, or a tensor is not f32 on the CPU.
    pub fn step(
        &mut self,
        parameters: &[Parameter],
        gradients: &[Option<&[f32]>],
        lr: f64,
        gradient_scale: f64,
    ) -> candle_core::Result<()> {
        if gradients.len() != parameters.len() || self.moments.len() != parameters.len() {
            bail!(
                "{} gradients and {} moments for {} parameters",
                gradients.len(),
                self.moments.len(),
                parameters.len()
            );
        }
        self.steps += 1;
        let (b1, b2) = self.config.betas;
        let t = self.steps as f64;
        for ((parameter, gradient), moments) in parameters.iter().zip(gradients).zip(&mut self.moments) {
            let decay = match parameter.group {
                DecayGroup::Decay => self.config.weight_decay,
                DecayGroup::NoDecay => 0.0,
            };
            let Some(gradient) = *gradient else { continue };
            let update = Update {
                betas: (b1 as f32, b2 as f32),
                keep: (1.0 - lr * decay) as f32,
                rate: (lr / (1.0 - b1.powf(t))) as f32,
                root: (1.0 / (1.0 - b2.powf(t)).sqrt()) as f32,
                eps: self.config.eps as f32,
                gradient_scale: gradient_scale as f32,
                gradient,
                moments: RefCell::new(moments),
            };
            parameter.var.inplace_op1(&update)?;
        }
        Ok(())
    }
}

struct Update<'a> {
    betas: (f32, f32),
    /// 1 − lr · weight decay.
    keep: f32,
    /// lr over the first moment's bias correction.
    rate: f32,
    /// 1 over the root of the second moment's bias correction.
    root: f32,
    eps: f32,
    gradient_scale: f32,
    gradient: &'a [f32],
    moments: RefCell<&'a mut Moments>,
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, parameter: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(p) = parameter else {
            bail!("adamw: expected f32 parameters");
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("adamw: a parameter is not contiguous");
        };
        let (p, g) = (&mut p[start..end], self.gradient);
        let mut moments = self.moments.borrow_mut();
        let Moments { first, second } = &mut **moments;
        if p.len() != g.len() || p.len() != first.len() || p.len() != second.len() {
            bail!("adamw: parameter {}, gradient {}, moments {}", p.len(), g.len(), first.len());
        }
        let Update { betas: (b1, b2), keep, rate, root, eps, gradient_scale, .. } = *self;
        p.par_chunks_mut(CHUNK)
            .zip(g.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
            .for_each(|((p, g), (m, v))| {
                for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                    let g = g * gradient_scale;
                    *m = b1 * *m + (1.0 - b1) * g;
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    *p = *p * keep - rate * *m / (v.sqrt() * root + eps);
                }
            });
        Ok(())
    }
}
