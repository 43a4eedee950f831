//! CSV as RFC 4180 has it: a header, quoted fields that may hold line breaks, records as long as the header.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;
use tritforge_support::counted;

use super::{OnRow, Row, TableFormat, check_names, no_column};
use crate::DataError;
use crate::format::extension;
use crate::text::TextReader;

/// A table with a header (RFC 4180), separated by commas, in `.tsv` files by tabs.
pub(super) static CSV: TableFormat = TableFormat { name: "csv", extensions: &["csv", "tsv"], read };

/// Follows the text as a record of its own, which no text has: what reads it apart from the last record has
/// seen all quotes closed.
const END: &[u8] = b"\n\0\n";

/// Hands every record to `take`, or of every record one column. A place is the line on which a record begins.
fn read(path: &Path, column: Option<&str>, take: &mut OnRow<'_>) -> Result<(), DataError> {
    let delimiter = if extension(path).is_some_and(|e| e == "tsv") { b'\t' } else { b',' };
    let text = Lines::new(TextReader::open(path)?.chain(END));
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(text);
    let mut record = csv::StringRecord::new();
    let mut header: Option<Vec<String>> = None;
    loop {
        if !reader.read_record(&mut record).map_err(|e| fault(path, e))? {
            break;
        }
        let byte = record.position().map_or(0, csv::Position::byte);
        let place = format!("line {}", reader.get_mut().line_at(byte));
        if record.len() == 1 && record.get(0) == Some("\0") {
            break;
        }
        if record.iter().any(|field| field.contains('\0')) {
            let message = "a quoted field is not closed: expected \" before the end of the file";
            return Err(DataError::record(path, place, message));
        }
        let Some(header) = &header else {
            // pandas names columns without a name in the same way; it is what it writes an index under.
            let names = record.iter().enumerate();
            let names = names
                .map(|(i, name)| if name.is_empty() { format!("Unnamed: {i}") } else { name.to_string() });
            let names: Vec<String> = names.collect();
            check_names(path, &place, &names.iter().map(String::as_str))?;
            if let Some(column) = column.filter(|column| !names.iter().any(|name| name == column)) {
                return Err(no_column(path, &place, column, names));
            }
            header = Some(names);
            continue;
        };
        let row = if record.len() == header.len() {
            let columns =
                header.iter().zip(&record).filter(|(name, _)| column.is_none_or(|column| column == *name));
            Ok(columns.map(|(name, text)| (name.clone(), Value::from(text))).collect::<Row>())
        } else {
            Err(format!("{}, but the header has {}", counted(record.len(), "field"), header.len()))
        };
        if !take(place, row)? {
            return Ok(());
        }
    }
    match (header, column) {
        (None, Some(column)) => Err(no_column(path, "line 1", column, Vec::new())),
        _ => Ok(()),
    }
}

fn fault(path: &Path, error: csv::Error) -> DataError {
    match error.into_kind() {
        csv::ErrorKind::Io(source) => TextReader::fault(path, source),
        other => DataError::record(path, "the table".to_string(), format!("not CSV: {other:?}")),
    }
}

/// Remembers where lines end in what it hands on: the CSV reader counts only some line breaks, but knows the
/// byte at which a record begins.
struct Lines<R> {
    inner: R,
    offset: u64,
    after_cr: bool,
    /// The line breaks behind those that were counted: first byte, and the one after the last.
    breaks: VecDeque<(u64, u64)>,
    counted: u64,
}

impl<R> Lines<R> {
    fn new(inner: R) -> Self {
        Self { inner, offset: 0, after_cr: false, breaks: VecDeque::new(), counted: 0 }
    }

    /// The line of a record, from 1: the first that is not empty from `byte` on. Bytes may only grow.
    fn line_at(&mut self, mut byte: u64) -> u64 {
        while let Some((begin, end)) = self.breaks.front().copied() {
            // A record is said to begin before the empty lines that precede it, and within the CRLF before
            // them.
            if begin > byte {
                break;
            }
            byte = byte.max(end);
            self.counted += 1;
            self.breaks.pop_front();
        }
        self.counted + 1
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        for (at, byte) in (self.offset..).zip(&buffer[..read]) {
            match byte {
                b'\n' if self.after_cr => {
                    if let Some((_, end)) = self.breaks.back_mut().filter(|(_, end)| *end == at) {
                        *end = at + 1;
                    }
                }
                b'\n' | b'\r' => self.breaks.push_back((at, at + 1)),
                _ => {}
            }
            self.after_cr = *byte == b'\r';
        }
        self.offset += read as u64;
        Ok(read)
    }
}
