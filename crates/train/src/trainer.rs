//! The training loop: batches → loss → gradients → optimizer, with evaluations and checkpoints on the way.

use std::path::PathBuf;
use std::time::Instant;

use tritforge_checkpoint::{Checkpoint, latest, prune, step_dir, steps};
use tritforge_data::{Batches, Shard, eval_windows};
use tritforge_nn::{Batch, Decoder, Gradients, Score, Workspace};

use crate::log::{Event, Log};
use crate::optimizer::{AdamW, AdamWConfig};
use crate::prepare::Prepared;
use crate::recipe::Recipe;
use crate::schedule::learning_rate;
use crate::state::{self, Progress};
use crate::{TrainError, sample};

// The shards mark what is no target; the loss must understand the mark.
const _: () = assert!(tritforge_data::IGNORE_INDEX == tritforge_nn::IGNORE_INDEX);

/// Windows that one evaluation pass takes at once.
const EVAL_SEQUENCES: usize = 8;

/// How to run a recipe.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Go on from the newest checkpoint in the run's directory; from the beginning if there is none.
    pub resume: bool,
    /// Remove the checkpoints of an earlier run in the same directory.
    pub overwrite: bool,
    /// Say nothing on the terminal.
    pub quiet: bool,
}

/// What a run achieved.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Target tokens of the whole run.
    pub tokens: u64,
    /// Held-out loss at the end, in nats a token.
    pub held_out_loss: f64,
    /// Held-out bits a byte at the end.
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
    optimizer: AdamW,
    gradients: Gradients,
    workspace: Workspace,
    batches: Batches<'a>,
    progress: Progress,
    log: Log,
    last_checkpoint: Option<PathBuf>,
}

/// Trains as the recipe says, on data already prepared.
///
/// # Errors
/// If the directory holds another run, a checkpoint cannot be written or does not fit the recipe, or the loss is NaN or
/// infinite; the last good checkpoint then stays.
pub fn train(recipe: &Recipe, prepared: &Prepared, options: RunOptions) -> Result<Summary, TrainError> {
    let mut trainer = Trainer::start(recipe, prepared, options)?;
    let begin = Instant::now();
    let (first_tokens, mut evaluating) = (trainer.progress.tokens, 0f64);
    let every = &recipe.train;
    let mut result = None;
    let (mut lap, mut lap_tokens) = (Instant::now(), first_tokens);
    while trainer.progress.step < every.steps {
        let outcome = trainer.step()?;
        let step = trainer.progress.step;
        let last = step == every.steps;
        if step.is_multiple_of(every.log_every) || last {
            let seconds = lap.elapsed().as_secs_f64();
            let tokens = trainer.progress.tokens;
            trainer.log.event(&Event::Train {
                step,
                loss: outcome.loss,
                lr: outcome.lr,
                grad_norm: outcome.grad_norm,
                tokens,
                tokens_per_second: (tokens - lap_tokens) as f64 / seconds,
            })?;
            (lap, lap_tokens) = (Instant::now(), tokens);
        }
        let pause = Instant::now();
        if step.is_multiple_of(every.eval_every) || last {
            result = Some(trainer.evaluate()?);
        }
        if step.is_multiple_of(every.save_every) || last {
            trainer.save()?;
        }
        evaluating += pause.elapsed().as_secs_f64();
        lap += pause.elapsed();
    }
    let seconds = begin.elapsed().as_secs_f64() - evaluating;
    trainer.log.finish();
    // A run that was already complete has nothing left to do but say how good it is.
    let (held_out_loss, bits_per_byte) = match result {
        Some(result) => result,
        None => trainer.evaluate()?,
    };
    let checkpoint = match trainer.last_checkpoint {
        Some(path) => path,
        None => trainer.save()?,
    };
    let tokens = trainer.progress.tokens;
    Ok(Summary {
        checkpoint,
        steps: trainer.progress.step,
        tokens,
        held_out_loss,
        bits_per_byte,
        seconds,
        tokens_per_second: (tokens - first_tokens) as f64 / seconds.max(1e-9),
    })
}

struct StepOutcome {
    loss: f64,
    lr: f64,
    grad_norm: f64,
}

impl<'a> Trainer<'a> {
    fn start(recipe: &'a Recipe, prepared: &'a Prepared, options: RunOptions) -> Result<Self, TrainError> {
        let out = &recipe.run.out;
        let found = if options.resume { latest(out)? } else { None };
        if !options.resume && !steps(out)?.is_empty() {
            if !options.overwrite {
                return Err(TrainError::Exists(out.clone()));
            }
            prune(out, 0)?;
        }
        let adamw = AdamWConfig {
            betas: recipe.optim.betas,
            eps: recipe.optim.eps,
            weight_decay: recipe.optim.weight_decay,
        };
        let (model, optimizer, progress) = match &found {
            Some(path) => {
                let restored = state::load(&Checkpoint::open(path)?, adamw)?;
                check_resume(path, recipe, prepared, &restored.0, &restored.2)?;
                restored
            }
            None => {
                let config = recipe.model_config(prepared.tokenizer.vocab_size())?;
                let model = Decoder::init(&config, recipe.run.seed)?;
                let optimizer = AdamW::new(adamw, model.parameters());
                let progress = Progress {
                    step: 0,
                    tokens: 0,
                    position: Batches::start(recipe.run.seed),
                    data: prepared.fingerprint.clone(),
                    best_loss: None,
                };
                (model, optimizer, progress)
            }
        };
        let batches =
            Batches::packed(&prepared.train, recipe.data.seq_len, recipe.data.packing, progress.position)?;
        let log = Log::open(&out.join("metrics.jsonl"), recipe.train.steps, progress.step, options.quiet)?;
        match &found {
            Some(path) => log.say(&format!("going on from {}", path.display())),
            None if options.resume => log.say("no whole checkpoint found: starting from the beginning"),
            None => {}
        }
        let text = recipe.to_toml()?;
        let gradients = Gradients::new(model.parameters(), |_| true);
        Ok(Self {
            recipe,
            prepared,
            text,
            model,
            optimizer,
            gradients,
            workspace: Workspace::new(false),
            batches,
            progress,
            log,
            last_checkpoint: found,
        })
    }

    /// One optimizer step: all micro-batches, one update.
    fn step(&mut self) -> Result<StepOutcome, TrainError> {
        let recipe = self.recipe;
        let size = recipe.train.batch_size;
        let micro_batches = recipe.train.gradient_accumulation;
        // Drawn beforehand: every micro-batch counts by its share of the step's targets, and padding has none.
        let samples =
            (0..micro_batches).map(|_| self.batches.next_batch(size)).collect::<Result<Vec<_>, _>>()?;
        let targets: usize = samples.iter().map(tritforge_data::Batch::scored).sum();
        let lr = learning_rate(&recipe.optim, recipe.train.steps, self.progress.step);
        let mut loss = 0f64;
        self.gradients.clear();
        for samples in &samples {
            let batch = Batch { ids: &samples.inputs, targets: &samples.targets, sequences: size };
            let (workspace, gradients) = (&mut self.workspace, &mut self.gradients);
            loss += self.model.forward_backward(workspace, &batch, targets as f32, gradients)?;
            self.refuse("loss", loss)?;
        }
        let grad_norm = self.gradients.norm();
        self.refuse("gradient norm", grad_norm)?;
        let clip = recipe.optim.grad_clip;
        let scale = if clip > 0.0 && grad_norm > clip { clip / grad_norm } else { 1.0 };
        let gradients: Vec<_> = self.gradients.iter().collect();
        self.optimizer.step(self.model.parameters(), &gradients, lr, scale)?;
        self.model.requantize()?;
        self.progress.step += 1;
        self.progress.tokens += targets as u64;
        self.progress.position = self.batches.position();
        Ok(StepOutcome { loss, lr, grad_norm })
    }

    /// Stops a run whose numbers are no numbers any more, before they reach the weights.
    fn refuse(&self, what: &'static str, value: f64) -> Result<(), TrainError> {
        if value.is_finite() {
            return Ok(());
        }
        self.log.finish();
        let checkpoint = match &self.last_checkpoint {
            Some(path) => path.display().to_string(),
            None => "none yet".to_string(),
        };
        Err(TrainError::NotFinite { step: self.progress.step + 1, what, value, checkpoint })
    }

    /// Held-out loss and bits a byte; writes a sample too. `eval_tokens` limits evaluations on the way, not the last one: its
    /// figures are those that a run is known by.
    fn evaluate(&mut self) -> Result<(f64, f64), TrainError> {
        let last = self.progress.step == self.recipe.train.steps;
        let limit = if last { None } else { self.recipe.train.eval_tokens };
        let score = held_out_score(&self.model, &self.prepared.held_out, self.recipe.data.seq_len, limit)?;
        let loss = score.mean();
        let bits_per_byte = loss / std::f64::consts::LN_2 / self.prepared.held_out.bytes_per_token();
        let sample =
            sample::sample(&self.model, &self.prepared.tokenizer, &self.recipe.sample, self.recipe.run.seed)?;
        let step = self.progress.step;
        self.log.event(&Event::Eval { step, loss, bits_per_byte, sample })?;
        let best = self.progress.best_loss.map_or(loss, |best| best.min(loss));
        self.progress.best_loss = Some(best);
        Ok((loss, bits_per_byte))
    }

    fn save(&mut self) -> Result<PathBuf, TrainError> {
        let dir = step_dir(&self.recipe.run.out, self.progress.step);
        let tokenizer = &self.prepared.tokenizer;
        state::save(&dir, &self.model, &self.optimizer, tokenizer, &self.text, &self.progress)?;
        prune(&self.recipe.run.out, self.recipe.train.keep_last)?;
        self.log.event(&Event::Checkpoint { step: self.progress.step, path: dir.clone() })?;
        self.last_checkpoint = Some(dir.clone());
        Ok(dir)
    }
}

/// Scores a shard in consecutive windows, at most `limit` targets of it.
fn held_out_score(
    model: &Decoder,
    shard: &Shard,
    seq_len: usize,
    limit: Option<usize>,
) -> Result<Score, TrainError> {
    let mut score = Score::default();
    for windows in eval_windows(shard, seq_len, EVAL_SEQUENCES)? {
        if limit.is_some_and(|limit| score.targets >= limit) {
            break;
        }
        let batch = Batch { ids: &windows.inputs, targets: &windows.targets, sequences: windows.sequences };
        score.add(model.score(&batch)?);
    }
    Ok(score)
}

/// A run may go on with another length or schedule, never with another model or other data.
fn check_resume(
    path: &std::path::Path,
    recipe: &Recipe,
    prepared: &Prepared,
    model: &Decoder,
    progress: &Progress,
) -> Result<(), TrainError> {
    let fault = |message: String| TrainError::Resume { path: path.to_path_buf(), message };
    let wanted = recipe.model_config(prepared.tokenizer.vocab_size())?;
    if model.config() != &wanted {
        return Err(fault(
            "the recipe now describes another model than the checkpoint's config.json".to_string(),
        ));
    }
    if progress.data != prepared.fingerprint {
        return Err(fault("the training data or the tokenizer are not those of the checkpoint".to_string()));
    }
    Ok(())
}
