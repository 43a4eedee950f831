//! The recipe language: how a TOML file that describes a training run is read.
//!
//! * [`parse`] makes [`Entries`] of a file and of overrides (`section.key=value`): each value with its file, line and
//!   column. It checks the file's [`VERSION`]; [`upgrade`] rewrites a file of an earlier one. No other file is opened.
//! * [`Reader`] gives typed access to them. Each call names a key and what its value may be ([`Kind`], [`Range`]),
//!   and notes a [`Fault`] where it is something else; [`Reader::finish`] notes the keys that nobody asked for, with
//!   what they may have been meant to be. All faults are reported at once ([`RecipeError`]).
//! * [`registry!`] makes an enum of the choices of a key, such as the optimizers. Each choice reads its own keys
//!   ([`Keys`]).
//! * [`Reference`] writes the JSON Schema and the documentation of all keys, from what the reader was asked for and
//!   from the documentation of the structs that the keys are read into.
//! * [`Run`], [`Model`], [`Lora`], [`Tokenizer`], [`Train`], [`Ema`], [`Log`] and [`Sample`] are the sections that need nothing
//!   but this crate.
//!
//! The other sections are in `tritforge-train`, which puts all of them together to a recipe: those of optimizers,
//! schedules, objectives and the conversion stand beside their implementation, so that one file owns a thing with its
//! keys, and adding one touches no other crate; those of quantization, data and export use types of crates that know
//! how to do it. This crate depends on none of them: neither on candle nor on kernels, models or data.
//!
//! ```
//! use std::path::Path;
//! use tritforge_recipe::{Range, Reader, parse};
//!
//! let text = "[oven]\ntemperature = 450\ntimer = 40\n";
//! let (entries, faults) = parse(Path::new("cake.toml"), text, &["oven.fan=true".to_string()])?;
//! let mut r = Reader::new(Path::new("cake.toml"), entries, faults, Path::exists);
//! let temperature = r.number("oven", "temperature", Range::at_least(50.0).at_most(300.0));
//! let minutes = r.integer("oven", "time", 1, 600);
//! assert_eq!((temperature, minutes, r.flag("oven", "fan")), (None, None, Some(true)));
//! let faults: Vec<String> = r.finish().iter().map(ToString::to_string).collect();
//! assert_eq!(faults, [
//!     "cake.toml:2:15: oven.temperature = 450: expected a number from 50 to 300",
//!     "cake.toml:3:1: oven.timer: unknown key; did you mean oven.time?",
//! ]);
//! # Ok::<(), tritforge_recipe::RecipeError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod entries;
mod error;
mod hints;
mod keys;
mod kind;
mod overrides;
mod places;
pub mod prose;
mod reader;
mod reference;
mod sections;
mod upgrade;

use std::path::Path;

pub use entries::{Entries, Entry, Value, parse_keys};
pub use error::{Fault, Origin, RecipeError};
pub use hints::nearest;
pub use keys::{Choice, Keys, Owned, check_owned};
pub use kind::{Key, Kind, Range};
pub use reader::{Reader, resolve};
pub use reference::Reference;
pub use sections::{
    Ema, Log, Lora, Model, ModuleRate, OnFault, Run, Sample, Tokenizer, TokenizerKind, Train, TrainEngine,
    include_config,
};
pub use upgrade::{ChangedLine, Upgrade, VERSION, upgrade};

/// Parses a recipe and puts overrides, each `section.key=value`, over it; `path` names it in messages. Returns the
/// entries with what is wrong with the version and the overrides.
///
/// # Errors
/// If the text is not TOML.
pub fn parse(path: &Path, text: &str, overrides: &[String]) -> Result<(Entries, Vec<Fault>), RecipeError> {
    let mut entries = entries::parse_recipe(path, text).map_err(RecipeError::Invalid)?;
    let mut faults = Vec::new();
    upgrade::take_version(&mut entries, &mut faults);
    overrides::apply(&mut entries, overrides, &mut faults);
    Ok((entries, faults))
}

/// Reads a file of text.
///
/// # Errors
/// If it cannot be read; the error names it.
pub fn read_text(path: &Path) -> Result<String, RecipeError> {
    std::fs::read_to_string(path).map_err(|source| RecipeError::Io { path: path.to_path_buf(), source })
}
