//! Records with several fields, as evaluation sets have them: a JSON array, JSON objects one after the other, CSV, Parquet.

use std::fs::{self, File};
use std::path::Path;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Value};

use crate::format::extension;
use crate::{DataError, Format};

/// One record of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where it stands: `line 3` (on which it begins), or `row 3` in Parquet; both count from 1.
    pub place: String,
    /// Its fields by name. A CSV file's are strings.
    pub fields: Map<String, Value>,
}

/// Extensions of the files that [`read_records`] reads.
pub const TABLE_EXTENSIONS: [&str; 6] = ["json", "jsonl", "ndjson", "csv", "tsv", "parquet"];

/// The first `limit` records of a file, all by default. The extension tells the format; a `.json` file is an array of
/// objects, or objects one after the other.
///
/// # Errors
/// If the extension is none of [`TABLE_EXTENSIONS`], the file cannot be read, or a record is damaged; its place is named.
pub fn read_records(path: &Path, limit: Option<usize>) -> Result<Vec<Record>, DataError> {
    let limit = limit.unwrap_or(usize::MAX);
    match (Format::Auto.of(path), extension(path).as_deref()) {
        (Format::Csv, _) => csv(path, limit),
        (Format::Parquet, _) => parquet(path, limit),
        (Format::Jsonl, _) => jsonl(path, limit),
        (_, Some("json")) => json(path, limit),
        _ => {
            let extensions = TABLE_EXTENSIONS.map(|e| format!(".{e}")).join(", ");
            let message = format!("not a format of records: expected {extensions}");
            Err(DataError::record(path, "the file's name".to_string(), message))
        }
    }
}

/// A file's text, without the byte order mark of some editors.
fn text(path: &Path) -> Result<String, DataError> {
    let bytes = fs::read(path).map_err(DataError::io(path, "read"))?;
    let text = String::from_utf8(bytes)
        .map_err(|e| DataError::NotUtf8 { path: path.to_path_buf(), offset: e.utf8_error().valid_up_to() })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text))
}

/// What is wrong, without serde's own place, which counts from the record's beginning.
fn not_json(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message.split_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    format!("not JSON: {what} at column {}", error.column())
}

fn object(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err("expected a JSON object".to_string()),
    }
}

/// An object a line; lines of white space are passed over.
fn jsonl(path: &Path, limit: usize) -> Result<Vec<Record>, DataError> {
    let text = text(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).take(limit);
    lines
        .map(|(at, line)| {
            let place = format!("line {}", at + 1);
            let value = serde_json::from_str(line).map_err(|e| not_json(&e)).and_then(object);
            match value {
                Ok(fields) => Ok(Record { place, fields }),
                Err(message) => Err(DataError::record(path, place, message)),
            }
        })
        .collect()
}

/// Objects one after the other, or the elements of an array.
fn json(path: &Path, limit: usize) -> Result<Vec<Record>, DataError> {
    let text = text(path)?;
    let mut rest = text.trim_start();
    let mut line = 1 + lines(&text[..text.len() - rest.len()]);
    let array = rest.starts_with('[');
    if let Some(after) = rest.strip_prefix('[') {
        rest = after;
    }
    let mut records = Vec::new();
    let mut separated = true;
    let fault = |line: usize, message: String| DataError::record(path, format!("line {line}"), message);
    while records.len() < limit {
        let next = rest.trim_start();
        line += lines(&rest[..rest.len() - next.len()]);
        rest = next;
        match rest.as_bytes().first() {
            None if array => return Err(fault(line, "the array does not end: expected ]".to_string())),
            None => break,
            Some(b']') if array => {
                if !rest[1..].trim_start().is_empty() {
                    return Err(fault(line, "text after the end of the array".to_string()));
                }
                break;
            }
            Some(b',') if array && !separated => {
                separated = true;
                rest = &rest[1..];
                continue;
            }
            Some(_) if array && !separated => return Err(fault(line, "expected , or ]".to_string())),
            Some(_) => {}
        }
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(e)) => {
                // At the end of the file the fault is where the record begins.
                let at = if e.is_eof() { line } else { line + e.line().saturating_sub(1) };
                return Err(fault(at, not_json(&e)));
            }
            None => break,
        };
        let end = values.byte_offset();
        let fields = object(value).map_err(|message| fault(line, message))?;
        records.push(Record { place: format!("line {line}"), fields });
        line += lines(&rest[..end]);
        rest = &rest[end..];
        separated = false;
    }
    Ok(records)
}

fn lines(text: &str) -> usize {
    text.bytes().filter(|b| *b == b'\n').count()
}

/// A table with a header.
fn csv(path: &Path, limit: usize) -> Result<Vec<Record>, DataError> {
    let tabs = extension(path).is_some_and(|e| e == "tsv");
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    let mut reader = csv::ReaderBuilder::new().delimiter(if tabs { b'\t' } else { b',' }).from_reader(file);
    let fault = |e: &csv::Error| {
        let line = e.position().map_or(1, csv::Position::line);
        DataError::record(path, format!("line {line}"), format!("not CSV: {e}"))
    };
    let header = reader.headers().map_err(|e| fault(&e))?.clone();
    let mut records = Vec::new();
    for row in reader.records().take(limit) {
        let row = row.map_err(|e| fault(&e))?;
        let line = row.position().map_or(0, csv::Position::line);
        let pairs = header.iter().zip(&row).map(|(name, text)| (name.to_string(), Value::from(text)));
        records.push(Record { place: format!("line {line}"), fields: pairs.collect() });
    }
    Ok(records)
}

/// All columns of the first rows.
fn parquet(path: &Path, limit: usize) -> Result<Vec<Record>, DataError> {
    let fault = |message: String| DataError::Parquet { path: path.to_path_buf(), message };
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    let reader = SerializedFileReader::new(file).map_err(|e| fault(e.to_string()))?;
    let rows = reader.get_row_iter(None).map_err(|e| fault(e.to_string()))?;
    let mut records = Vec::new();
    for (row, record) in rows.take(limit).enumerate() {
        let place = format!("row {}", row + 1);
        let record = record.map_err(|e| fault(format!("{place}: {e}")))?;
        let fields = record.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect();
        records.push(Record { place, fields });
    }
    Ok(records)
}

/// A field as JSON; dates, times and decimals, which no evaluation set has, as they are displayed.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(x) => Value::from(*x),
        Field::Byte(x) => Value::from(*x),
        Field::Short(x) => Value::from(*x),
        Field::Int(x) => Value::from(*x),
        Field::Long(x) => Value::from(*x),
        Field::UByte(x) => Value::from(*x),
        Field::UShort(x) => Value::from(*x),
        Field::UInt(x) => Value::from(*x),
        Field::ULong(x) => Value::from(*x),
        Field::Float(x) => Value::from(*x),
        Field::Double(x) => Value::from(*x),
        Field::Str(x) => Value::from(x.as_str()),
        Field::Bytes(x) => Value::from(String::from_utf8_lossy(x.data())),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::Group(row) => {
            Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect())
        }
        other => Value::from(other.to_string()),
    }
}
