//! What a model is: its shape and its quantization, under the names of Hugging Face configs.
//!
//! [`ModelConfig`] is the one description of an architecture. A recipe resolves to it, `model` builds a
//! trainable model from it, a checkpoint keeps it as `config.json`, the exporter writes it as GGUF metadata
//! ([`ModelConfig::to_gguf`]) and the engine reads it back from there ([`ModelConfig::from_gguf`]).
//! [`HuggingFaceConfig`] reads the `config.json` of other people's checkpoints.
//!
//! ```
//! use tritforge_config::ModelConfig;
//!
//! let config = ModelConfig { hidden_size: 256, num_attention_heads: 4, ..ModelConfig::default() };
//! config.validate()?;
//! println!("{} parameters", config.parameters().total());
//! # Ok::<(), tritforge_config::ConfigError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod activation;
mod architecture;
mod dead_zone;
mod error;
mod gguf;
mod hugging_face;
mod lora;
mod model;
mod parameters;
mod peft;
mod projection;
mod quantizer;
mod rope;
mod tensors;
mod validate;

pub use activation::{ActivationQuant, HiddenAct, Rotation};
pub use architecture::Architecture;
pub use error::ConfigError;
pub use gguf::ROPE_FACTORS;
pub use hugging_face::{HuggingFaceConfig, Quantization};
pub use lora::{ADAPTER_CONFIG, ADAPTER_MODEL, ADAPTER_RUNTIME, LOTA_THRESHOLD, LoraConfig, LoraMode};
pub use model::{AttentionBias, ModelConfig, WeightQuant};
pub use parameters::Parameters;
pub use peft::{AdaptedModule, AdapterConfig};
pub use projection::Projection;
pub use rope::RopeScaling;
pub use tritforge_ternary::{Granularity, QuantizerSettings, Sparsity, WeightQuantizer};
