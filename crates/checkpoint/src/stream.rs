//! A safetensors file written one tensor at a time: names, types and shapes are known first, the numbers come
//! later, so that no more than one tensor is ever in memory.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tritforge_support::counted;
use tritforge_ternary::{FloatType, check_finite_bytes};

use crate::CheckpointError;
use crate::manifest::{Digest, Entry};
use crate::reader::columns;

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TensorType {
    /// 4 bytes a number.
    F32,
    /// 2 bytes a number.
    Bf16,
    /// A byte: four packed codes of a ternary weight.
    U8,
}

impl TensorType {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            TensorType::F32 => 4,
            TensorType::Bf16 => 2,
            TensorType::U8 => 1,
        }
    }

    /// The name in the file's header.
    fn name(self) -> &'static str {
        match self {
            TensorType::F32 => "F32",
            TensorType::Bf16 => "BF16",
            TensorType::U8 => "U8",
        }
    }
}

/// A tensor that a file is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// The type of its numbers.
    pub ty: TensorType,
}

impl TensorSpec {
    fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.ty.size(), |bytes, dimension| bytes.checked_mul(*dimension))
    }
}

/// A safetensors file being written.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    digest: Digest,
    specs: Vec<TensorSpec>,
    written: usize,
}

impl TensorFile {
    /// Starts a file that holds these tensors; [`TensorFile::specs`] has them in the order in which they must
    /// be written.
    ///
    /// # Errors
    /// If two tensors have one name, a size overflows, or the file cannot be created.
    pub fn create(path: &Path, mut specs: Vec<TensorSpec>) -> Result<Self, CheckpointError> {
        let fault = |tensor: &str, message: &str| CheckpointError::Tensor {
            path: path.to_path_buf(),
            tensor: tensor.to_string(),
            message: message.to_string(),
        };
        // The format asks for no gaps and no misaligned tensors: wide types first, then by name.
        specs.sort_by(|a, b| (a.ty, &a.name).cmp(&(b.ty, &b.name)));
        let mut header = serde_json::Map::new();
        // What `transformers` asks of a file before it loads it.
        header.insert("__metadata__".to_string(), serde_json::json!({"format": "pt"}));
        let mut end = 0usize;
        for spec in &specs {
            let start = end;
            let bytes = spec.bytes().and_then(|bytes| end.checked_add(bytes));
            end = bytes.ok_or_else(|| fault(&spec.name, "larger than this machine can address"))?;
            let entry = serde_json::json!({
                "dtype": spec.ty.name(), "shape": spec.shape, "data_offsets": [start, end],
            });
            if header.insert(spec.name.clone(), entry).is_some() {
                return Err(fault(&spec.name, "two tensors with this name"));
            }
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let file = File::create(path).map_err(CheckpointError::io(path, "create"))?;
        let mut this = Self { path: path.to_path_buf(), file, digest: Digest::default(), specs, written: 0 };
        this.put(&(header.len() as u64).to_le_bytes())?;
        this.put(&header)?;
        Ok(this)
    }

    /// The tensors, in the order in which they must be written.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Writes the next tensor, its numbers row-major and little endian.
    ///
    /// # Errors
    /// If it is not this one's turn, the number of bytes is wrong, a number is NaN or infinite, or the disk
    /// is full.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let next = self.specs.get(self.written);
        let right = next.is_some_and(|spec| spec.name == name && spec.bytes() == Some(bytes.len()));
        if !right {
            let expected = next.map_or("no more tensors".to_string(), |spec| {
                format!("{} of {} bytes", spec.name, spec.bytes().unwrap_or_default())
            });
            let message = format!("{}, expected {expected}", counted(bytes.len(), "byte"));
            return Err(CheckpointError::Tensor {
                path: self.path.clone(),
                tensor: name.to_string(),
                message,
            });
        }
        let found = next.map_or(Ok(()), |spec| match spec.ty {
            TensorType::F32 => check_finite_bytes(FloatType::F32, bytes, columns(&spec.shape)),
            TensorType::Bf16 => check_finite_bytes(FloatType::Bf16, bytes, columns(&spec.shape)),
            TensorType::U8 => Ok(()),
        });
        found.map_err(|e| CheckpointError::Tensor {
            path: self.path.clone(),
            tensor: name.to_string(),
            message: e.to_string(),
        })?;
        self.put(bytes)?;
        self.written += 1;
        Ok(())
    }

    /// [`TensorFile::write`] of an f32 tensor's numbers, row-major.
    ///
    /// # Errors
    /// As there.
    pub fn write_f32(&mut self, name: &str, values: &[f32]) -> Result<(), CheckpointError> {
        if cfg!(target_endian = "little") {
            return self.write(name, bytemuck::cast_slice(values));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(name, &bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.digest.update(bytes);
        self.file.write_all(bytes).map_err(CheckpointError::io(&self.path, "write"))
    }

    /// Syncs the file.
    ///
    /// # Errors
    /// If a tensor is missing, or the disk refuses.
    pub fn finish(self) -> Result<(), CheckpointError> {
        self.close().map(|_| ())
    }

    pub(crate) fn close(self) -> Result<Entry, CheckpointError> {
        if let Some(spec) = self.specs.get(self.written) {
            let message = "the file is truncated".to_string();
            return Err(CheckpointError::Tensor { path: self.path, tensor: spec.name.clone(), message });
        }
        self.file.sync_all().map_err(CheckpointError::io(&self.path, "sync"))?;
        Ok(self.digest.finish())
    }
}
