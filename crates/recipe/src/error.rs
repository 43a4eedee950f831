//! What can be wrong with a recipe, and where.

use std::fmt;
use std::path::PathBuf;

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// A file cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Everything found wrong, in the order of the file.
    #[error("{}", list(.0))]
    Invalid(Vec<Fault>),
    /// A recipe that cannot be written as TOML.
    #[error("cannot write the recipe as TOML: {0}")]
    Write(#[from] toml::ser::Error),
}

/// One thing wrong: where, and what is expected there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where it stands.
    pub origin: Origin,
    /// The key, what was found, what is expected.
    pub message: String,
}

/// Where a value of a recipe comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A place in a file; line and column count from 1, columns in characters.
    At {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// A file where it should stand, or a default.
    File(PathBuf),
    /// An override, as it was given.
    Override(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::At { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Override(text) => write!(f, "override {text}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

fn list(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    match lines.as_slice() {
        [one] => one.clone(),
        many => format!("{} errors in the recipe:\n  {}", many.len(), many.join("\n  ")),
    }
}
