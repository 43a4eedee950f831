//! Plans how a model is served on a machine before the machine is there: what it takes in memory, with which options of
//! `tritforge serve`, and how fast it can be at best.
//!
//! A [`Target`] is a machine and what is asked of it. [`Source`] is a model of which only headers are read, so that a plan
//! takes no longer for a large one. [`plan`] puts both together, by the size functions of the engine
//! ([`tritforge_infer::planned_memory`]), or says what would fit instead. [`serve_toml`] writes the options with their
//! reasons.
//!
//! ```no_run
//! use tritforge_deploy::{Request, Source, Target, plan, serve_toml};
//!
//! let model = Source::open("model.gguf".as_ref())?;
//! let plan = plan(&model, &Target::named("edge")?, Request::default())?;
//! println!("{} bytes, at most {:.1} tokens/s", plan.memory.peak(), plan.speed.one);
//! println!("{}", serve_toml(&plan)?);
//! # Ok::<(), tritforge_deploy::DeployError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod budget;
mod error;
mod options;
mod plan;
mod size;
mod source;
mod speed;
mod target;

pub use budget::Memory;
pub use error::DeployError;
pub use options::{Setting, serve_toml};
pub use plan::{Plan, Request, plan};
pub use source::Source;
pub use speed::Speed;
pub use target::{BUILT_IN, Isa, Target};
pub(crate) use tritforge_support::readable_size as readable;
