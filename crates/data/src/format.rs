//! Formats of text files, and how a file's name tells its format.

use std::path::Path;

use serde::Serialize;

use crate::compression;

/// How a file holds documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// By the extension: `json`, `jsonl`, `ndjson`, `csv`, `tsv`, `parquet`, and text for every other; of a
    /// compressed file, `a.jsonl.gz`, by the one before.
    #[default]
    Auto,
    /// A file is one document.
    Text,
    /// An array of JSON objects, or a JSON object a line; one of an object's keys holds a document.
    Json,
    /// A JSON object a line; one of its keys holds a document.
    Jsonl,
    /// A table with a header (RFC 4180), separated by commas, in `.tsv` files by tabs; one column holds a
    /// document a row.
    Csv,
    /// Apache Parquet; one column of strings holds a document a row.
    Parquet,
}

impl Format {
    /// All formats with their names in recipes.
    pub const ALL: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("text", Self::Text),
        ("json", Self::Json),
        ("jsonl", Self::Jsonl),
        ("csv", Self::Csv),
        ("parquet", Self::Parquet),
    ];

    /// The format of a file: itself, or what the extension says.
    pub fn of(self, path: &Path) -> Self {
        match self {
            Self::Auto => match extension(path).as_deref() {
                Some("json") => Self::Json,
                Some("jsonl" | "ndjson") => Self::Jsonl,
                Some("csv" | "tsv") => Self::Csv,
                Some("parquet") => Self::Parquet,
                _ => Self::Text,
            },
            format => format,
        }
    }

    /// Whether a file found in a directory or by a pattern is taken: where the format is given, by its
    /// extensions.
    pub(crate) fn takes(self, path: &Path) -> bool {
        let Some(extension) = extension(path) else { return false };
        let text = || crate::corpus::TEXT_EXTENSIONS.contains(&extension.as_str());
        match self {
            Self::Auto => text() || Self::Auto.of(path) != Self::Text,
            Self::Text => text(),
            format => Self::Auto.of(path) == format,
        }
    }
}

/// The extension in lower case; of a compressed file the one before that of the compression.
pub(crate) fn extension(path: &Path) -> Option<String> {
    let lower = |path: &Path| Some(path.extension()?.to_str()?.to_ascii_lowercase());
    let last = lower(path)?;
    match compression::EXTENSIONS.contains(&last.as_str()) {
        true => lower(Path::new(path.file_stem()?)),
        false => Some(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_formats_unless_one_is_given() {
        for (name, format) in [
            ("a.JSONL", Format::Jsonl),
            ("a.ndjson", Format::Jsonl),
            ("a.json", Format::Json),
            ("a.tsv", Format::Csv),
            ("a.parquet", Format::Parquet),
            ("a.txt", Format::Text),
            ("a", Format::Text),
            ("a.jsonl.gz", Format::Jsonl),
            ("a.CSV.ZST", Format::Csv),
            ("a.gz", Format::Text),
        ] {
            assert_eq!(Format::Auto.of(Path::new(name)), format, "{name}");
            assert_eq!(Format::Csv.of(Path::new(name)), Format::Csv);
        }
        assert!(Format::Auto.takes(Path::new("a.csv")) && !Format::Text.takes(Path::new("a.csv")));
        assert!(!Format::Auto.takes(Path::new("a.png")) && !Format::Jsonl.takes(Path::new("a.txt")));
        // What cannot be decompressed is taken too: it is refused by name, not passed over.
        assert!(Format::Auto.takes(Path::new("a.txt.gz")) && Format::Auto.takes(Path::new("a.jsonl.xz")));
        assert!(!Format::Auto.takes(Path::new("a.tar.gz")) && !Format::Auto.takes(Path::new("a.zip")));
    }
}
