//! The default corpus: Rust sources that are already present wherever the project was built.
//!
//! They are the crates.io packages on which the project's programs depend, as `cargo` resolved them, so that
//! the same `Cargo.lock` and platform give the same text. [`packages`] finds them, [`select`] chooses among
//! their files.

mod packages;
mod select;

use std::path::PathBuf;

use tritforge_support::counted;

use crate::corpus::text_bytes;
use crate::{DataError, Document, Fingerprint};

/// What to take of the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RustSources {
    /// The `Cargo.toml` whose dependencies are read. By default that of the workspace that built this
    /// program, and if that is gone, the one that cargo finds from the current directory.
    pub manifest: Option<PathBuf>,
    /// Bytes of text at most. Large packages are cut to the same size, so that none dominates.
    pub max_bytes: usize,
    /// Files with more bytes are passed over: they are tables and generated code.
    pub max_file_bytes: usize,
}

impl Default for RustSources {
    fn default() -> Self {
        Self { manifest: None, max_bytes: 12_000_000, max_file_bytes: 100_000 }
    }
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RustSourcesReport {
    /// Packages with text.
    pub packages: usize,
    /// Files, each a document.
    pub files: usize,
    /// Bytes of text.
    pub bytes: u64,
    /// SHA-256 of the whole text and its boundaries.
    pub fingerprint: Fingerprint,
    /// Packages whose sources are not on this machine.
    pub absent: Vec<String>,
}

/// Reads the sources: one document a file, named like `serde-1.0.229/src/lib.rs`, sorted by package and path.
///
/// Of several versions of a package the newest is taken: two versions share most of their text, which must
/// not stand on both sides of a split.
///
/// # Errors
/// If cargo cannot be run, there is no manifest, or no sources are found; the message says what to do
/// instead.
pub fn rust_sources(options: &RustSources) -> Result<(Vec<Document>, RustSourcesReport), DataError> {
    let found = packages::find(options.manifest.as_deref()).map_err(DataError::RustSources)?;
    let candidates = found
        .present
        .iter()
        .map(|p| select::Candidate::read(p, options.max_file_bytes))
        .collect::<Result<Vec<_>, _>>()?;
    let selected = select::select(candidates, options.max_bytes);
    let documents: Vec<Document> = selected.iter().flatten().cloned().collect();
    if documents.is_empty() {
        return Err(DataError::RustSources(format!(
            "the sources of {} of {} are on this machine, but none contains text to train on",
            found.present.len(),
            counted(found.present.len() + found.absent.len(), "package")
        )));
    }
    let report = RustSourcesReport {
        packages: selected.iter().filter(|files| !files.is_empty()).count(),
        files: documents.len(),
        bytes: text_bytes(&documents),
        fingerprint: Fingerprint::of_text(&documents),
        absent: found.absent,
    };
    Ok((documents, report))
}
