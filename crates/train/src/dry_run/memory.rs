//! The memory of a run, by part.

use tritforge_config::{ActivationQuant, LoraMode, ModelConfig, Projection, WeightQuant};
use tritforge_model::{GradPrecision, Workspace, gradient_buffers};

use crate::optimizer::{ParameterShape, StateTensor};
use crate::recipe::{Lora, Recipe};
use crate::trainer::eval_sequences;

/// Memory of training, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Latent weights, f32.
    pub weights: u64,
    /// Ternary weights in the kernels' layout, and the codes that flips are counted by.
    pub quantized: u64,
    /// Gradients, f32: a buffer for each level of the tree over micro-batches.
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
    /// What the objective holds beside the model: a teacher, a reference.
    pub objective: u64,
    /// The program, its text and tokenizer, packed operands of the products.
    pub process: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self, gradient_checkpointing: bool) -> u64 {
        let activations =
            if gradient_checkpointing { self.checkpointed_activations } else { self.activations };
        let model = self.weights + self.quantized + self.gradients + self.optimizer;
        model + activations + self.buffers + self.logits + self.evaluation + self.objective + self.process
    }
}

/// Operands that the f32 products pack, and stacks of the threads, about.
const PACKED: u64 = 20 << 20;

/// Adds up the memory of a run; `objective` is what the objective holds, `process` what the process holds before there is
/// a model.
pub(super) fn estimate(recipe: &Recipe, config: &ModelConfig, objective: u64, process: u64) -> Memory {
    let parameters = config.parameters();
    let total = parameters.total() as u64;
    let tokens = recipe.rows() * recipe.data.seq_len;
    let (activations, all) = Workspace::estimate(config, tokens, false);
    let (checkpointed, _) = Workspace::estimate(config, tokens, true);
    // What grows with the vocabulary; one number a token stays.
    let (_, without_head) =
        Workspace::estimate(&ModelConfig { vocab_size: 1, ..config.clone() }, tokens, false);
    let logits = (all - without_head + 4 * tokens) as u64;
    let table = |ternary: bool, parameters: usize| if ternary { parameters as u64 / 4 } else { 0 };
    // An embedding that is not the head is quantized where it is read.
    let output = if config.tie_word_embeddings { parameters.embedding } else { parameters.head };
    let tables = table(config.output_granularity().is_some(), output);
    let (projections, trained) = (parameters.projections as u64, trained(recipe, config));
    let (weights, quantized) = match &recipe.lora {
        None => (4 * total, projections / 2),
        // Two bits in both orders, or a code a byte for a backward in f32, take the place of the latent
        // weight, or stand beside it where the adapter changes that. Codes that are moved keep where they
        // came from, at two bits.
        Some(lora) if config.weights != WeightQuant::None => {
            let by_integers = recipe.quant.backward.resolved() != GradPrecision::F32
                && config.activations == ActivationQuant::Absmax;
            let quantized = if by_integers { projections / 2 } else { projections * 5 / 4 };
            match lora.mode {
                LoraMode::Adapter => (4 * (total - projections + trained), quantized),
                LoraMode::QatLora => (4 * (total + trained), quantized),
                LoraMode::Lota => (4 * (total - projections + trained), quantized + projections / 4),
            }
        }
        Some(_) => (4 * (total + trained), 0),
    };
    let adapter = recipe.lora.as_ref().map_or(0, |lora| adapter_buffers(lora, config, tokens));
    Memory {
        weights,
        quantized: quantized + tables,
        gradients: 4 * trained * gradient_buffers(recipe.train.gradient_accumulation) as u64,
        optimizer: state_bytes(recipe, config),
        activations: activations as u64,
        checkpointed_activations: checkpointed as u64,
        buffers: (all - activations) as u64 - logits + adapter,
        logits,
        evaluation: evaluation(recipe, config),
        objective,
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
    let mut elements = 0;
    trained_shapes(recipe, config, |dims, hidden| {
        let tensors = recipe.optim.rule.chosen().state(ParameterShape { dims, hidden });
        elements += tensors.iter().map(StateTensor::len).sum::<usize>() as u64;
    });
    let average = if recipe.ema.is_some() { 4 * trained(recipe, config) } else { 0 };
    elements * recipe.optim.state_dtype.bytes() as u64 + average
}

/// Names the shape of every parameter that is trained, and whether it is a matrix between hidden layers. Norms and biases
/// come as one vector.
fn trained_shapes(recipe: &Recipe, config: &ModelConfig, mut visit: impl FnMut(&[usize], bool)) {
    let layers = config.num_hidden_layers;
    if let Some(lora) = &recipe.lora {
        for [rows, columns] in lora.target_modules.iter().map(|p| config.projection_shape(*p)) {
            for _ in 0..layers {
                visit(&[lora.rank, columns], true);
                visit(&[rows, lora.rank], true);
            }
        }
        return;
    }
    for shape in Projection::ALL.map(|p| config.projection_shape(p)) {
        (0..layers).for_each(|_| visit(&shape, true));
    }
    let parameters = config.parameters();
    let vocabularies = [parameters.embedding, parameters.head];
    for rows in vocabularies.map(|elements| elements / config.hidden_size) {
        visit(&[rows, config.hidden_size], false);
    }
    visit(&[parameters.norms + parameters.biases], false);
}

/// Parameters that are trained: all, or the adapter's.
fn trained(recipe: &Recipe, config: &ModelConfig) -> u64 {
    let Some(lora) = &recipe.lora else { return config.parameters().total() as u64 };
    let sides = |p: &Projection| config.projection_shape(*p).iter().sum::<usize>();
    let sides: usize = lora.target_modules.iter().map(sides).sum();
    (lora.rank * sides * config.num_hidden_layers) as u64
}

/// What adapters need on the way: their input, what is left of it, and the products of their rank.
fn adapter_buffers(lora: &Lora, config: &ModelConfig, tokens: usize) -> u64 {
    let widest = lora.target_modules.iter().map(|p| config.projection_shape(*p)[1]).max().unwrap_or(0);
    let inputs = match (lora.mode, lora.dropout > 0.0) {
        (LoraMode::QatLora | LoraMode::Lota, _) => 0,
        (LoraMode::Adapter, false) => widest,
        (LoraMode::Adapter, true) => 2 * widest,
    };
    4 * (tokens * (inputs + 2 * lora.rank)) as u64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const RECIPE: &str = "[model]\nhidden_size = 256\nintermediate_size = 768\nnum_hidden_layers = 2\n\
                          num_attention_heads = 4\ntie_word_embeddings = false\n[data]\ntrain = \"a.txt\"\n\
                          [train]\nsteps = 3\n";

    #[test]
    fn state_is_that_of_each_optimizer() {
        for (set, numbers) in [
            ("optim.kind=adamw", (|total, _| 2 * total) as fn(u64, u64) -> u64),
            ("optim.kind=lion", |total, _| total),
            ("optim.kind=muon", |total, projections| 2 * total - projections),
            ("optim.kind=plain-sgd", |_, _| 0),
        ] {
            let recipe = Recipe::from_toml(Path::new("r.toml"), RECIPE, &[set.to_string()]).unwrap();
            let config = recipe.model_config(300).unwrap();
            let parameters = config.parameters();
            let expected = numbers(parameters.total() as u64, parameters.projections as u64);
            assert_eq!(state_bytes(&recipe, &config), 4 * expected, "{set}");
        }
    }
}
