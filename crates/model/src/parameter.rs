//! A trainable tensor under its Hugging Face name.

use crate::Tensor;

/// The index of what is not trained: that of no parameter.
pub(crate) const FROZEN: usize = usize::MAX;

/// How weight decay treats a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecayGroup {
    /// Matrices of the projections: decayed.
    Decay,
    /// Norms and embeddings: not decayed.
    NoDecay,
}

/// A trainable tensor.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name, as in a Hugging Face checkpoint of the BitNet family.
    pub name: String,
    /// Its value. A clone shares the storage.
    pub tensor: Tensor,
    /// How weight decay treats it.
    pub group: DecayGroup,
    /// Whether training leaves it as it is: it has neither a gradient nor an optimizer's state.
    pub frozen: bool,
}
