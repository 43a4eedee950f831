//! What the operating system refused, with its place.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};

/// A file or directory, what was attempted with it, and why it failed.
#[derive(Debug)]
pub struct IoError {
    /// The file or directory.
    pub path: PathBuf,
    /// What was attempted.
    pub action: &'static str,
    /// Why it failed.
    pub source: io::Error,
}

impl IoError {
    /// Makes errors of an action on a path, for `map_err`.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use tritforge_support::IoError;
    ///
    /// let error = IoError::at("a.txt".as_ref(), "read")(ErrorKind::NotFound.into());
    /// assert_eq!(error.to_string(), "a.txt: cannot read: entity not found");
    /// ```
    pub fn at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self { path, action, source }
    }
}

impl Display for IoError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot {}: {}", self.path.display(), self.action, self.source)
    }
}

impl Error for IoError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
