//! What a run will cost, said before it starts: parameters, memory, time.
//!
//! Memory is added up from what the trainer will allocate. Time is measured: the text is prepared as the run
//! would, in a temporary directory if the run has none yet, and a model of the recipe's shape takes a few
//! steps on random tokens. Where that would take too long or too much memory, fewer tokens or layers are
//! tried and the rest is extrapolated.
//!
//! It stays inside this crate: what it measures are the trainer's own parts (optimizers with their states, the
//! average, the passes of an evaluation), which nobody outside needs.

mod memory;
mod time;
mod trial;

use std::time::Instant;

use tempfile::TempDir;
use tritforge_config::{ModelConfig, Parameters};
use tritforge_report::Sink;

pub use self::memory::Memory;
pub use self::time::Time;
use crate::TrainError;
use crate::prepare::{self, Prepared, elsewhere};
use crate::recipe::{GroupSummary, Recipe, TrainEngine};

/// The cost of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    /// The resolved recipe, as TOML.
    pub recipe: String,
    /// The model. Where the text could not be prepared, the vocabulary has the size that the recipe asks for.
    pub config: ModelConfig,
    /// Parameters by part.
    pub parameters: Parameters,
    /// What `[[optim.groups]]` come to.
    pub groups: Vec<GroupSummary>,
    /// Why the text could not be prepared, if so: the times of preparation and evaluations are missing then.
    pub unprepared: Option<String>,
    /// Target tokens of an optimizer step.
    pub tokens_per_step: u64,
    /// Target tokens of the run.
    pub tokens: u64,
    /// Floating-point operations a token: 6 a parameter, forward and backward.
    pub flops_per_token: f64,
    /// Operations a token of attention's products, which come on top: they grow with the length of a sample.
    pub attention_flops_per_token: f64,
    /// f32 operations a second that this machine's products reach.
    pub f32_flops: f64,
    /// int8 × ternary operations a second.
    pub ternary_ops: f64,
    /// Memory by part.
    pub memory: Memory,
    /// The peak of this process in the trial, in bytes; none where the trial was smaller than the run.
    pub measured_memory: Option<u64>,
    /// Memory that the machine has left, in bytes.
    pub available_memory: Option<u64>,
    /// Time by part; none where not even two layers could be tried.
    pub time: Option<Time>,
}

impl DryRun {
    /// The most memory that the run is expected to hold, in bytes: as measured, or else added up.
    pub fn peak_memory(&self, gradient_checkpointing: bool) -> u64 {
        // The trial has no teacher and no reference.
        let measured = self.measured_memory.map(|bytes| bytes + self.memory.objective);
        measured.unwrap_or_else(|| self.memory.total(gradient_checkpointing))
    }
}

/// Resolves a recipe and finds out its cost. Nothing is left on the disk where nothing was. `sink` hears
/// what is going on.
///
/// # Errors
/// If the recipe describes no possible model, its engine is candle, or a model that its objective compares with cannot
/// be opened. Text that cannot be read is told in the
/// result.
pub fn dry_run(recipe: &Recipe, sink: &dyn Sink) -> Result<DryRun, TrainError> {
    if recipe.train.engine == TrainEngine::Candle {
        let message = "train.engine = \"candle\": --dry-run can estimate the fused engine only; leave the key \
                       out, or pass --set train.engine=fused";
        return Err(TrainError::State(message.to_string()));
    }
    let begin = Instant::now();
    let (prepared, unprepared) = match prepare(recipe, sink) {
        Ok(prepared) => (Some(prepared), None),
        Err(reason) => (None, Some(reason)),
    };
    let preparation = begin.elapsed().as_secs_f64();
    let vocab_size =
        prepared.as_ref().map_or(recipe.expected_vocab_size(), |(p, _)| p.tokenizer.vocab_size());
    let config = recipe.model_config(vocab_size)?;
    let parameters = config.parameters();
    let process = tritforge_machine::resident().map_or(0, |memory| memory.now);
    let objective = recipe.objective.chosen().memory(&config, sink)?;
    let memory = memory::estimate(recipe, &config, objective, process);
    let available_memory = tritforge_machine::available_memory();
    let f32_flops = tritforge_machine::f32_flops();
    let tried = match trial::size(recipe, &config, f32_flops, available_memory) {
        Some(size) => Some(trial::run(recipe, &config, size)?),
        None => None,
    };
    let whole = tried.as_ref().is_some_and(|tried| tried.whole);
    let measured_memory = if whole { tritforge_machine::resident().map(|memory| memory.peak) } else { None };
    let sequence_tokens = (recipe.rows() * recipe.data.seq_len) as u64;
    let tokens_per_step = sequence_tokens * recipe.train.gradient_accumulation as u64;
    let time = match tried {
        Some(tried) => {
            let text = prepared.as_ref().map(|(prepared, _)| time::Text {
                held_out: prepared.data.held_out_tokens() as u64,
                preparation,
            });
            Some(time::estimate(recipe, &config, &tried, text, f32_flops)?)
        }
        None => None,
    };
    // Half of the scores of a sample are never computed: causal. Two products forward, four backward.
    let attention = 6 * config.num_hidden_layers * config.q_size() * recipe.data.seq_len;
    Ok(DryRun {
        recipe: recipe.to_toml()?,
        groups: recipe.group_summaries(&config),
        config,
        parameters,
        unprepared,
        tokens_per_step,
        tokens: tokens_per_step * recipe.train.steps,
        flops_per_token: 6.0 * parameters.total() as f64,
        attention_flops_per_token: attention as f64,
        f32_flops,
        ternary_ops: tritforge_machine::ternary_ops(),
        memory,
        measured_memory,
        available_memory,
        time,
    })
}

/// The text as the run would have it, or why there is none. What the run's directory already has is used;
/// otherwise it is made in a directory that is removed with the result.
fn prepare(recipe: &Recipe, sink: &dyn Sink) -> Result<(Prepared, TempDir), String> {
    let sources = recipe.data.sources.iter().map(|source| &source.path);
    if recipe.data.train.iter().chain(sources).any(|path| path.starts_with("hf:")) {
        return Err("a dry run does not download files".to_string());
    }
    let (elsewhere, dir) = elsewhere(recipe).map_err(|error| error.to_string())?;
    match prepare::prepare(&elsewhere, sink) {
        Ok(prepared) => Ok((prepared, dir)),
        Err(error) => Err(error.to_string()),
    }
}
