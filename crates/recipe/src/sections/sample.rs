//! `[sample]`: the text that is written at every evaluation.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{Range, Reader};

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

impl Default for Sample {
    fn default() -> Self {
        Self { prompt: "\n".to_string(), tokens: 64, temperature: 0.8, top_k: 40, top_p: 0.95 }
    }
}

impl Sample {
    /// Reads the section.
    pub fn read(r: &mut Reader) -> Self {
        let default = Self::default();
        Self {
            prompt: r.text("sample", "prompt").unwrap_or(default.prompt),
            tokens: r.size("sample", "tokens", 0).unwrap_or(default.tokens),
            temperature: r
                .number("sample", "temperature", Range::at_least(0.0))
                .unwrap_or(default.temperature),
            top_k: r.size("sample", "top_k", 0).unwrap_or(default.top_k),
            top_p: r.number("sample", "top_p", Range::above(0.0).at_most(1.0)).unwrap_or(default.top_p),
        }
    }
}
