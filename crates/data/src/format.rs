//! Formats of text files, and how a file's name tells its format.

use std::path::Path;

use serde::{Serialize, Serializer};

use crate::compression;
use crate::rows::{TABLES, TableFormat};

/// How a file holds documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// By the extension: that of a table's format, and text for every other; of a compressed file,
    /// `a.jsonl.gz`, by the one before.
    #[default]
    Auto,
    /// A file is one document.
    Text,
    /// A file is a table, one column of which holds a document a row.
    Table(&'static TableFormat),
}

impl Format {
    /// All formats, in the order in which errors list them.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Auto, Self::Text].into_iter().chain(TABLES.iter().copied().map(Self::Table))
    }

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Table(table) => table.name,
        }
    }

    /// The format with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|format| format.name() == name)
    }

    /// The format of a file: itself, or what the extension says.
    pub fn of(self, path: &Path) -> Self {
        match self {
            Self::Auto => {
                let extension = extension(path);
                let holds = |table: &&&TableFormat| {
                    extension.as_deref().is_some_and(|extension| table.extensions.contains(&extension))
                };
                TABLES.iter().find(holds).map_or(Self::Text, |table| Self::Table(table))
            }
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

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
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
        let csv = Format::from_name("csv").unwrap();
        for (name, format) in [
            ("a.JSONL", "jsonl"),
            ("a.ndjson", "jsonl"),
            ("a.json", "json"),
            ("a.tsv", "csv"),
            ("a.parquet", "parquet"),
            ("a.txt", "text"),
            ("a", "text"),
            ("a.jsonl.gz", "jsonl"),
            ("a.CSV.ZST", "csv"),
            ("a.gz", "text"),
        ] {
            assert_eq!(Format::Auto.of(Path::new(name)).name(), format, "{name}");
            assert_eq!(csv.of(Path::new(name)), csv);
        }
        assert!(Format::Auto.takes(Path::new("a.csv")) && !Format::Text.takes(Path::new("a.csv")));
        assert!(!Format::Auto.takes(Path::new("a.png")) && !csv.takes(Path::new("a.txt")));
        // What cannot be decompressed is taken too: it is refused by name, not passed over.
        assert!(Format::Auto.takes(Path::new("a.txt.gz")) && Format::Auto.takes(Path::new("a.jsonl.xz")));
        assert!(!Format::Auto.takes(Path::new("a.tar.gz")) && !Format::Auto.takes(Path::new("a.zip")));
    }
}
