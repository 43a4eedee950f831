//! Candle modules for ternary training: BitLinear with a straight-through estimator, and the decoder around it.
//!
//! candle's tape stays, with little on it: each step that training spends its time in is one custom op with a
//! hand-written backward ([`ops`]), and its forward calls the very function of `tritforge-kernels` that the
//! deployed engine calls. The ternary codes, int8 activations and int32 sums of training are therefore those of
//! the exported file, bit for bit.
//!
//! * [`ops`]: embedding, BitLinear, RMSNorm, RoPE, causal attention, gated activation, linear + cross-entropy.
//! * [`Linear`]: one of the seven projections, quantized as the configuration says.
//! * [`Decoder`]: the whole model: parameters by name, training loss, exact evaluation.
//!
//! ```
//! use tritforge_config::ModelConfig;
//! use tritforge_nn::{Batch, Decoder};
//!
//! let config = ModelConfig { vocab_size: 32, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1,
//!     num_attention_heads: 2, num_key_value_heads: 1, head_dim: 16, ..ModelConfig::default() };
//! let mut model = Decoder::init(&config, 7)?;
//! let ids = [1, 2, 3, 4, 5, 6, 7, 8];
//! let batch = Batch { ids: &ids[..7], targets: &ids[1..], sequences: 1 };
//! let loss = model.loss(&batch, 7.0)?;
//! let gradients = loss.backward()?;
//! assert!(model.parameters().iter().all(|p| gradients.get(p.var.as_tensor()).is_some()));
//! # Ok::<(), tritforge_nn::NnError>(())
//! ```

mod block;
mod decoder;
mod error;
mod evaluate;
mod gradients;
mod linear;
pub mod ops;
mod parameter;
mod reverse;

pub use decoder::{Batch, Decoder};
pub use error::NnError;
pub use evaluate::Score;
pub use gradients::Gradients;
pub use linear::Linear;
pub use ops::IGNORE_INDEX;
pub use parameter::{DecayGroup, Parameter};
pub use reverse::Workspace;
