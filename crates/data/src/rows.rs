//! Whole rows of tables, every column by its name: an array of JSON objects, a JSON object a line, CSV, Parquet.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row as ParquetRow};
use serde_json::{Map, Value};

use crate::format::extension;
use crate::records::{csv_error, not_utf8, type_name};
use crate::{DataError, Format};

/// Columns by name.
pub(crate) type Row = Map<String, Value>;

/// Takes a row's place, `line 3` or `row 3` in Parquet, and its columns, or what is wrong with this row alone; says whether to
/// go on.
pub(crate) type Take<'a> = dyn FnMut(String, Result<Row, String>) -> Result<bool, DataError> + 'a;

/// Hands every row of a file to `take`. `format` is neither [`Format::Auto`] nor [`Format::Text`].
pub(crate) fn read(path: &Path, format: Format, take: &mut Take<'_>) -> Result<(), DataError> {
    match format {
        Format::Csv => csv(path, take),
        Format::Parquet => parquet(path, take),
        Format::Auto | Format::Text | Format::Json | Format::Jsonl => json(path, format, take),
    }
}

/// The objects of a JSON or JSONL file. Files with the extension of the one are often the other: a `.json` file is an array, an
/// object a line, or objects over several lines, as it begins.
pub(crate) fn json(path: &Path, format: Format, take: &mut Take<'_>) -> Result<(), DataError> {
    if format == Format::Json {
        let bytes = std::fs::read(path).map_err(DataError::io(path, "read"))?;
        let text = std::str::from_utf8(&bytes).map_err(|e| not_utf8(path, e.valid_up_to()))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let first = text.trim_start().lines().next().unwrap_or_default();
        if first.starts_with('[') || serde_json::from_str::<Value>(first).is_err() {
            return values(path, text, take);
        }
    }
    lines(path, take)
}

/// The objects of an array, or objects one after the other: a mistake ends the reading, as what follows it cannot be told.
fn values(path: &Path, text: &str, take: &mut Take<'_>) -> Result<(), DataError> {
    let count = |text: &str| text.bytes().filter(|byte| *byte == b'\n').count();
    let fault = |line: usize, message: String| Err(DataError::record(path, format!("line {line}"), message));
    let mut rest = text.trim_start();
    let mut line = 1 + count(&text[..text.len() - rest.len()]);
    let array = rest.starts_with('[');
    rest = rest.strip_prefix('[').unwrap_or(rest);
    let mut separated = true;
    loop {
        let next = rest.trim_start();
        line += count(&rest[..rest.len() - next.len()]);
        rest = next;
        match rest.as_bytes().first() {
            None if array => return fault(line, "the array does not end: expected ]".to_string()),
            None => return Ok(()),
            Some(b']') if array => {
                return match rest[1..].trim_start() {
                    "" => Ok(()),
                    _ => fault(line, "text after the end of the array".to_string()),
                };
            }
            Some(b',') if array && !separated => {
                separated = true;
                rest = &rest[1..];
                continue;
            }
            Some(_) if array && !separated => return fault(line, "expected , or ]".to_string()),
            Some(_) => {}
        }
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let value = match values.next() {
            Some(Ok(value)) => value,
            Some(Err(e)) => {
                // At the end of the file the fault is where the record begins.
                let at = if e.is_eof() { line } else { line + e.line().saturating_sub(1) };
                return fault(at, not_json(&e));
            }
            None => return Ok(()),
        };
        let end = values.byte_offset();
        if !take(format!("line {line}"), object(value))? {
            return Ok(());
        }
        line += count(&rest[..end]);
        rest = &rest[end..];
        separated = false;
    }
}

/// What is wrong, without serde's own line, which counts from the record's beginning.
fn not_json(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message.split_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    format!("not JSON: {what} at column {}", error.column())
}

/// An object a line; lines of white space are passed over.
fn lines(path: &Path, take: &mut Take<'_>) -> Result<(), DataError> {
    let mut reader =
        BufReader::with_capacity(1 << 20, File::open(path).map_err(DataError::io(path, "open"))?);
    let (mut bytes, mut offset) = (Vec::new(), 0usize);
    for line in 1.. {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(DataError::io(path, "read"))? == 0 {
            break;
        }
        let text = std::str::from_utf8(&bytes).map_err(|e| not_utf8(path, offset + e.valid_up_to()))?;
        offset += bytes.len();
        // A byte order mark stands before the first object in files of some editors.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
        if text.is_empty() {
            continue;
        }
        let row = serde_json::from_str(text).map_err(|e| not_json(&e)).and_then(object);
        if !take(format!("line {line}"), row)? {
            break;
        }
    }
    Ok(())
}

fn object(value: Value) -> Result<Row, String> {
    match value {
        Value::Object(row) => Ok(row),
        other => Err(format!("expected a JSON object, found {}", type_name(&other))),
    }
}

/// A table with a header; a place is the line on which a record begins.
fn csv(path: &Path, take: &mut Take<'_>) -> Result<(), DataError> {
    let tabs = extension(path).is_some_and(|e| e == "tsv");
    let file = BufReader::with_capacity(1 << 20, File::open(path).map_err(DataError::io(path, "open"))?);
    let mut reader = csv::ReaderBuilder::new().delimiter(if tabs { b'\t' } else { b',' }).from_reader(file);
    let header: Vec<String> =
        reader.headers().map_err(|e| csv_error(path, e))?.iter().map(str::to_string).collect();
    for record in reader.records() {
        let (line, row) = match record {
            Ok(record) => {
                let columns = header.iter().zip(&record);
                let row = columns.map(|(name, text)| (name.clone(), Value::from(text))).collect();
                (record.position().map_or(0, csv::Position::line), Ok(row))
            }
            Err(e) => match e.kind() {
                // The reader goes on with the next record.
                csv::ErrorKind::UnequalLengths { pos, expected_len, len } => (
                    pos.as_ref().map_or(0, csv::Position::line),
                    Err(format!("{len} fields, but the header has {expected_len}")),
                ),
                _ => return Err(csv_error(path, e)),
            },
        };
        if !take(format!("line {line}"), row)? {
            break;
        }
    }
    Ok(())
}

/// Rows of any columns, nested ones too.
fn parquet(path: &Path, take: &mut Take<'_>) -> Result<(), DataError> {
    let fault = |message: String| DataError::Parquet { path: path.to_path_buf(), message };
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    let reader = SerializedFileReader::new(file).map_err(|e| fault(e.to_string()))?;
    let rows = reader.get_row_iter(None).map_err(|e| fault(e.to_string()))?;
    for (row, record) in rows.enumerate() {
        let place = format!("row {}", row + 1);
        let record = record.map_err(|e| fault(format!("{place}: {e}")))?;
        if !take(place, columns(&record))? {
            break;
        }
    }
    Ok(())
}

fn columns(row: &ParquetRow) -> Result<Row, String> {
    row.get_column_iter()
        .map(|(name, field)| Ok((name.clone(), value(field).map_err(|e| format!("column {name:?} {e}"))?)))
        .collect()
}

/// A field as JSON. What JSON does not have, such as dates, is its text.
fn value(field: &Field) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(b) => Value::from(*b),
        Field::Byte(n) => Value::from(*n),
        Field::Short(n) => Value::from(*n),
        Field::Int(n) => Value::from(*n),
        Field::Long(n) => Value::from(*n),
        Field::UByte(n) => Value::from(*n),
        Field::UShort(n) => Value::from(*n),
        Field::UInt(n) => Value::from(*n),
        Field::ULong(n) => Value::from(*n),
        Field::Float(x) => Value::from(*x),
        Field::Double(x) => Value::from(*x),
        Field::Str(text) => Value::from(text.as_str()),
        // Strings that an old writer did not mark as such.
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::from(text),
            Err(e) => return Err(format!("is not UTF-8 at its byte {}", e.valid_up_to())),
        },
        Field::Group(row) => Value::Object(columns(row)?),
        Field::ListInternal(list) => {
            Value::Array(list.elements().iter().map(value).collect::<Result<_, _>>()?)
        }
        other => Value::from(other.to_string()),
    })
}
