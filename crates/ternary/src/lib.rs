//! What a ternary tensor is: the quantizers, their scales and rounding, and the packings of GGUF files.
//!
//! Training, export and inference call these functions; none of them writes the definitions again. That is
//! what makes a trained model and its exported file the same model, bit for bit.
//!
//! * [`absmean`] and [`weight_codes`]: weights to {-1, 0, +1} and one scale (BitNet b1.58, arXiv 2402.17764,
//!   eq. 1–3).
//! * [`absmax_quantize`]: one token's activations to int8 and one scale (eq. 4 there, rounding as in the
//!   reference code: half to even).
//! * [`Granularity`] and [`Scales`]: one scale a tensor, a row, or a group of inputs; [`Quantizer`]: where other
//!   scales and codes come from than absmean's ([`QUANTIZERS`]).
//! * [`Sparsity`]: N codes of every M that may differ from 0.
//! * [`Ste`]: what of a gradient passes to latent weights; [`Fitted::dead_zone_bias`]: the bias that those with code 0 make.
//! * [`TernaryTensor`]: codes, scales and shape.
//! * [`check_finite`]: no tensor with NaN or infinity is read, written or run.
//! * [`Packing`]: the byte layouts TQ1_0, TQ2_0, Q2_0, I2_S (x86 and ARM) and IQ2_BN, both ways;
//!   [`pack_stripes`]: that of Hugging Face checkpoints.
//!
//! ```
//! use tritforge_ternary::{Packing, TernaryTensor};
//!
//! let latent: Vec<f32> = (0..512).map(|i| ((i * 37 % 101) as f32 - 50.0) * 1e-3).collect();
//! let tensor = TernaryTensor::quantize(&latent, 2, 256)?;
//! let bytes = Packing::Tq2_0.pack(&tensor)?;
//! let back = Packing::Tq2_0.unpack(&bytes, 2, 256)?;
//! assert_eq!(back.codes, tensor.codes());
//! # Ok::<(), tritforge_ternary::TernaryError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod activation;
mod dead_zone;
mod error;
mod finite;
mod granularity;
mod packing;
mod quantizer;
mod scales;
mod sparsity;
mod ste;
mod tensor;
mod top_k;

pub use activation::{absmax_quantize, absmax_quantize_int4};
pub use dead_zone::fold_bias;
pub use error::TernaryError;
pub use finite::{FloatType, NotFinite, check_finite, check_finite_bytes};
pub use granularity::Granularity;
pub use packing::{
    EMBEDDING_GRANULARITY, GRANULARITY, HEAD_GRANULARITY, I2_S_ARM, I2_S_LAYOUT, PackedRows, Packing,
    ScalePlace, Unpacked, pack_stripes, unpack_stripes,
};
pub use quantizer::{
    Fit, Fitted, LearnedScale, QUANTIZERS, Quantizer, QuantizerSettings, WeightQuantizer, absmean,
    quantizer_names, weight_codes,
};
pub use scales::{Scales, is_f16};
pub use sparsity::Sparsity;
pub use ste::Ste;
pub use tensor::{TernaryTensor, stored_scales};
pub use top_k::TopK;

/// The floor of both scales: `max(mean|W|, EPS)` and `max(absmax(x), EPS)`, as in the BitNet reference code
/// ("The Era of 1-bit LLMs: Training Tips, Code and FAQ") and in `transformers`.
pub const EPS: f32 = 1e-5;
