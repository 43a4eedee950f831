//! The subcommands, one a file.

#[cfg(feature = "train")]
pub(crate) mod ablate;
pub(crate) mod bench;
pub(crate) mod chat;
#[cfg(feature = "train")]
pub(crate) mod compare;
#[cfg(feature = "train")]
pub(crate) mod data;
pub(crate) mod deploy;
mod device_args;
pub(crate) mod diff;
mod draft_args;
#[cfg(feature = "train")]
pub(crate) mod dry_run;
#[cfg(feature = "train")]
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod generate;
mod grammar_args;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod lora_args;
#[cfg(feature = "train")]
pub(crate) mod merge;
pub(crate) mod model_args;
#[cfg(feature = "train")]
pub(crate) mod quantize;
#[cfg(feature = "train")]
pub(crate) mod quickstart;
pub(crate) mod ranges;
#[cfg(feature = "train")]
pub(crate) mod recipes;
#[cfg(feature = "train")]
pub(crate) mod report;
pub(crate) mod sampling_args;
#[cfg(feature = "train")]
pub(crate) mod selfcheck;
pub(crate) mod serve;
pub(crate) mod synth;
pub(crate) mod tokenize;
#[cfg(feature = "train")]
pub(crate) mod train;
#[cfg(feature = "train")]
pub(crate) mod verify;

#[cfg(feature = "train")]
use std::path::Path;

#[cfg(feature = "train")]
use anyhow::{Context as _, Result};

/// Reads a text file whole.
#[cfg(feature = "train")]
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    String::from_utf8(bytes).map_err(|e| {
        anyhow::anyhow!("{}: not UTF-8 at byte {}", path.display(), e.utf8_error().valid_up_to())
    })
}
