//! Compressed files: told by their first bytes, decompressed as a stream, and never without a bound.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::DataError;

/// Extensions that compression programs put behind a file's own.
pub(crate) const EXTENSIONS: [&str; 8] = ["gz", "zst", "bz2", "xz", "lzma", "lz4", "zip", "7z"];

/// First bytes of compressed files that are not read, and what they are called.
const REFUSED: [(&[u8], &str); 5] = [
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x04\x22\x4d\x18", "LZ4"),
    (b"PK\x03\x04", "ZIP"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
];
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// A file may become this many times as long as it is on the disk: DEFLATE cannot do more than 1032, and real
/// text stays below 100.
const MOST_TIMES: u64 = 2000;
/// Bytes that any compressed file may become.
const ALWAYS: u64 = 64 << 20;
const BUFFER: usize = 1 << 18;

/// Opens a file; gzip and Zstandard are decompressed, whatever the file's name.
///
/// # Errors
/// If it cannot be read, or is compressed in another way.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>, DataError> {
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    let length = file.metadata().map_err(DataError::io(path, "read"))?.len();
    stream(path, file, length)
}

/// Like [`open`] for `length` bytes that anything else gives; `path` names them in messages.
pub(crate) fn stream(
    path: &Path,
    mut file: impl Read + 'static,
    length: u64,
) -> Result<Box<dyn Read>, DataError> {
    let mut first = Vec::new();
    (&mut file).take(8).read_to_end(&mut first).map_err(DataError::io(path, "read"))?;
    if let Some((_, name)) = REFUSED.iter().find(|(magic, _)| first.starts_with(magic)) {
        return Err(DataError::Compressed { path: path.to_path_buf(), name });
    }
    let (gzip, zstd) = (first.starts_with(GZIP), first.starts_with(ZSTD));
    if !gzip && !zstd {
        return Ok(Box::new(Cursor::new(first).chain(file)));
    }
    let bytes = BufReader::with_capacity(BUFFER, Cursor::new(first).chain(file));
    let (inner, name): (Box<dyn Read>, _) = if gzip {
        (Box::new(MultiGzDecoder::new(bytes)), "gzip")
    } else {
        (Box::new(zstd::Decoder::with_buffer(bytes).map_err(DataError::io(path, "decompress"))?), "Zstandard")
    };
    Ok(Box::new(Bounded { inner, name, left: ALWAYS.saturating_add(length.saturating_mul(MOST_TIMES)) }))
}

/// What a decompressor gives, up to a bound; its errors say what failed.
struct Bounded {
    inner: Box<dyn Read>,
    name: &'static str,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let name = self.name;
        let read = self.inner.read(buffer).map_err(|error| {
            io::Error::new(error.kind(), format!("the {name} data is damaged or cut short: {error}"))
        })?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!(
                "the {name} data expands to more than {MOST_TIMES} times the file's size, like a \
                 decompression bomb; if the file is valid, decompress it first"
            ))
        })?;
        Ok(read)
    }
}
