//! Ternary layers as candle modules, for models that are built with candle.
//!
//! * [`BitLinear`]: the linear layer of BitNet b1.58 in place of `candle_nn::Linear`, with [`LoraLinear`] on
//!   it.
//! * [`RmsNorm`], [`Mlp`], [`Attention`], [`DecoderLayer`]: the parts of a ternary transformer.
//! * [`Decoder`]: the whole model of a [`tritforge_config::ModelConfig`], named as on Hugging Face.
//! * [`ops`]: the functions under them, with hand-written backwards.
//!
//! Everything runs on any device of candle. f32 on the CPU goes through fused kernels; other devices and
//! types go through [`ops::composed`], with the same gradients.
//!
//! ```
//! use candle_core::{DType, Device, Module, Tensor};
//! use candle_nn::{AdamW, Optimizer, VarBuilder, VarMap};
//! use tritforge_nn::{BitLinear, BitLinearConfig};
//!
//! let variables = VarMap::new();
//! let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let layer = BitLinear::new(64, 10, BitLinearConfig::default(), vb)?;
//! let mut optimizer = AdamW::new_lr(variables.all_vars(), 1e-3)?;
//!
//! let x = Tensor::randn(0f32, 1.0, (8, 5, 64), &Device::Cpu)?;
//! let y = layer.forward(&x)?;
//! assert_eq!(y.dims(), [8, 5, 10]);
//! optimizer.backward_step(&y.sqr()?.mean_all()?)?;
//!
//! let ternary = layer.to_ternary()?;
//! assert!(ternary.codes().iter().all(|code| (-1..=1).contains(code)));
//! # Ok::<(), tritforge_nn::NnError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]
// candle's convention: constructors take their VarBuilder by value.
#![allow(clippy::needless_pass_by_value)]

mod attention;
mod bit_linear;
mod decoder;
mod decoder_layer;
mod error;
mod lora;
mod mlp;
pub mod ops;
mod rms_norm;
mod segments;

pub use attention::Attention;
pub use bit_linear::{BitLinear, BitLinearConfig};
pub use decoder::Decoder;
pub use decoder_layer::DecoderLayer;
pub use error::NnError;
pub use lora::LoraLinear;
pub use mlp::Mlp;
pub use ops::IGNORE_INDEX;
pub use rms_norm::RmsNorm;
pub use segments::Segments;
