//! Text from files and directories.

use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;

/// Extensions of the files that are read from a directory. A file that is named itself is read whatever its extension.
pub const TEXT_EXTENSIONS: [&str; 23] = [
    "txt", "text", "md", "rst", "org", "tex", "adoc", "rs", "py", "c", "h", "cc", "cpp", "hpp", "go", "java",
    "js", "ts", "rb", "sh", "hs", "ml", "html",
];

/// A text that stands for itself: a context never needs what precedes its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it came from, for messages.
    pub source: String,
    /// The text.
    pub text: String,
}

impl Document {
    /// A document.
    pub fn new(source: impl Into<String>, text: impl Into<String>) -> Self {
        Self { source: source.into(), text: text.into() }
    }
}

/// A file of a directory that was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Offset of the first byte that is not UTF-8.
    pub offset: usize,
}

/// Documents, and what had to be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// The documents, none empty, in the order of the paths given and, within a directory, sorted by path.
    pub documents: Vec<Document>,
    /// Files of directories that are not UTF-8.
    pub skipped: Vec<Skipped>,
}

impl Corpus {
    /// Reads files and directories. A file is one document. A directory is searched to all depths for files with one of
    /// [`TEXT_EXTENSIONS`]; names that begin with a dot are passed over, and files that are not UTF-8 are skipped and listed.
    ///
    /// # Errors
    /// If a path does not exist or cannot be read, a file given by name is not UTF-8, or there is no text at all.
    pub fn read(paths: &[impl AsRef<Path>]) -> Result<Self, DataError> {
        let mut corpus = Self { documents: Vec::new(), skipped: Vec::new() };
        for path in paths.iter().map(AsRef::as_ref) {
            if fs::metadata(path).map_err(DataError::io(path, "read"))?.is_dir() {
                let mut files = Vec::new();
                list(path, &mut files)?;
                // Sorted by component, so that the order does not depend on the file system or the separator.
                files.sort();
                for file in files {
                    match read_text(&file) {
                        Ok(text) => corpus.push(&file, text),
                        Err(DataError::NotUtf8 { path, offset }) => {
                            corpus.skipped.push(Skipped { path, offset });
                        }
                        Err(error) => return Err(error),
                    }
                }
            } else {
                let text = read_text(path)?;
                corpus.push(path, text);
            }
        }
        if corpus.documents.is_empty() {
            let names: Vec<_> = paths.iter().map(|p| p.as_ref().display().to_string()).collect();
            let skipped = match corpus.skipped.len() {
                0 => String::new(),
                n => format!(" ({n} files are not UTF-8)"),
            };
            return Err(DataError::NoText(format!(
                "no text in {}{skipped}: expected UTF-8 files; directories are searched for {}",
                if names.is_empty() { "an empty list of paths".to_string() } else { names.join(", ") },
                TEXT_EXTENSIONS.join(" ")
            )));
        }
        Ok(corpus)
    }

    /// Bytes of all documents.
    pub fn bytes(&self) -> u64 {
        text_bytes(&self.documents)
    }

    fn push(&mut self, path: &Path, text: String) {
        if !text.is_empty() {
            self.documents.push(Document { source: path.display().to_string(), text });
        }
    }
}

/// Bytes of all documents' texts.
pub(crate) fn text_bytes(documents: &[Document]) -> u64 {
    documents.iter().map(|d| d.text.len() as u64).sum()
}

fn read_text(path: &Path) -> Result<String, DataError> {
    let bytes = fs::read(path).map_err(DataError::io(path, "read"))?;
    String::from_utf8(bytes)
        .map_err(|e| DataError::NotUtf8 { path: path.to_path_buf(), offset: e.utf8_error().valid_up_to() })
}

/// All text files below a directory. Links to directories are not followed: they can form circles.
fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    for entry in fs::read_dir(dir).map_err(DataError::io(dir, "list"))? {
        let entry = entry.map_err(DataError::io(dir, "list"))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(DataError::io(&path, "find the type of"))?.is_dir() {
            list(&path, files)?;
        } else if path.is_file() && has_text_extension(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn has_text_extension(path: &Path) -> bool {
    path.extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| TEXT_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, bytes: &[u8]) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_directory_is_read_in_order_and_to_all_depths() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("b.txt", &b"two"[..]),
            ("a/z.MD", b"one"),
            ("c.rs", b"fn three() {}"),
            ("empty.txt", b""),
            ("image.png", b"no"),
            (".git/x.txt", b"no"),
            ("latin1.txt", b"caf\xe9"),
        ] {
            write(dir.path(), name, bytes);
        }
        let corpus = Corpus::read(&[dir.path()]).unwrap();
        let texts: Vec<_> = corpus.documents.iter().map(|d| d.text.as_str()).collect();
        assert_eq!(texts, ["one", "two", "fn three() {}"]);
        assert_eq!(corpus.bytes(), 19);
        assert_eq!(corpus.skipped, [Skipped { path: dir.path().join("latin1.txt"), offset: 3 }]);
    }

    #[test]
    fn a_named_file_must_be_utf8_whatever_its_extension() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "corpus.dat", "Größe".as_bytes());
        assert_eq!(Corpus::read(&[dir.path().join("corpus.dat")]).unwrap().documents[0].text, "Größe");
        write(dir.path(), "bad.txt", b"ab\xff");
        let error = Corpus::read(&[dir.path().join("bad.txt")]).unwrap_err().to_string();
        assert!(error.contains("bad.txt: not UTF-8 at byte 2"), "{error}");
    }

    #[test]
    fn no_text_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "image.png", b"no");
        let error = Corpus::read(&[dir.path()]).unwrap_err().to_string();
        assert!(error.contains("no text in"), "{error}");
        let error = Corpus::read(&[dir.path().join("absent")]).unwrap_err().to_string();
        assert!(error.contains("absent: cannot read"), "{error}");
        assert!(Corpus::read(&[] as &[&Path]).is_err());
    }
}
