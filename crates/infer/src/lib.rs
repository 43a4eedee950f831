//! The deployable engine: a model from a GGUF file, a KV cache, sampling. No candle, no Python.
//!
//! [`Model`] is what a file says: shared and immutable. A [`Session`] is one conversation with it: a KV cache
//! and a position. [`step`] advances one session or many in one pass over the weights.
//!
//! A [`Sequence`] is a prompt on its way to its end: it chooses tokens by [`Sampling`], decodes them and looks
//! for stop strings. [`generate`] runs one in a session and hands out its text as it comes; a [`Scheduler`]
//! runs many at a time with continuous batching. Whatever else generates text stands on these two.
//!
//! Every product is the integer product of training, through the same kernels, so that a session's logits are
//! those of the evaluation of the checkpoint, whether tokens come one at a time or many at once.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use std::sync::Arc;
//! use tritforge_infer::{GenerateOptions, Model, Session, generate};
//!
//! let model = Arc::new(Model::open("model.gguf".as_ref())?);
//! let mut session = Session::new(Arc::clone(&model), 512)?;
//! let prompt = model.tokenizer().encode("fn main() {", true)?;
//! let generation = generate(&mut session, &prompt, &GenerateOptions::default(), |text| {
//!     print!("{text}");
//!     ControlFlow::Continue(())
//! })?;
//! println!("\n{:.1} tokens/s", generation.decode_rate());
//! # Ok::<(), tritforge_infer::InferError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod adapter;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod draft;
mod embedding;
mod error;
mod generate;
mod generation;
mod load;
mod logits;
mod logprobs;
mod lookup;
mod memory;
mod model;
mod options;
mod parts;
mod products;
mod sampling;
mod scheduler;
mod sequence;
mod session;
mod step;
mod stop;
mod threads;
mod vocabulary;
mod weights;

pub use adapter::{Adapter, ScaledAdapter};
pub use device::{Device, Placed};
pub use draft::Draft;
pub use embedding::{Pooling, embed};
pub use error::InferError;
pub use generate::{generate, generate_pieces};
pub use generation::{Finish, Generation, Proposals};
pub use logits::{Logits, NeededLogits};
pub use logprobs::TokenLogprobs;
pub use memory::{EngineLayout, PlannedMemory, kv_bytes, pass_bytes, planned_memory};
pub use model::{Model, ModelMemory};
pub use options::GenerateOptions;
pub use sampling::{Sampler, Sampling};
pub use scheduler::{Ended, Scheduler, SchedulerOptions};
pub use sequence::{Piece, Sequence};
pub use session::{PREFILL_CHUNK, Session};
pub use step::{LogitsRequest, SequenceInput, hidden_states, step, step_needed};
pub use stop::{StopFilter, StopMatch};
pub use threads::set_decode_threads;
pub use tritforge_constrain::{ConstrainError, Constraint, Grammar, literal};
pub use tritforge_kernels::KvType;
pub use vocabulary::Vocabulary;
pub use weights::{Table, TernaryInfo};
