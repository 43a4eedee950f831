//! Files of every format, and what is said about those that are wrong.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tritforge_data::{Corpus, DataError, Format, TextSource};

fn texts(source: &TextSource) -> Vec<String> {
    let corpus = Corpus::read_sources(std::slice::from_ref(source)).unwrap();
    corpus.documents.into_iter().map(|d| d.text).collect()
}

/// The message about a file of these bytes.
fn error(name: &str, bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), bytes).unwrap();
    Corpus::read(&[dir.path().join(name)]).unwrap_err().to_string()
}

/// A Parquet file with the columns `id` and `body`.
fn write_parquet(path: &Path, bodies: &[Option<&str>], compression: Compression) {
    let schema = parse_message_type("message m { required binary id (UTF8); optional binary body (UTF8); }");
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = fs::File::create(path).unwrap();
    let mut writer =
        SerializedFileWriter::new(file, Arc::new(schema.unwrap()), Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let ids: Vec<ByteArray> =
        (0..bodies.len()).map(|i| ByteArray::from(i.to_string().into_bytes())).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&ids, None, None).unwrap();
    column.close().unwrap();
    let values: Vec<ByteArray> = bodies.iter().flatten().map(|t| ByteArray::from(*t)).collect();
    let levels: Vec<i16> = bodies.iter().map(|b| i16::from(b.is_some())).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn every_format_gives_its_documents_and_counts_what_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let jsonl = "{\"body\":\"one\\n\",\"n\":1}\n\n{\"body\":null}\n{\"body\":\"\"}\n{\"body\":\"zwölf\"}";
    fs::write(at("a.jsonl"), jsonl).unwrap();
    fs::write(at("b.csv"), "n,body\n1,\"two, \"\"lines\"\"\nhere\"\n2,\n3,x\n").unwrap();
    fs::write(at("c.tsv"), "n\tbody\n1\ta,b\n").unwrap();
    for (name, compression) in [
        ("d.parquet", Compression::SNAPPY),
        ("e.parquet", Compression::ZSTD(Default::default())),
        ("f.parquet", Compression::GZIP(Default::default())),
        ("g.parquet", Compression::UNCOMPRESSED),
    ] {
        write_parquet(&at(name), &[Some("p"), None, Some("é")], compression);
    }
    fs::write(at("z.txt"), "plain").unwrap();
    let source = TextSource { column: "body".to_string(), ..TextSource::new(dir.path()) };
    let corpus = Corpus::read_sources(std::slice::from_ref(&source)).unwrap();
    let found: Vec<&str> = corpus.documents.iter().map(|d| d.text.as_str()).collect();
    let tables = ["one\n", "zwölf", "two, \"lines\"\nhere", "x", "a,b"];
    let parquet = ["p", "é"].repeat(4);
    assert_eq!(found, [&tables[..], &parquet[..], &["plain"]].concat());
    // Two in JSONL, one in CSV, one in each Parquet file.
    assert_eq!((corpus.files, corpus.dropped), (8, 7));
    assert!(corpus.documents[1].source.ends_with("a.jsonl: line 5"), "{}", corpus.documents[1].source);
    assert!(corpus.documents[3].source.ends_with("b.csv: line 5"), "{}", corpus.documents[3].source);
    // A format that is given holds whatever the name, and selects in directories.
    assert_eq!(
        texts(&TextSource { format: Format::from_name("csv").unwrap(), ..source.clone() }),
        ["two, \"lines\"\nhere", "x", "a,b"]
    );
    assert_eq!(texts(&TextSource { format: Format::Text, path: at("a.jsonl"), ..source.clone() }), [jsonl]);
    // A pattern gives its files in order; ** any depth.
    assert_eq!(texts(&TextSource { path: at("[a-b].*"), ..source.clone() }), tables[..4]);
    assert_eq!(texts(&TextSource { path: at("**/*.txt"), ..source.clone() }), ["plain"]);
    // Directories that match are read once, with what is in them.
    fs::create_dir_all(at("y/deep")).unwrap();
    fs::write(at("y/deep/x.txt"), "deep").unwrap();
    assert_eq!(texts(&TextSource { path: at("y/**"), ..source }), ["deep"]);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let missing = error("a.jsonl", b"{\"text\":\"x\"}\n{\"body\":\"y\",\"id\":3}\n");
    assert!(missing.contains("a.jsonl: line 2: no column \"text\": found body, id"), "{missing}");
    let missing = error("a.csv", b"id,body\n1,x\n");
    assert!(missing.contains("a.csv: line 1: no column \"text\": found id, body"), "{missing}");
    let malformed = error("a.jsonl", b"{\"text\":\"x\"}\n{\"text\":\n");
    assert!(malformed.contains("a.jsonl: line 2: not JSON"), "{malformed}");
    assert!(error("a.jsonl", b"[1]").contains("line 1: expected a JSON object"));
    assert!(
        error("a.jsonl", b"{\"text\":[1]}")
            .contains("line 1: column \"text\" is an array, expected a string")
    );
    assert!(
        error("a.jsonl", b"{\"text\":\"\"}\n{\"text\":\"\xff\"}\n").contains("a.jsonl: not UTF-8 at byte 21")
    );
    assert!(error("a.csv", b"text\nab\nc\xff\n").contains("a.csv: not UTF-8 at byte 9"));
    assert!(error("a.csv", b"text,n\nab,1\nc\n").contains("a.csv: line 3: 1 field, but the header has 2"));
    assert!(error("a.parquet", b"PAR1 no").contains("a.parquet: not a readable Parquet file"));
    assert!(error("a.jsonl", b"").contains("no text found in"));
}

#[test]
fn a_parquet_file_without_the_column_or_cut_short_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    write_parquet(&path, &[Some("x")], Compression::SNAPPY);
    let error = Corpus::read(&[&path]).unwrap_err().to_string();
    assert!(error.contains("a.parquet: schema: no column \"text\": found id, body"), "{error}");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    assert!(matches!(Corpus::read(&[&path]), Err(DataError::Unreadable { .. })));
}

#[test]
fn nothing_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = Corpus::read(&[dir.path().join("*.jsonl")]).unwrap_err().to_string();
    assert!(error.contains("*.jsonl: the pattern matches nothing"), "{error}");
    let error = Corpus::read(&[dir.path().join("***")]).unwrap_err().to_string();
    assert!(error.contains("not a pattern"), "{error}");
    let error = Corpus::read(&[dir.path().join("absent.csv")]).unwrap_err().to_string();
    assert!(error.contains("absent.csv: cannot read"), "{error}");
}
