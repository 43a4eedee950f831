//! The memory of a run, by part.

use tritforge_config::ModelConfig;
use tritforge_nn::Workspace;

use crate::recipe::{OptimKind, Recipe};
use crate::trainer::eval_sequences;

/// Memory of training, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Latent weights, f32.
    pub weights: u64,
    /// Ternary weights in the kernels' layout, and the codes that flips are counted by.
    pub quantized: u64,
    /// Gradients, f32.
    pub gradients: u64,
    /// The optimizer's state, and the average of the weights if there is one.
    pub optimizer: u64,
    /// What one micro-batch keeps for its backward.
    pub activations: u64,
    /// The same with gradient checkpointing.
    pub checkpointed_activations: u64,
    /// What the backward passes from layer to layer.
    pub buffers: u64,
    /// The chunk of logits, or of their gradients.
    pub logits: u64,
    /// What an evaluation needs while training's buffers stay.
    pub evaluation: u64,
    /// The program, its text and tokenizer, packed operands of the products.
    pub process: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self, gradient_checkpointing: bool) -> u64 {
        let activations =
            if gradient_checkpointing { self.checkpointed_activations } else { self.activations };
        let model = self.weights + self.quantized + self.gradients + self.optimizer;
        model + activations + self.buffers + self.logits + self.evaluation + self.process
    }
}

/// Operands that the f32 products pack, and stacks of the threads, about.
const PACKED: u64 = 20 << 20;

/// Adds up the memory of a run; `process` is what the process holds before there is a model.
pub(super) fn estimate(recipe: &Recipe, config: &ModelConfig, process: u64) -> Memory {
    let parameters = config.parameters();
    let total = parameters.total() as u64;
    let tokens = recipe.train.batch_size * recipe.data.seq_len;
    let (activations, all) = Workspace::estimate(config, tokens, false);
    let (checkpointed, _) = Workspace::estimate(config, tokens, true);
    // What grows with the vocabulary; one number a token stays.
    let (_, without_head) =
        Workspace::estimate(&ModelConfig { vocab_size: 1, ..config.clone() }, tokens, false);
    let logits = (all - without_head + 4 * tokens) as u64;
    Memory {
        weights: 4 * total,
        quantized: parameters.projections as u64 / 2,
        gradients: 4 * total,
        optimizer: state_bytes(recipe, config),
        activations: activations as u64,
        checkpointed_activations: checkpointed as u64,
        buffers: (all - activations) as u64 - logits,
        logits,
        evaluation: evaluation(recipe, config),
        process: process + PACKED,
    }
}

/// An evaluation holds either a feed-forward network's tensors, f32, or the logits and a copy of the head.
fn evaluation(recipe: &Recipe, config: &ModelConfig) -> u64 {
    let (d, f, vocab) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let tokens = eval_sequences(recipe.data.seq_len, vocab) * recipe.data.seq_len;
    let block = tokens * (2 * d + 4 * f);
    let head = tokens * (2 * d + vocab) + vocab * d;
    4 * block.max(head) as u64
}

/// Bytes that the optimizer keeps between steps, the average of the weights included.
fn state_bytes(recipe: &Recipe, config: &ModelConfig) -> u64 {
    let parameters = config.parameters();
    let total = parameters.total() as u64;
    let numbers = match recipe.optim.kind {
        OptimKind::AdamW => 2 * total,
        OptimKind::Lion => total,
        OptimKind::Muon => 2 * total - parameters.projections as u64,
    };
    let average = if recipe.ema.is_some() { 4 * total } else { 0 };
    numbers * recipe.optim.state_dtype.bytes() as u64 + average
}
