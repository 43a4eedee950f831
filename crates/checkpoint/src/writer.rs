//! Writing a checkpoint: temporary name, sync, rename.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use half::bf16;
use tritforge_config::ModelConfig;

use crate::manifest::{Digest, Entry, Manifest, VERSION};
use crate::{CONFIG, CheckpointError, MANIFEST, TensorFile, TensorSpec, TensorType};

/// A tensor to be written, row-major.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    name: &'a str,
    shape: &'a [usize],
    data: TensorData<'a>,
}

#[derive(Debug, Clone, Copy)]
enum TensorData<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl<'a> TensorView<'a> {
    /// An f32 tensor of `shape`.
    pub fn new(name: &'a str, shape: &'a [usize], data: &'a [f32]) -> Self {
        Self { name, shape, data: TensorData::F32(data) }
    }

    /// A bf16 tensor of `shape`.
    pub fn bf16(name: &'a str, shape: &'a [usize], data: &'a [bf16]) -> Self {
        Self { name, shape, data: TensorData::Bf16(data) }
    }

    fn bytes(&self) -> &'a [u8] {
        match self.data {
            TensorData::F32(values) => bytemuck::cast_slice(values),
            TensorData::Bf16(values) => bytemuck::cast_slice(values),
        }
    }

    fn spec(&self) -> TensorSpec {
        let ty = match self.data {
            TensorData::F32(_) => TensorType::F32,
            TensorData::Bf16(_) => TensorType::Bf16,
        };
        TensorSpec { name: self.name.to_string(), shape: self.shape.to_vec(), ty }
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
            return Err(CheckpointError::damaged(target, "not a directory name"));
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
        let mut digest = Digest::default();
        digest.update(bytes);
        self.files.insert(name.to_string(), digest.finish());
        Ok(())
    }

    /// Writes `config.json`.
    ///
    /// # Errors
    /// As [`Writer::write_file`].
    pub fn write_config(&mut self, config: &ModelConfig) -> Result<(), CheckpointError> {
        self.write_file(CONFIG, config.to_json().as_bytes())
    }

    /// Writes tensors as a safetensors file, one after the other from where they are: no copy of them is
    /// made.
    ///
    /// # Errors
    /// If a shape does not fit its data, two tensors have one name, or as [`Writer::write_file`].
    pub fn write_tensors(&mut self, name: &str, tensors: &[TensorView<'_>]) -> Result<(), CheckpointError> {
        let mut file = self.tensor_file(name, tensors.iter().map(TensorView::spec).collect())?;
        let order: Vec<String> = file.specs().iter().map(|spec| spec.name.clone()).collect();
        for name in order {
            let Some(tensor) = tensors.iter().find(|tensor| tensor.name == name) else { continue };
            file.write(tensor.name, tensor.bytes())?;
        }
        self.keep(name, file)
    }

    /// Starts a safetensors file whose tensors come one at a time; [`Writer::keep`] ends it.
    ///
    /// # Errors
    /// As [`TensorFile::create`].
    pub fn tensor_file(&self, name: &str, specs: Vec<TensorSpec>) -> Result<TensorFile, CheckpointError> {
        TensorFile::create(&self.temporary.join(name), specs)
    }

    /// Takes a file from [`Writer::tensor_file`], all its tensors written, into the checkpoint.
    ///
    /// # Errors
    /// As [`TensorFile::finish`].
    pub fn keep(&mut self, name: &str, file: TensorFile) -> Result<(), CheckpointError> {
        let entry = file.close()?;
        self.files.insert(name.to_string(), entry);
        Ok(())
    }

    /// Writes the manifest and gives the checkpoint its name. An older checkpoint of the same name is
    /// replaced.
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
