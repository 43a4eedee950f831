//! A GGUF file opened for reading: its metadata, its list of tensors, and their bytes in place.

use std::{
    fmt,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use crate::{error::Error, metadata::Metadata, mmap, overrides::Override, parse, split, types::GgmlType};

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
    /// Which file of a split model has the data, counted from 0 as in `split.no`; 0 for a model in one file.
    pub part: u16,
}

impl TensorInfo {
    /// The number of weights: the product of the dimensions. Reader and writer have checked that it fits.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }
}

/// What errors call a file that has no path.
const IN_MEMORY: &str = "in-memory GGUF";

/// The bytes of a file: mapped or owned.
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

/// One file of a model.
struct Part {
    path: Option<PathBuf>,
    bytes: Bytes,
    data_offset: u64,
}

/// A GGUF file, or all files of a split model, checked as a whole when opened: afterwards every tensor's
/// bytes are there.
pub struct Gguf {
    parts: Vec<Part>,
    /// That of the first file, with the tensors of all.
    header: parse::Header,
}

impl Gguf {
    /// Opens a file by mapping it into memory. Tensor data is read from disk when it is used. If the file is
    /// the first of a split model (`split.count` > 1), the others are opened too: they lie beside it, as
    /// `NAME-00002-of-00003.gguf`.
    ///
    /// The files must not be changed in place or cut short while they are open: a process that reads a
    /// vanished page is killed by the system. Replacing one by renaming another file over it, as
    /// [`Writer`](crate::Writer) does, is safe.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be opened or mapped; [`Error::Parse`] when one is not a valid GGUF
    /// file; [`Error::Split`] when a file is a later part of a split model, or the parts do not belong
    /// together.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf, Error> {
        Self::open_with(path, &[])
    }

    /// Opens a file as [`Gguf::open`] does and sets or replaces keys of its metadata.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn open_with(path: impl AsRef<Path>, overrides: &[Override]) -> Result<Gguf, Error> {
        let path = path.as_ref();
        let mut model = Self::open_one(path)?;
        for path in split::others(&model.header, path)? {
            let part = Self::open_one(&path)?;
            split::join(&mut model.header, &part.header, model.parts.len(), &path)?;
            model.parts.extend(part.parts);
        }
        split::check_whole(&model.header, path)?;
        for Override { key, value } in overrides {
            model.header.metadata.insert(key.as_str(), value.clone());
        }
        Ok(model)
    }

    /// Opens one file, whatever it says about others.
    fn open_one(path: &Path) -> Result<Gguf, Error> {
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
        Self::parse(bytes, Some(path))
    }

    /// Reads a file from its bytes.
    ///
    /// # Errors
    /// [`Error::Parse`] when they are not a valid GGUF file; [`Error::Split`] when they are one part of
    /// several.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Gguf, Error> {
        let model = Self::parse(Bytes::Owned(bytes), None)?;
        split::check_single(&model.header, IN_MEMORY)?;
        Ok(model)
    }

    fn parse(bytes: Bytes, path: Option<&Path>) -> Result<Gguf, Error> {
        match parse::header(bytes.as_slice()) {
            Ok(header) => {
                let part = Part { path: path.map(PathBuf::from), bytes, data_offset: header.data_offset };
                Ok(Gguf { parts: vec![part], header })
            }
            Err(fault) => Err(fault.in_file(path.map_or(IN_MEMORY.to_owned(), |p| p.display().to_string()))),
        }
    }

    /// The files: one, or all parts of a split model in their order. None for a model in memory.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().filter_map(|part| part.path.as_deref())
    }

    /// The number of files of the model.
    pub fn part_count(&self) -> usize {
        self.parts.len()
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
        let (part, range) = self.place(tensor);
        &part.bytes.as_slice()[range]
    }

    /// Lets the system take back the memory pages of one tensor, after its bytes have been copied elsewhere.
    /// They can still be read, from the file again.
    ///
    /// # Panics
    /// As [`Gguf::data`].
    pub fn release(&self, tensor: &TensorInfo) {
        let (part, range) = self.place(tensor);
        if let Bytes::Mapped(map) = &part.bytes {
            mmap::release(map, range);
        }
    }

    fn place(&self, tensor: &TensorInfo) -> (&Part, Range<usize>) {
        let within = || {
            let part = self.parts.get(usize::from(tensor.part))?;
            let start = part.data_offset.checked_add(tensor.offset)?;
            let end = usize::try_from(start.checked_add(tensor.nbytes)?).ok()?;
            (end <= part.bytes.as_slice().len()).then_some((part, usize::try_from(start).ok()?..end))
        };
        within().unwrap_or_else(|| panic!("tensor `{}` does not belong to this file", tensor.name))
    }

    /// The format version: 2 or 3. Of a split model this is the first file's, as are the next two.
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

    /// The size of the file, or of all files of a split model together, in bytes.
    pub fn file_size(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes.as_slice().len() as u64).sum()
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
