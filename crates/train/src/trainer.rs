//! The training loop: batches → loss → gradients → optimizer, with evaluations and checkpoints on the way.

mod evaluate;
mod log;
mod step;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tritforge_checkpoint::{Checkpoint, check_room, latest, prune, step_dir, steps};
use tritforge_data::Batches;
use tritforge_model::{Decoder, GradPrecision, GradientTree, Workspace};
use tritforge_report::{Event, MlflowOptions, RunLog, Silent, Sink};

use crate::convert::blend;
use crate::ema::EmaWeights;
use crate::guard::{Guard, Verdict};
use crate::health::Monitor;
use crate::objective::{LossFunction, RunStart};
use crate::optimizer::{Buffer, Optimizer, OptimizerConfig, global_norm, round_to_master};
use crate::prepare::Prepared;
use crate::recipe::{Log, Recipe, TrainEngine};
use crate::state::{self, Progress, Restored, Snapshot};
use crate::training_codes::training_codes;
use crate::training_data::DataLoader;
use crate::{TrainError, hessian, init};

pub(crate) use self::evaluate::eval_sequences;

// The shards mark what is no target; the loss must understand the mark.
const _: () = assert!(tritforge_data::IGNORE_INDEX == tritforge_model::IGNORE_INDEX);

/// How to run a recipe.
#[derive(Clone)]
pub struct RunOptions<'a> {
    /// Go on from the newest checkpoint in the run's directory; from the beginning if there is none.
    pub resume: bool,
    /// Remove the checkpoints of an earlier run in the same directory.
    pub overwrite: bool,
    /// Hears messages, and every event that goes into the run's log; by default nothing does.
    pub sink: &'a dyn Sink,
    /// Once this is true, the run writes a checkpoint after the step in progress and ends.
    pub stop: Option<Arc<AtomicBool>>,
    /// Write the held-out loss of every document into the run's directory at the end ([`crate::document_losses`]), where
    /// the run learns texts by the cross-entropy.
    pub document_losses: bool,
    /// Write a checkpoint after this step and keep it beside the last ones, so that another run can go on from it
    /// ([`crate::shared_steps`]).
    pub keep_step: Option<u64>,
    /// Tags of the run on the server that `[log]` names: key and value.
    pub tags: Vec<(String, String)>,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        Self {
            resume: false,
            overwrite: false,
            sink: &Silent,
            stop: None,
            document_losses: false,
            keep_step: None,
            tags: Vec::new(),
        }
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunOutcome {
    /// It took all its steps.
    Finished,
    /// The held-out loss fell no more for `train.patience` evaluations.
    OutOfPatience,
    /// [`RunOptions::stop`] asked for it.
    Stopped,
}

/// What a run achieved.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Why it ended.
    pub ended: RunOutcome,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The step with the lowest held-out loss, and that loss.
    pub best: Option<(u64, f64)>,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps whose update was skipped.
    pub skipped: u64,
    /// Target tokens of the whole run.
    pub tokens: u64,
    /// Held-out loss at the end, in nats a token, or as the recipe's objective has it; NaN if the run was
    /// stopped before it could be measured.
    pub held_out_loss: f64,
    /// Held-out bits a byte at the end, of pairs those of the chosen answers; NaN if the run was stopped
    /// before they could be measured.
    pub bits_per_byte: f64,
    /// Seconds that this call spent in training steps.
    pub seconds: f64,
    /// Target tokens a second in them.
    pub tokens_per_second: f64,
}

/// A run in progress.
struct Trainer<'a> {
    recipe: &'a Recipe,
    prepared: &'a Prepared,
    /// The resolved recipe's text, kept in every checkpoint.
    text: String,
    model: Decoder,
    optimizer: Optimizer,
    average: Option<EmaWeights>,
    loss_function: Box<dyn LossFunction>,
    gradients: GradientTree,
    workspace: Workspace,
    /// What the temperature of each matrix's soft codes is multiplied by; none for 1.
    temperature_factors: Vec<f32>,
    batches: DataLoader<'a>,
    progress: Progress,
    monitor: Monitor,
    log: RunLog,
    sink: &'a dyn Sink,
    document_losses: bool,
    keep_step: Option<u64>,
    /// f32 operations a second that this machine's products reach.
    gemm_flops: f64,
    last_checkpoint: Option<PathBuf>,
}

/// Trains as the recipe says, on data already prepared.
///
/// # Errors
/// If the directory holds another run or has no room, a checkpoint cannot be written or does not fit the
/// recipe, or loss, gradient or weights are NaN or infinite; the last good checkpoint then stays.
pub fn train(recipe: &Recipe, prepared: &Prepared, options: &RunOptions<'_>) -> Result<Summary, TrainError> {
    let mut trainer = Trainer::start(recipe, prepared, options)?;
    let summary = run(&mut trainer, options);
    trainer.log_end(summary.as_ref().map(|summary| summary.ended))?;
    summary
}

/// Takes the steps of a run that has begun.
fn run(trainer: &mut Trainer<'_>, options: &RunOptions<'_>) -> Result<Summary, TrainError> {
    let recipe = trainer.recipe;
    let begin = Instant::now();
    let (first_tokens, mut evaluating) = (trainer.progress.tokens, 0f64);
    let every = &recipe.train;
    let mut result = None;
    let (mut lap, mut lap_tokens) = (Instant::now(), first_tokens);
    let ended = loop {
        if trainer.progress.step >= every.steps {
            break RunOutcome::Finished;
        }
        if every.patience.is_some_and(|patience| trainer.progress.stale_evaluations >= patience) {
            break RunOutcome::OutOfPatience;
        }
        if options.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            break RunOutcome::Stopped;
        }
        let outcome = trainer.step()?;
        let step = trainer.progress.step;
        let last = step == every.steps;
        if let Verdict::Skip(reason) = outcome.verdict {
            trainer.event(&Event::Skip { step, reason })?;
        } else if step.is_multiple_of(every.log_every) || last {
            let seconds = lap.elapsed().as_secs_f64();
            let tokens = trainer.progress.tokens;
            trainer.log_step(&outcome, (tokens - lap_tokens) as f64 / seconds)?;
            (lap, lap_tokens) = (Instant::now(), tokens);
        }
        let pause = Instant::now();
        if step.is_multiple_of(every.eval_every) || last {
            result = Some(trainer.evaluate()?);
        }
        let best = every.keep_best && trainer.progress.best_step == Some(step);
        let kept = options.keep_step == Some(step);
        if step.is_multiple_of(every.save_every) || last || best || kept {
            trainer.save()?;
        }
        evaluating += pause.elapsed().as_secs_f64();
        lap += pause.elapsed();
    };
    let seconds = begin.elapsed().as_secs_f64() - evaluating;
    let step = trainer.progress.step;
    let checkpoint = match &trainer.last_checkpoint {
        Some(path) if *path == step_dir(&recipe.run.out, step) => {
            // Killed between writing it and this, a run that goes on would keep one too many.
            trainer.prune()?;
            path.clone()
        }
        _ => trainer.save()?,
    };
    let (held_out_loss, bits_per_byte) = match (result, ended) {
        (_, RunOutcome::Stopped) => (f64::NAN, f64::NAN),
        (Some(result), _) => result,
        // A run that had already ended has nothing left to do but say how good it is.
        (None, _) => trainer.evaluate()?,
    };
    trainer.write_report();
    let Progress { tokens, best_step, best_loss, guard, .. } = &trainer.progress;
    let (tokens, skipped) = (*tokens, guard.skipped);
    Ok(Summary {
        ended,
        checkpoint,
        best: best_step.zip(*best_loss),
        steps: step,
        skipped,
        tokens,
        held_out_loss,
        bits_per_byte,
        seconds,
        tokens_per_second: (tokens - first_tokens) as f64 / seconds.max(1e-9),
    })
}

impl<'a> Trainer<'a> {
    fn start(
        recipe: &'a Recipe,
        prepared: &'a Prepared,
        options: &RunOptions<'a>,
    ) -> Result<Self, TrainError> {
        let sink = options.sink;
        let out = &recipe.run.out;
        let found = if options.resume { latest(out)? } else { None };
        let earlier = steps(out)?.len();
        if !options.resume && earlier > 0 && !options.overwrite {
            return Err(TrainError::Exists(out.clone()));
        }
        let config = recipe.model_config(prepared.tokenizer.vocab_size())?;
        let optimizer_config = recipe.optimizer_config();
        let restored = match &found {
            Some(path) => state::load(&Checkpoint::open(path)?, &config, &prepared.fingerprint, recipe)?,
            None => {
                let mut model = init::model(recipe, &config)?;
                model.put_on_grid()?;
                model.requantize()?;
                recipe.freeze(&mut model);
                round_to_master(optimizer_config.master, model.parameters());
                let optimizer = Optimizer::new(optimizer_config, model.parameters());
                let average = recipe.ema.map(|ema| EmaWeights::new(ema.decay, model.parameters()));
                let progress = Progress {
                    step: 0,
                    tokens: 0,
                    position: Batches::start(recipe.order_seed()),
                    data: prepared.fingerprint.clone(),
                    optimizer: state::describe(&optimizer_config),
                    updates: 0,
                    updates_before_reset: 0,
                    guard: Guard::default(),
                    best_loss: None,
                    best_step: None,
                    stale_evaluations: 0,
                    reference_loss: None,
                    base_model: state::base_fingerprint(recipe)?,
                    other_model: None,
                    hessian_scores: None,
                };
                Restored { model, optimizer, average, progress }
            }
        };
        let Restored { mut model, mut optimizer, average, mut progress } = restored;
        if let Some(convert) = &recipe.convert {
            let [weights, inputs] = blend(convert, progress.step, config.num_hidden_layers);
            model.set_blend(&weights, &inputs)?;
            model.requantize()?;
        }
        optimizer.set_each(recipe.parameter_steps(model.parameters().iter().map(|p| p.name.as_str())));
        model.set_grad_precision(match recipe.train.engine {
            TrainEngine::Fused => recipe.quant.backward,
            TrainEngine::Candle => GradPrecision::F32,
        })?;
        // The checkpoints that will be kept, and the one being written, less those that are there already.
        let beside = usize::from(recipe.train.keep_best) + usize::from(options.keep_step.is_some());
        let kept = recipe.train.keep_last + beside + 1;
        let size = checkpoint_bytes(&model, &optimizer, average.is_some());
        check_room(out, size * kept.saturating_sub(earlier) as u64)?;
        let resumed = found.as_deref().map(|path| (path, progress.other_model.as_deref()));
        let start = RunStart { recipe, config: &config, model: &model, prepared, resumed, sink };
        let loss_function = recipe.objective.chosen().start(&start)?;
        progress.other_model = loss_function.other_model().map(str::to_string);
        if !options.resume {
            // Only now that a new run can begin.
            prune(out, 0, &[])?;
        }
        if hessian::wanted(recipe) && progress.hessian_scores.is_none() {
            let mut batches = prepared.data.batches(recipe, progress.position)?;
            let masked = step::masked(recipe, &*loss_function);
            let scores = hessian::scores(recipe, &model, &mut batches, masked)?;
            sink.message(&hessian::described(&scores));
            progress.hessian_scores = Some(scores);
        }
        let temperature_factors = hessian::factors(recipe, &model, progress.hessian_scores.as_ref())?;
        model.set_training_codes(training_codes(recipe, progress.step), &temperature_factors)?;
        model.requantize()?;
        let batches = prepared.data.batches(recipe, progress.position)?;
        let log = open_log(recipe, progress.step, &options.tags)?;
        match &found {
            Some(path) => sink.message(&format!("resuming from {}", path.display())),
            None if options.resume => sink.message("no complete checkpoint found: starting from scratch"),
            None => {}
        }
        let text = recipe.to_toml()?;
        let gradients = GradientTree::new(model.parameters(), recipe.train.gradient_accumulation);
        let mut trainer = Self {
            recipe,
            prepared,
            text,
            model,
            optimizer,
            average,
            loss_function,
            gradients,
            workspace: Workspace::new(recipe.train.gradient_checkpointing),
            temperature_factors,
            batches,
            progress,
            monitor: Monitor::default(),
            log,
            sink,
            document_losses: options.document_losses,
            keep_step: options.keep_step,
            gemm_flops: tritforge_machine::f32_flops(),
            last_checkpoint: found,
        };
        trainer.log_start()?;
        Ok(trainer)
    }

    fn parameters(&self) -> usize {
        self.model.config().parameters().total()
    }

    /// Where a user could go on from.
    fn last_good(&self) -> String {
        self.last_checkpoint.as_ref().map_or("none yet".to_string(), |path| path.display().to_string())
    }

    fn save(&mut self) -> Result<PathBuf, TrainError> {
        let (recipe, step) = (self.recipe, self.progress.step);
        for parameter in self.model.parameters() {
            let norm = global_norm(&[Some(&parameter.tensor.read())]);
            if !norm.is_finite() {
                let checkpoint = self.last_good();
                return Err(TrainError::NotFinite {
                    step,
                    what: "the norm of a weight",
                    value: norm,
                    checkpoint,
                });
            }
        }
        let dir = step_dir(&recipe.run.out, step);
        let deploys = recipe.ema.is_some_and(|ema| ema.deploy);
        let snapshot = Snapshot {
            model: &self.model,
            base: recipe.model.base.as_deref(),
            optimizer: &self.optimizer,
            average: self.average.as_ref().map(|average| (average, deploys)),
            tokenizer: &self.prepared.tokenizer,
            recipe: &self.text,
            progress: &self.progress,
        };
        state::save(&dir, snapshot)?;
        self.prune()?;
        self.event(&Event::Checkpoint { step, path: dir.clone() })?;
        self.last_checkpoint = Some(dir.clone());
        Ok(dir)
    }

    /// Removes the checkpoints that the recipe does not keep.
    fn prune(&self) -> Result<(), TrainError> {
        let best = self.progress.best_step.filter(|_| self.recipe.train.keep_best);
        let kept: Vec<u64> = best.into_iter().chain(self.keep_step).collect();
        Ok(prune(&self.recipe.run.out, self.recipe.train.keep_last, &kept)?)
    }
}

/// The log of a run that goes on after `step` or begins, with the server that the recipe names.
fn open_log(recipe: &Recipe, step: u64, tags: &[(String, String)]) -> Result<RunLog, TrainError> {
    let log = RunLog::open(&recipe.run.out, step)?;
    let Some(Log { mlflow, mlflow_experiment }) = &recipe.log else { return Ok(log) };
    let (url, experiment) = (mlflow.clone(), mlflow_experiment.clone());
    Ok(log.with_mlflow(step, &MlflowOptions { url, experiment, tags: tags.to_vec() })?)
}

/// About how large a checkpoint will be: its tensors, and a little for the rest.
fn checkpoint_bytes(model: &Decoder, optimizer: &Optimizer, averaged: bool) -> u64 {
    let OptimizerConfig { state, master, .. } = optimizer.config();
    let weights: usize = model.parameters().iter().map(|p| p.tensor.len()).sum();
    let states: usize = optimizer.states().iter().flatten().map(Buffer::len).sum();
    let average = if averaged { 4 * weights } else { 0 };
    (weights * master.bytes() + states * state.bytes() + average) as u64 + (1 << 20)
}
