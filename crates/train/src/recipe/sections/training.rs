//! `[optim]`, `[train]` and `[ema]`: the optimizer and the loop.

use schemars::JsonSchema;
use serde::Serialize;

use crate::optimizer::{AdamW, Defaults, Rule, StoredType};
use crate::schedule::{Cosine, Schedule};

/// `[optim]`: the optimizer and its learning rate.
///
/// Defaults that are not given here depend on the optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Optim {
    /// `kind`, and the keys that only some optimizers have.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rule: Rule,
    /// The peak learning rate.
    pub lr: f64,
    /// Decoupled weight decay of the projections, not of embeddings and norms.
    pub weight_decay: f64,
    /// Maximum global gradient norm; 0 disables clipping. By default 1.
    pub grad_clip: f64,
    /// Number of warm-up steps.
    pub warmup_steps: u64,
    /// `schedule`, and the keys that only some schedules have.
    #[serde(flatten)]
    #[schemars(skip)]
    pub schedule: Schedule,
    /// Final learning rate of a decaying schedule, as a fraction of the peak; by default 0.1.
    pub min_lr_ratio: f64,
    /// The share of the run after which weight decay is 0; by default 1, for `"two-stage"` `stage2_at`.
    pub weight_decay_until: f64,
    /// Storage type of moments and momenta: `"f32"` (the default), or `"bf16"`, rounded stochastically, in
    /// half the memory.
    pub state_dtype: StoredType,
    /// Storage type of the weights: `"f32"` (the default), or `"bf16"`, rounded stochastically after every
    /// step, in half the disk space.
    pub master_dtype: StoredType,
}

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

/// `[ema]`: an average of the weights over the steps, kept where the section is given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Ema {
    /// Decay rate per step; lower at the beginning of the run, (1 + step) / (10 + step).
    pub decay: f64,
    /// Whether the average is used as the model: it is evaluated, and stored as `model.safetensors` for
    /// export. By default it is; otherwise it is stored separately, in `ema.safetensors`.
    pub deploy: bool,
}

impl Default for Optim {
    fn default() -> Self {
        let Defaults { lr, weight_decay, .. } = Defaults::default();
        Self {
            rule: Rule::AdamW(AdamW::default()),
            lr,
            weight_decay,
            grad_clip: 1.0,
            warmup_steps: 0,
            schedule: Schedule::Cosine(Cosine),
            min_lr_ratio: 0.1,
            weight_decay_until: 1.0,
            state_dtype: StoredType::F32,
            master_dtype: StoredType::F32,
        }
    }
}
