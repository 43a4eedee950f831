//! The memory of a training step: allocated in the first one, used again in all that follow.

use tritforge_config::{ActivationQuant, Granularity, ModelConfig, Projection, Rotation};
use tritforge_kernels::{QuantizedRows, Rounding};

use super::embedding_noise::EmbeddingNoise;
use super::head::chunk_tokens;
use super::input_gradient::Rounded;
use super::relation::RelationBuffers;
use crate::device::{Cpu, Input};
use crate::forward::Passing;
use crate::segments::positions;

/// What the forward pass keeps for the backward, and buffers for what both pass on.
///
/// A workspace grows to the largest batch it has seen. With gradient checkpointing it keeps one block's
/// activations and every block's input; without, every block's activations.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(super) checkpointing: bool,
    /// The input of every block, and the output of the last; [tokens, hidden_size].
    pub(super) inputs: Vec<Vec<f32>>,
    /// The blocks' activations: one, used by all in turn, or one a block.
    pub(super) blocks: Vec<Activations>,
    pub(super) scratch: Scratch,
    /// The position of every token in its sequence.
    pub(super) positions: Vec<u32>,
    /// Tokens of each segment.
    pub(super) lengths: Vec<usize>,
    pub(super) noise: u64,
    pub(super) embedding_noise: Option<EmbeddingNoise>,
}

impl Workspace {
    /// An empty workspace. `gradient_checkpointing` keeps only each block's input and computes its
    /// activations again in the backward, to the same bits.
    pub fn new(gradient_checkpointing: bool) -> Self {
        Self { checkpointing: gradient_checkpointing, ..Self::default() }
    }

    /// Seeds the rounding of the next pass with [`crate::GradPrecision::Int16`] or
    /// [`crate::GradPrecision::Int8`]: to be set anew, to a number of the run, the step and the micro-batch,
    /// before every pass. The same seed gives the same bits, on any number of threads.
    pub fn set_noise(&mut self, noise: u64) {
        self.noise = noise;
    }

    /// Noise for the embeddings of the passes that follow, or none, as at first. Models are scored without.
    pub fn set_embedding_noise(&mut self, noise: Option<EmbeddingNoise>) {
        self.embedding_noise = noise;
    }

    /// Makes room for a pass of segments of these lengths through `blocks` blocks; returns the first one's input, empty.
    pub(crate) fn begin(&mut self, lengths: Vec<usize>, blocks: usize) -> &mut Vec<f32> {
        self.lengths = lengths;
        self.positions.clear();
        self.positions.extend(positions(&self.lengths));
        self.inputs.resize_with(blocks + 1, Vec::new);
        self.blocks.resize_with(if self.checkpointing { 1 } else { blocks }, Activations::default);
        let input = &mut self.inputs[0];
        input.clear();
        input
    }

    /// The output of the last of `blocks` blocks after a forward, [tokens, hidden_size].
    pub(crate) fn output(&self, blocks: usize) -> &[f32] {
        &self.inputs[blocks]
    }

    /// Bytes that a workspace will have for batches of `tokens` tokens, as [`Self::activation_bytes`] and
    /// [`Self::bytes`] say afterwards: (activations, all). A backward by integers needs a byte more for each
    /// element of the widest projection's output.
    pub fn estimate(config: &ModelConfig, tokens: usize, gradient_checkpointing: bool) -> (usize, usize) {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.q_size(), config.kv_size());
        let shared = if config.projection_norms { Projection::SHARING.len() } else { 2 };
        let inputs = shared * d + q + f;
        let inputs = match config.activations {
            // A code each, and scale and sum of the rows.
            ActivationQuant::Absmax | ActivationQuant::Int4 => inputs + (2 + shared) * 8,
            ActivationQuant::None => 4 * inputs,
        };
        let plain = if config.use_qk_norm { q + kv } else { 0 };
        let block = 4 * (2 * q + 2 * kv + plain + config.num_attention_heads + d + 2 * f) + inputs;
        let blocks = if gradient_checkpointing { 1 } else { config.num_hidden_layers };
        let activations = tokens * (4 * d * (config.num_hidden_layers + 1) + block * blocks);
        // A gradient as integers: a byte a digit, and scale and sum of their rows.
        let codes = match config.activations {
            ActivationQuant::Absmax | ActivationQuant::Int4 => Rounding::MAX_DIGITS * (d.max(q).max(f) + 8),
            ActivationQuant::None => 0,
        };
        // The gradient times the scales of rows or groups.
        let scaled = if config.granularity == Granularity::Tensor { 0 } else { 4 * d.max(q).max(f) };
        // Rotated numbers before they are rounded.
        let rotated = config.rotation != Rotation::None && config.activations.is_integer();
        let scaled = scaled + if rotated { 4 * q.max(f) } else { 0 };
        // The shared input and the gradient behind a projection's own norm.
        let scaled = scaled + if config.projection_norms { 8 * d } else { 0 };
        let scratch = 4 * (d + d.max(q) + q + 2 * kv + f.max(d) + f) + 4 + codes + scaled;
        let chunk = chunk_tokens(config.vocab_size).min(tokens);
        let head_input = match (config.output_granularity(), config.activations) {
            (None, _) => 0,
            (Some(_), ActivationQuant::Absmax | ActivationQuant::Int4) => d + 8,
            (Some(_), ActivationQuant::None) => 4 * d,
        };
        let logits = 4 * config.vocab_size + head_input;
        (activations, activations + tokens * scratch + chunk * logits)
    }

    /// Bytes of the activations that are kept from the forward for the backward.
    pub fn activation_bytes(&self) -> usize {
        let inputs: usize = self.inputs.iter().map(|x| 4 * x.capacity()).sum();
        inputs + self.blocks.iter().map(activations_bytes).sum::<usize>()
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        self.activation_bytes() + self.scratch.bytes() + 4 * self.positions.capacity()
    }
}

/// What a block's backward needs of its forward, apart from the block's input.
pub(super) type Activations = crate::forward::Activations<Cpu>;

fn activations_bytes(kept: &Activations) -> usize {
    let Activations { q, k, v, plain_q, plain_k, attention, lse, middle, gate, up, .. } = kept;
    let floats = [q, k, v, plain_q, plain_k, attention, lse, middle, gate, up];
    let inputs = [&kept.attention_input, &kept.output_input, &kept.ffn_input, &kept.down_input];
    let inputs = inputs.into_iter().chain(&kept.projection_inputs);
    floats.iter().map(|x| 4 * x.capacity()).sum::<usize>() + inputs.map(Input::bytes).sum::<usize>()
}

/// The input of a projection, which is its own where norms stand before all of them.
pub(super) fn input(kept: &Activations, projection: Projection, own_norms: bool) -> &Input {
    if let (true, Some(index)) = (own_norms, projection.sharing()) {
        return &kept.projection_inputs[index];
    }
    match projection {
        Projection::Q | Projection::K | Projection::V => &kept.attention_input,
        Projection::O => &kept.output_input,
        Projection::Gate | Projection::Up => &kept.ffn_input,
        Projection::Down => &kept.down_input,
    }
}

fn rows_bytes(rows: &QuantizedRows) -> usize {
    let QuantizedRows { codes, scales, sums, .. } = rows;
    codes.capacity() + 4 * (scales.capacity() + sums.capacity())
}

/// What no one keeps.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The gradient of the residual stream, [tokens, hidden_size].
    pub(super) dx: Vec<f32>,
    /// Among them a buffer as wide as the hidden size or the queries.
    pub(super) passing: Passing<Cpu>,
    pub(super) dq: Vec<f32>,
    pub(super) dk: Vec<f32>,
    pub(super) dv: Vec<f32>,
    /// As wide as the feed-forward network.
    pub(super) dgate: Vec<f32>,
    pub(super) dup: Vec<f32>,
    /// A chunk of logits, then of their gradients.
    pub(super) logits: Vec<f32>,
    /// The input of a ternary head for a chunk of tokens; empty where it is in full precision.
    pub(super) head_input: Input,
    /// The gradient of a projection's output as integers; empty where the backward is in f32.
    pub(super) rounded: Rounded,
    pub(super) adapter: AdapterBuffers,
    pub(super) relation: RelationBuffers,
    /// The shared input of projections behind whose own norms it is, and a gradient of that; empty where there are no such norms.
    pub(super) normed: [Vec<f32>; 2],
}

/// What adapters need on the way; empty where there are none.
#[derive(Debug, Default)]
pub(super) struct AdapterBuffers {
    /// The input of a projection with some of it dropped.
    pub(super) dropped: Vec<f32>,
    /// `s · x · Aᵀ`, [tokens, rank], and its gradient.
    pub(super) product: Vec<f32>,
    pub(super) dproduct: Vec<f32>,
}

impl AdapterBuffers {
    fn bytes(&self) -> usize {
        let Self { dropped, product, dproduct } = self;
        [dropped, product, dproduct].iter().map(|x| 4 * x.capacity()).sum()
    }
}

impl Scratch {
    fn bytes(&self) -> usize {
        let Passing { hidden, plain } = &self.passing;
        let all =
            [&self.dx, hidden, plain, &self.dq, &self.dk, &self.dv, &self.dgate, &self.dup, &self.logits];
        all.iter().map(|x| 4 * x.capacity()).sum::<usize>()
            + rows_bytes(self.rounded.codes.rows())
            + 4 * self.rounded.scaled.capacity()
            + self.head_input.bytes()
            + self.adapter.bytes()
            + self.relation.bytes()
            + self.normed.iter().map(|x| 4 * x.capacity()).sum::<usize>()
    }
}
