//! Rows of tables, columns by name: the one reader of JSON, of CSV and of Parquet, whoever asks.

mod csv;
mod json;
mod parquet;

use std::path::Path;

use serde_json::{Map, Value};

use crate::{DataError, Format};

pub(crate) use json::parse as parse_json;

/// Columns by name.
pub(crate) type Row = Map<String, Value>;

/// Takes a row's place, `line 3` or `row 3` in Parquet, and its columns, or what is wrong with this row
/// alone; says whether to go on.
pub(crate) type OnRow<'a> = dyn FnMut(String, Result<Row, String>) -> Result<bool, DataError> + 'a;

/// Hands every row of a file to `take`, of CSV and Parquet with nothing but `column` if one is named: a file
/// without it is an error. `format` is neither [`Format::Auto`] nor [`Format::Text`].
pub(crate) fn read(
    path: &Path,
    format: Format,
    column: Option<&str>,
    take: &mut OnRow<'_>,
) -> Result<(), DataError> {
    match format {
        Format::Csv => csv::read(path, column, take),
        Format::Parquet => parquet::read(path, column, take),
        Format::Json => json::read(path, take),
        Format::Auto | Format::Text | Format::Jsonl => json::read_lines(path, take),
    }
}

pub(crate) fn no_column(path: &Path, record: &str, column: &str, found: Vec<String>) -> DataError {
    DataError::Column {
        path: path.to_path_buf(),
        record: record.to_string(),
        column: column.to_string(),
        found,
    }
}

/// Names of columns, each of which must be there once.
fn check_names<'a>(
    path: &Path,
    place: &str,
    names: &(impl Iterator<Item = &'a str> + Clone),
) -> Result<(), DataError> {
    for (index, name) in names.clone().enumerate() {
        if names.clone().take(index).any(|other| other == name) {
            let message = format!("two columns are named {name:?}: rename one of them");
            return Err(DataError::record(path, place.to_string(), message));
        }
    }
    Ok(())
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
