//! Reading a checkpoint: every file is checked against the manifest before it is used.

use std::borrow::Cow;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use tritforge_config::ModelConfig;
use tritforge_support::counted;
use tritforge_ternary::{
    FloatType, Granularity, Scales, TernaryTensor, check_finite, check_finite_bytes, unpack_stripes,
};

use crate::manifest::{Digest, Entry, Manifest};
use crate::{CONFIG, CheckpointError, MANIFEST, MODEL, manifest, mmap};

/// A whole checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    manifest: Manifest,
}

impl Checkpoint {
    /// Opens a checkpoint: its manifest must be there and every file must have the length it lists. Contents
    /// are checked when a file is read.
    ///
    /// # Errors
    /// If the directory is no checkpoint, or a file is missing or has another length.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        if !dir.is_dir() {
            return Err(CheckpointError::damaged(dir, "no such directory: expected a checkpoint"));
        }
        let manifest = Manifest::read(dir)?;
        for (name, entry) in &manifest.files {
            let path = dir.join(name);
            let found = fs::metadata(&path).map_err(CheckpointError::io(&path, "find"))?.len();
            if found != entry.bytes {
                return Err(CheckpointError::damaged(
                    &path,
                    format!(
                        "{found}, but the manifest says {}: the file is damaged",
                        entry.bytes,
                        found = counted(found, "byte")
                    ),
                ));
            }
        }
        Ok(Self { dir: dir.to_path_buf(), manifest })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What tells this checkpoint from others: a SHA-256 of its manifest, which has those of all its files.
    ///
    /// # Errors
    /// If the manifest cannot be read.
    pub fn fingerprint(&self) -> Result<String, CheckpointError> {
        let path = self.dir.join(MANIFEST);
        let manifest = fs::read(&path).map_err(CheckpointError::io(&path, "read"))?;
        Ok(manifest::fingerprint(&manifest))
    }

    /// Names of all files but the manifest, with their lengths in bytes.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.manifest.files.iter().map(|(name, entry)| (name.as_str(), entry.bytes))
    }

    /// Whether the checkpoint has a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.manifest.files.contains_key(name)
    }

    /// The model's configuration.
    ///
    /// # Errors
    /// If `config.json` is missing, damaged, or describes no possible model.
    pub fn config(&self) -> Result<ModelConfig, CheckpointError> {
        let path = self.dir.join(CONFIG);
        let bytes = self.file(CONFIG)?;
        let text = std::str::from_utf8(&bytes).map_err(|e| CheckpointError::damaged(&path, e.to_string()))?;
        ModelConfig::from_json(text).map_err(|source| CheckpointError::Config { path, source })
    }

    /// The bytes of one file, checked against the manifest.
    ///
    /// # Errors
    /// If the file is not listed, missing, or its checksum differs.
    pub fn file(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let path = self.dir.join(name);
        let entry = self.entry(name)?;
        let bytes = fs::read(&path).map_err(CheckpointError::io(&path, "read"))?;
        check(&path, &Entry::of(&bytes), entry)?;
        Ok(bytes)
    }

    /// The tensors of one safetensors file, memory-mapped and checked against the manifest.
    ///
    /// # Errors
    /// If the file is not listed, missing, damaged, or no safetensors file.
    pub fn tensors(&self, name: &str) -> Result<Tensors, CheckpointError> {
        self.check_file(name)?;
        Tensors::open(&self.dir.join(name))
    }

    /// The weights of the model, as [`Checkpoint::tensors`] of [`MODEL`].
    ///
    /// # Errors
    /// As [`Checkpoint::tensors`], or if there is a tensor that the configuration has no place for.
    pub fn model_tensors(&self) -> Result<Tensors, CheckpointError> {
        let (tensors, config) = (self.tensors(MODEL)?, self.config()?);
        match tensors.list()?.into_iter().find(|(name, ..)| !config.has_tensor(name)) {
            None => Ok(tensors),
            Some((name, ..)) => {
                Err(tensors.fault(&name, "not part of the model that config.json describes".to_string()))
            }
        }
    }

    /// Checks one file against the manifest. It is read in pieces: a file of many gigabytes takes no memory.
    ///
    /// # Errors
    /// If the file is not listed, missing, or its checksum differs.
    pub fn check_file(&self, name: &str) -> Result<(), CheckpointError> {
        const PIECE: usize = 1 << 20;
        let path = self.dir.join(name);
        let entry = self.entry(name)?;
        let mut file = fs::File::open(&path).map_err(CheckpointError::io(&path, "open"))?;
        let (mut digest, mut piece) = (Digest::default(), vec![0u8; PIECE]);
        loop {
            match file.read(&mut piece).map_err(CheckpointError::io(&path, "read"))? {
                0 => return check(&path, &digest.finish(), entry),
                n => digest.update(&piece[..n]),
            }
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry, CheckpointError> {
        self.manifest
            .files
            .get(name)
            .ok_or_else(|| CheckpointError::damaged(&self.dir, format!("the checkpoint has no {name}")))
    }
}

fn check(path: &Path, found: &Entry, expected: &Entry) -> Result<(), CheckpointError> {
    if found == expected {
        return Ok(());
    }
    Err(CheckpointError::damaged(
        path,
        format!("SHA-256 {}, but the manifest says {}: the file is damaged", found.sha256, expected.sha256),
    ))
}

/// A memory-mapped safetensors file.
#[derive(Debug)]
pub struct Tensors {
    path: PathBuf,
    map: Mmap,
}

impl Tensors {
    /// Maps a safetensors file and checks its header.
    ///
    /// # Errors
    /// If the file cannot be mapped or is no safetensors file.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let map = mmap::map(path)?.ok_or_else(|| CheckpointError::damaged(path, "the file is empty"))?;
        SafeTensors::deserialize(&map)
            .map_err(|e| CheckpointError::damaged(path, format!("not a complete safetensors file: {e}")))?;
        Ok(Self { path: path.to_path_buf(), map })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn parsed(&self) -> Result<SafeTensors<'_>, CheckpointError> {
        SafeTensors::deserialize(&self.map).map_err(|e| CheckpointError::damaged(&self.path, e.to_string()))
    }

    /// Names, shapes and type names of all tensors, sorted by name.
    ///
    /// # Errors
    /// If the file changed since it was opened.
    pub fn list(&self) -> Result<Vec<(String, Vec<usize>, String)>, CheckpointError> {
        let parsed = self.parsed()?;
        let mut list: Vec<_> = parsed
            .iter()
            .map(|(name, view)| (name.to_string(), view.shape().to_vec(), format!("{:?}", view.dtype())))
            .collect();
        list.sort();
        Ok(list)
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.parsed().is_ok_and(|parsed| parsed.tensor(name).is_ok())
    }

    /// Type, shape and bytes of a tensor.
    ///
    /// # Errors
    /// If it is missing.
    pub fn raw(&self, name: &str) -> Result<(Dtype, Vec<usize>, &[u8]), CheckpointError> {
        let parsed = self.parsed()?;
        let view = parsed.tensor(name).map_err(|e| self.fault(name, e.to_string()))?;
        // Borrow from the map itself, which outlives the parsed header.
        let bytes = view.data();
        let start = bytes.as_ptr() as usize - self.map.as_ptr() as usize;
        Ok((view.dtype(), view.shape().to_vec(), &self.map[start..start + bytes.len()]))
    }

    /// Lets the system take back the memory pages of a tensor that has been copied elsewhere. It can still be
    /// read, from the file again.
    pub fn release(&self, name: &str) {
        if let Ok((_, _, bytes)) = self.raw(name) {
            mmap::release(&self.map, bytes.as_ptr() as usize - self.map.as_ptr() as usize, bytes.len());
        }
    }

    /// Codes and scales of a ternary tensor [rows, cols] that is stored as such: packed uint8 in four stripes
    /// of rows, and `<name>_scale`, F32, which **multiplies**: `[1]`, one a row `[rows]`, or one a group of inputs
    /// [rows, groups]. None if the tensor is stored as numbers.
    ///
    /// # Errors
    /// If the tensor is missing, its shape is another, a code is not ternary, or the scale is missing or no
    /// positive number.
    pub fn ternary(
        &self,
        name: &str,
        [rows, cols]: [usize; 2],
    ) -> Result<Option<TernaryTensor>, CheckpointError> {
        let (dtype, found, bytes) = self.raw(name)?;
        if dtype != Dtype::U8 {
            return Ok(None);
        }
        if found != [rows.div_ceil(4), cols] {
            let message = format!("packed shape {found:?}, expected {:?}", [rows.div_ceil(4), cols]);
            return Err(self.fault(name, message));
        }
        let scale_name = format!("{name}_scale");
        let (_, shape, _) = self.raw(&scale_name)?;
        let granularity = Granularity::of_shape(&shape, [rows, cols])
            .map_err(|e| self.fault(&scale_name, e.to_string()))?;
        let scales = Scales::new(granularity, [rows, cols], self.f32(&scale_name, &shape)?.into_owned())
            .map_err(|e| self.fault(&scale_name, e.to_string()))?;
        let tensor = unpack_stripes(bytes, rows, cols)
            .and_then(|codes| TernaryTensor::from_codes(codes, rows, cols, scales))
            .map_err(|e| self.fault(name, e.to_string()))?;
        Ok(Some(tensor))
    }

    /// The values of an f32, bf16 or f16 tensor of the given shape, row-major, or those of a packed ternary
    /// one ([`Tensors::ternary`]): code · scale. Borrowed where type and alignment allow.
    ///
    /// # Errors
    /// If the tensor is missing, of another type, or of another shape, or if a number is NaN or infinite.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>, CheckpointError> {
        let values = self.f32_as_stored(name, shape)?;
        check_finite(&values, columns(shape)).map_err(|e| self.fault(name, e.to_string()))?;
        Ok(values)
    }

    /// [`Tensors::f32`] without a look at the numbers: NaN and infinity are what they are.
    ///
    /// # Errors
    /// If the tensor is missing, of another type, or of another shape.
    pub fn f32_as_stored(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>, CheckpointError> {
        if let [rows, cols] = *shape
            && let Some(tensor) = self.ternary(name, [rows, cols])?
        {
            return Ok(Cow::Owned(tensor.values()));
        }
        let (dtype, bytes) = self.find(name, shape)?;
        match dtype {
            Dtype::F32 => Ok(match bytemuck::try_cast_slice(bytes) {
                Ok(values) => Cow::Borrowed(values),
                Err(_) => Cow::Owned(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            }),
            Dtype::BF16 => {
                let widen = |b: &[u8; 2]| bf16::from_le_bytes(*b).to_f32();
                Ok(Cow::Owned(bytes.as_chunks().0.iter().map(widen).collect()))
            }
            Dtype::F16 => {
                let widen = |b: &[u8; 2]| f16::from_le_bytes(*b).to_f32();
                Ok(Cow::Owned(bytes.as_chunks().0.iter().map(widen).collect()))
            }
            other => Err(self.fault(name, format!("type {other:?}, expected F32, BF16 or F16"))),
        }
    }

    /// The values of a bf16 tensor of the given shape, row-major.
    ///
    /// # Errors
    /// If the tensor is missing, not BF16, or of another shape, or if a number is NaN or infinite.
    pub fn bf16(&self, name: &str, shape: &[usize]) -> Result<Vec<bf16>, CheckpointError> {
        match self.find(name, shape)? {
            (Dtype::BF16, bytes) => {
                check_finite_bytes(FloatType::Bf16, bytes, columns(shape))
                    .map_err(|e| self.fault(name, e.to_string()))?;
                Ok(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b)).collect())
            }
            (other, _) => Err(self.fault(name, format!("type {other:?}, expected BF16"))),
        }
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<(Dtype, &[u8]), CheckpointError> {
        let (dtype, found, bytes) = self.raw(name)?;
        if found != shape {
            return Err(self.fault(name, format!("shape {found:?}, expected {shape:?}")));
        }
        Ok((dtype, bytes))
    }

    pub(crate) fn fault(&self, tensor: &str, message: String) -> CheckpointError {
        CheckpointError::Tensor { path: self.path.clone(), tensor: tensor.to_string(), message }
    }
}

/// The width of a tensor's rows, all dimensions but the first; a vector is one row.
pub(crate) fn columns(shape: &[usize]) -> usize {
    if shape.len() > 1 { shape[1..].iter().product() } else { shape.iter().product() }
}
