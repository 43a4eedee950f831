//! A GGUF file opened for reading: its metadata, its list of tensors, and their bytes in place.

use std::{
    fmt,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use crate::{error::Error, metadata::Metadata, mmap, parse, types::GgmlType};

/// One tensor of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// The name, such as `blk.0.attn_q.weight`. Unique in its file.
    pub name: String,
    /// The dimensions, innermost first: a weight matrix is `[columns, rows]`. At most 4; none for a scalar.
    pub dims: Vec<u64>,
    /// How the weights are encoded.
    pub ty: GgmlType,
    /// Where the data begins, in bytes from the start of the data section ([`Gguf::data_offset`]).
    pub offset: u64,
    /// The bytes of the data, as [`GgmlType::nbytes`] counts them.
    pub nbytes: u64,
}

impl TensorInfo {
    /// The number of weights: the product of the dimensions. Reader and writer have checked that it fits.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }
}

/// The bytes of a file: mapped or owned.
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

/// A GGUF file, checked as a whole when it is opened: afterwards every tensor's bytes are there.
pub struct Gguf {
    bytes: Bytes,
    header: parse::Header,
}

impl Gguf {
    /// Opens a file by mapping it into memory. Tensor data is read from disk when it is used.
    ///
    /// The file must not be changed in place or cut short while it is open: a process that reads a vanished
    /// page is killed by the system. Replacing it by renaming another file over it, as [`Writer`](crate::Writer)
    /// does, is safe.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened or mapped; [`Error::Parse`] when it is not a valid GGUF file.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf, Error> {
        let path = path.as_ref();
        let failed = |action, source| Error::Io { action, path: PathBuf::from(path), source };
        let file = File::open(path).map_err(|e| failed("open", e))?;
        let status = file.metadata().map_err(|e| failed("read the size of", e))?;
        if !status.is_file() {
            let why = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(failed("map into memory", why));
        }
        let bytes = match status.len() {
            // An empty file cannot be mapped on every system; the parser says what is wrong with it.
            0 => Bytes::Owned(Vec::new()),
            _ => Bytes::Mapped(mmap::map(&file).map_err(|e| failed("map into memory", e))?),
        };
        Self::parse(bytes, || path.display().to_string())
    }

    /// Reads a file from its bytes.
    ///
    /// # Errors
    /// [`Error::Parse`] when they are not a valid GGUF file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Gguf, Error> {
        Self::parse(Bytes::Owned(bytes), || "in-memory GGUF".to_owned())
    }

    fn parse(bytes: Bytes, file: impl FnOnce() -> String) -> Result<Gguf, Error> {
        match parse::header(bytes.as_slice()) {
            Ok(header) => Ok(Gguf { bytes, header }),
            Err(fault) => Err(fault.in_file(file())),
        }
    }

    /// The metadata, in the order of the file.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// The tensor with this name. Walks the list: files have some hundred tensors, each looked up once.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors().iter().find(|tensor| tensor.name == name)
    }

    /// The bytes of one of this file's tensors, without the padding after them.
    ///
    /// # Panics
    /// When `tensor` is of another file and lies outside this one. The tensors of this file never do.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.bytes.as_slice()[self.range(tensor)]
    }

    /// Lets the system take back the memory pages of one tensor, after its bytes have been copied elsewhere. They can
    /// still be read, from the file again.
    ///
    /// # Panics
    /// As [`Gguf::data`].
    pub fn release(&self, tensor: &TensorInfo) {
        let range = self.range(tensor);
        if let Bytes::Mapped(map) = &self.bytes {
            mmap::release(map, range);
        }
    }

    fn range(&self, tensor: &TensorInfo) -> Range<usize> {
        let within = || {
            let start = self.data_offset().checked_add(tensor.offset)?;
            let end = usize::try_from(start.checked_add(tensor.nbytes)?).ok()?;
            (end <= self.bytes.as_slice().len()).then_some(usize::try_from(start).ok()?..end)
        };
        within().unwrap_or_else(|| panic!("tensor `{}` is not one of this file", tensor.name))
    }

    /// The format version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// The alignment of the tensors' data, in bytes.
    pub fn alignment(&self) -> u64 {
        self.header.alignment
    }

    /// Where the data section begins, in bytes from the start of the file.
    pub fn data_offset(&self) -> u64 {
        self.header.data_offset
    }

    /// The size of the file in bytes.
    pub fn file_size(&self) -> u64 {
        self.bytes.as_slice().len() as u64
    }
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.version())
            .field("keys", &self.metadata().len())
            .field("tensors", &self.tensors().len())
            .field("file_size", &self.file_size())
            .finish_non_exhaustive()
    }
}
