//! `[run]`, `[sample]` and `[export]`: where a run writes, what it shows, what it becomes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_kernels::DenseType;
use tritforge_ternary::Packing as TernaryPacking;

use super::serialize::{dense_name, packing_name};

/// `[run]`: the run itself.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Run {
    /// Name of the run; by default the name of the recipe's file.
    pub name: String,
    /// Directory for checkpoints and logs, relative to the working directory; by default `runs/<name>`.
    pub out: PathBuf,
    /// Seed of the initial weights, the order of the data, the split and the samples; by default 0.
    pub seed: u64,
}

/// `[sample]`: the text that is written at every evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Sample {
    /// Prompt; by default a line feed.
    pub prompt: String,
    /// Number of tokens to generate; by default 64. 0 disables samples.
    pub tokens: usize,
    /// Sampling temperature; by default 0.8. 0 is greedy.
    pub temperature: f64,
    /// Sample only from the `top_k` most probable tokens; by default 40, 0 for all.
    pub top_k: usize,
    /// Sample only from the most probable tokens that together have this probability; by default 0.95, 1 for
    /// all.
    pub top_p: f64,
}

/// `[export]`: the GGUF file that the trained model is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Export {
    /// The packing (`docs/formats.md`); by default the first of `"tq2_0"` and `"i2_s"` whose blocks fit the widths.
    #[serde(serialize_with = "packing_name")]
    #[schemars(with = "String")]
    pub format: TernaryPacking,
    /// How embedding and head are stored: `"f16"` (the default), `"f32"` or `"q8_0"`.
    #[serde(serialize_with = "dense_name")]
    #[schemars(with = "String")]
    pub embeddings: DenseType,
}

impl Default for Sample {
    fn default() -> Self {
        Self { prompt: "\n".to_string(), tokens: 64, temperature: 0.8, top_k: 40, top_p: 0.95 }
    }
}

impl Default for Export {
    fn default() -> Self {
        Self { format: TernaryPacking::Tq2_0, embeddings: DenseType::F16 }
    }
}
