//! Tables as Parquet, with the types that CSV has not: texts, unsigned integers of 64 bits, doubles, nulls.

use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::tables::{Cell, Table};

/// The bytes of a file with one row group, compressed with Snappy.
pub(super) fn bytes(table: &Table) -> Result<Vec<u8>> {
    let field = |(name, cells): &(&'static str, Vec<Cell>)| match cells.first() {
        Some(Cell::Whole(_)) => format!("optional int64 {name} (INTEGER(64,false));"),
        Some(Cell::Real(_)) => format!("optional double {name};"),
        Some(Cell::Text(_)) | None => format!("optional binary {name} (UTF8);"),
    };
    let fields = table.iter().map(field).collect::<Vec<_>>().join(" ");
    let schema = Arc::new(parse_message_type(&format!("message table {{ {fields} }}"))?);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (_, cells) in table {
        let Some(mut column) = group.next_column()? else { break };
        // 1: a value, 0: a null.
        let present: Vec<i16> = cells.iter().map(|cell| i16::from(!is_null(cell))).collect();
        match cells.first() {
            Some(Cell::Whole(_)) => {
                // The bits are those of the unsigned number, as the type says.
                let values: Vec<i64> = cells.iter().filter_map(whole).map(|n| n as i64).collect();
                column.typed::<Int64Type>().write_batch(&values, Some(&present), None)?;
            }
            Some(Cell::Real(_)) => {
                let values: Vec<f64> = cells.iter().filter_map(real).collect();
                column.typed::<DoubleType>().write_batch(&values, Some(&present), None)?;
            }
            Some(Cell::Text(_)) | None => {
                let values: Vec<ByteArray> = cells.iter().filter_map(text).map(ByteArray::from).collect();
                column.typed::<ByteArrayType>().write_batch(&values, Some(&present), None)?;
            }
        }
        column.close()?;
    }
    group.close()?;
    writer.into_inner()
}

fn is_null(cell: &Cell) -> bool {
    whole(cell).is_none() && real(cell).is_none() && text(cell).is_none()
}

fn whole(cell: &Cell) -> Option<u64> {
    if let Cell::Whole(n) = cell { *n } else { None }
}

fn real(cell: &Cell) -> Option<f64> {
    if let Cell::Real(x) = cell { *x } else { None }
}

/// An empty text is a null, as in CSV.
fn text(cell: &Cell) -> Option<&str> {
    if let Cell::Text(text) = cell { Some(text.as_str()).filter(|text| !text.is_empty()) } else { None }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::Field;

    use super::*;

    #[test]
    fn cells_come_back_with_their_types() {
        let table: Table = vec![
            ("arm", vec![Cell::Text("a, \"b\"".to_string()), Cell::Text(String::new())]),
            ("seed", vec![Cell::Whole(Some(u64::MAX)), Cell::Whole(None)]),
            ("mean", vec![Cell::Real(None), Cell::Real(Some(0.1 + 0.2))]),
        ];
        let reader = SerializedFileReader::new(Bytes::from(bytes(&table).unwrap())).unwrap();
        let rows: Vec<Vec<(String, Field)>> =
            reader.get_row_iter(None).unwrap().map(|row| row.unwrap().into_columns()).collect();
        let named = |fields: [Field; 3]| {
            ["arm", "seed", "mean"].map(str::to_string).into_iter().zip(fields).collect::<Vec<_>>()
        };
        assert_eq!(
            rows,
            [
                named([Field::Str("a, \"b\"".to_string()), Field::ULong(u64::MAX), Field::Null]),
                named([Field::Null, Field::Null, Field::Double(0.1 + 0.2)]),
            ]
        );
        // A table without rows is a file as well.
        let empty: Table = vec![("arm", Vec::new())];
        let reader = SerializedFileReader::new(Bytes::from(bytes(&empty).unwrap())).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }
}
