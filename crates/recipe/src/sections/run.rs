//! `[run]`: its name, where it writes, its seed.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::Reader;

/// `[run]`: the run itself.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Run {
    /// Name of the run; by default the name of the recipe's file.
    pub name: String,
    /// Directory for checkpoints and logs, relative to the working directory; by default `runs/<name>`.
    pub out: PathBuf,
    /// Seed of the initial weights, the samples of text and all rounding at random, and of the order of the data and the split where
    /// `data.order_seed` and `data.split_seed` do not give their own; by default 0.
    pub seed: u64,
}

impl Run {
    /// Reads the section of the recipe at `path`.
    pub fn read(r: &mut Reader, path: &Path) -> Self {
        let stem = path.file_stem().map_or("run".to_string(), |s| s.to_string_lossy().into_owned());
        let name = r.text("run", "name").unwrap_or(stem);
        // An output directory is made, so it is never looked for beside the recipe.
        let out = r.text("run", "out").map(PathBuf::from);
        let out = out.unwrap_or_else(|| Path::new("runs").join(&name));
        Self { name, out, seed: r.integer("run", "seed", 0, i64::MAX as u64).unwrap_or(0) }
    }

    /// Notes what contradicts it.
    pub fn check(&self, r: &mut Reader) {
        if self.out.as_os_str().is_empty() {
            r.fault("run", "out", "run.out is empty: expected a directory");
        }
        let name = &self.name;
        if !r.given("run", "out") && (name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']))
        {
            let message =
                format!("run.name = \"{name}\": expected a name without slashes, or run.out beside it");
            r.fault("run", "name", message);
        }
    }
}
