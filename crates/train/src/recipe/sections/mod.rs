//! The sections of a recipe: what each key means, and what it is if it is not given.

mod adaptation;
mod data;
mod model;
mod output;
mod serialize;
mod training;

pub use adaptation::{BlendOrder, BlendSchedule, Convert, Distill, Dpo, Engine, Lora, ModuleRate, SftLoss};
pub use data::{Data, DataSource, SourceText, SplitKind, Tokenizer, TokenizerKind};
pub use model::{Model, Quant};
pub use output::{Export, Run, Sample};
pub use training::{Ema, OnFault, Optim, Train, TrainEngine};

pub(crate) use data::SHARD_TOKENS;
pub(super) use serialize::recipe_name;
