//! What can keep an experiment from being run or reported.

use std::path::{Path, PathBuf};

use tritforge_recipe::Fault;
use tritforge_support::IoError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum AblateError {
    /// Everything that is wrong with an experiment's file, in the order of the file.
    #[error("{}", list(.0))]
    Experiment(Vec<Fault>),
    /// The recipe of an arm is wrong.
    #[error("arm \"{arm}\": {source}")]
    Arm {
        /// The arm.
        arm: String,
        /// What is wrong.
        source: tritforge_train::recipe::RecipeError,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Another process works on the same experiment.
    #[error(
        "{}: another process is at work on this experiment: wait until it has ended, or give another directory \
         with --out",
        .0.display()
    )]
    Locked(PathBuf),
    /// A file that was written before cannot be understood.
    #[error("{}{}: {message}", path.display(), if *line > 0 { format!(":{line}") } else { String::new() })]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0 for none.
        line: usize,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The experiment takes longer than it may.
    #[error("{0}")]
    Budget(String),
    /// A question that cannot be answered as it was asked.
    #[error("{0}")]
    Request(String),
    /// Data or models of a recipe cannot be made ready.
    #[error(transparent)]
    Train(#[from] tritforge_train::TrainError),
    /// A log cannot be read.
    #[error(transparent)]
    Report(#[from] tritforge_report::ReportError),
    /// It was asked to stop.
    #[error("stopped; the same command goes on")]
    Stopped,
}

impl AblateError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let at = IoError::at(path, action);
        move |source| at(source).into()
    }
}

fn list(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    match lines.as_slice() {
        [one] => one.clone(),
        many => format!("{} errors in the experiment:\n  {}", many.len(), many.join("\n  ")),
    }
}
