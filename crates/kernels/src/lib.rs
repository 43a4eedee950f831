//! Hand-written compute of ternary models: the same functions serve the trainer's forward pass and the
//! deployed engine, so both give the same bits.
//!
//! * A BitLinear layer is [`quantize_rows`] (f32 activations to int8, one scale a token) followed by
//!   [`ternary_matmul`] with [`TernaryWeights`] (2 bits a weight). The sums are exact integers: every
//!   [`Backend`] and every number of threads gives the same bits.
//! * [`Backend`] picks scalar, AVX2, AVX-512 VNNI or NEON (plain, dotprod, i8mm) code at run time.
//! * [`attention_cached`] reads keys and values from a [`KvCache`] in f16 or f32, with the bits of
//!   [`attention`].
//! * In f32, forward and backward: [`rms_norm`], [`rope_in_place`], [`attention`], [`glu`],
//!   [`softmax_in_place`]; [`DenseMatrix`] is a matrix that is not ternary: embedding and output head.
//! * Training multiplies f32 matrices by [`gemm`], which decodes int8 activations and ternary weights as it
//!   reads them, and fuses what stands between two products: [`rms_norm_quantize`], [`glu_norm_quantize`],
//!   [`glu_norm_backward`], [`cross_entropy_backward`], [`cross_entropy_backward_with`].
//! * Gradients are multiplied by integers too, as integers of a few int8 digits ([`Rounding`]):
//!   [`quantize_gradient_rows`] with [`gradient_matmul`] and the transposed weights, [`weight_gradient`].
//! * [`attention_varlen`]: several documents in a row, none of which sees another.
//! * All of these share one pool of threads, of which [`set_threads`] and [`ThreadLimit`] let fewer compute.
//!
//! Policy for shapes: a slice whose length does not fit the stated shape is a programming error and panics
//! with the lengths; nothing here reads foreign bytes.
//!
//! ```
//! use tritforge_kernels::{TernaryWeights, quantize_rows, ternary_matmul};
//!
//! // Two output features, three input features, weight scale 0.5.
//! let weights = TernaryWeights::new(&[1, 0, -1, 1, 1, 1], 2, 3, 0.5);
//! // One token. Its largest magnitude is 127, so the quantized activations are the values themselves.
//! let x = quantize_rows(&[127.0, 20.0, -3.0], 3);
//! let mut y = [0.0; 2];
//! ternary_matmul(&x, &weights, &mut y);
//! assert_eq!(y, [65.0, 72.0]);
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod activations;
mod attention;
mod attention_backward;
mod attention_decode;
mod attention_tiles;
mod counter_rng;
mod cross_entropy;
mod decode_tiles;
mod dense;
mod dequantize;
mod dispatch;
mod exp;
mod five_trits;
mod gemm;
mod glu;
mod glu_norm;
mod gradient_rows;
mod hadamard;
mod huge_pages;
mod kv_cache;
mod lanes;
mod matmul;
mod norm_quantize;
mod pool;
mod q6_k;
mod rms_norm;
mod rope;
#[cfg(test)]
mod scattered;
mod softmax;
mod ternary_weights;
mod trace;
mod varlen;
mod vector;
mod weight_gradient;
mod write_mode;

pub use activations::{
    ActivationWidth, QuantizedRows, quantize_rows, quantize_rows_into, quantize_rows_into_with,
};
pub use attention::{AttentionShape, attention};
pub use attention_backward::attention_backward;
pub use attention_decode::{CachedRows, attention_cached, attention_cached_batch};
pub use counter_rng::CounterRng;
pub use cross_entropy::{LossTerms, TargetLoss, cross_entropy_backward, cross_entropy_backward_with};
pub use dense::{DenseMatrix, DenseType, f32_to_f16, f32_to_q8_0};
pub use dequantize::BlockFormat;
pub use dispatch::{Backend, BackendError};
pub use gemm::{Matrix, gemm};
pub use glu::{Gate, glu, glu_backward};
pub use glu_norm::{glu_norm_backward, glu_norm_quantize};
pub use gradient_rows::{GradientRows, Rounding, quantize_gradient_rows};
pub use hadamard::{hadamard_block, hadamard_in_place};
pub use kv_cache::{KvCache, KvType, KvTypeError};
pub use matmul::{
    gradient_matmul, gradient_matmul_rows, ternary_matmul, ternary_matmul_i32, ternary_matmul_many,
    ternary_matmul_with,
};
pub use norm_quantize::rms_norm_quantize;
pub use pool::{ThreadLimit, for_each as parallel_for_each, max_threads, set_threads, threads};
pub use q6_k::f32_to_q6_k;
pub use rms_norm::{rms_norm, rms_norm_backward};
pub use rope::{Direction, RopeTable, rope_in_place};
pub use softmax::{log_sum_exp, softmax_in_place};
pub use ternary_weights::{TernaryLayout, TernaryWeights};
pub use trace::{LM_HEAD, Observer, Step};
pub use varlen::{attention_varlen, attention_varlen_backward};
pub use weight_gradient::weight_gradient;
pub use write_mode::WriteMode;
