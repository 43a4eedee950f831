//! The sections of a recipe that need nothing but this crate: what each key means, what it may be, and what it is if it is
//! not given.

mod ema;
mod log;
mod lora;
mod model;
mod run;
mod sample;
mod tokenizer;
mod train;

pub use ema::Ema;
pub use log::Log;
pub use lora::{Lora, ModuleRate};
pub use model::{Model, include_config};
pub use run::Run;
pub use sample::Sample;
pub use tokenizer::{Tokenizer, TokenizerKind};
pub use train::{OnFault, Train, TrainEngine};
