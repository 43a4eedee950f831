//! The program that runs are made with: another one may give other bits.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::AblateError;

/// An executable of Tritforge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// How it is started.
    pub path: PathBuf,
    /// Its version and the SHA-256 of its content, since two builds of one version may differ.
    pub identity: String,
}

impl Program {
    /// The program that is running. It is started again as it is in memory, even if its file has been replaced since.
    ///
    /// # Errors
    /// If its file cannot be found or read.
    pub fn running() -> Result<Self, AblateError> {
        let image = Path::new("/proc/self/exe");
        let path = match image.exists() {
            true => image.to_path_buf(),
            false => std::env::current_exe().map_err(AblateError::io(Path::new("tritforge"), "find"))?,
        };
        Self::of(path)
    }

    /// The program in a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(path: PathBuf) -> Result<Self, AblateError> {
        let mut file = std::fs::File::open(&path).map_err(AblateError::io(&path, "open"))?;
        let mut hash = Sha256::new();
        std::io::copy(&mut file, &mut hash).map_err(AblateError::io(&path, "read"))?;
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { path, identity: format!("{} {digest}", env!("CARGO_PKG_VERSION")) })
    }

    /// Version and the first digits of the content's digest, for people.
    pub fn short(&self) -> String {
        self.identity.chars().take_while(|c| *c != ' ').chain(" (build ".chars()).collect::<String>()
            + &self.identity.split(' ').nth(1).unwrap_or_default().chars().take(12).collect::<String>()
            + ")"
    }
}
