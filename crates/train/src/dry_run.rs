//! What a run will cost, said before it starts.

use tritforge_config::{ModelConfig, Parameters};

use crate::TrainError;
use crate::recipe::{OptimKind, Recipe};

/// The cost of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    /// The resolved recipe, as TOML.
    pub recipe: String,
    /// The model. Where the vocabulary's size is known only once the tokenizer is trained, the size asked for.
    pub config: ModelConfig,
    /// Parameters by part.
    pub parameters: Parameters,
    /// Target tokens of an optimizer step.
    pub tokens_per_step: u64,
    /// Target tokens of the run.
    pub tokens: u64,
    /// Floating-point operations of the run: 6 a parameter and token.
    pub flops: f64,
    /// Estimated memory, in bytes.
    pub memory: Memory,
}

/// Estimated memory of training, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Latent weights, f32.
    pub weights: u64,
    /// Ternary weights in the kernels' layout.
    pub quantized: u64,
    /// Gradients, f32.
    pub gradients: u64,
    /// The optimizer's state, and the average of the weights if there is one.
    pub optimizer: u64,
    /// What one micro-batch keeps for its backward.
    pub activations: u64,
    /// The chunk of logits.
    pub logits: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.quantized + self.gradients + self.optimizer + self.activations + self.logits
    }
}

/// Resolves a recipe and estimates its cost; `vocab_size` is the tokenizer's, or the size asked for.
///
/// # Errors
/// If the recipe describes no possible model.
pub fn dry_run(recipe: &Recipe, vocab_size: usize) -> Result<DryRun, TrainError> {
    let config = recipe.model_config(vocab_size)?;
    let parameters = config.parameters();
    let total = parameters.total() as u64;
    let sequence_tokens = (recipe.train.batch_size * recipe.data.seq_len) as u64;
    let tokens_per_step = sequence_tokens * recipe.train.gradient_accumulation as u64;
    let tokens = tokens_per_step * recipe.train.steps;
    let (d, f) = (config.hidden_size as u64, config.intermediate_size as u64);
    let (q, kv) = (config.q_size() as u64, config.kv_size() as u64);
    // Kept on the tape by every block, in numbers a token: two residuals and two norms, queries and keys before and after
    // RoPE, values, attention and its sub-norm, two projections' outputs, gate, up, their product and its sub-norm; and
    // the int8 inputs of the seven products.
    let floats = 6 * d + 4 * q + 3 * kv + 4 * f;
    let bytes = 4 * floats + (3 * d + q + 2 * d + f);
    let vocab = config.vocab_size as u64;
    let memory = Memory {
        weights: 4 * total,
        quantized: parameters.projections as u64 / 4,
        gradients: 4 * total,
        optimizer: state_bytes(recipe, parameters),
        activations: sequence_tokens * config.num_hidden_layers as u64 * bytes,
        logits: 4 * (sequence_tokens * vocab).min(8 << 20) * 2,
    };
    Ok(DryRun {
        recipe: recipe.to_toml()?,
        config,
        parameters,
        tokens_per_step,
        tokens,
        flops: 6.0 * total as f64 * tokens as f64,
        memory,
    })
}

/// Bytes that the optimizer keeps between steps, the average of the weights included.
fn state_bytes(recipe: &Recipe, parameters: Parameters) -> u64 {
    let total = parameters.total() as u64;
    let numbers = match recipe.optim.kind {
        OptimKind::AdamW => 2 * total,
        OptimKind::Lion => total,
        OptimKind::Muon => 2 * total - parameters.projections as u64,
    };
    let average = if recipe.ema.is_some() { 4 * total } else { 0 };
    numbers * recipe.optim.state_dtype.bytes() as u64 + average
}
