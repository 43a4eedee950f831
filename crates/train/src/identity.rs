//! Which files a run depends on beside its data: models, known by the SHA-256 of their content.

use std::path::{Path, PathBuf};

use tritforge_config::{ADAPTER_CONFIG, ADAPTER_MODEL};
use tritforge_data::Fingerprint;
use tritforge_export::{AppliedAdapter, LoadedModel};

use crate::TrainError;

/// A model of any form: a checkpoint by its manifest, anything else and adapters by their files.
pub(crate) fn of_model(model: &LoadedModel) -> Result<String, TrainError> {
    let base = match model.checkpoint() {
        Some(checkpoint) => checkpoint.fingerprint()?,
        None => of_files(model.files().iter().map(PathBuf::as_path))?,
    };
    let mut all = base.clone();
    for AppliedAdapter { files, scale } in model.adapters() {
        let parts = [ADAPTER_CONFIG, ADAPTER_MODEL].map(|name| files.dir().join(name));
        all += &format!(" {} {scale}", of_files(parts.iter().map(PathBuf::as_path))?);
    }
    Ok(if model.adapters().is_empty() { base } else { of_bytes(all.as_bytes()) })
}

/// Files: the SHA-256 of their contents, in order. Each is read whole.
pub(crate) fn of_files<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<String, TrainError> {
    let mut all = String::new();
    for file in files {
        all += &Fingerprint::of_file(file)?.to_string();
    }
    Ok(of_bytes(all.as_bytes()))
}

/// Bytes at hand.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    Fingerprint::of(bytes, &[], None).to_string()
}
