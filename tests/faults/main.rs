//! Small valid inputs, each with one fault at a time: the error names the place, or the result is that of the
//! input without the fault. Nothing is read as something else in silence, nothing panics, and no output is
//! left half-written.

mod adapters;
mod checkpoints;
mod configurations;
mod gguf;
mod hugging_face;
mod recipes;
mod requests;
mod safetensors;
mod tables;
mod teacher_cache;
mod tokenizers;
mod tools;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// What was tried, and what was neither refused by name nor harmless.
#[derive(Default)]
pub(crate) struct Round {
    tried: usize,
    wrong: Vec<String>,
}

impl Round {
    /// Takes the result of one fault: an error has to contain one of `places`, anything else has to be
    /// `right`.
    pub(crate) fn take(&mut self, what: &str, found: Result<String, String>, places: &[&str], right: &str) {
        self.tried += 1;
        let wrong = match found {
            Ok(found) if found == right => None,
            Ok(found) => Some(format!("another result in silence: {found:.300}")),
            Err(error) if error.contains("it panicked") => Some(error),
            Err(error) if places.iter().any(|place| error.contains(place)) => None,
            Err(error) => Some(format!("the error does not name the place {places:?}: {error}")),
        };
        self.wrong.extend(wrong.map(|wrong| format!("{what}: {wrong}")));
    }

    /// As [`Self::take`] for a fault that may not pass.
    pub(crate) fn refused(&mut self, what: &str, found: Result<String, String>, places: &[&str]) {
        self.take(what, found, places, "\0");
    }

    pub(crate) fn end(&self, least: usize) {
        println!("{} variants", self.tried);
        assert!(self.wrong.is_empty(), "{} of {}:\n{}", self.wrong.len(), self.tried, self.wrong.join("\n"));
        assert!(self.tried >= least, "{} variants", self.tried);
    }
}

pub(crate) fn golden(name: &str) -> String {
    fs::read_to_string(golden_path(name)).unwrap()
}

pub(crate) fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// Copies the files of a directory.
pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// What a reader says, a panic among the errors.
pub(crate) fn caught(read: impl FnOnce() -> Result<String, String>) -> Result<String, String> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("it panicked".to_string()))
}

/// A word that changes with any byte of a file.
pub(crate) fn hash(path: &Path) -> String {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", fs::read(path).unwrap().iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The result of a command that writes `out`, with what it wrote. Where it fails, neither `out` nor a
/// temporary file beside it is left.
pub(crate) fn written(
    out: &Path,
    file: &str,
    write: impl FnOnce() -> Result<String, String>,
) -> Result<String, String> {
    let result = caught(write);
    let left = || {
        let beside = fs::read_dir(out.parent().unwrap()).unwrap();
        let names = beside.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains(&*out.file_name().unwrap().to_string_lossy())).collect::<Vec<_>>()
    };
    match result {
        Ok(said) => {
            let written = if file.is_empty() { hash(out) } else { hash(&out.join(file)) };
            let _ = if file.is_empty() { fs::remove_file(out) } else { fs::remove_dir_all(out) };
            Ok(format!("{said} {written}"))
        }
        Err(error) if left().is_empty() => Err(error),
        Err(error) => Err(format!("it panicked or left {:?} behind: {error}", left())),
    }
}
