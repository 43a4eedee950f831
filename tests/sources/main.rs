//! Nothing of a model's files is dropped in silence: whatever GGUF files and directories in Hugging Face's
//! layout hold takes part, is refused by name, or is told on standard error.

#[path = "../project/mod.rs"]
mod project;

mod gguf;
mod hugging_face;
mod model;
