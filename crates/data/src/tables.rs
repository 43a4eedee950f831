//! Records with several fields, as evaluation sets have them.

use std::path::Path;

use serde_json::{Map, Value};

use crate::text::{self, TextReader};
use crate::{DataError, Format, rows};

/// One record of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where it stands: `line 3` (on which it begins), or `row 3` in Parquet; both count from 1.
    pub place: String,
    /// Its fields by name. A CSV file's are strings.
    pub fields: Map<String, Value>,
}

/// Extensions of the files that [`read_records`] reads, and each of them with that of a compression behind
/// it, `.jsonl.gz`; also those that are refused, so that the error names them and not their absence.
pub fn table_extensions() -> impl Iterator<Item = String> {
    let plain = rows::extensions().map(str::to_string);
    let packed = rows::extensions().flat_map(|e| ["gz", "zst", "bz2", "xz"].map(|c| format!("{e}.{c}")));
    plain.chain(packed)
}

/// The first `limit` records of a file, all by default. The extension tells the format; a `.json` file is an
/// array of objects, or objects one after the other.
///
/// # Errors
/// If the extension is that of no table, the file cannot be read, or a record is damaged; its
/// place is named.
pub fn read_records(path: &Path, limit: Option<usize>) -> Result<Vec<Record>, DataError> {
    let Format::Table(format) = Format::Auto.of(path) else {
        let extensions: Vec<String> = rows::extensions().map(|e| format!(".{e}")).collect();
        let message = format!("not a record format: expected {}", extensions.join(", "));
        return Err(DataError::record(path, "the file's name".to_string(), message));
    };
    let (mut records, limit) = (Vec::new(), limit.unwrap_or(usize::MAX));
    if limit == 0 {
        return Ok(records);
    }
    (format.read)(path, None, &mut |place, row| {
        let fields = row.map_err(|message| DataError::record(path, place.clone(), message))?;
        records.push(Record { place, fields });
        Ok(records.len() < limit)
    })?;
    Ok(records)
}

/// A line of a JSONL file: its number from 1, and its text, which is not all white space.
pub type JsonLine = (usize, String);

/// The lines of a JSONL file at hand, for whoever checks each of them on their own: decompressed, and without
/// a byte order mark. `path` names the file in messages.
///
/// # Errors
/// If they are not UTF-8, or compressed in a way that is not read.
pub fn json_lines(path: &Path, bytes: Vec<u8>) -> Result<Vec<JsonLine>, DataError> {
    let reader = TextReader::of(path, bytes)?;
    let mut found = Vec::new();
    text::lines(path, reader, &mut |line, text| {
        if !text.trim().is_empty() {
            found.push((line, text.to_string()));
        }
        Ok(true)
    })?;
    Ok(found)
}
