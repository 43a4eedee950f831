//! Which run of a server a directory's run is: `mlflow.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ReportError;

/// The file in the directory of a run.
pub(super) const FILE: &str = "mlflow.json";

/// A run of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The server.
    pub(super) url: String,
    /// The name of the experiment.
    pub(super) experiment: String,
    /// The run's id.
    pub(super) run_id: String,
}

impl Record {
    /// The run of the directory, if one was begun at this server in this experiment.
    pub(super) fn read(path: &Path, url: &str, experiment: &str) -> Option<Self> {
        let text = std::fs::read(path).ok()?;
        let record: Self = serde_json::from_slice(&text).ok()?;
        (record.url == url && record.experiment == experiment).then_some(record)
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), ReportError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        let new = path.with_extension("json.tmp");
        std::fs::write(&new, text).map_err(ReportError::io(&new, "write"))?;
        std::fs::rename(&new, path).map_err(ReportError::io(path, "write"))
    }
}
