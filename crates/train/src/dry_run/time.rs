//! The time of a run, by part, from what a trial found.

use std::path::Path;
use std::time::Instant;

use tritforge_checkpoint::{TensorView, Writer};
use tritforge_config::ModelConfig;

use super::memory;
use super::trial::Trial;
use crate::TrainError;
use crate::recipe::Recipe;
use crate::trainer::eval_sequences;

/// Numbers that are written to measure the disk: 32 MiB.
const WRITTEN: usize = 8 << 20;

/// Seconds that a run will take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Time {
    /// Text, tokenizer, tokens; short where they were made before. None where the text could not be read.
    pub preparation: Option<f64>,
    /// One optimizer step.
    pub step: f64,
    /// All steps.
    pub training: f64,
    /// All evaluations, without their samples. None where the text could not be read.
    pub evaluations: Option<f64>,
    /// All samples of text.
    pub samples: f64,
    /// All checkpoints.
    pub checkpoints: f64,
    /// Target tokens a second in training.
    pub tokens_per_second: f64,
    /// 6 · parameters · tokens a second over the measured f32 speed.
    pub mfu: f64,
    /// Whether fewer tokens or layers were tried than the run has.
    pub extrapolated: bool,
}

impl Time {
    /// All of it.
    pub fn total(&self) -> f64 {
        let text = self.preparation.unwrap_or(0.0) + self.evaluations.unwrap_or(0.0);
        text + self.training + self.samples + self.checkpoints
    }
}

/// What is known of the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    /// Tokens held out.
    pub(super) held_out: u64,
    /// Seconds that it took to prepare.
    pub(super) preparation: f64,
}

/// Adds up the time of a run.
pub(super) fn estimate(
    recipe: &Recipe,
    config: &ModelConfig,
    trial: &Trial,
    text: Option<Text>,
    flops: f64,
) -> Result<Time, TrainError> {
    let (train, costs) = (&recipe.train, trial.costs);
    let tokens = (recipe.rows() * recipe.data.seq_len * train.gradient_accumulation) as f64;
    let scored = f64::from(recipe.objective.chosen().extra_passes()) * costs.score;
    let step = tokens * (costs.pass + scored) + costs.update;
    let evaluations = evaluations(train.steps, train.eval_every);
    let scored = |text: Text| {
        let all = text.held_out.saturating_sub(1);
        // Whole batches are scored until there are enough targets.
        let batch = (eval_sequences(recipe.data.seq_len, config.vocab_size) * recipe.data.seq_len) as u64;
        let limit = train.eval_tokens.map_or(all, |limit| (limit as u64).div_ceil(batch) * batch);
        (evaluations - 1) * limit.min(all) + all
    };
    let per_look = evaluations as f64 * costs.look;
    let saves = match train.keep_best {
        // At worst, every evaluation is the best.
        true => evaluations.max(self::evaluations(train.steps, train.save_every)),
        false => self::evaluations(train.steps, train.save_every),
    };
    let bytes = memory::estimate(recipe, config, 0, 0);
    let weights = bytes.weights / 4 * recipe.optim.master_dtype.bytes() as u64;
    let checkpoint = (weights + bytes.optimizer) as f64 / write_speed()?;
    let speed = tokens / step;
    Ok(Time {
        preparation: text.map(|text| text.preparation),
        step,
        training: train.steps as f64 * step,
        evaluations: text.map(|text| scored(text) as f64 * costs.score + per_look),
        samples: (evaluations as usize * recipe.sample.tokens) as f64 * costs.sample,
        checkpoints: saves as f64 * checkpoint,
        tokens_per_second: speed,
        mfu: 6.0 * config.parameters().total() as f64 * speed / flops,
        extrapolated: !trial.whole,
    })
}

/// How often something happens that happens every so many steps and after the last.
fn evaluations(steps: u64, every: u64) -> u64 {
    steps.div_ceil(every)
}

/// Bytes a second that a checkpoint is written with, checksums included.
fn write_speed() -> Result<f64, TrainError> {
    let fault = |source| TrainError::io(Path::new("a temporary directory"), "create")(source);
    let dir = tempfile::tempdir().map_err(fault)?;
    let values = vec![0.5f32; WRITTEN];
    let begin = Instant::now();
    let mut writer = Writer::create(&dir.path().join("step-000001"))?;
    writer.write_tensors("tensor.safetensors", &[TensorView::new("tensor", &[WRITTEN], &values)])?;
    writer.commit()?;
    Ok((4 * WRITTEN) as f64 / begin.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::super::trial::Costs;
    use super::*;

    const RECIPE: &str = "[model]\nhidden_size = 32\nintermediate_size = 64\n\
        num_hidden_layers = 1\nnum_attention_heads = 2\n[quant]\nweights = \"none\"\n[data]\ntrain = [\"x.txt\"]\nseq_len = 10\n\
        [train]\nsteps = 25\nbatch_size = 3\ngradient_accumulation = 2\neval_every = 10\neval_tokens = 100\n[sample]\ntokens = 5\n";

    #[test]
    fn the_parts_add_up() {
        let recipe = Recipe::from_toml(Path::new("r.toml"), RECIPE, &[]).unwrap();
        let config = recipe.model_config(100).unwrap();
        let costs = Costs { pass: 0.01, update: 0.4, score: 0.001, sample: 0.2, look: 0.0 };
        let text = Some(Text { held_out: 1001, preparation: 7.0 });
        let time = estimate(&recipe, &config, &Trial { costs, whole: true }, text, 1e9).unwrap();
        // 60 tokens a step; evaluations after steps 10, 20 and 25: two of 160 tokens (two batches of 8 · 10),
        // one of all.
        assert!((time.step - 1.0).abs() < 1e-9 && (time.training - 25.0).abs() < 1e-9);
        assert!((time.evaluations.unwrap() - 1.32).abs() < 1e-9, "{time:?}");
        assert!((time.samples - 3.0).abs() < 1e-9);
        assert_eq!((time.preparation, time.extrapolated), (Some(7.0), false));
        assert!((time.tokens_per_second - 60.0).abs() < 1e-9);
        assert!((time.total() - (7.0 + 25.0 + 1.32 + 3.0 + time.checkpoints)).abs() < 1e-9);
        let time = estimate(&recipe, &config, &Trial { costs, whole: false }, None, 1e9).unwrap();
        assert_eq!((time.preparation, time.evaluations, time.extrapolated), (None, None, true));
    }
}
