//! Writing a checkpoint: temporary name, sync, rename.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView as View};
use tritforge_config::ModelConfig;

use crate::manifest::{Digest, Entry, Manifest, VERSION};
use crate::{CONFIG, CheckpointError, MANIFEST};

/// A tensor to be written, row-major.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    name: &'a str,
    shape: &'a [usize],
    data: Numbers<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Numbers<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl<'a> TensorView<'a> {
    /// An f32 tensor of `shape`.
    pub fn new(name: &'a str, shape: &'a [usize], data: &'a [f32]) -> Self {
        Self { name, shape, data: Numbers::F32(data) }
    }

    /// A bf16 tensor of `shape`.
    pub fn bf16(name: &'a str, shape: &'a [usize], data: &'a [bf16]) -> Self {
        Self { name, shape, data: Numbers::Bf16(data) }
    }

    fn bytes(&self) -> &'a [u8] {
        match self.data {
            Numbers::F32(values) => bytemuck::cast_slice(values),
            Numbers::Bf16(values) => bytemuck::cast_slice(values),
        }
    }

    fn view(&self) -> Result<View<'a>, SafeTensorError> {
        let dtype = match self.data {
            Numbers::F32(_) => Dtype::F32,
            Numbers::Bf16(_) => Dtype::BF16,
        };
        View::new(dtype, self.shape.to_vec(), self.bytes())
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
        self.write_pieces(name, &[bytes])
    }

    /// Writes one file, given in pieces, and syncs it.
    fn write_pieces(&mut self, name: &str, pieces: &[&[u8]]) -> Result<(), CheckpointError> {
        let path = self.temporary.join(name);
        let mut file = File::create(&path).map_err(CheckpointError::io(&path, "create"))?;
        let mut digest = Digest::default();
        for piece in pieces {
            digest.update(piece);
            file.write_all(piece).map_err(CheckpointError::io(&path, "write"))?;
        }
        file.sync_all().map_err(CheckpointError::io(&path, "sync"))?;
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

    /// Writes tensors as a safetensors file, one after the other from where they are: no copy of them is made.
    ///
    /// # Errors
    /// If a shape does not fit its data, two tensors have one name, or as [`Writer::write_file`].
    pub fn write_tensors(&mut self, name: &str, tensors: &[TensorView<'_>]) -> Result<(), CheckpointError> {
        let path = self.temporary.join(name);
        let fault = |tensor: &str, message: String| CheckpointError::Tensor {
            path: path.clone(),
            tensor: tensor.to_string(),
            message,
        };
        // The format asks for no gaps and no misaligned tensors: wide types first, then by name.
        let mut sorted: Vec<&TensorView<'_>> = tensors.iter().collect();
        sorted.sort_by_key(|t| (matches!(t.data, Numbers::Bf16(_)), t.name));
        let mut header = serde_json::Map::new();
        let mut end = 0usize;
        for tensor in &sorted {
            let view = tensor.view().map_err(|e| fault(tensor.name, e.to_string()))?;
            let start = end;
            end += view.data().len();
            let entry = serde_json::json!({
                "dtype": view.dtype().to_string(), "shape": view.shape(), "data_offsets": [start, end],
            });
            if header.insert(tensor.name.to_string(), entry).is_some() {
                return Err(fault(tensor.name, "two tensors have this name".to_string()));
            }
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let length = (header.len() as u64).to_le_bytes();
        let pieces: Vec<&[u8]> =
            [&length[..], &header[..]].into_iter().chain(sorted.iter().map(|t| t.bytes())).collect();
        self.write_pieces(name, &pieces)
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
