//! What can be wrong with data.

use std::path::{Path, PathBuf};

use tritforge_support::{IoError, counted};

/// An error of this crate: it names the file, what was found, what was expected, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A text file is not UTF-8.
    #[error(
        "{}: not UTF-8 at byte {offset}, line {line}: convert the file, for example with iconv -f LATIN1 -t \
         UTF-8, or list the text files one by one",
        path.display()
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte that is not UTF-8; in a compressed file that in its text.
        offset: usize,
        /// Its line, from 1.
        line: usize,
    },
    /// A text file has a NUL byte.
    #[error(
        "{}: NUL at byte {offset}, line {line}: the file is binary, or UTF-16 without a byte order mark: \
         convert it to UTF-8",
        path.display()
    )]
    Nul {
        /// The file.
        path: PathBuf,
        /// Its offset; in a compressed file that in its text.
        offset: usize,
        /// Its line, from 1.
        line: usize,
    },
    /// The byte order mark of a text file says that it is not UTF-8.
    #[error("{}: {name} (from its byte order mark) is not supported: convert the file, for example with \
             iconv -f {name} -t UTF-8", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The encoding.
        name: &'static str,
    },
    /// A file is compressed in a way that is not read.
    #[error("{}: compressed with {name}, but only gzip and Zstandard are supported: decompress it first", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// The format.
        name: &'static str,
    },
    /// A record of a JSONL, CSV or Parquet file cannot be read.
    #[error("{}: {record}: {message}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where in it: `line 3`, or `row 3` in Parquet; both count from 1.
        record: String,
        /// What was found, what was expected.
        message: String,
    },
    /// An example cannot be made a sample.
    #[error("{source_of}: {message}")]
    Example {
        /// Where it stands: file and place.
        source_of: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A file has no column of the name asked for.
    #[error(
        "{}: {record}: no column {column:?}: found {}; set the column that has the text, as in column = \
         \"…\"",
        path.display(),
        if found.is_empty() { "none".to_string() } else { found.join(", ") }
    )]
    Column {
        /// The file.
        path: PathBuf,
        /// Where in it: `line 3`, or `schema` in Parquet.
        record: String,
        /// The column asked for.
        column: String,
        /// The columns that there are.
        found: Vec<String>,
    },
    /// A file is not what its format says.
    #[error("{}: not a readable {format} file: {message}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The format as it is called.
        format: &'static str,
        /// Why.
        message: String,
    },
    /// A file of the Hugging Face Hub cannot be had.
    #[error("{address}: {message}")]
    Hub {
        /// The address, as it was given.
        address: String,
        /// Why, and what to do.
        message: String,
    },
    /// There is no text.
    #[error("{0}")]
    NoText(String),
    /// The text cannot be split as asked for.
    #[error("cannot split the text: {0}")]
    Split(String),
    /// A shard is truncated, damaged, foreign, or cannot hold what was asked for.
    #[error("{}: {message}", path.display())]
    Shard {
        /// The shard's file.
        path: PathBuf,
        /// What was found, what was expected, and what to do.
        message: String,
    },
    /// The tokenizer failed.
    #[error("{document}: the tokenizer failed: {message}")]
    Tokenizer {
        /// The document.
        document: String,
        /// Why.
        message: String,
    },
    /// A shard has too few tokens.
    #[error("{}, but {purpose} needs at least {needed}: {advice}", counted(*tokens, "token"))]
    TooShort {
        /// Tokens found.
        tokens: usize,
        /// Tokens needed.
        needed: usize,
        /// What they are needed for.
        purpose: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A size or position is out of range.
    #[error("{what} = {found}: {expected}")]
    Value {
        /// The argument.
        what: &'static str,
        /// Its value.
        found: u64,
        /// What would be right.
        expected: String,
    },
    /// The Rust sources of the project's dependencies cannot be found.
    #[error(
        "cannot find the Rust sources of the project's dependencies: {0}. Train on your own text with --data FILE_OR_DIR"
    )]
    RustSources(String),
}

impl DataError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let at = IoError::at(path, action);
        move |source| at(source).into()
    }

    pub(crate) fn record(path: &Path, record: String, message: impl Into<String>) -> Self {
        Self::Record { path: path.to_path_buf(), record, message: message.into() }
    }

    pub(crate) fn shard(path: &Path, message: impl Into<String>) -> Self {
        Self::Shard { path: path.to_path_buf(), message: message.into() }
    }
}
