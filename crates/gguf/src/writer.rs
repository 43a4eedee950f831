//! Writing a file front to back: the header first, then each tensor's data as it comes.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use tritforge_support::counted;

use crate::{
    encode,
    error::{Error, Quoted},
    format,
    metadata::Metadata,
    reader::TensorInfo,
    types::GgmlType,
    value::Described,
};

/// The most bytes of a tensor name that every runtime loads: `ggml` keeps names in 64 bytes with a zero at
/// the end.
const MAX_PORTABLE_NAME: usize = 63;

/// A tensor that is going to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorSpec {
    /// The name; at most 63 bytes, unique in the file.
    pub name: String,
    /// The dimensions, innermost first; at most 4.
    pub dims: Vec<u64>,
    /// How the weights are encoded.
    pub ty: GgmlType,
}

/// Writes a GGUF file of version 3, one tensor in memory at a time.
///
/// Everything goes to a temporary file beside the target, which [`Writer::finish`] renames to it: the target
/// is either the old file or the whole new one. A writer that is dropped before removes the temporary file.
#[derive(Debug)]
pub struct Writer {
    out: BufWriter<File>,
    path: PathBuf,
    temporary: PathBuf,
    tensors: Vec<TensorInfo>,
    alignment: u64,
    /// The index of the tensor whose data comes next.
    next: usize,
    finished: bool,
}

impl Writer {
    /// Starts a file: checks the whole header and writes it. The alignment is `general.alignment` of the
    /// metadata, 32 when it has none.
    ///
    /// # Errors
    /// [`Error::Write`] when a key, the alignment, a tensor name or the number of dimensions may not stand in
    /// a file; [`Error::Shape`] when a type cannot store the dimensions; [`Error::Io`].
    pub fn create(
        path: impl AsRef<Path>,
        metadata: &Metadata,
        tensors: Vec<TensorSpec>,
    ) -> Result<Writer, Error> {
        let path = path.as_ref();
        let alignment = check_metadata(path, metadata)?;
        let tensors = place(path, tensors, alignment)?;
        let header = encode::header(metadata, &tensors);
        let temporary = temporary_beside(path)?;
        let file = File::create_new(&temporary).map_err(|source| Error::Io {
            action: "create",
            path: temporary.clone(),
            source,
        })?;
        let out = BufWriter::new(file);
        let path = path.to_owned();
        let mut writer = Writer { out, path, temporary, tensors, alignment, next: 0, finished: false };
        writer.write_padded(&header)?;
        Ok(writer)
    }

    /// The tensor whose data comes next, with its size; `None` when all are written.
    pub fn next_tensor(&self) -> Option<&TensorInfo> {
        self.tensors.get(self.next)
    }

    /// Writes the data of the next tensor, in the order in which they were declared.
    ///
    /// # Errors
    /// [`Error::Write`] when another tensor comes next or the length is not that of its type and dimensions;
    /// [`Error::Io`].
    pub fn write_tensor(&mut self, name: &str, data: &[u8]) -> Result<(), Error> {
        let Some(tensor) = self.next_tensor() else {
            let expected = "Writer::finish: all declared tensors are written".to_owned();
            return Err(refused(&self.path, format!("tensor {}", Quoted(name)), "its data", expected));
        };
        if tensor.name != name {
            let expected = format!("tensor {} (declared order)", Quoted(&tensor.name));
            return Err(refused(&self.path, "tensor data".into(), Quoted(name), expected));
        }
        if data.len() as u64 != tensor.nbytes {
            let expected = format!("{} ({} {:?})", counted(tensor.nbytes, "byte"), tensor.ty, tensor.dims);
            let found = counted(data.len(), "byte").to_string();
            return Err(refused(&self.path, format!("tensor {}", Quoted(name)), found, expected));
        }
        self.write_padded(data)?;
        self.next += 1;
        Ok(())
    }

    /// Syncs the file to disk and gives it its name.
    ///
    /// # Errors
    /// [`Error::Write`] when the data of a declared tensor is missing; [`Error::Io`]. The target is then as
    /// it was.
    pub fn finish(mut self) -> Result<(), Error> {
        if let Some(tensor) = self.next_tensor() {
            let found = format!("{} of {} written", self.next, counted(self.tensors.len(), "tensor"));
            let item = format!("tensor {}", Quoted(&tensor.name));
            return Err(refused(&self.path, item, found, "the data of every declared tensor".into()));
        }
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action, path, source }
        };
        self.out.flush().map_err(io("write", &self.temporary))?;
        self.out.get_ref().sync_all().map_err(io("sync", &self.temporary))?;
        fs::rename(&self.temporary, &self.path).map_err(io("rename a temporary file to", &self.path))?;
        self.finished = true;
        // The rename itself is on disk only when the directory is. Windows cannot open directories as files.
        if cfg!(unix) {
            let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent).and_then(|dir| dir.sync_all()).map_err(io("sync the directory", parent))?;
        }
        Ok(())
    }

    /// Writes bytes and zeros up to the next multiple of the alignment. Everything written so far ended at
    /// one.
    fn write_padded(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let length = bytes.len() as u64;
        let padding = length.next_multiple_of(self.alignment) - length;
        let written = self.out.write_all(bytes).and_then(|()| {
            io::copy(&mut io::repeat(0).take(padding), &mut self.out)?;
            Ok(())
        });
        written.map_err(|source| Error::Io { action: "write", path: self.temporary.clone(), source })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing can be done, or reported, if this fails: the file has a name that nobody reads.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn refused(path: &Path, item: String, found: impl std::fmt::Display, expected: String) -> Error {
    Error::Write { path: path.to_owned(), item, found: found.to_string(), expected }
}

/// Checks the keys and returns the alignment.
fn check_metadata(path: &Path, metadata: &Metadata) -> Result<u64, Error> {
    if let Some((key, _)) = metadata.iter().find(|(key, _)| key.len() as u64 > format::MAX_KEY) {
        let item = format!("metadata key {}", Quoted(key));
        let found = counted(key.len(), "byte").to_string();
        return Err(refused(path, item, found, format!("at most {} bytes", format::MAX_KEY)));
    }
    match metadata.get(format::ALIGNMENT_KEY) {
        None => Ok(format::DEFAULT_ALIGNMENT),
        Some(value) => format::alignment(value).ok_or_else(|| {
            let item = format!("metadata key `{}`", format::ALIGNMENT_KEY);
            refused(path, item, Described(value), format::ALIGNMENT_EXPECTED.into())
        }),
    }
}

/// Checks the tensors and gives each its place, one after the other.
fn place(path: &Path, tensors: Vec<TensorSpec>, alignment: u64) -> Result<Vec<TensorInfo>, Error> {
    let mut names = HashSet::new();
    let mut end = 0u64;
    let mut placed = Vec::with_capacity(tensors.len());
    for TensorSpec { name, dims, ty } in tensors {
        let item = || format!("tensor {}", Quoted(&name));
        if name.len() > MAX_PORTABLE_NAME {
            let found = format!("a name of {}", counted(name.len(), "byte"));
            return Err(refused(path, item(), found, format!("at most {MAX_PORTABLE_NAME} bytes")));
        }
        if !names.insert(name.clone()) {
            return Err(refused(path, item(), "the name a second time", "each name once".into()));
        }
        if dims.len() > format::MAX_DIMS as usize {
            let found = counted(dims.len(), "dimension").to_string();
            return Err(refused(path, item(), found, format!("at most {}", format::MAX_DIMS)));
        }
        let nbytes = ty.nbytes(&dims)?;
        let offset = end;
        end =
            offset.checked_add(nbytes).and_then(|end| format::align_up(end, alignment)).ok_or_else(|| {
                refused(path, item(), format!("{nbytes} bytes"), "a file whose size fits 64 bits".into())
            })?;
        placed.push(TensorInfo { name, dims, ty, offset, nbytes, part: 0 });
    }
    Ok(placed)
}

/// A name beside the target (a rename does not cross file systems) that no other writer of this machine uses.
fn temporary_beside(path: &Path) -> Result<PathBuf, Error> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let Some(target) = path.file_name() else {
        return Err(refused(path, "path".into(), "no file name", "the path of a file".into()));
    };
    let mut name = std::ffi::OsString::from(".");
    name.push(target);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}.{unique}.tmp", std::process::id()));
    Ok(path.with_file_name(name))
}
