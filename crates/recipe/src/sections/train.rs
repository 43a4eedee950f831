//! `[train]`: the loop.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{Range, Reader};

/// `[train]`: the loop.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Train {
    /// Optimizer steps.
    pub steps: u64,
    /// Samples, or pairs of answers, per micro-batch; by default 8.
    pub batch_size: usize,
    /// Micro-batches per step; by default 1.
    pub gradient_accumulation: usize,
    /// Whether to recompute activations in the backward pass instead of storing them: less memory,
    /// bit-identical results. By default false.
    pub gradient_checkpointing: bool,
    /// α of NEFTune (arXiv 2310.05914): in training, not in evaluations, every number of a token's embedding gets noise drawn evenly from
    /// ± α/√(L·d), d being the hidden size and L the number of tokens of the sample, or without `data.packing = "masked"` of the row; 5 to 15
    /// in the paper. By default there is no noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neftune_noise_alpha: Option<f64>,
    /// What computes loss and gradients: `"fused"` (the default), the hand-written pass, or `"candle"`, the modules of
    /// `tritforge-nn` on candle's tape: slower, in more memory, and independent of the first. Both train the same model.
    pub engine: TrainEngine,
    /// Steps between evaluations; by default a tenth of the run.
    pub eval_every: u64,
    /// Approximate number of held-out tokens scored by evaluations during the run; by default all. The final
    /// evaluation always scores all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_tokens: Option<usize>,
    /// Steps between checkpoints; by default `eval_every`.
    pub save_every: u64,
    /// Number of latest checkpoints to keep; by default 2.
    pub keep_last: usize,
    /// Whether to also keep the checkpoint with the lowest held-out loss; by default false.
    pub keep_best: bool,
    /// Number of evaluations without improvement after which the run stops early; by default it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    /// Least decrease of the held-out loss, in nats, that counts as an improvement for `patience`; by default
    /// 0.
    pub min_delta: f64,
    /// What to do when loss or gradient is NaN or infinite: `"stop"` (the default), or `"skip"` the step's update. A run
    /// that skips 20 steps in a row stops.
    pub on_nonfinite: OnFault,
    /// A gradient norm this many times its running mean is a spike; by default none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spike_threshold: Option<f64>,
    /// What to do at a spike: `"skip"` the step's update (the default), or `"stop"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_spike: Option<OnFault>,
    /// Steps between log lines; by default 10.
    pub log_every: u64,
}

/// What computes loss and gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TrainEngine {
    /// The hand-written forward and backward of `tritforge-model`.
    Fused,
    /// The modules of `tritforge-nn` on candle's tape.
    Candle,
}

/// What to do about a step whose numbers cannot be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFault {
    /// The run ends with an error; the last good checkpoint stays.
    Stop,
    /// The step's data is passed over: weights and optimizer stay as they are.
    Skip,
}

impl Train {
    /// Reads the section.
    pub fn read(r: &mut Reader) -> Self {
        let steps = r.integer("train", "steps", 1, 1 << 40);
        if steps.is_none() && !r.given("train", "steps") {
            r.missing("train", "steps", "the number of optimizer steps");
        }
        let steps = steps.unwrap_or(1);
        let verdicts = [("stop", OnFault::Stop), ("skip", OnFault::Skip)];
        let batch_size = r.integer("train", "batch_size", 1, 1 << 20).unwrap_or(8) as usize;
        let gradient_accumulation =
            r.integer("train", "gradient_accumulation", 1, 1 << 20).unwrap_or(1) as usize;
        let gradient_checkpointing = r.flag("train", "gradient_checkpointing").unwrap_or(false);
        let neftune_noise_alpha = r.number("train", "neftune_noise_alpha", Range::above(0.0).at_most(1e6));
        let engines = [("fused", TrainEngine::Fused), ("candle", TrainEngine::Candle)];
        let engine = r.choice("train", "engine", &engines).unwrap_or(TrainEngine::Fused);
        let eval_every = r.integer("train", "eval_every", 1, u64::MAX).unwrap_or((steps / 10).max(1));
        Self {
            steps,
            batch_size,
            gradient_accumulation,
            gradient_checkpointing,
            neftune_noise_alpha,
            engine,
            eval_every,
            eval_tokens: r.integer("train", "eval_tokens", 1, 1 << 40).map(|tokens| tokens as usize),
            save_every: r.integer("train", "save_every", 1, u64::MAX).unwrap_or(eval_every),
            keep_last: r.size("train", "keep_last", 1).unwrap_or(2),
            keep_best: r.flag("train", "keep_best").unwrap_or(false),
            patience: r.integer("train", "patience", 1, 1 << 40),
            min_delta: r.number("train", "min_delta", Range::at_least(0.0)).unwrap_or(0.0),
            on_nonfinite: r.choice("train", "on_nonfinite", &verdicts).unwrap_or(OnFault::Stop),
            spike_threshold: r.number("train", "spike_threshold", Range::above(1.0)),
            on_spike: r.choice("train", "on_spike", &verdicts),
            log_every: r.integer("train", "log_every", 1, u64::MAX).unwrap_or(10),
        }
    }

    /// Notes what contradicts it.
    pub fn check(&self, r: &mut Reader) {
        if self.on_spike.is_some() && self.spike_threshold.is_none() {
            r.fault("train", "on_spike", "train.on_spike: has no effect without train.spike_threshold");
        }
        if self.min_delta > 0.0 && self.patience.is_none() {
            r.fault("train", "min_delta", "train.min_delta: has no effect without train.patience");
        }
    }
}
