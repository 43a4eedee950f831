//! `[log]`: where a run is logged beside its directory.

use schemars::JsonSchema;
use serde::Serialize;

use crate::Reader;

/// `[log]`: an MLflow tracking server that the run is logged to, beside its own directory. Nothing of it changes what a run
/// learns. A server that is away neither stops training nor slows it (`docs/trackers.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Log {
    /// Address of the server, as `"http://127.0.0.1:5000"`. Name and password, or a token, are taken from the environment:
    /// `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or `MLFLOW_TRACKING_TOKEN`.
    pub mlflow: String,
    /// Name of the experiment there, which is made if there is none; by default `"tritforge"`.
    pub mlflow_experiment: String,
}

impl Log {
    /// Reads the section; none where no server is given.
    pub fn read(r: &mut Reader) -> Option<Self> {
        let mlflow = r.text("log", "mlflow");
        let experiment = r.text("log", "mlflow_experiment");
        if mlflow.is_none() && experiment.is_some() {
            let message = "log.mlflow_experiment: needs log.mlflow, as in mlflow = \"http://127.0.0.1:5000\"";
            r.fault("log", "mlflow_experiment", message);
        }
        if let Some(url) = &mlflow
            && let Err(message) = check(url)
        {
            r.fault("log", "mlflow", message);
        }
        if experiment.as_ref().is_some_and(|name| name.trim().is_empty()) {
            let message = "log.mlflow_experiment is empty: expected the name of an experiment";
            r.fault("log", "mlflow_experiment", message);
        }
        Some(Self {
            mlflow: mlflow?,
            mlflow_experiment: experiment.unwrap_or_else(|| "tritforge".to_string()),
        })
    }
}

/// Whether a text is the address of a server, without secrets: the recipe is kept in every checkpoint.
fn check(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    // Neither is shown in a message; only a name or a password has this sign where an address begins without a scheme, too.
    if url.contains('@') {
        return Err("log.mlflow has a name or a password in it: give them in MLFLOW_TRACKING_USERNAME and \
                    MLFLOW_TRACKING_PASSWORD"
            .to_string());
    }
    let plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}?#".contains(c);
    match host {
        Some(host) if !host.is_empty() && !host.starts_with(':') && url.chars().all(plain) => Ok(()),
        _ => Err(format!(
            "log.mlflow = \"{url}\": expected the address of a server, as in \"http://127.0.0.1:5000\""
        )),
    }
}
