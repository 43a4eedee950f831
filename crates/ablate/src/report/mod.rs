//! The report of an experiment: `report.md`, `report.csv` with a row for each arm, `runs.csv` with a row for each run, both
//! also as Parquet, `tensorboard/` with the same runs for TensorBoard's HParams plugin, and `report.html`, one page that needs
//! nothing else.

mod html;
mod markdown;
mod parquet;
mod plots;
mod sessions;
mod tables;

use std::path::Path;

use crate::experiment::Metric;
use crate::results::ArmResult;
use crate::rungs::RungResult;
use crate::{AblateError, store};

pub use markdown::table;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whether changes of a baseline help.
    Ablation,
    /// Which of several values is the best: they are compared with the one that has the lowest mean.
    Sweep,
}

/// Everything that a report says.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was asked for.
    pub kind: Kind,
    /// The question.
    pub question: String,
    /// The answer, in a sentence or a few.
    pub answer: String,
    /// What is compared.
    pub metric: Metric,
    /// The arm that the others are compared with.
    pub baseline: usize,
    /// Seeds that the experiment's file has.
    pub asked_seeds: usize,
    /// Those of them that were run.
    pub seeds: Vec<u64>,
    /// Differences up to this are of no interest.
    pub margin: Option<f64>,
    /// What each rung found; none without rungs.
    pub rungs: Vec<RungResult>,
    /// The arms.
    pub arms: Vec<ArmResult>,
    /// How it came about.
    pub context: Context,
}

/// How a report came about.
#[derive(Debug, Clone)]
pub struct Context {
    /// When, UTC.
    pub time: String,
    /// The command line.
    pub command: String,
    /// The program's version and build.
    pub program: String,
    /// The machine.
    pub machine: String,
    /// Runs at a time and threads of each.
    pub threads: String,
}

impl Report {
    /// Writes all forms of the report into a directory.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), AblateError> {
        std::fs::create_dir_all(dir).map_err(AblateError::io(dir, "create"))?;
        for (name, table) in [("report", tables::arms(self)), ("runs", tables::runs(self))] {
            store::replace(&dir.join(format!("{name}.csv")), tables::csv(&table))?;
            let path = dir.join(format!("{name}.parquet"));
            let bytes = parquet::bytes(&table);
            let io = |e| AblateError::io(&path, "write")(std::io::Error::other(e));
            store::replace(&path, bytes.map_err(io)?)?;
        }
        sessions::write(self, &dir.join(sessions::DIR))?;
        store::replace(&dir.join("report.md"), markdown::page(self))?;
        store::replace(&dir.join("report.html"), html::page(self))
    }

    /// The page alone, for who has no directory for a report.
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// The arm that the others are compared with.
    pub fn base(&self) -> &ArmResult {
        &self.arms[self.baseline]
    }

    /// Arms in the order of the tables: of a sweep the best first, without those that were given up on a rung.
    fn in_order(&self) -> Vec<&ArmResult> {
        let compared = |arm: &&ArmResult| self.rungs.is_empty() || !arm.arm.runs.is_empty();
        let mut arms: Vec<&ArmResult> = self.arms.iter().filter(compared).collect();
        if self.kind == Kind::Sweep {
            arms.sort_by(|a, b| a.summary.mean.total_cmp(&b.summary.mean));
        }
        arms
    }

    /// What a reader must know before the numbers are believed.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.seeds.len() < self.asked_seeds {
            notes.push(format!(
                "{} of {} seeds were run: the budget allows for no more.",
                self.seeds.len(),
                self.asked_seeds
            ));
        }
        for arm in &self.arms {
            let name = &arm.arm.name;
            if let Some(pairing) = &arm.arm.pairing {
                notes.push(format!("{name}: {pairing}."));
            }
            if let Some(tuned) = arm.arm.tuned.as_ref().filter(|tuned| !tuned.at_edge.is_empty()) {
                let edge = tuned.at_edge.join(", ");
                notes.push(format!(
                    "{name}: {edge} was chosen at the edge of what was tried: a better value may lie beyond."
                ));
            }
            let halved = self.kind == Kind::Sweep && self.rungs.is_empty();
            if halved && arm.arm.runs.len() < self.seeds.len() {
                let ran = tritforge_support::counted(arm.arm.runs.len(), "seed");
                notes.push(format!("{name}: given up after {ran}, as one of the worse half."));
            }
            if arm.failed > 0 {
                notes.push(format!("{name}: {} of {} runs failed.", arm.failed, arm.arm.runs.len()));
            }
            let why = arm.arm.runs.iter().find_map(|run| run.outcome.result()?.not_exported.clone());
            if let Some(why) = why {
                notes.push(format!("{name} could not be exported: {why}"));
            }
        }
        if let [first, .., last] = &self.rungs[..] {
            notes.push(format!(
                "{} of {} steps, the better ones trained on: {} of {} steps compared here. Losses after fewer steps are in \
                 the table of rungs.",
                tritforge_support::counted(first.arms.len(), "arm"),
                first.steps,
                tritforge_support::counted(last.arms.len(), "arm"),
                last.steps
            ));
        }
        if self.kind == Kind::Sweep {
            notes.push(
                "The best of several looks better than it is on the seeds on which it was chosen: compare it on others \
                 with `tritforge ablate`."
                    .to_string(),
            );
        }
        notes
    }
}
