//! Tasks: questions with right answers, and how many of them a model answers.
//!
//! Prompts, continuations, few-shot examples and metrics are those of lm-evaluation-harness 0.4; a task is
//! one row of [`TASKS`] and one file that turns a sample into a question.

use std::path::{Path, PathBuf};

use tritforge_data::{Record, read_records, table_extensions};
use tritforge_support::either;

use crate::EvalError;

mod answers;
mod arc;
mod boolq;
mod few_shot;
mod fields;
mod gsm8k;
mod hellaswag;
mod humaneval;
mod instruction;
mod metric;
mod piqa;
mod prompt;
mod python;
mod python_random;
mod question;
mod run;
mod social_iqa;
mod winogrande;

pub use few_shot::Example;
pub use fields::Fields;
pub use gsm8k::{flexible, strict};
pub use metric::Metric;
pub use python::{Limits, Outcome, find_python, run as run_python};
pub use python_random::PythonRandom;
pub use question::{Form, Preferred, Question};
pub use run::{Sample, TaskOptions, TaskResult, evaluate};

/// A task.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// Its name on the command line; lm-evaluation-harness has the same.
    pub name: &'static str,
    /// What it asks, in a few words.
    pub about: &'static str,
    /// Names of directories in which its files are found, beside its own.
    pub folders: &'static [&'static str],
    /// Whether the data set has a test split with answers. Where it has none, the harness draws one few-shot
    /// example more than it shows, and so do we to show the same ones.
    pub test_split: bool,
    /// How it is asked.
    pub kind: Kind,
}

/// How a task is asked.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Which of several texts is the most probable one.
    Choice {
        /// The question of a sample.
        question: fn(&Fields<'_>) -> Result<Question, EvalError>,
        /// Whether the choices are of different lengths, so that `acc_norm` says something.
        normalized: bool,
    },
    /// A number at the end of a text that the model writes.
    Number,
    /// A function that has to pass its tests.
    Program,
}

const fn choice(question: fn(&Fields<'_>) -> Result<Question, EvalError>, normalized: bool) -> Kind {
    Kind::Choice { question, normalized }
}

/// All tasks.
pub const TASKS: [Task; 11] = [
    Task {
        name: "arc_easy",
        about: "science, easy",
        folders: &["ARC-Easy"],
        test_split: true,
        kind: choice(arc::arc, true),
    },
    Task {
        name: "arc_challenge",
        about: "science, hard",
        folders: &["ARC-Challenge"],
        test_split: true,
        kind: choice(arc::arc, true),
    },
    Task {
        name: "boolq",
        about: "yes or no",
        folders: &["BoolQ"],
        test_split: false,
        kind: choice(boolq::boolq, false),
    },
    Task {
        name: "hellaswag",
        about: "how a description goes on",
        folders: &["HellaSwag"],
        test_split: false,
        kind: choice(hellaswag::hellaswag, true),
    },
    Task {
        name: "openbookqa",
        about: "science with common sense",
        folders: &["OpenBookQA"],
        test_split: true,
        kind: choice(arc::openbookqa, true),
    },
    Task {
        name: "piqa",
        about: "how things are done",
        folders: &["PIQA"],
        test_split: false,
        kind: choice(piqa::piqa, true),
    },
    Task {
        name: "social_iqa",
        about: "what people do and feel",
        folders: &["social_i_qa", "siqa"],
        test_split: false,
        kind: choice(social_iqa::social_iqa, false),
    },
    Task {
        name: "winogrande",
        about: "whom a blank stands for",
        folders: &["WinoGrande"],
        test_split: false,
        kind: choice(winogrande::winogrande, false),
    },
    Task {
        name: "instruction",
        about: "the answer that an instruction asks for",
        folders: &[],
        test_split: true,
        kind: choice(instruction::verbatim, false),
    },
    Task { name: "gsm8k", about: "word problems", folders: &["GSM8K"], test_split: true, kind: Kind::Number },
    Task {
        name: "humaneval",
        about: "Python functions",
        folders: &["HumanEval"],
        test_split: true,
        kind: Kind::Program,
    },
];

impl Task {
    /// The task of this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<&'static Task, EvalError> {
        TASKS.iter().find(|task| task.name == name).ok_or_else(|| {
            let known: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
            EvalError::Input(format!("no task {name:?}: expected one of {}", known.join(", ")))
        })
    }

    /// The task's file in a directory, `NAME/SPLIT.jsonl` or `NAME-SPLIT.jsonl`, NAME being the task's or one
    /// of its folders', with any extension of a table; the first split of `splits` that there is.
    fn find(&self, dir: &Path, splits: &[&str]) -> Option<PathBuf> {
        let names = || std::iter::once(self.name).chain(self.folders.iter().copied());
        let table = |stem: PathBuf| {
            // Not `with_extension`: a stem may have a point.
            let with = |extension: &str| PathBuf::from(format!("{}.{extension}", stem.display()));
            table_extensions().map(|extension| with(&extension)).find(|path| path.is_file())
        };
        let in_folder = |split: &&str| names().find_map(|name| table(dir.join(name).join(split)));
        let beside = |split: &&str| names().find_map(|name| table(dir.join(format!("{name}-{split}"))));
        splits.iter().find_map(|split| in_folder(split).or_else(|| beside(split)))
    }

    /// The file to evaluate: the test split, or the validation split, or the file named after the task.
    ///
    /// # Errors
    /// If there is none.
    pub fn test_file(&self, dir: &Path) -> Result<PathBuf, EvalError> {
        let plain = || {
            let names = std::iter::once(self.name).chain(self.folders.iter().copied());
            let mut files =
                names.flat_map(|name| table_extensions().map(move |e| dir.join(format!("{name}.{e}"))));
            files.find(|path| path.is_file())
        };
        self.find(dir, &["test", "validation", "val", "dev"]).or_else(plain).ok_or_else(|| {
            let plain = table_extensions().filter(|extension| !extension.contains('.'));
            let others = plain.filter(|extension| extension != "jsonl");
            EvalError::Input(format!(
                "{}: no file for the task {name}: expected {name}.jsonl or {name}/test.jsonl (or validation; \
                 or {}); or give --task-file {name}=FILE",
                dir.display(),
                either(others.map(|extension| format!(".{extension}"))),
                name = self.name
            ))
        })
    }

    /// The file with few-shot examples: the train split.
    pub fn train_file(&self, dir: &Path) -> Option<PathBuf> {
        self.find(dir, &["train"])
    }
}

/// The samples of a file.
#[derive(Debug, Clone)]
pub struct TaskData {
    /// The file.
    pub path: PathBuf,
    /// Its records.
    pub records: Vec<Record>,
}

impl TaskData {
    /// The first `limit` records of a file.
    ///
    /// # Errors
    /// If it cannot be read, or has none.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Self, EvalError> {
        let records = read_records(path, limit)?;
        if records.is_empty() {
            return Err(EvalError::Input(format!("{}: no samples", path.display())));
        }
        Ok(Self { path: path.to_path_buf(), records })
    }

    /// Every record's fields, through `read`.
    pub(crate) fn each<T>(
        &self,
        read: impl Fn(&Fields<'_>) -> Result<T, EvalError>,
    ) -> Result<Vec<T>, EvalError> {
        self.records.iter().map(|record| read(&Fields::new(&self.path, record))).collect()
    }
}
