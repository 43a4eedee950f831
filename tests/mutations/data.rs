//! Rows of training and evaluation data: CSV, JSON, JSONL, Parquet.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tritforge_data::{Examples, ReadOptions, TextSource, read_records};

use crate::harness::{JSON_PUNCTUATION, Parser, Seed};
use crate::messages::write_messages;
use crate::scratch;

/// What readers of streams hold for any file: buffers of a fixed size.
const BUFFERS: usize = 4 << 20;

/// Rows that are taken of an input: in Parquet a few bytes may say that a million rows are all the same.
const MOST_ROWS: usize = 1000;

/// Reads each input as the file `name`, as records and as samples.
fn check(name: &str, file: &str, seeds: Vec<Seed>, words: &[&str], times: usize) {
    let directory = scratch();
    let path = directory.path().join(file);
    let options = ReadOptions { max_samples: Some(MOST_ROWS), ..ReadOptions::default() };
    Parser { name, seeds, words, times, always: BUFFERS }.check(|bytes| {
        fs::write(&path, bytes).unwrap();
        let records = read_records(&path, Some(MOST_ROWS));
        let examples = Examples::read(&[TextSource::new(&path)], &options);
        for message in [records.as_ref().err(), examples.as_ref().err()].into_iter().flatten() {
            assert!(!message.to_string().is_empty());
        }
        // What is an example was a record first.
        assert!(records.is_ok() || examples.is_err());
        examples.is_ok()
    });
}

const ROWS: [&str; 4] = [
    "{\"instruction\":\"Add 1 and 2.\",\"input\":\"\",\"output\":\"3\"}\n{\"instruction\":\"Say é\",\"input\":null,\"output\":\"é\"}\n",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Hello\",\"weight\":1}]}\n",
    "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n\n{\"prompt\":\"d\",\"chosen\":\"e\",\"rejected\":\"f\"}\r\n",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}],\"tools\":\"[{\\\"name\\\":\\\"f\\\"}]\"}\n",
];

const FIELDS: [&str; 21] = [
    "\"messages\"",
    "\"role\"",
    "\"content\"",
    "\"assistant\"",
    "\"user\"",
    "\"from\"",
    "\"value\"",
    "\"prompt\"",
    "\"completion\"",
    "\"chosen\"",
    "\"rejected\"",
    "\"text\"",
    "\"history\"",
    "\"tools\"",
    "\"tool_calls\"",
    "\"function\"",
    "\"arguments\"",
    "\"documents\"",
    "\"chat_template_kwargs\"",
    "\"weight\"",
    "\"train\":false",
];

#[test]
fn jsonl_rows() {
    check(
        "jsonl_rows",
        "damaged.jsonl",
        ROWS.map(Seed::whole).into(),
        &[&FIELDS[..], &JSON_PUNCTUATION].concat(),
        60,
    );
}

#[test]
fn json_rows() {
    let array =
        |rows: &str| format!("[{}]", rows.lines().filter(|l| !l.is_empty()).collect::<Vec<_>>().join(",\n "));
    let seeds = ROWS.iter().map(|rows| Seed::whole(array(rows))).collect();
    check("json_rows", "damaged.json", seeds, &[&FIELDS[..], &JSON_PUNCTUATION].concat(), 60);
}

#[test]
fn csv_rows() {
    let seeds = [
        "instruction,input,output\nAdd,\"1, 2\",3\n\"Say \"\"hi\"\"\nplease\",,hi\n",
        "text\r\none\r\n\"two, three\"\r\n",
        "prompt,completion\na,b\n\nc,d\n",
        "messages\n\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"a\"\"},{\"\"role\"\":\"\"assistant\"\",\"\"content\"\":\"\"b\"\"}]\"\n",
    ];
    let words =
        ["\"", "\"\"", ",", ",,", "\r", "\n\n", "instruction", "output", "text", "messages", "\t", ";"];
    check("csv_rows", "damaged.csv", seeds.map(Seed::whole).into(), &words, 60);
}

fn write_numbers(path: &Path) {
    let schema = parse_message_type("message m { required binary text (UTF8); optional int64 n; }").unwrap();
    let properties = Arc::new(WriterProperties::builder().build());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let texts = ["one", "two", "three"].map(ByteArray::from);
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[1, 3], Some(&[1, 0, 1]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

/// A table of a text column and numbers, and one of lists of messages.
fn parquet_files() -> Vec<Seed> {
    let directory = scratch();
    let path = directory.path().join("a.parquet");
    write_numbers(&path);
    let flat = fs::read(&path).unwrap();
    write_messages(&path);
    let nested = fs::read(&path).unwrap();
    vec![Seed::whole(flat), Seed::whole(nested)]
}

#[test]
fn parquet_rows() {
    let words =
        ["PAR1", "schema", "list", "element", "\u{15}\u{2}", "\u{1c}", "\u{19}", "\u{7f}\u{7f}\u{7f}\u{7f}"];
    check("parquet_rows", "damaged.parquet", parquet_files(), &words, 400);
}
