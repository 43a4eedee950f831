//! Training objectives: what a run minimizes, on what data, and compared with what other models.
//!
//! Each objective has a file, which owns all about it: its section in recipes with keys, defaults and checks;
//! the data that it learns from; what is made ready before the first step; loss and gradients; what it logs;
//! the memory that it takes. [`Objective`] lists them: the recipe's reader, its documentation, the trainer,
//! checkpoints and the dry run know an objective by its line there.

mod cross_entropy;
#[cfg(test)]
#[path = "../../../model/tests/model/differences.rs"]
mod differences;
mod distill;
mod dpo;
#[cfg(test)]
mod focal;
mod kto;
mod log_probs;
mod loss_function;
mod orpo;
mod other_model;
mod preference;
mod simpo;

use std::borrow::Cow;
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Map;
use tritforge_config::ModelConfig;
use tritforge_model::Decoder;
use tritforge_report::Sink;
use tritforge_support::either;

pub use cross_entropy::{CrossEntropy, TargetLoss};
pub use distill::{Distill, Engine};
pub use dpo::{Dpo, DpoLoss};
pub use kto::{Kto, KtoLoss};
pub use orpo::Orpo;
pub use preference::SftLoss;
pub use simpo::Simpo;

pub(crate) use loss_function::{LossFunction, Pass};

use crate::prepare::Prepared;
use crate::recipe::resume::OnResume;
use crate::recipe::{Reader, Recipe, registry};
use crate::{TrainError, TrainingData};
#[cfg(test)]
use focal::Focal;

registry! {
    /// What a run minimizes: an objective by the name of its section in recipes, with its keys. A recipe that has the
    /// section of none minimizes the plain cross-entropy.
    Objective: Criterion, sections, read = fn(&mut Reader) -> Option<Objective>;
    CrossEntropy = "cross_entropy",
    Distill = "distill",
    Dpo = "dpo",
    Orpo = "orpo",
    Simpo = "simpo",
    Kto = "kto",
    #[cfg(test)]
    Focal = "focal",
}

/// The objectives that learn from pairs of answers.
const OF_PAIRS: [&str; 4] = ["dpo", "orpo", "simpo", "kto"];
/// Those of them that learn from answers that were judged one by one, too.
const OF_LABELLED: [&str; 1] = ["kto"];

/// An objective in a recipe. The struct that implements it holds the keys of its section; the documentation of the
/// struct and its fields is that of the recipe.
pub(crate) trait Criterion {
    /// Reads its section; none where the recipe does not have it.
    fn read(r: &mut Reader) -> Option<Objective>
    where
        Self: Sized;

    /// Notes what contradicts it in a recipe whose keys are right one by one.
    fn check(&self, _recipe: &Recipe, _r: &mut Reader) {}

    /// What another value of one of its keys means for a run that goes on; by default it is refused.
    fn on_resume(&self, _key: &str) -> OnResume {
        OnResume::Fixed
    }

    /// What it learns from.
    fn data(&self) -> DataKind {
        DataKind::Targets
    }

    /// Whether candle's tape computes it too (`train.engine = "candle"`).
    fn runs_on_tape(&self) -> bool {
        false
    }

    /// How often each token of a step is scored beside the pass that gives the gradients; for estimates of time.
    fn extra_passes(&self) -> u32 {
        0
    }

    /// Bytes of memory that it needs beside those of the trainer, for a model of a given shape. `sink` hears what
    /// cannot be told.
    ///
    /// # Errors
    /// If a file that this depends on cannot be read.
    fn memory(&self, _config: &ModelConfig, _sink: &dyn Sink) -> Result<u64, TrainError> {
        Ok(0)
    }

    /// Makes it ready, before the first step of a run and whenever a run goes on.
    ///
    /// # Errors
    /// If the data is of another kind, or a model that it compares with cannot be opened, does not fit the one that
    /// is trained, or is not the one that the run was started with.
    fn start(&self, run: &RunStart<'_>) -> Result<Box<dyn LossFunction>, TrainError>;
}

/// What an objective learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataKind {
    /// Texts, or samples of which some tokens are learned: each row has targets.
    Targets,
    /// Pairs of answers: two rows each, the chosen answer's first.
    Pairs,
    /// Answers that were judged one by one, a row each; pairs are two of them.
    Labelled,
}

impl DataKind {
    /// Rows of a micro-batch for each of the `train.batch_size` samples.
    pub(crate) fn rows(self) -> usize {
        match self {
            DataKind::Targets | DataKind::Labelled => 1,
            DataKind::Pairs => 2,
        }
    }
}

/// A run that begins or goes on.
pub(crate) struct RunStart<'a> {
    pub(crate) recipe: &'a Recipe,
    /// The shape of the model.
    pub(crate) config: &'a ModelConfig,
    /// The model as it stands.
    pub(crate) model: &'a Decoder,
    pub(crate) prepared: &'a Prepared,
    /// The checkpoint that the run goes on from, with the other model that the objective had there
    /// ([`LossFunction::other_model`]).
    pub(crate) resumed: Option<(&'a Path, Option<&'a str>)>,
    /// Hears what is going on.
    pub(crate) sink: &'a dyn Sink,
}

impl RunStart<'_> {
    /// Refuses to go on with another model than the run was started with, with this message.
    pub(crate) fn same_model(&self, fingerprint: &str, message: &str) -> Result<(), TrainError> {
        match self.resumed {
            Some((path, Some(before))) if before != fingerprint => {
                Err(TrainError::Resume { path: path.to_path_buf(), message: message.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// The training data of an objective that learns from texts or samples.
    pub(crate) fn check_targets(&self) -> Result<(), TrainError> {
        match self.prepared.data {
            TrainingData::Text(_) | TrainingData::Samples(_) => Ok(()),
            TrainingData::Pairs(_) | TrainingData::Labelled(_) => Err(other_data()),
        }
    }
}

/// The data was made for an objective that learns from another kind.
pub(crate) fn other_data() -> TrainError {
    TrainError::State("the data was prepared for a different recipe".to_string())
}

impl Default for Objective {
    fn default() -> Self {
        Objective::CrossEntropy(CrossEntropy::default())
    }
}

impl Objective {
    /// Reads the sections of all objectives; the last one that the recipe has is its objective, and the others
    /// contradict it.
    pub(crate) fn read(r: &mut Reader) -> Self {
        let found: Vec<Objective> = Self::ALL.iter().filter_map(|known| (known.read)(r)).collect();
        let mut found = found.into_iter().rev();
        let Some(objective) = found.next() else { return Self::default() };
        for other in found {
            let (name, other) = (objective.name(), other.name());
            r.section_fault(other, format!("[{other}] contradicts [{name}]: a run has one objective"));
        }
        objective
    }

    /// Whether it is that of a recipe without any section of an objective.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The sections of the objectives that learn from pairs of answers, as messages list them.
    pub(crate) fn of_pairs() -> String {
        either(OF_PAIRS.map(|name| format!("[{name}]")))
    }

    /// Those that learn from answers that were judged one by one.
    pub(crate) fn of_labelled() -> String {
        either(OF_LABELLED.map(|name| format!("[{name}]")))
    }

    /// The names of all sections of objectives.
    pub(crate) fn sections() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|known| known.name)
    }
}

/// The sections of all objectives, as properties of a recipe.
impl JsonSchema for Objective {
    fn schema_name() -> Cow<'static, str> {
        "Objective".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let sections: Map<String, serde_json::Value> =
            (Self::ALL.iter()).map(|known| (known.name.to_string(), (known.documented)())).collect();
        json_schema!({ "type": "object", "properties": sections })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every section whose numbers are given, whether they are in range or not.
    #[test]
    fn the_objectives_that_are_named_for_pairs_are_those_that_learn_from_them() {
        let kinds = Objective::ALL.iter().map(|known| {
            let documented = (known.documented)();
            let keys = documented["properties"].as_object().unwrap().keys();
            let text: String = keys.map(|key| format!("{key} = 0.5\n")).collect();
            let text = format!("[{}]\n{text}", known.name);
            let (entries, faults) = tritforge_recipe::parse(Path::new("r.toml"), &text, &[]).unwrap();
            let mut reader = Reader::new(Path::new("r.toml"), entries, faults, |_| true);
            (known.name, (known.read)(&mut reader).map(|objective| objective.chosen().data()))
        });
        let kinds: Vec<_> = kinds.collect();
        let of = |wanted: DataKind| -> Vec<&str> {
            kinds.iter().filter(|(_, kind)| *kind == Some(wanted)).map(|(name, _)| *name).collect()
        };
        assert_eq!(of(DataKind::Labelled), OF_LABELLED);
        assert_eq!([of(DataKind::Pairs), of(DataKind::Labelled)].concat(), OF_PAIRS);
        assert_eq!(Objective::of_pairs(), "[dpo], [orpo], [simpo] or [kto]");
        assert_eq!(Objective::of_labelled(), "[kto]");
    }
}
