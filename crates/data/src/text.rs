//! Text as every reader of this crate takes it: a stream of UTF-8, decompressed, without a byte order mark,
//! whose faults are named with byte and line.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::{DataError, compression};

const CHUNK: usize = 1 << 20;

/// A file as a stream of valid UTF-8 without NUL. What is wrong with the file comes as an [`io::Error`]
/// around a [`DataError`]; [`TextReader::fault`] takes it out.
pub(crate) struct TextReader {
    path: PathBuf,
    inner: Box<dyn Read>,
    /// Bytes read and not handed on: those before `valid` are checked.
    buffer: Vec<u8>,
    next: usize,
    valid: usize,
    /// Offset in the text of the buffer's first byte.
    offset: u64,
    /// Line breaks before `valid`.
    breaks: LineBreaks,
    /// Found behind `valid`: told once what is before it has been read.
    fault: Option<DataError>,
    end: bool,
}

impl TextReader {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be read, is compressed in an unknown way, or is UTF-16 or UTF-32.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        Self::new(path, compression::open(path)?)
    }

    /// A reader of bytes at hand.
    pub(crate) fn of(path: &Path, bytes: Vec<u8>) -> Result<Self, DataError> {
        let length = bytes.len() as u64;
        Self::new(path, compression::stream(path, io::Cursor::new(bytes), length)?)
    }

    fn new(path: &Path, mut inner: Box<dyn Read>) -> Result<Self, DataError> {
        let mut first = Vec::new();
        (&mut inner).take(4).read_to_end(&mut first).map_err(|e| Self::fault(path, e))?;
        let mark = |name| DataError::Encoding { path: path.to_path_buf(), name };
        match first.as_slice() {
            [0xff, 0xfe, 0, 0] | [0, 0, 0xfe, 0xff] => return Err(mark("UTF-32")),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(mark("UTF-16")),
            _ => {}
        }
        let offset = if first.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        first.drain(..offset);
        let breaks = LineBreaks::default();
        let inner: Box<dyn Read> = Box::new(io::Cursor::new(first).chain(inner));
        let (path, offset) = (path.to_path_buf(), offset as u64);
        Ok(Self {
            path,
            inner,
            buffer: Vec::new(),
            next: 0,
            valid: 0,
            offset,
            breaks,
            fault: None,
            end: false,
        })
    }

    /// The whole text of a file.
    ///
    /// # Errors
    /// As [`Self::open`]; if it is not UTF-8.
    pub(crate) fn read(path: &Path) -> Result<String, DataError> {
        let (mut reader, mut text) = (Self::open(path)?, String::new());
        reader.read_to_string(&mut text).map_err(|e| Self::fault(path, e))?;
        Ok(text)
    }

    /// The fault behind an error of a reader of `path`.
    pub(crate) fn fault(path: &Path, error: io::Error) -> DataError {
        match error.downcast::<DataError>() {
            Ok(fault) => fault,
            Err(error) => DataError::io(path, "read")(error),
        }
    }

    /// Checked bytes; none at the end.
    pub(crate) fn fill(&mut self) -> io::Result<&[u8]> {
        while self.next == self.valid {
            if let Some(fault) = self.fault.take() {
                self.end = true;
                return Err(io::Error::other(fault));
            }
            if self.end {
                break;
            }
            self.more()?;
        }
        Ok(&self.buffer[self.next..self.valid])
    }

    /// Marks bytes that [`Self::fill`] gave as read.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.next += bytes;
    }

    fn more(&mut self) -> io::Result<()> {
        self.offset += self.valid as u64;
        self.buffer.drain(..self.valid);
        let held = self.buffer.len();
        self.buffer.resize(CHUNK, 0);
        let read = loop {
            match self.inner.read(&mut self.buffer[held..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.buffer.truncate(held + read);
        self.end = read == 0;
        (self.next, self.valid) = (0, self.buffer.len());
        let error = std::str::from_utf8(&self.buffer).err();
        // A character may go on in the next chunk, unless there is none.
        let broken = error.filter(|e| self.end || e.error_len().is_some());
        if let Some(e) = error {
            self.valid = e.valid_up_to();
        }
        let nul = self.buffer[..self.valid].iter().position(|byte| *byte == 0);
        self.valid = nul.unwrap_or(self.valid);
        self.breaks.count(&self.buffer[..self.valid]);
        let (path, offset) = (self.path.clone(), (self.offset + self.valid as u64) as usize);
        let line = self.breaks.line();
        self.fault = match (nul, broken) {
            (Some(_), _) => Some(DataError::Nul { path, offset, line }),
            (None, Some(_)) => Some(DataError::NotUtf8 { path, offset, line }),
            (None, None) => None,
        };
        Ok(())
    }
}

impl Read for TextReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// Counts line breaks as editors do: LF, CRLF, or CR alone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LineBreaks {
    count: usize,
    after_cr: bool,
}

impl LineBreaks {
    /// Goes over further text.
    pub(crate) fn count(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.push(*byte);
        }
    }

    /// Goes over a byte; says whether it ends a line or the break that ended it.
    fn push(&mut self, byte: u8) -> bool {
        let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
        match byte {
            b'\r' => self.count += 1,
            b'\n' if !after_cr => self.count += 1,
            b'\n' => {}
            _ => return false,
        }
        true
    }

    /// The line of what follows, from 1.
    pub(crate) fn line(self) -> usize {
        self.count + 1
    }
}

/// Hands every line to `take` without its break, with its number from 1; `take` says whether to go on.
pub(crate) fn lines(
    path: &Path,
    mut reader: TextReader,
    take: &mut dyn FnMut(usize, &str) -> Result<bool, DataError>,
) -> Result<(), DataError> {
    let mut held: Vec<u8> = Vec::new();
    let (mut line, mut after_cr) = (1, false);
    let mut give = |line: usize, bytes: &[u8]| {
        // The reader gives whole characters, and a line break is one.
        let text = std::str::from_utf8(bytes)
            .map_err(|e| DataError::record(path, format!("line {line}"), e.to_string()))?;
        take(line, text)
    };
    loop {
        let bytes = reader.fill().map_err(|e| TextReader::fault(path, e))?;
        let Some(first) = bytes.first() else { break };
        if std::mem::take(&mut after_cr) && *first == b'\n' {
            reader.consume(1);
            continue;
        }
        match bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            None => {
                held.extend_from_slice(bytes);
                let length = bytes.len();
                reader.consume(length);
            }
            Some(at) => {
                after_cr = bytes[at] == b'\r';
                let go_on = if held.is_empty() {
                    give(line, &bytes[..at])?
                } else {
                    held.extend_from_slice(&bytes[..at]);
                    let go_on = give(line, &held)?;
                    held.clear();
                    go_on
                };
                if !go_on {
                    return Ok(());
                }
                reader.consume(at + 1);
                line += 1;
            }
        }
    }
    if !held.is_empty() {
        give(line, &held)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time.
    struct Slow(io::Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    fn split(text: &[u8], slow: bool) -> Result<Vec<(usize, String)>, String> {
        let cursor = io::Cursor::new(text.to_vec());
        let inner: Box<dyn Read> = if slow { Box::new(Slow(cursor)) } else { Box::new(cursor) };
        let path = Path::new("a.txt");
        let reader = TextReader::new(path, inner).map_err(|e| e.to_string())?;
        let mut found = Vec::new();
        lines(path, reader, &mut |line, text| {
            found.push((line, text.to_string()));
            Ok(true)
        })
        .map_err(|e| e.to_string())?;
        Ok(found)
    }

    #[test]
    fn lines_end_as_in_an_editor_however_the_bytes_arrive() {
        for slow in [false, true] {
            for end in ["\n", "\r\n", "\r"] {
                let text = format!("\u{feff}é{end}{end}zwölf{end}x");
                let expected = [(1, "é"), (2, ""), (3, "zwölf"), (4, "x")].map(|(n, t)| (n, t.to_string()));
                assert_eq!(split(text.as_bytes(), slow).unwrap(), expected, "{end:?}");
            }
            assert_eq!(split(b"", slow).unwrap(), []);
        }
    }

    #[test]
    fn other_encodings_are_refused_by_name_or_place() {
        for slow in [false, true] {
            for (text, expected) in [
                (&b"\xff\xfea\0"[..], "a.txt: UTF-16"),
                (b"\xfe\xff\0a", "a.txt: UTF-16"),
                (b"\xff\xfe\0\0", "a.txt: UTF-32"),
                (b"a\r\nb\r\ncaf\xe9 \n", "a.txt: not UTF-8 at byte 9, line 3"),
                (b"\xef\xbb\xbfa\rb\xc3", "a.txt: not UTF-8 at byte 6, line 2"),
                (b"a\n\0b\0", "a.txt: NUL at byte 2, line 2"),
            ] {
                let error = split(text, slow).unwrap_err();
                assert!(error.contains(expected), "{error}");
            }
        }
    }
}
