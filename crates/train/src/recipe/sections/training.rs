//! `[optim]`, `[train]` and `[ema]`: the optimizer and the loop.

use schemars::JsonSchema;
use serde::Serialize;

use super::serialize::is_zero_u64;
use crate::optimizer::StoredType;

/// `[optim]`: the optimizer and its learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Optim {
    /// `"adamw"` (the default), `"lion"`, or `"muon"` for the projections with AdamW for the rest. `"t-sign-sgd"` for
    /// `lora.mode = "lota"`, and for nothing else.
    pub kind: OptimKind,
    /// The peak learning rate; by default 1e-3, for Lion 1e-4. For `"t-sign-sgd"` the fraction of a matrix's
    /// elements updated per step; by default 0.05.
    pub lr: f64,
    /// Decay rates of the two moments; by default 0.9 and 0.95. For Lion the momentum's weight in the update and its decay
    /// rate; by default 0.9 and 0.99.
    pub betas: (f64, f64),
    /// Added to the root of AdamW's second moment; by default 1e-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// For `"muon"`: decay rate of the momentum; by default 0.95.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Decoupled weight decay of the projections; by default 0.1, for Lion 1, for `"t-sign-sgd"` 0, which has none. Embeddings and
    /// norms do not decay.
    pub weight_decay: f64,
    /// Maximum global gradient norm; 0 disables clipping. By default 1.
    pub grad_clip: f64,
    /// Number of warm-up steps; by default a twentieth of the run, at most 500; for `"t-sign-sgd"` 0.
    pub warmup_steps: u64,
    /// `"cosine"` (the default), `"linear"`, `"constant"`, `"wsd"` (constant, then a linear decay), `"two-stage"` (linear,
    /// with a lower rate and without weight decay from `stage2_at` on) or `"lota"` (the default of `"t-sign-sgd"`: linearly to a
    /// fiftieth over the first four fifths of the run, then to a five-hundredth).
    pub schedule: Schedule,
    /// Final learning rate of a decaying schedule, as a fraction of the peak; by default 0.1.
    pub min_lr_ratio: f64,
    /// For `"wsd"`: the steps of the final decay; by default a fifth of the run.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub decay_steps: u64,
    /// For `"two-stage"`: learning rate of the second stage, instead of `lr`; by default two thirds of `lr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage2_lr: Option<f64>,
    /// For `"two-stage"`: where the second stage begins, as a share of the run; by default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage2_at: Option<f64>,
    /// The share of the run after which weight decay is 0; by default 1, for `"two-stage"` `stage2_at`.
    pub weight_decay_until: f64,
    /// How moments and momenta are kept: `"f32"` (the default), or `"bf16"`, rounded stochastically, in half the memory.
    pub state_dtype: StoredType,
    /// How weights are kept: `"f32"` (the default), or `"bf16"`, rounded stochastically after every step, in half the
    /// disk space.
    pub master_dtype: StoredType,
}

/// Optimizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimKind {
    /// `"adamw"` (arXiv 1711.05101).
    AdamW,
    /// `"lion"` (arXiv 2302.06675).
    Lion,
    /// `"muon"` (arXiv 2502.16982) for the projections, AdamW for the rest.
    Muon,
    /// `"t-sign-sgd"` (arXiv 2505.18724), for the ternary matrices of `lora.mode = "lota"`.
    #[serde(rename = "t-sign-sgd")]
    TSignSgd,
}

/// What the learning rate does after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls linearly to the end of the run.
    Linear,
    /// It falls along half a cosine.
    Cosine,
    /// It stays, and falls linearly in the last `decay_steps`: warm-up, stable, decay.
    Wsd,
    /// It falls linearly to the end of the run, and drops to a lower line on the way ("The Era of 1-bit LLMs: Training
    /// Tips, Code and FAQ").
    TwoStage,
    /// It falls linearly to a fiftieth at four fifths of the run, and to a five-hundredth at its end: the share of gradients that t-SignSGD
    /// takes (arXiv 2505.18724: 5 %, 0.1 %, 0.01 %).
    Lota,
}

/// `[train]`: the loop.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Train {
    /// Optimizer steps.
    pub steps: u64,
    /// Samples of a micro-batch, or pairs of answers; by default 8.
    pub batch_size: usize,
    /// Micro-batches of a step; by default 1.
    pub gradient_accumulation: usize,
    /// Whether to recompute activations in the backward pass instead of storing them: less memory,
    /// bit-identical results. By default false.
    pub gradient_checkpointing: bool,
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
    /// By how much, in nats, a held-out loss must be lower to count for `patience`; by default 0.
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
    /// Whether the average is the model: what is evaluated, and what a checkpoint's `model.safetensors` holds for export.
    /// By default it is; otherwise it is stored beside, in `ema.safetensors`.
    pub deploy: bool,
}

impl Default for Optim {
    fn default() -> Self {
        Self {
            kind: OptimKind::AdamW,
            lr: 1e-3,
            betas: (0.9, 0.95),
            eps: Some(1e-8),
            momentum: None,
            weight_decay: 0.1,
            grad_clip: 1.0,
            warmup_steps: 0,
            schedule: Schedule::Cosine,
            min_lr_ratio: 0.1,
            decay_steps: 0,
            stage2_lr: None,
            stage2_at: None,
            weight_decay_until: 1.0,
            state_dtype: StoredType::F32,
            master_dtype: StoredType::F32,
        }
    }
}
