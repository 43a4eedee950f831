//! Documents in tables, one document a record, each error with its place.

use std::path::Path;

use serde_json::Value;

use crate::DataError;
use crate::rows::{TableFormat, no_column, type_name};

/// A record: its place, `line 3` or `row 3`, and its text if it has one.
pub(crate) type OnRow<'a> = dyn FnMut(String, Option<String>) + 'a;

/// Hands every record's text in `column` to `take`.
pub(crate) fn read(
    path: &Path,
    format: &TableFormat,
    column: &str,
    take: &mut OnRow<'_>,
) -> Result<(), DataError> {
    (format.read)(path, Some(column), &mut |place, row| {
        let mut row = row.map_err(|message| DataError::record(path, place.clone(), message))?;
        match row.remove(column) {
            Some(Value::String(text)) => take(place, Some(text)),
            Some(Value::Null) => take(place, None),
            Some(other) => {
                let message = format!("column {column:?} is {}, expected a string", type_name(&other));
                return Err(DataError::record(path, place, message));
            }
            None => return Err(no_column(path, &place, column, row.keys().cloned().collect())),
        }
        Ok(true)
    })
}
