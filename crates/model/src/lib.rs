//! The decoder: its forward, its hand-written backward, its adapters and its exact evaluation.
//!
//! Every step of the model calls the very function of `tritforge-kernels` that the deployed engine calls. The
//! ternary codes, int8 activations and int32 sums of training are therefore those of the exported file, bit
//! for bit.
//!
//! * [`Decoder`]: the whole model: parameters by name, training, exact evaluation. [`Linear`]: one of the
//!   seven projections, quantized as the configuration says.
//! * [`Decoder::forward_backward`]: loss and gradients in one call without a tape, a block at a time, in the
//!   reused memory of a [`Workspace`], which may checkpoint; the sums stand in [`Gradients`]. This is what
//!   trainers call. Neither the number of threads nor checkpointing changes a bit of it.
//! * [`GradPrecision`]: whether that pass multiplies gradients by integers, of how many bits, or in f32.
//! * [`Decoder::load_adapted`]: a frozen base with a low-rank adapter, whose matrices are then the only
//!   parameters.
//! * [`BlockStack`]: some blocks alone, with a loss of the hidden states that leave them.
//! * [`BlockForward`]: the forward of a block, written once over a [`Device`]. Training, evaluation and the
//!   deployed engine of `tritforge-infer` call it, each with its own products and attention.
//!
//! ```
//! use tritforge_config::ModelConfig;
//! use tritforge_model::{Batch, Decoder, Gradients, Workspace};
//!
//! let config = ModelConfig { vocab_size: 32, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1,
//!     num_attention_heads: 2, num_key_value_heads: 1, head_dim: 16, ..ModelConfig::default() };
//! let mut model = Decoder::init(&config, 7)?;
//! let ids = [1, 2, 3, 4, 5, 6, 7, 8];
//! let batch = Batch { ids: &ids[..7], targets: &ids[1..], sequences: 1, segments: &[] };
//!
//! let mut gradients = Gradients::new(model.parameters(), |_| true);
//! let loss = model.forward_backward(&mut Workspace::new(false), &batch, 7.0, &mut gradients)?;
//!
//! // A step against the gradient lowers the loss.
//! for (parameter, gradient) in model.parameters().iter().zip(gradients.iter()) {
//!     let mut values = parameter.tensor.write();
//!     for (value, d) in values.iter_mut().zip(gradient.unwrap()) {
//!         *value -= 0.01 * d;
//!     }
//! }
//! model.requantize()?;
//! assert!(model.score(&batch)?.mean() < loss);
//! # Ok::<(), tritforge_model::ModelError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod backward;
mod blend;
mod block;
mod curvature;
mod decoder;
mod device;
mod error;
mod estimator;
mod evaluate;
mod exact;
mod forward;
mod grad_precision;
mod gradient_tree;
mod gradients;
mod grid;
mod linear;
mod lora;
mod parameter;
mod pull;
mod segments;
mod stack;
mod tables;
mod tensor;
mod training_codes;

pub use backward::{CrossEntropyLoss, Distillation, DistillationLoss, EmbeddingNoise, Relation, Workspace};
pub use decoder::{AttentionStates, Batch, Decoder};
pub use device::{Attend, Cpu, Device, Input, InputForm, Projections, activation_width};
pub use error::ModelError;
pub use evaluate::Score;
pub use forward::{Activations, BlockForward, BlockShape, Norms, Passing};
pub use grad_precision::GradPrecision;
pub use gradient_tree::{GradientTree, gradient_buffers, tree_sum};
pub use gradients::Gradients;
pub use linear::Linear;
pub use lora::{initial_adapter, merge_adapter, merge_ternary_adapter};
pub use parameter::{DecayGroup, Parameter};
pub use stack::BlockStack;
pub use tensor::{Tensor, WriteValues};
pub use training_codes::TrainingCodes;
pub use tritforge_kernels::LossTerms;

/// The target that means: no loss at this position.
pub const IGNORE_INDEX: u32 = u32::MAX;
