//! The file of an experiment: a question, a base recipe, arms that change it, seeds.
//!
//! ```toml
//! question = "Do sub-norms help a ternary model of 0.8 M parameters?"
//! base = "../recipes/quickstart.toml"
//! metric = "bits_per_byte"
//! seeds = [1, 2, 3]
//! baseline = "sub-norm"
//!
//! [[arms]]
//! name = "sub-norm"
//! [[arms]]
//! name = "pre-norm"
//! set = { "model.use_sub_norm" = false }
//!
//! [tune]
//! "optim.lr" = [2e-3, 4e-3, 8e-3]
//! seed = 101
//! ```
//!
//! Everything that is wrong with a file is reported at once, with its place.

mod axis;
mod duration;
mod keys;
mod random;
mod read;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use tritforge_recipe::{RecipeError, parse, read_text};

use axis::MOST_POINTS;
pub(crate) use axis::setting;
pub use axis::{Axis, Setting, combinations};
pub use duration::parse_duration;

use crate::AblateError;

/// Directory of all runs where the experiment does not say.
const RUNS: &str = "runs/cache";
/// Directory of the reports of experiments, each in one of its own.
const REPORTS: &str = "runs/ablations";

/// An experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// What is asked, for the report.
    pub question: String,
    /// The recipe that arms change.
    pub base: PathBuf,
    /// What is compared.
    pub metric: Metric,
    /// Seeds of the runs that are reported: of the initial weights and the order of the data.
    pub seeds: Vec<u64>,
    /// What is compared: at least two.
    pub arms: Vec<Arm>,
    /// The arm that the others are compared with.
    pub baseline: usize,
    /// What is chosen for each arm before.
    pub tune: Option<Tune>,
    /// Seconds that it may take.
    pub budget: Option<f64>,
    /// Differences up to this are of no interest, in units of the metric.
    pub margin: Option<f64>,
    /// What is kept, and where.
    pub outputs: Outputs,
}

/// A change of the base recipe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// A recipe in the place of the experiment's base.
    pub base: Option<PathBuf>,
    /// Keys with other values.
    pub set: Vec<Setting>,
    /// The points that are tried for it, where they are others than the experiment's.
    pub tune: Option<Vec<Vec<Setting>>>,
}

/// Keys whose best value is found for every arm by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tune {
    /// The points that are tried for arms without points of their own.
    pub points: Vec<Vec<Setting>>,
    /// Seeds that are not reported.
    pub seeds: Vec<u64>,
}

/// What is kept, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    /// Directory of the journal and the report.
    pub dir: PathBuf,
    /// Directory of the runs, which experiments share.
    pub runs: PathBuf,
    /// Whether the model of each run is exported, to know how many bytes it takes.
    pub export: bool,
    /// Whether the speed of the exported models is measured.
    pub engine_speed: bool,
    /// Whether checkpoints are kept once a run has ended.
    pub checkpoints: bool,
}

impl Default for Outputs {
    fn default() -> Self {
        let (dir, runs) = (PathBuf::from(REPORTS), PathBuf::from(RUNS));
        Self { dir, runs, export: true, engine_speed: false, checkpoints: true }
    }
}

/// What arms are compared by; less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Held-out bits a byte, which do not depend on the tokenizer.
    BitsPerByte,
    /// Held-out loss, in nats a token.
    HeldOutLoss,
}

impl Metric {
    const ALL: [Self; 2] = [Self::BitsPerByte, Self::HeldOutLoss];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::BitsPerByte => "bits_per_byte",
            Self::HeldOutLoss => "held_out_loss",
        }
    }

    /// What it is, and its unit.
    pub fn label(self) -> &'static str {
        match self {
            Self::BitsPerByte => "held-out bits/byte",
            Self::HeldOutLoss => "held-out nats/token",
        }
    }

    /// The metric of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

impl Experiment {
    /// The points that are tried for an arm; one without settings where nothing is tuned.
    pub fn points(&self, arm: usize) -> Vec<Vec<Setting>> {
        let own = self.tune.as_ref().map(|tune| self.arms[arm].tune.as_ref().unwrap_or(&tune.points));
        own.cloned().unwrap_or_else(|| vec![Vec::new()])
    }

    /// Reads the file of an experiment.
    ///
    /// # Errors
    /// If it cannot be read, or anything in it is wrong: everything that is.
    pub fn load(path: &Path) -> Result<Self, AblateError> {
        let text = read_text(path).map_err(of_recipe)?;
        Self::from_toml(path, &text)
    }

    /// Like [`Self::load`] for a text at hand; `path` names it in messages, and paths are looked for beside it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_toml(path: &Path, text: &str) -> Result<Self, AblateError> {
        let (entries, mut faults) = parse(path, text, &[]).map_err(of_recipe)?;
        let experiment = read::read(path, entries, &mut faults);
        faults.sort();
        match experiment {
            Some(experiment) if faults.is_empty() => Ok(experiment),
            _ => Err(AblateError::Experiment(faults)),
        }
    }
}

fn of_recipe(error: RecipeError) -> AblateError {
    match error {
        RecipeError::Io { path, source } => AblateError::io(&path, "read")(source),
        RecipeError::Invalid(faults) => AblateError::Experiment(faults),
        other => AblateError::Request(other.to_string()),
    }
}
