//! Records with several fields in every format, and what is said about those that are wrong.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use serde_json::{Value, json};
use tritforge_data::{Record, read_records};

fn read(name: &str, bytes: &[u8], limit: Option<usize>) -> Result<Vec<Record>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    read_records(&path, limit).map_err(|e| e.to_string())
}

fn pairs(records: Vec<Record>) -> Vec<(String, Value)> {
    records.into_iter().map(|r| (r.place, Value::Object(r.fields))).collect()
}

#[test]
fn arrays_lines_and_tables_give_the_same_records_with_their_places() {
    let expected = |places: [&str; 2]| {
        places.map(str::to_string).into_iter().zip([json!({"q": "a"}), json!({"q": "b"})])
    };
    for (name, text, places) in [
        ("a.json", "[\n {\"q\":\n\"a\"},\n\n {\"q\":\"b\"}\n]\n", ["line 2", "line 5"]),
        ("b.json", "{\"q\":\"a\"}\n{\"q\":\"b\"}", ["line 1", "line 2"]),
        ("f.json", "{\"q\":\n\"a\"}\n{\n\"q\":\"b\"}", ["line 1", "line 3"]),
        ("c.jsonl", "\n{\"q\":\"a\"}\n\n{\"q\":\"b\"}\n", ["line 2", "line 4"]),
        ("d.csv", "q\na\nb\n", ["line 2", "line 3"]),
        ("e.tsv", "q\na\nb\n", ["line 2", "line 3"]),
    ] {
        let found = pairs(read(name, text.as_bytes(), None).unwrap());
        assert_eq!(found, expected(places).collect::<Vec<_>>(), "{name}");
        assert_eq!(read(name, text.as_bytes(), Some(1)).unwrap().len(), 1);
    }
    assert_eq!(read("a.json", b"[]", None).unwrap(), []);
}

/// `choices` as the hub stores it: a group of two lists.
fn write_parquet(path: &Path) {
    let schema = "message m { required binary q (UTF8); required int64 label;
        required group choices { required group text (LIST) { repeated group list {
            required binary element (UTF8); } } } }";
    let file = fs::File::create(path).unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&[ByteArray::from("why?")], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[1], None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts = [ByteArray::from("x"), ByteArray::from("y")];
    column.typed::<ByteArrayType>().write_batch(&texts, Some(&[1, 1]), Some(&[0, 1])).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_keeps_numbers_lists_and_groups() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    write_parquet(&path);
    let record = json!({"q": "why?", "label": 1, "choices": {"text": ["x", "y"]}});
    assert_eq!(pairs(read_records(&path, None).unwrap()), [("row 1".to_string(), record)]);
}

#[test]
fn faults_are_named_with_file_and_line() {
    for (name, text, expected) in [
        (
            "a.jsonl",
            "{\"q\":1}\n{\"q\":\n{}",
            "a.jsonl: line 2: not JSON: EOF while parsing a value at column 5",
        ),
        ("a.json", "[{\"q\":1},\n{\"q\":\nx}]", "a.json: line 3: not JSON: expected value at column 1"),
        ("a.json", "[\n{\"q\":1},{", "a.json: line 2: not JSON: EOF while parsing an object"),
        ("a.jsonl", "{\"q\":1}\n[1]\n", "a.jsonl: line 2: expected a JSON object"),
        ("a.json", "[{\"q\":1}\n{\"q\":2}]", "a.json: line 2: expected , or ]"),
        ("a.json", "[{\"q\":1},\n", "a.json: line 2: the array is not closed"),
        ("a.json", "[{\"q\":1}] x", "a.json: line 1: text after"),
        ("a.csv", "a,b\n1,2\n3\n", "a.csv: line 3: 1 field, but the header has 2"),
        ("a.parquet", "PAR1", "a.parquet: not a readable Parquet file"),
        ("a.txt", "x", "a.txt: the file's name: not a record format: expected .json, .jsonl"),
    ] {
        let error = read(name, text.as_bytes(), None).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

proptest! {
    #[test]
    fn arrays_lines_and_objects_over_lines_read_back_whatever_they_hold(
        texts in prop::collection::vec(("[a-z]{1,3}", any::<String>()), 0..6),
        junk in any::<String>(),
    ) {
        let values: Vec<Value> = texts.iter().map(|(key, text)| json!({key: text, "n": [1, {"x": null}]})).collect();
        let pretty = serde_json::to_string_pretty(&values).unwrap();
        let lines: String = values.iter().map(|value| format!("{value}\n")).collect();
        let apart: String = values.iter().map(|value| serde_json::to_string_pretty(value).unwrap() + "\n").collect();
        for (name, text) in [("a.json", &pretty), ("b.json", &lines), ("c.json", &apart), ("d.jsonl", &lines)] {
            let found = read(name, text.as_bytes(), None).unwrap();
            let fields: Vec<Value> = found.iter().map(|record| Value::Object(record.fields.clone())).collect();
            prop_assert_eq!(&fields, &values);
            for record in found {
                let line: usize = record.place.strip_prefix("line ").unwrap().parse().unwrap();
                let named = text.lines().nth(line - 1).unwrap().trim_start();
                prop_assert!(named.starts_with('{'), "line {line}: {named}");
            }
        }
        // Whatever else a file holds is an error or is not, never a panic.
        for name in ["a.json", "a.jsonl", "a.csv", "a.parquet"] {
            let _ = read(name, junk.as_bytes(), None);
            let _ = read(name, format!("{pretty}{junk}").as_bytes(), None);
        }
    }
}

#[test]
fn lines_are_those_of_an_editor_whatever_ends_them() {
    for end in ["\n", "\r\n", "\r"] {
        let csv =
            ["q,a", "1,\"two", "lines\"", "", "", "3,4", "5"].map(|line| format!("{line}{end}")).concat();
        let error = read("a.csv", csv.as_bytes(), None).unwrap_err();
        assert!(error.contains("a.csv: line 7: 1 field, but the header has 2"), "{end:?}: {error}");
        let places: Vec<String> =
            read("a.csv", csv.as_bytes(), Some(2)).unwrap().into_iter().map(|r| r.place).collect();
        assert_eq!(places, ["line 2", "line 6"], "{end:?}");
        for name in ["a.jsonl", "a.json"] {
            let jsonl = ["{\"q\":1}", "", "{\"q\":2}", "{\"q\":"].map(|line| format!("{line}{end}")).concat();
            let error = read(name, jsonl.as_bytes(), None).unwrap_err();
            assert!(error.contains(&format!("{name}: line 4: not JSON")), "{end:?}: {error}");
        }
        let array = ["[", "{\"q\":1},", "", "{\"q\":", "x}]"].map(|line| format!("{line}{end}")).concat();
        let error = read("a.json", array.as_bytes(), None).unwrap_err();
        assert!(error.contains("a.json: line 5: not JSON"), "{end:?}: {error}");
    }
}

#[test]
fn long_tables_keep_their_lines() {
    let rows: String = (0..30_000).map(|i| format!("{i},\"a\r\nb\"\r\n")).collect();
    let text = format!("\u{feff}n,q\r\n{rows}");
    let records = read("a.csv", text.as_bytes(), None).unwrap();
    assert_eq!(records.len(), 30_000);
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record.place, format!("line {}", 2 + 2 * index));
        assert_eq!(record.fields["n"], json!(index.to_string()));
    }
}

#[test]
fn what_would_be_lost_in_silence_is_refused() {
    for (name, text, expected) in [
        ("a.csv", &b"q,a,q\n1,2,3\n"[..], "line 1: two columns are named \"q\""),
        ("a.csv", b"q,a\n1,\"2\n3,4\n", "line 2: a quoted field is not closed"),
        ("a.csv", b"q,a\n1,2\n3,caf\xe9\n", "not UTF-8 at byte 13, line 3"),
        ("a.csv", b"\xff\xfeq\0,\0a\0\n\0", "UTF-16"),
        ("a.csv", b"q\0,\0a\0\n\0", "NUL at byte 1, line 1"),
        ("a.jsonl", b"{\"q\":1}\n{\"q\":1,\"q\":2}", "line 2: not JSON: duplicate key \"q\" in an object"),
        ("a.jsonl", b"{\"q\":{\"b\":1,\"b\":1}}", "duplicate key \"b\" in an object"),
        ("a.jsonl", b"{\"q\":NaN}", "line 1: not JSON: expected value"),
        ("a.jsonl", b"{\"q\":1}{\"q\":2}", "line 1: not JSON: trailing characters"),
        ("a.jsonl", b"[{\"q\":1}]", "line 1: expected a JSON object, found an array: format = \"json\""),
        ("a.json", b"[{\"q\":1},]", "line 1: not JSON: expected value"),
        ("a.jsonl.bz2", b"BZh91AY&SY", "compressed with bzip2"),
        ("a.csv", b"\xfd7zXZ\0\0", "compressed with xz"),
        ("a.jsonl", b"PK\x03\x04", "compressed with ZIP"),
    ] {
        let error = read(name, text, None).unwrap_err();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    }
}

#[test]
fn columns_without_a_name_are_called_as_in_pandas() {
    let records = read("a.csv", b",q\n0,a\n", None).unwrap();
    assert_eq!(Value::Object(records[0].fields.clone()), json!({"Unnamed: 0": "0", "q": "a"}));
}

#[test]
fn compressed_tables_are_read_by_their_first_bytes() {
    use std::io::Write as _;
    let text = "{\"q\":\"a\"}\r\n\r\n{\"q\":\"b\"}\n";
    let gzip = |text: &str| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(text.as_bytes()).unwrap();
        writer.finish().unwrap()
    };
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
    let plain = read("a.jsonl", text.as_bytes(), None).unwrap();
    // Compressors may write members one after the other.
    let members = [gzip(&text[..12]), gzip(&text[12..])].concat();
    for (name, bytes) in [
        ("a.jsonl.gz", gzip(text)),
        ("a.jsonl.gz", members),
        ("a.jsonl.zst", zstd(text)),
        ("a.jsonl", gzip(text)),
        ("a.jsonl.gz", text.as_bytes().to_vec()),
    ] {
        assert_eq!(read(name, &bytes, None).unwrap(), plain, "{name}");
    }
    for (name, bytes) in [("a.jsonl.gz", gzip(text)), ("a.jsonl.zst", zstd(text))] {
        let error = read(name, &bytes[..bytes.len() - 6], None).unwrap_err();
        assert!(error.contains(name) && error.contains("damaged or cut short"), "{error}");
    }
    // A bomb is stopped long before it fills the memory.
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(b' '), 200 << 20), 1).unwrap();
    let error = read("a.jsonl.zst", &bomb, None).unwrap_err();
    assert!(error.contains("a decompression bomb"), "{error}");
}
