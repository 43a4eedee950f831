//! What a training run says, where it goes, and the pages drawn from it.
//!
//! * [`Event`] is one thing that a run says: a step, an evaluation, the state of its ternary matrices.
//! * [`RunLog`] writes events to the run's directory: `metrics.jsonl` with one JSON object a line, the same
//!   numbers in `metrics.csv`, and TensorBoard's event files; with the feature `mlflow` also to an MLflow server.
//! * [`write_sessions`] writes event files by which TensorBoard's HParams plugin compares runs.
//! * [`write_report`] reads them back and draws one run or several as an HTML page.
//! * [`history`] reads them back as they are, for who compares runs; [`Scale`], [`path`], [`label`], [`escape`] and
//!   [`STYLE`] are what pages are drawn with.
//! * [`Sink`] is how a library tells people what it does. Libraries print nothing: whoever calls them says
//!   where messages, progress and events go.
//!
//! The crate is below `train`, which writes what is read here: the format of a log has one owner, and a
//! report can be drawn without the training side. It knows nothing of models, recipes or optimizers.
//!
//! ```
//! use tritforge_report::{Event, RunLog, write_report};
//!
//! let run = tempfile::tempdir()?;
//! let mut log = RunLog::open(run.path(), 0)?;
//! let sample = "Once upon a time".to_string();
//! log.event(&Event::Eval { step: 100, loss: 1.5, bits_per_byte: 2.1, sample })?;
//! write_report(&[run.path()], &run.path().join("report.html"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod error;
mod history;
mod html;
mod log;
mod sink;

pub use error::ReportError;
pub use history::{Evaluation, Health, History, Preference, history};
pub use html::{FILE as REPORT, STYLE, Scale, escape, label, path, write as write_report};
#[cfg(feature = "mlflow")]
pub use log::MlflowOptions;
pub use log::{
    Ending, Event, Hparam, Hparams, MatrixHealth, RunLog, Session, Train, hparams_of, write_sessions,
};
pub use sink::{Progress, Silent, Sink};
