//! Damaged inputs for each parser of foreign bytes: every one is refused or read, without a panic, without a
//! hang, and within memory that its length justifies.
//!
//! Each parser is one test. `TRITFORGE_MUTATIONS` says how many inputs each of them reads (1000 by default),
//! `TRITFORGE_MUTATION_SECONDS` after how many seconds it stops, `TRITFORGE_MUTATION_SEED` which series of
//! inputs it is. An input that is at fault is left in the directory for temporary files, where the message
//! says.
//!
//! Memory is what the parser's thread holds beyond what it held before, the input not counted, unless the
//! test says so.

mod binary;
mod constraints;
mod counting;
mod data;
mod grammar;
mod harness;
mod json;
#[path = "../../crates/data/tests/messages/mod.rs"]
mod messages;
#[path = "mod.rs"]
mod mutations;
mod service;
mod tensors;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tritforge_config::ModelConfig;

/// Where files lie in memory, if the system has such a place.
fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// A directory in memory: parsers of files read a file for each input.
fn scratch() -> TempDir {
    tempfile::tempdir_in(memory()).unwrap()
}

/// A file of the repository.
fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn golden(name: &str) -> Vec<u8> {
    let path = repository("tests/golden").join(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The smallest model that has every kind of tensor.
fn tiny() -> ModelConfig {
    ModelConfig::from_toml(
        "vocab_size = 257\nhidden_size = 128\nintermediate_size = 128\nnum_hidden_layers = 1\n\
         num_attention_heads = 4\nnum_key_value_heads = 2\nhead_dim = 32\nmax_position_embeddings = 32\n\
         hidden_act = \"relu2\"\ninitializer_range = 0.5\n",
    )
    .unwrap()
}
