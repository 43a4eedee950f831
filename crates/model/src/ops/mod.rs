//! The fused autograd ops; one file each, forward and hand-written backward.
//!
//! All work on f32 tensors on the CPU in which a row is a token: [tokens, width]. A batch of sequences is its
//! rows one sequence after the other, so that no step needs a transpose. Gradients are those of the
//! mathematical function, except through rounding and clamping, where they pass unchanged (the
//! straight-through estimator).

mod activation_quant;
mod attention;
mod bit_linear;
mod cross_entropy;
mod embedding;
mod glu;
mod linear;
mod low_rank;
mod rms_norm;
mod rope;
mod values;
mod weight_quant;

pub use activation_quant::fake_quantize_activations;
pub use attention::attention;
pub use bit_linear::{bit_linear, frozen_bit_linear};
pub(crate) use cross_entropy::score_rows;
pub use cross_entropy::{IGNORE_INDEX, linear_cross_entropy};
pub use embedding::embedding;
pub use glu::glu;
pub use linear::linear;
pub use low_rank::low_rank;
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use weight_quant::fake_quantize_weights;

pub use values::{Values, values};
