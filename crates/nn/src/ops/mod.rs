//! The ops under the modules; one file each, forward and hand-written backward.
//!
//! f32 tensors on the CPU go through fused custom ops on the project's kernels, all others through
//! [`composed`], with the same gradients: those of the mathematical function, except through rounding and
//! clamping, where they pass unchanged (the straight-through estimator, arXiv 1308.3432).

mod activation_quant;
mod attention;
mod bit_linear;
pub mod composed;
mod cross_entropy;
mod embedding;
mod glu;
mod linear;
mod rms_norm;
mod rope;
mod values;
mod weight_quant;

pub use activation_quant::fake_quantize_activations;
pub use attention::attention;
pub use bit_linear::{bit_linear, bit_linear_by};
pub use cross_entropy::{IGNORE_INDEX, linear_cross_entropy};
pub use embedding::embedding;
pub use glu::glu;
pub use linear::linear;
pub use rms_norm::rms_norm;
pub use rope::{RotaryEmbedding, rope};
pub use values::{Values, values};
pub use weight_quant::{WeightScheme, fake_quantize_weights, fake_quantize_weights_by};
