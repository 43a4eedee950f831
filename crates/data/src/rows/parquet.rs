//! Parquet: rows of any columns, nested ones too.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use parquet::column::page::Page;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, FileReader as _, Length, SerializedFileReader};
use parquet::record::{Field, Row as ParquetRow};
use parquet::schema::types::Type;
use serde_json::Value;
use tritforge_support::caught;
use tritforge_support::counted;

use super::{OnRow, Row, TableFormat, check_names, no_column};
use crate::DataError;

/// Apache Parquet.
pub(super) static PARQUET: TableFormat = TableFormat { name: "parquet", extensions: &["parquet"], read };

/// Hands every row to `take`; of a named column only its pages are read.
fn read(path: &Path, column: Option<&str>, take: &mut OnRow<'_>) -> Result<(), DataError> {
    let fault =
        |message: String| DataError::Unreadable { path: path.to_path_buf(), format: "Parquet", message };
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    let length = file.metadata().map_err(DataError::io(path, "read"))?.len();
    let reader = guarded(|| SerializedFileReader::new(Within { file, length })).map_err(fault)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let fields = schema.get_fields();
    check_names(path, "schema", &fields.iter().map(|field| field.name()))?;
    let projection = match column {
        None => None,
        Some(column) => {
            let Some(field) = fields.iter().find(|field| field.name() == column) else {
                let found = fields.iter().map(|field| field.name().to_string()).collect();
                return Err(no_column(path, "schema", column, found));
            };
            let one = Type::group_type_builder(schema.name()).with_fields(vec![field.clone()]).build();
            Some(one.map_err(|e| fault(e.to_string()))?)
        }
    };
    guarded(|| check_dictionaries(&reader)).map_err(fault)?;
    let mut rows = guarded(|| reader.get_row_iter(projection)).map_err(fault)?;
    for row in 1.. {
        let place = format!("row {row}");
        let record = guarded(|| rows.next().transpose()).map_err(|e| fault(format!("{place}: {e}")))?;
        let Some(record) = record else { break };
        if !take(place, columns(&record))? {
            break;
        }
    }
    Ok(())
}

/// Refuses a dictionary of more values than it has bytes: the `parquet` crate makes a place for each of them first. Other pages
/// are passed over.
fn check_dictionaries(reader: &SerializedFileReader<Within>) -> ParquetResult<()> {
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        for column in 0..group.num_columns() {
            let mut pages = group.get_column_page_reader(column)?;
            while let Some(next) = pages.peek_next_page()? {
                if !next.is_dict {
                    pages.skip_next_page()?;
                    continue;
                }
                if let Some(Page::DictionaryPage { buf, num_values, .. }) = pages.get_next_page()?
                    && num_values as usize > buf.len()
                {
                    let message = format!(
                        "column {column}: a dictionary of {num_values} values in {} bytes",
                        buf.len()
                    );
                    return Err(ParquetError::General(message));
                }
            }
        }
    }
    Ok(())
}

/// What the `parquet` crate says. It panics at some contradictions in a file.
fn guarded<T>(read: impl FnOnce() -> ParquetResult<T>) -> Result<T, String> {
    match caught(read) {
        Some(read) => read.map_err(|e| e.to_string()),
        None => Err("the file is damaged: its pages contradict its metadata".to_string()),
    }
}

/// A file of which no part is read, and no memory taken for it, that lies beyond its end: the `parquet` crate
/// believes the offsets and lengths that a file states.
struct Within {
    file: File,
    length: u64,
}

impl Within {
    fn check(&self, start: u64, length: u64) -> ParquetResult<()> {
        match start.checked_add(length).is_some_and(|end| end <= self.length) {
            true => Ok(()),
            false => Err(ParquetError::General(format!(
                "{length} at byte {start}, but the file has {}",
                counted(self.length, "byte"),
                length = counted(length, "byte")
            ))),
        }
    }
}

impl Length for Within {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Within {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        self.check(start, 0)?;
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<bytes::Bytes> {
        self.check(start, length as u64)?;
        self.file.get_bytes(start, length)
    }
}

fn columns(row: &ParquetRow) -> Result<Row, String> {
    row.get_column_iter()
        .map(|(name, field)| Ok((name.clone(), value(field).map_err(|e| format!("column {name:?} {e}"))?)))
        .collect()
}

/// A field as JSON. What JSON does not have, such as dates and infinity, is its text; NaN is null, as pandas
/// writes what is missing.
fn value(field: &Field) -> Result<Value, String> {
    let number = |x: f64| match x {
        x if x.is_nan() => Value::Null,
        x if x.is_infinite() => Value::from(x.to_string()),
        x => Value::from(x),
    };
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
        Field::Float(x) if x.is_finite() => Value::from(*x),
        Field::Float(x) => number(f64::from(*x)),
        Field::Double(x) => number(*x),
        Field::Str(text) => Value::from(text.as_str()),
        // Strings that an old writer did not mark as such.
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::from(text),
            Err(e) => return Err(format!("is not UTF-8 at byte {}", e.valid_up_to())),
        },
        Field::Group(row) => Value::Object(columns(row)?),
        Field::ListInternal(list) => {
            Value::Array(list.elements().iter().map(value).collect::<Result<_, _>>()?)
        }
        Field::MapInternal(map) => {
            let entry = |(key, field): &(Field, Field)| match value(key)? {
                Value::String(key) => Ok((key, value(field)?)),
                other => Err(format!("is a map with the key {other}; only string keys are supported")),
            };
            Value::Object(map.entries().iter().map(entry).collect::<Result<_, String>>()?)
        }
        other => Value::from(other.to_string()),
    })
}
