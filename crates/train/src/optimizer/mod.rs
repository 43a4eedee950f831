//! Optimizers, in place: one parallel pass over each parameter, no temporaries, state that can be stored.
//!
//! A rule says how a parameter moves ([`Rule`]); the [`Optimizer`] keeps each parameter's state and knows
//! which parameters decay. Every update is elementwise in fixed pieces, or a matrix product whose sums are
//! ordered: the number of threads changes no bit.
//!
//! Each optimizer has a file, which owns all about it: its keys in recipes with their defaults and checks, the tensors of
//! its state, its update. [`Rule`] lists them: the recipe's reader, its documentation, checkpoints and the dry run know
//! an optimizer by its line there.

mod adamw;
mod algorithm;
mod lion;
mod muon;
#[cfg(test)]
mod sgd;
mod storage;
mod t_sign_sgd;

use candle_core::bail;
use half::bf16;
use rayon::prelude::*;
use tritforge_kernels::CounterRng;
use tritforge_model::{DecayGroup, Parameter};

pub use adamw::AdamW;
pub use algorithm::StateTensor;
pub use lion::Lion;
pub use muon::Muon;
pub use storage::{Buffer, StoredType};
pub use t_sign_sgd::TSignSgd;

pub(crate) use algorithm::{Algorithm, Defaults, ParameterShape};

use crate::recipe::{Keys, registry};
use algorithm::Update;
#[cfg(test)]
use sgd::Sgd;

/// Elements of one parallel piece; fixed, so that sums do not depend on the number of threads.
pub(crate) const CHUNK: usize = 1 << 15;

registry! {
    /// How parameters move: an optimizer by its name in recipes, with its constants.
    Rule: Algorithm, tag = "kind", read = fn(&mut Keys<'_>) -> Rule;
    AdamW = "adamw",
    Lion = "lion",
    Muon = "muon",
    TSignSgd = "t-sign-sgd",
    #[cfg(test)]
    Sgd = "plain-sgd",
}

/// An optimizer's settings that stay the same for a whole run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerConfig {
    /// How parameters move.
    pub rule: Rule,
    /// How moments and momenta are kept.
    pub state: StoredType,
    /// How weights are kept: as bf16 they are rounded after every step. They stand in f32 tensors all the
    /// same.
    pub master: StoredType,
    /// Seed of the rounding.
    pub seed: u64,
}

/// What a step is to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Learning rate; for [`TSignSgd`] the share of every parameter's elements that move.
    pub lr: f64,
    /// Decoupled weight decay of the parameters in [`DecayGroup::Decay`].
    pub weight_decay: f64,
    /// What gradients are multiplied by: 1, or what clipping makes of it.
    pub gradient_scale: f64,
    /// Whether anything decays: not where the run is past `optim.weight_decay_until`.
    pub decays: bool,
}

/// What of a step is another for one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterStep {
    /// What the learning rate is multiplied by.
    pub lr_ratio: f64,
    /// Its weight decay; none is the step's for those in [`DecayGroup::Decay`], and 0 for the others.
    pub weight_decay: Option<f64>,
}

/// An optimizer with its state, in the order of the parameters.
#[derive(Debug, Clone)]
pub struct Optimizer {
    config: OptimizerConfig,
    states: Vec<Vec<Buffer>>,
    /// What is another for each parameter; nothing for those beyond.
    each: Vec<ParameterStep>,
    steps: u64,
    /// Those before the state began anew.
    before_reset: u64,
}

impl OptimizerConfig {
    /// The tensors that are kept for a parameter; none for a frozen one.
    pub fn state_tensors(&self, parameter: &Parameter) -> Vec<StateTensor> {
        if parameter.frozen {
            return Vec::new();
        }
        let hidden = is_hidden_matrix(parameter);
        self.rule.chosen().state(ParameterShape { dims: parameter.tensor.dims(), hidden })
    }
}

impl Optimizer {
    /// An optimizer for these parameters, its state 0.
    pub fn new(config: OptimizerConfig, parameters: &[Parameter]) -> Self {
        let zeros = |p: &Parameter| {
            let tensors = config.state_tensors(p);
            tensors.iter().map(|tensor| Buffer::zeros(config.state, tensor.len())).collect()
        };
        Self {
            config,
            states: parameters.iter().map(zeros).collect(),
            each: Vec::new(),
            steps: 0,
            before_reset: 0,
        }
    }

    /// An optimizer as it was after `steps` steps, `before_reset` of them before [`Optimizer::reset`]: for each parameter
    /// the buffers that [`OptimizerConfig::state_tensors`] names.
    pub fn restore(config: OptimizerConfig, states: Vec<Vec<Buffer>>, steps: u64, before_reset: u64) -> Self {
        Self { config, states, each: Vec::new(), steps, before_reset: before_reset.min(steps) }
    }

    /// Begins the state anew: moments and momenta are 0, and their bias is corrected as from the first step. Steps count on.
    pub fn reset(&mut self) {
        for buffer in self.states.iter_mut().flatten() {
            *buffer = Buffer::zeros(self.config.state, buffer.len());
        }
        self.before_reset = self.steps;
    }

    /// Gives each parameter a learning rate and a weight decay of its own, in the order of the parameters.
    pub fn set_each(&mut self, each: Vec<ParameterStep>) {
        self.each = each;
    }

    /// The buffers of each parameter.
    pub fn states(&self) -> &[Vec<Buffer>] {
        &self.states
    }

    /// The settings.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step: `gradients` in the order of the parameters, each as long as its parameter; none leaves it as
    /// it is, and frozen ones stay as they are.
    ///
    /// # Errors
    /// If a gradient or a state does not fit its parameter; nothing has changed then.
    pub fn step(
        &mut self,
        parameters: &[Parameter],
        gradients: &[Option<&[f32]>],
        step: Step,
    ) -> candle_core::Result<()> {
        self.check(parameters, gradients)?;
        self.steps += 1;
        let (config, t) = (self.config, self.steps);
        for (i, ((parameter, gradient), state)) in
            parameters.iter().zip(gradients).zip(&mut self.states).enumerate()
        {
            let Some(gradient) = gradient.filter(|_| !parameter.frozen) else { continue };
            let own = self.each.get(i);
            let usual = if parameter.group == DecayGroup::Decay { step.weight_decay } else { 0.0 };
            let weight_decay = own.and_then(|own| own.weight_decay).unwrap_or(usual);
            let weight_decay = if step.decays { weight_decay } else { 0.0 };
            let lr = step.lr * own.map_or(1.0, |own| own.lr_ratio);
            let step = Step { lr, weight_decay, ..step };
            let noise = CounterRng::new(config.seed, t, i);
            let t = t - self.before_reset;
            let hidden = parameter.tensor.matrix_dims().filter(|_| is_hidden_matrix(parameter));
            let (values, master) = (&mut *parameter.tensor.write(), config.master);
            config.rule.chosen().step(Update { values, gradient, state, hidden, step, t, master, noise })?;
        }
        Ok(())
    }

    fn check(&self, parameters: &[Parameter], gradients: &[Option<&[f32]>]) -> candle_core::Result<()> {
        let (p, g, s) = (parameters.len(), gradients.len(), self.states.len());
        if p != g || p != s {
            bail!("{g} gradients and {s} states for {p} parameters");
        }
        for ((parameter, gradient), state) in parameters.iter().zip(gradients).zip(&self.states) {
            let len = parameter.tensor.len();
            if let Some(found) = gradient.map(<[f32]>::len).filter(|found| *found != len) {
                bail!("{}: a gradient of {found} elements for {len}", parameter.name);
            }
            let tensors = self.config.state_tensors(parameter);
            let fits = |(b, tensor): (&Buffer, &StateTensor)| {
                let is_f32 = matches!(b, Buffer::F32(_));
                b.len() == tensor.len() && is_f32 == (self.config.state == StoredType::F32)
            };
            if tensors.len() != state.len() || !state.iter().zip(&tensors).all(fits) {
                let wanted = tensors.iter().map(|tensor| format!("{} {:?}", tensor.name, tensor.dims));
                let wanted = wanted.collect::<Vec<_>>().join(", ");
                bail!("{}: the optimizer's state is not [{wanted}]", parameter.name);
            }
        }
        Ok(())
    }
}

/// Whether a parameter is a matrix between hidden layers: the projections, which are also those that decay.
fn is_hidden_matrix(parameter: &Parameter) -> bool {
    parameter.group == DecayGroup::Decay && parameter.tensor.matrix_dims().is_some()
}

/// Rounds parameters to the numbers that `master` can keep, to the nearest: where a run begins.
pub(crate) fn round_to_master(master: StoredType, parameters: &[Parameter]) {
    if master == StoredType::F32 {
        return;
    }
    for parameter in parameters {
        parameter.tensor.write().par_iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
    }
}

/// The Euclidean norm of all gradients together, in f64; the same for any number of threads.
pub fn global_norm(gradients: &[Option<&[f32]>]) -> f64 {
    gradients.iter().flatten().map(|g| sum_of_squares(g)).sum::<f64>().sqrt()
}

/// Σ x² in f64, in fixed pieces.
fn sum_of_squares(values: &[f32]) -> f64 {
    let piece = |chunk: &[f32]| {
        let (blocks, rest) = chunk.as_chunks::<16>();
        let mut sums = [0f64; 16];
        for block in blocks {
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        }
        for (sum, x) in sums.iter_mut().zip(rest) {
            *sum += f64::from(*x) * f64::from(*x);
        }
        sums.iter().sum::<f64>()
    };
    let parts: Vec<f64> = values.par_chunks(CHUNK).map(piece).collect();
    parts.iter().sum()
}
