//! The lines of `metrics.jsonl`: written during training, read by the report.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::MatrixHealth;

/// One line of `metrics.jsonl`. Numbers that are none (NaN, ∞) are written as `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// When training starts, and again whenever it goes on.
    Run {
        /// Steps taken before.
        step: u64,
        /// The run's name.
        name: String,
        /// Parameters of the model.
        parameters: usize,
        /// Threads that compute.
        threads: usize,
        /// Measured f32 operations a second: what MFU is measured by.
        gemm_flops: f64,
        /// How the gradients of ternary projections are multiplied on this processor; none in metrics of
        /// earlier versions.
        #[serde(default)]
        backward: Option<String>,
        /// The resolved recipe.
        recipe: String,
    },
    /// After an optimizer step.
    Train(Train),
    /// After a step whose update was not made.
    Skip {
        /// Steps taken.
        step: u64,
        /// Why.
        reason: String,
    },
    /// After an evaluation.
    Eval {
        /// Steps taken.
        step: u64,
        /// Mean cross-entropy of the held-out targets, in nats; of answers that are compared or judged, what training minimizes.
        #[serde(deserialize_with = "number")]
        loss: f64,
        /// Bits a byte of held-out text; of pairs, of the chosen answers, of judged answers, of the good ones.
        #[serde(deserialize_with = "number")]
        bits_per_byte: f64,
        /// A text that the model wrote.
        sample: String,
    },
    /// With a step that is logged and with an evaluation, where answers are compared, or judged one by one.
    Preferences {
        /// Steps taken.
        step: u64,
        /// Whether the pairs or answers are those held out, or the step's.
        held_out: bool,
        /// Mean loss of the preferences alone, without what an answer's own likelihood adds.
        #[serde(deserialize_with = "number")]
        loss: f64,
        /// Share of the pairs whose chosen answer the model prefers more than the reference does; of judged answers, share of
        /// those that are on their side of the point: good ones above it, bad ones below.
        accuracy: f64,
        /// By how much more, in the mean, in nats; of judged answers, how far from the point on their side.
        #[serde(deserialize_with = "number")]
        margin: f64,
        /// What judged answers are judged against, in nats: an estimate of the model's divergence from the reference.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        point: Option<f64>,
    },
    /// With an evaluation, and before the first step: how the ternary matrices are.
    Health {
        /// Steps taken.
        step: u64,
        /// Steps since the last time, over which codes flipped.
        steps: u64,
        /// The seven matrices of the first block, then those of the next.
        matrices: Vec<MatrixHealth>,
    },
    /// After a checkpoint.
    Checkpoint {
        /// Steps taken.
        step: u64,
        /// Its directory.
        path: PathBuf,
    },
    /// When training ends, however it does; not said of a run that is killed.
    End {
        /// Steps taken.
        step: u64,
        /// How it ended.
        ending: Ending,
        /// Why, of a run that failed.
        #[serde(default)]
        reason: String,
    },
    /// Anything else, as a later version may write it.
    #[serde(other)]
    Unknown,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It came to its end.
    Finished,
    /// It was asked to stop, and may go on.
    Stopped,
    /// Loss, gradients or weights were no numbers, or something could not be read or written.
    Failed,
}

/// A step that was logged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// Steps taken.
    pub step: u64,
    /// What the step minimizes: the mean cross-entropy of its targets, in nats, or as the recipe's
    /// objective has it.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Norm of the gradient before clipping.
    #[serde(deserialize_with = "number")]
    pub grad_norm: f64,
    /// Target tokens since the run began.
    pub tokens: u64,
    /// Target tokens a second since the last line.
    pub tokens_per_second: f64,
    /// 6 · parameters · tokens a second over the measured f32 speed of this machine's products.
    #[serde(default)]
    pub mfu: Option<f64>,
    /// Bytes of memory that the process holds.
    #[serde(default)]
    pub rss: Option<u64>,
    /// The most that it ever held.
    #[serde(default)]
    pub peak_rss: Option<u64>,
    /// What the objective measures beside the loss, each under its own name: `relation` is how far the relations
    /// of tokens are from a teacher's, a part of the loss before it is weighted.
    #[serde(flatten, deserialize_with = "numbers")]
    pub metrics: BTreeMap<String, f64>,
}

impl Train {
    /// How far the relations of tokens are from a teacher's, where the objective measures it.
    pub fn relation(&self) -> Option<f64> {
        self.metrics.get("relation").copied()
    }
}

/// JSON has no NaN: it stands as `null`.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// The numbers among the fields that are not known. What a later version may write beside them is passed over.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let fields = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
    let number = |value: serde_json::Value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
    Ok(fields.into_iter().filter_map(|(name, value)| Some((name, number(value)?))).collect())
}
