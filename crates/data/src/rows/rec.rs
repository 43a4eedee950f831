//! A format that only tests have: `name: value` a line, an empty line between records, as in GNU recutils.
//! This file and its line in [`super::TABLES`] are all that it takes to read its files.

use std::path::Path;

use super::{OnRow, Row, TableFormat};
use crate::text::{self, TextReader};
use crate::{Corpus, DataError, Format, TextSource, read_records};

pub(super) static REC: TableFormat = TableFormat { name: "rec", extensions: &["rec"], read };

fn read(path: &Path, _: Option<&str>, take: &mut OnRow<'_>) -> Result<(), DataError> {
    let (mut row, mut begin) = (Row::new(), 0);
    text::lines(path, TextReader::open(path)?, &mut |line, text| {
        if text.trim().is_empty() {
            let whole = std::mem::take(&mut row);
            return if whole.is_empty() { Ok(true) } else { take(format!("line {begin}"), Ok(whole)) };
        }
        let Some((name, value)) = text.split_once(": ") else {
            let message = format!("{text:?}: expected `name: value`");
            return Err(DataError::record(path, format!("line {line}"), message));
        };
        begin = if row.is_empty() { line } else { begin };
        row.insert(name.to_string(), value.trim_end().into());
        Ok(true)
    })?;
    if !row.is_empty() {
        take(format!("line {begin}"), Ok(row))?;
    }
    Ok(())
}

#[test]
fn one_file_and_one_line_make_a_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rec");
    std::fs::write(&path, "text: so much depends\nby: W. C. W.\n\ntext: upon\n").unwrap();
    let format = Format::from_name("rec").unwrap();
    assert!(format != Format::Auto && Format::Auto.of(&path) == format);
    for source in [dir.path().into(), path.clone()].map(|path: std::path::PathBuf| TextSource::new(path)) {
        let corpus = Corpus::read_sources(&[source]).unwrap();
        let texts: Vec<&str> = corpus.documents.iter().map(|document| document.text.as_str()).collect();
        assert_eq!(texts, ["so much depends", "upon"]);
        assert!(corpus.documents[1].source.ends_with("a.rec: line 4"), "{:?}", corpus.documents[1]);
    }
    assert_eq!(read_records(&path, None).unwrap()[0].fields["by"], "W. C. W.");
    std::fs::write(&path, "text: one\n\nno colon\n").unwrap();
    let error = read_records(&path, None).unwrap_err().to_string();
    assert!(error.contains("a.rec: line 3"), "{error}");
    // Errors list it too.
    let error = read_records(&dir.path().join("a.png"), None).unwrap_err().to_string();
    assert!(error.contains(".rec"), "{error}");
}
