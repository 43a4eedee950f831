//! Writing a checkpoint: temporary name, sync, rename.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView as View};
use tritforge_config::ModelConfig;

use crate::manifest::{Entry, Manifest, VERSION};
use crate::{CONFIG, CheckpointError, MANIFEST};

/// An f32 tensor to be written.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    name: &'a str,
    shape: &'a [usize],
    data: &'a [f32],
}

impl<'a> TensorView<'a> {
    /// A tensor of `shape`, row-major.
    pub fn new(name: &'a str, shape: &'a [usize], data: &'a [f32]) -> Self {
        Self { name, shape, data }
    }
}

/// A checkpoint being written. Dropped before [`Writer::commit`], it removes what it wrote.
#[derive(Debug)]
pub struct Writer {
    target: PathBuf,
    temporary: PathBuf,
    files: BTreeMap<String, Entry>,
    committed: bool,
}

impl Writer {
    /// Starts a checkpoint that is to appear at `target`.
    ///
    /// # Errors
    /// If the directory beside it cannot be made.
    pub fn create(target: &Path) -> Result<Self, CheckpointError> {
        let Some(name) = target.file_name() else {
            return Err(CheckpointError::damaged(target, "not the name of a directory"));
        };
        let temporary = target.with_file_name(format!(".tmp-{}", name.to_string_lossy()));
        if temporary.exists() {
            // What an earlier crash left.
            fs::remove_dir_all(&temporary).map_err(CheckpointError::io(&temporary, "remove"))?;
        }
        fs::create_dir_all(&temporary).map_err(CheckpointError::io(&temporary, "create"))?;
        Ok(Self { target: target.to_path_buf(), temporary, files: BTreeMap::new(), committed: false })
    }

    /// Writes one file and syncs it.
    ///
    /// # Errors
    /// If the disk is full or not writable.
    pub fn write_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let path = self.temporary.join(name);
        let mut file = File::create(&path).map_err(CheckpointError::io(&path, "create"))?;
        file.write_all(bytes).map_err(CheckpointError::io(&path, "write"))?;
        file.sync_all().map_err(CheckpointError::io(&path, "sync"))?;
        self.files.insert(name.to_string(), Entry::of(bytes));
        Ok(())
    }

    /// Writes `config.json`.
    ///
    /// # Errors
    /// As [`Writer::write_file`].
    pub fn write_config(&mut self, config: &ModelConfig) -> Result<(), CheckpointError> {
        self.write_file(CONFIG, config.to_json().as_bytes())
    }

    /// Writes f32 tensors as a safetensors file.
    ///
    /// # Errors
    /// If a shape does not fit its data, or as [`Writer::write_file`].
    pub fn write_tensors(&mut self, name: &str, tensors: &[TensorView<'_>]) -> Result<(), CheckpointError> {
        let path = self.temporary.join(name);
        let views = tensors
            .iter()
            .map(|t| {
                let view = View::new(Dtype::F32, t.shape.to_vec(), bytemuck::cast_slice(t.data));
                view.map(|view| (t.name, view)).map_err(|e| CheckpointError::Tensor {
                    path: path.clone(),
                    tensor: t.name.to_string(),
                    message: e.to_string(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let bytes = safetensors::serialize(views, None)
            .map_err(|e| CheckpointError::damaged(&path, e.to_string()))?;
        self.write_file(name, &bytes)
    }

    /// Writes the manifest and gives the checkpoint its name. An older checkpoint of the same name is replaced.
    ///
    /// # Errors
    /// If the disk is full or not writable; then the target is as it was.
    pub fn commit(mut self) -> Result<(), CheckpointError> {
        let manifest = Manifest { version: VERSION, files: std::mem::take(&mut self.files) };
        let json = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| CheckpointError::damaged(&self.target, e.to_string()))?;
        self.write_file(MANIFEST, &json)?;
        sync_dir(&self.temporary)?;
        if self.target.exists() {
            fs::remove_dir_all(&self.target).map_err(CheckpointError::io(&self.target, "replace"))?;
        }
        fs::rename(&self.temporary, &self.target)
            .map_err(CheckpointError::io(&self.target, "rename into"))?;
        self.committed = true;
        match self.target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
            _ => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing more can be done about a failure here, and the next writer removes the leftovers.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Makes the names in a directory durable. Where directories cannot be synced (Windows), renames are.
fn sync_dir(dir: &Path) -> Result<(), CheckpointError> {
    if cfg!(unix) {
        File::open(dir).and_then(|d| d.sync_all()).map_err(CheckpointError::io(dir, "sync"))?;
    }
    Ok(())
}
