//! What an optimizer is: its keys in recipes, its state, its update of one parameter.

use tritforge_kernels::CounterRng;

use super::storage::{Buffer, StoredType};
use super::{Rule, Step};
use crate::recipe::{Keys, Optim};

/// An optimizer. The struct that implements it holds its constants, which are its keys of `[optim]`; the
/// documentation of the struct and its fields is that of the recipe.
pub(crate) trait Algorithm {
    /// Reads its keys.
    fn read(keys: &mut Keys<'_>) -> Rule
    where
        Self: Sized;

    /// Its defaults of the keys that all optimizers have.
    fn defaults(&self) -> Defaults {
        Defaults::default()
    }

    /// Notes what contradicts it in a recipe whose keys are right one by one.
    fn check(&self, _optim: &Optim, _keys: &mut Keys<'_>) {}

    /// What it keeps of a parameter between steps. A checkpoint stores each tensor as `<parameter>.<name>`; the
    /// dry run adds up their elements.
    fn state(&self, parameter: ParameterShape<'_>) -> Vec<StateTensor>;

    /// One step of one parameter, in place.
    ///
    /// # Errors
    /// If a product of matrices fails.
    fn step(&self, update: Update<'_>) -> candle_core::Result<()>;
}

/// What the keys that all optimizers have are by default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Defaults {
    /// `optim.lr`.
    pub(crate) lr: f64,
    /// `optim.weight_decay`.
    pub(crate) weight_decay: f64,
    /// `optim.warmup_steps`; none is a twentieth of the run, at most 500.
    pub(crate) warmup_steps: Option<u64>,
    /// `optim.schedule`, by name.
    pub(crate) schedule: &'static str,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { lr: 1e-3, weight_decay: 0.1, warmup_steps: None, schedule: "cosine" }
    }
}

/// A parameter as far as its state depends on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ParameterShape<'a> {
    pub(crate) dims: &'a [usize],
    /// Whether it is a matrix between hidden layers: a projection.
    pub(crate) hidden: bool,
}

/// A tensor that an optimizer keeps of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateTensor {
    /// Its name, after that of the parameter.
    pub name: &'static str,
    /// Its shape.
    pub dims: Vec<usize>,
}

impl StateTensor {
    /// Tensors of these names, each of the parameter's shape.
    pub(crate) fn like(parameter: ParameterShape<'_>, names: &[&'static str]) -> Vec<Self> {
        names.iter().map(|name| Self { name, dims: parameter.dims.to_vec() }).collect()
    }

    /// Its number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A parameter about to move.
#[derive(Debug)]
pub(crate) struct Update<'a> {
    pub(crate) values: &'a mut [f32],
    /// As many as values.
    pub(crate) gradient: &'a [f32],
    /// The tensors that [`Algorithm::state`] names.
    pub(crate) state: &'a mut [Buffer],
    /// [rows, columns] of a matrix between hidden layers, row-major.
    pub(crate) hidden: Option<[usize; 2]>,
    /// Learning rate and weight decay of this parameter.
    pub(crate) step: Step,
    /// The step's number, from 1, since the state began.
    pub(crate) t: u64,
    /// How the values are kept.
    pub(crate) master: StoredType,
    /// Random bits, for rounding.
    pub(crate) noise: CounterRng,
}
