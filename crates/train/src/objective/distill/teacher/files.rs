//! The weight files of a directory in Hugging Face's layout.

use std::fs;
use std::path::{Path, PathBuf};

use tritforge_checkpoint::{CheckpointError, Tensors};

use crate::TrainError;

pub(super) const INDEX: &str = "model.safetensors.index.json";
pub(super) const SINGLE: &str = "model.safetensors";

/// The safetensors of a directory: one file, or shards.
#[derive(Debug)]
pub(super) struct Files {
    files: Vec<Tensors>,
    /// Where they are.
    pub(super) paths: Vec<PathBuf>,
}

impl Files {
    /// Opens the files of a directory.
    pub(super) fn open(dir: &Path) -> Result<Self, TrainError> {
        let paths = shards(dir)?;
        let files = paths.iter().map(|path| Tensors::open(path)).collect::<Result<_, _>>()?;
        Ok(Self { files, paths })
    }

    /// The values of a tensor, row-major, whatever the type they are stored in.
    pub(super) fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TrainError> {
        let Some(file) = self.files.iter().find(|file| file.has(name)) else {
            return Err(TrainError::State(format!(
                "tensor {name}: missing; by config.json the model has it with shape {shape:?}"
            )));
        };
        let values = file.f32(name, shape)?.into_owned();
        // The file's pages would be held beside the model's own.
        file.release(name);
        Ok(values)
    }
}

/// The paths of the weight files.
fn shards(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    // As transformers: the single file goes before an index.
    let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
    if single.is_file() {
        return Ok(vec![single]);
    }
    if !index.is_file() {
        return Err(TrainError::State(format!("neither {SINGLE} nor {INDEX} found in {}", dir.display())));
    }
    let text = fs::read(&index).map_err(TrainError::io(&index, "read"))?;
    let damaged = |message: String| CheckpointError::Damaged { path: index.clone(), message };
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    let names = json["weight_map"].as_object().ok_or_else(|| damaged("no weight_map".to_string()))?;
    let mut names: Vec<&str> = names.values().filter_map(serde_json::Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    // A shard stands beside its index, nowhere else.
    match names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        Some(bad) => Err(damaged(format!("{bad:?} is not the name of a file in the same directory")).into()),
        None => Ok(names.into_iter().map(|name| dir.join(name)).collect()),
    }
}
