//! Documents in tables: JSON, JSONL, CSV and Parquet, one document a record, each error with its place.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::Value;

use crate::format::extension;
use crate::{DataError, Format, rows};

/// A record: its place, `line 3` or `row 3`, and its text if it has one.
pub(crate) type Take<'a> = dyn FnMut(String, Option<String>) + 'a;

/// Hands every record's text in `column` to `take`. `format` is not [`Format::Auto`] or [`Format::Text`].
pub(crate) fn read(path: &Path, format: Format, column: &str, take: &mut Take<'_>) -> Result<(), DataError> {
    match format {
        Format::Csv => csv(path, column, take),
        Format::Parquet => parquet(path, column, take),
        Format::Auto | Format::Text | Format::Json | Format::Jsonl => {
            rows::json(path, format, &mut |place, row| {
                let mut row = row.map_err(|message| DataError::record(path, place.clone(), message))?;
                match row.remove(column) {
                    Some(Value::String(text)) => take(place, Some(text)),
                    Some(Value::Null) => take(place, None),
                    Some(other) => {
                        let found = type_name(&other);
                        let message = format!("column {column:?} is {found}, expected a string");
                        return Err(DataError::record(path, place, message));
                    }
                    None => return Err(no_column(path, place, column, row.keys().cloned().collect())),
                }
                Ok(true)
            })
        }
    }
}
/// A table with a header. Fields may be quoted and then hold line breaks; a place is the line on which a record begins.
fn csv(path: &Path, column: &str, take: &mut Take<'_>) -> Result<(), DataError> {
    let tabs = extension(path).is_some_and(|e| e == "tsv");
    let file = BufReader::with_capacity(1 << 20, File::open(path).map_err(DataError::io(path, "open"))?);
    let mut reader = csv::ReaderBuilder::new().delimiter(if tabs { b'\t' } else { b',' }).from_reader(file);
    let header: Vec<String> =
        reader.headers().map_err(|e| csv_error(path, e))?.iter().map(str::to_string).collect();
    let Some(at) = header.iter().position(|name| name == column) else {
        return Err(no_column(path, "line 1".to_string(), column, header));
    };
    for record in reader.records() {
        let record = record.map_err(|e| csv_error(path, e))?;
        let line = record.position().map_or(0, csv::Position::line);
        // The reader has made sure that all records are as long as the header.
        take(format!("line {line}"), record.get(at).map(str::to_string));
    }
    Ok(())
}

pub(crate) fn csv_error(path: &Path, error: csv::Error) -> DataError {
    let line = |pos: Option<&csv::Position>| format!("line {}", pos.map_or(1, csv::Position::line));
    match error.into_kind() {
        csv::ErrorKind::Io(source) => DataError::io(path, "read")(source),
        csv::ErrorKind::Utf8 { pos, .. } => {
            // The reader only knows the record; the first bad byte is looked up.
            let start = pos.as_ref().map_or(0, |pos| pos.byte() as usize);
            match std::fs::read(path).ok().and_then(|bytes| {
                let bytes = bytes.get(start..)?;
                Some(start + std::str::from_utf8(bytes).err()?.valid_up_to())
            }) {
                Some(offset) => not_utf8(path, offset),
                None => DataError::record(path, line(pos.as_ref()), "not UTF-8"),
            }
        }
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let message = format!("{len} fields, but the header has {expected_len}");
            DataError::record(path, line(pos.as_ref()), message)
        }
        other => DataError::record(path, "line 1".to_string(), format!("not CSV: {other:?}")),
    }
}

/// A column of strings; only its pages are read.
fn parquet(path: &Path, column: &str, take: &mut Take<'_>) -> Result<(), DataError> {
    let fault = |message: String| DataError::Parquet { path: path.to_path_buf(), message };
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    let reader = SerializedFileReader::new(file).map_err(|e| fault(e.to_string()))?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let fields = schema.get_fields();
    let Some(field) = fields.iter().find(|f| f.name() == column) else {
        let found = fields.iter().map(|f| f.name().to_string()).collect();
        return Err(no_column(path, "schema".to_string(), column, found));
    };
    let projection = Type::group_type_builder(schema.name())
        .with_fields(vec![field.clone()])
        .build()
        .map_err(|e| fault(e.to_string()))?;
    let rows = reader.get_row_iter(Some(projection)).map_err(|e| fault(e.to_string()))?;
    for (row, record) in rows.enumerate() {
        let place = format!("row {}", row + 1);
        let record = record.map_err(|e| fault(format!("{place}: {e}")))?;
        match record.get_column_iter().next() {
            Some((_, Field::Str(text))) => take(place, Some(text.clone())),
            // Strings that an old writer did not mark as such.
            Some((_, Field::Bytes(bytes))) => match String::from_utf8(bytes.data().to_vec()) {
                Ok(text) => take(place, Some(text)),
                Err(e) => {
                    let at = e.utf8_error().valid_up_to();
                    let message = format!("column {column:?} is not UTF-8 at its byte {at}");
                    return Err(DataError::record(path, place, message));
                }
            },
            Some((_, Field::Null)) | None => take(place, None),
            Some(_) => {
                let message = format!("column {column:?} holds no strings");
                return Err(DataError::record(path, place, message));
            }
        }
    }
    Ok(())
}

pub(crate) fn not_utf8(path: &Path, offset: usize) -> DataError {
    DataError::NotUtf8 { path: path.to_path_buf(), offset }
}

fn no_column(path: &Path, record: String, column: &str, found: Vec<String>) -> DataError {
    DataError::Column { path: path.to_path_buf(), record, column: column.to_string(), found }
}

pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
