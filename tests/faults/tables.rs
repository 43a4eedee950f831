//! Tables of data: CSV, JSON, JSONL, Parquet.

use std::fs;

use tritforge_data::read_records;

use crate::Round;

#[test]
fn tables_with_one_fault() {
    let directory = tempfile::tempdir().unwrap();
    let mut round = Round::default();
    let read = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        let rows = read_records(&path, None).map_err(|e| e.to_string())?;
        Ok::<_, String>(format!("{:?}", rows.iter().map(|row| &row.fields).collect::<Vec<_>>()))
    };
    let csv = "a,b\n1,é\n\"x, y\",z\n";
    let jsonl = "{\"a\":\"1\",\"b\":\"é\"}\n{\"a\":\"x, y\",\"b\":\"z\"}\n";
    for (name, text) in [("t.csv", csv), ("t.jsonl", jsonl)] {
        let right = read(name, text.as_bytes()).unwrap();
        let with_mark = [b"\xef\xbb\xbf", text.as_bytes()].concat();
        let utf16: Vec<u8> =
            [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let latin1: Vec<u8> = text.chars().map(|c| c as u32 as u8).collect();
        let harmless = [
            with_mark,
            text.replace('\n', "\r\n").into_bytes(),
            text.trim_end().into(),
            format!("{text}\n\n").into(),
        ];
        for bytes in harmless {
            round.take(name, read(name, &bytes), &[], &right);
        }
        round.refused(name, read(name, &utf16), &["UTF-16"]);
        round.refused(name, read(name, &latin1), &["byte"]);
        round.refused(name, read(name, text.replace('z', "\0").as_bytes()), &["line", "byte"]);
    }
    let faults = [
        ("t.csv", "a,a\n1,2\n", "line 1"),
        ("t.csv", "a,b\n1\n", "line 2"),
        ("t.csv", "a,b\n1,2,3\n", "line 2"),
        ("t.csv", "a,b\n\"1,2\n", "line 2"),
        ("t.jsonl", "{\"a\":1,\"a\":2}\n", "line 1"),
        ("t.jsonl", "{\"a\":1}\n{\"a\":\n", "line 2"),
        ("t.jsonl", "{\"a\":1}\n\n[1]\n", "line 3"),
        ("t.jsonl", "{\"a\":NaN}\n", "line 1"),
        ("t.json", "[{\"a\":1},\n{\"a\":2}", "line 2"),
        ("t.json", "[{\"a\":1}]\nx", "after the end"),
        ("t.parquet", "PAR1", "t.parquet"),
    ];
    for (name, text, place) in faults {
        round.refused(&format!("{name} {text:?}"), read(name, text.as_bytes()), &[place]);
    }
    round.end(20);
}
