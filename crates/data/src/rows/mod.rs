//! Rows of tables, columns by name: one reader for each format, whoever asks. One file a format, one line a
//! format in [`TABLES`].

mod csv;
mod json;
mod parquet;
#[cfg(test)]
mod rec;

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::DataError;

pub(crate) use json::parse as parse_json;

/// Columns by name.
pub(crate) type Row = Map<String, Value>;

/// Takes a row's place, `line 3` or `row 3` in Parquet, and its columns, or what is wrong with this row
/// alone; says whether to go on.
pub(crate) type OnRow<'a> = dyn FnMut(String, Result<Row, String>) -> Result<bool, DataError> + 'a;

/// Reads a file: hands every row to `take`, or is an error that names the place. If a column is named, a
/// format whose columns are known beforehand hands on that one alone, and a file without it is an error.
pub(crate) type Read = fn(&Path, Option<&str>, &mut OnRow<'_>) -> Result<(), DataError>;

/// A format of tables.
pub struct TableFormat {
    /// The name in recipes.
    pub(crate) name: &'static str,
    /// Extensions of its files, in lower case.
    pub(crate) extensions: &'static [&'static str],
    pub(crate) read: Read,
}

/// The formats of tables, in the order in which errors list them.
pub(crate) static TABLES: &[&TableFormat] = &[
    &json::JSON,
    &json::JSONL,
    &csv::CSV,
    &parquet::PARQUET,
    #[cfg(test)]
    &rec::REC,
];

/// The extensions of all tables' files.
pub(crate) fn extensions() -> impl Iterator<Item = &'static str> + Clone {
    TABLES.iter().flat_map(|table| table.extensions).copied()
}

impl PartialEq for TableFormat {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for TableFormat {}

impl fmt::Debug for TableFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
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
