//! Text from files and directories.

use std::fs;
use std::path::{Path, PathBuf};

use tritforge_support::counted;

use crate::hub::{self, Hub};
use crate::text::TextReader;
use crate::{DataError, Format, records, rows};

/// Extensions of the files that are read from a directory. A file that is named itself is read whatever its
/// extension.
pub(crate) const TEXT_EXTENSIONS: [&str; 23] = [
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
    /// Offset of the first byte that is not UTF-8, or is NUL.
    pub offset: usize,
}

/// Where text is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextSource {
    /// A file, a directory, a pattern (`*`, `?`, `[…]`, `**` for directories of any depth), or an address of
    /// the Hugging Face Hub, `hf://datasets/OWNER/NAME/FILE`.
    pub path: PathBuf,
    /// How the files hold documents.
    pub format: Format,
    /// The column with the text in tables.
    pub column: String,
}

impl TextSource {
    /// A source whose files tell their formats by their names, with the text in a column `text`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), format: Format::Auto, column: "text".to_string() }
    }
}

/// Documents, and what had to be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Corpus {
    /// The documents, none empty, in the order of the sources given and, within a directory or a pattern,
    /// sorted by path.
    pub documents: Vec<Document>,
    /// Files of directories that are not UTF-8.
    pub skipped: Vec<Skipped>,
    /// Files that were read.
    pub files: usize,
    /// Records and files without text: empty, or null.
    pub dropped: usize,
}

impl Corpus {
    /// Reads files and directories: [`Self::read_sources`] of a [`TextSource::new`] for each path.
    ///
    /// # Errors
    /// As [`Self::read_sources`].
    pub fn read(paths: &[impl AsRef<Path>]) -> Result<Self, DataError> {
        let sources: Vec<_> = paths.iter().map(|path| TextSource::new(path.as_ref())).collect();
        Self::read_sources(&sources)
    }

    /// Reads sources. A text file is one document; a record of another format is one. A directory is searched
    /// to all depths for files with one of `TEXT_EXTENSIONS` or the extension of another format; names that
    /// begin with a dot are passed over, and text files that are not UTF-8 are skipped and listed.
    ///
    /// # Errors
    /// If a path does not exist or cannot be read, a pattern matches nothing, a file given by name is not
    /// UTF-8, a record is malformed or lacks the column, a file of the hub cannot be had, or there is no text
    /// at all.
    pub fn read_sources(sources: &[TextSource]) -> Result<Self, DataError> {
        let mut corpus = Self::default();
        for source in sources {
            corpus.read_source(source)?;
        }
        if corpus.documents.is_empty() {
            let names: Vec<_> = sources.iter().map(|s| s.path.display().to_string()).collect();
            let skipped = match corpus.skipped.len() {
                0 => String::new(),
                n => format!(" ({} skipped: not UTF-8)", counted(n, "file")),
            };
            return Err(DataError::NoText(format!(
                "no text found in {}{skipped}: expected UTF-8 files; directories are searched for {}",
                if names.is_empty() { "an empty list of paths".to_string() } else { names.join(", ") },
                TEXT_EXTENSIONS.into_iter().chain(rows::extensions()).collect::<Vec<_>>().join(" ")
            )));
        }
        Ok(corpus)
    }

    /// Bytes of all documents.
    pub fn bytes(&self) -> u64 {
        text_bytes(&self.documents)
    }

    fn read_source(&mut self, source: &TextSource) -> Result<(), DataError> {
        for file in files(&source.path, source.format)? {
            match self.read_file(&file.path, &file.name, file.format, source) {
                Err(DataError::NotUtf8 { path, offset, .. } | DataError::Nul { path, offset, .. })
                    if file.listed && file.format == Format::Text =>
                {
                    self.skipped.push(Skipped { path, offset });
                }
                Err(DataError::Encoding { path, .. }) if file.listed && file.format == Format::Text => {
                    self.skipped.push(Skipped { path, offset: 0 });
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn read_file(
        &mut self,
        path: &Path,
        name: &str,
        format: Format,
        source: &TextSource,
    ) -> Result<(), DataError> {
        match format {
            Format::Auto | Format::Text => self.push(name.to_string(), Some(TextReader::read(path)?)),
            Format::Table(table) => records::read(path, table, &source.column, &mut |place, text| {
                self.push(format!("{name}: {place}"), text);
            })?,
        }
        self.files += 1;
        Ok(())
    }

    fn push(&mut self, source: String, text: Option<String>) {
        match text.filter(|text| !text.is_empty()) {
            Some(text) => self.documents.push(Document { source, text }),
            None => self.dropped += 1,
        }
    }
}

/// A file of a source.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Where it is on this machine.
    pub(crate) path: PathBuf,
    /// What messages call it: the path, or the address on the hub.
    pub(crate) name: String,
    /// How it holds documents, never [`Format::Auto`].
    pub(crate) format: Format,
    /// Whether it was found in a directory.
    listed: bool,
}

/// The files that a path names: itself, what is in a directory, what matches a pattern, or a download from
/// the hub.
pub(crate) fn files(path: &Path, format: Format) -> Result<Vec<SourceFile>, DataError> {
    let named = |path: &Path, listed| SourceFile {
        path: path.to_path_buf(),
        name: path.display().to_string(),
        format: format.of(path),
        listed,
    };
    if let Some(address) = path.to_str().filter(|text| text.starts_with(hub::SCHEME)) {
        let path = Hub::from_env().dataset_file(address)?;
        // The file's name in the cache may be a hash; the address has the extension.
        let format = format.of(Path::new(address.split('@').next().unwrap_or(address)));
        return Ok(vec![SourceFile { path, name: address.to_string(), format, listed: false }]);
    }
    let mut found = Vec::new();
    let directory = |dir: &Path, found: &mut Vec<SourceFile>| {
        let mut files = Vec::new();
        list(dir, format, &mut files)?;
        // Sorted by component, so that the order does not depend on the file system or the separator.
        files.sort();
        found.extend(files.iter().map(|file| named(file, true)));
        Ok::<(), DataError>(())
    };
    if path.exists() || !is_pattern(path) {
        if fs::metadata(path).map_err(DataError::io(path, "read"))?.is_dir() {
            directory(path, &mut found)?;
        } else {
            found.push(named(path, false));
        }
        return Ok(found);
    }
    let mut read: Option<PathBuf> = None;
    for path in matches(path)? {
        // `**` gives directories and what is in them; a directory comes first and is read whole.
        if read.as_ref().is_some_and(|directory| path.starts_with(directory)) {
            continue;
        }
        if path.is_dir() {
            directory(&path, &mut found)?;
            read = Some(path);
        } else {
            found.push(named(&path, false));
        }
    }
    Ok(found)
}

/// Whether a path that does not exist as it is written may be a pattern.
pub fn is_pattern(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains(['*', '?', '[']))
}

/// The paths that match a pattern, sorted; at least one.
///
/// # Errors
/// If the pattern is malformed, a directory cannot be read, or nothing matches.
pub fn matches(pattern: &Path) -> Result<Vec<PathBuf>, DataError> {
    let text = pattern.to_str().unwrap_or_default();
    let fault = |message: String| DataError::NoText(format!("{}: {message}", pattern.display()));
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
    let found = glob::glob_with(text, options).map_err(|e| fault(format!("not a pattern: {e}")))?;
    let mut paths = found
        .map(|path| {
            path.map_err(|e| {
                let path = e.path().to_path_buf();
                DataError::io(&path, "list")(e.into())
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if paths.is_empty() {
        return Err(fault("the pattern matches nothing".to_string()));
    }
    paths.sort();
    Ok(paths)
}

/// Bytes of all documents' texts.
pub(crate) fn text_bytes(documents: &[Document]) -> u64 {
    documents.iter().map(|d| d.text.len() as u64).sum()
}

/// All files of a format below a directory. Links to directories are not followed: they can form circles.
fn list(dir: &Path, format: Format, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    for entry in fs::read_dir(dir).map_err(DataError::io(dir, "list"))? {
        let entry = entry.map_err(DataError::io(dir, "list"))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(DataError::io(&path, "find the type of"))?.is_dir() {
            list(&path, format, files)?;
        } else if path.is_file() && format.takes(&path) {
            files.push(path);
        }
    }
    Ok(())
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
        assert!(error.contains("no text found in"), "{error}");
        let error = Corpus::read(&[dir.path().join("absent")]).unwrap_err().to_string();
        assert!(error.contains("absent: cannot read"), "{error}");
        assert!(Corpus::read(&[] as &[&Path]).is_err());
    }
}
