//! The memory of a training step: allocated in the first one, used again in all that follow.

use tritforge_config::{ActivationQuant, ModelConfig, Projection};
use tritforge_kernels::{GradientRows, Matrix, QuantizedRows, Rounding};

use super::head::chunk_tokens;
use super::relation::RelationBuffers;

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

    /// Bytes that a workspace will have for batches of `tokens` tokens, as [`Self::activation_bytes`] and
    /// [`Self::bytes`] say afterwards: (activations, all). A backward by integers needs a byte more for each
    /// element of the widest projection's output.
    pub fn estimate(config: &ModelConfig, tokens: usize, gradient_checkpointing: bool) -> (usize, usize) {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.q_size(), config.kv_size());
        let inputs = 2 * d + q + f;
        let inputs = match config.activations {
            // A code each, and scale and sum of four rows.
            ActivationQuant::Absmax => inputs + 4 * 8,
            ActivationQuant::None => 4 * inputs,
        };
        let plain = if config.use_qk_norm { q + kv } else { 0 };
        let block = 4 * (2 * q + 2 * kv + plain + config.num_attention_heads + d + 2 * f) + inputs;
        let blocks = if gradient_checkpointing { 1 } else { config.num_hidden_layers };
        let activations = tokens * (4 * d * (config.num_hidden_layers + 1) + block * blocks);
        // A gradient as integers: a byte a digit, and scale and sum of their rows.
        let codes = match config.activations {
            ActivationQuant::Absmax => Rounding::MAX_DIGITS * (d.max(q).max(f) + 8),
            ActivationQuant::None => 0,
        };
        let scratch = 4 * (d + d.max(q) + q + 2 * kv + f.max(d) + f) + 4 + codes;
        let logits = chunk_tokens(config.vocab_size).min(tokens) * config.vocab_size;
        (activations, activations + tokens * scratch + 4 * logits)
    }

    /// Bytes of the activations that are kept from the forward for the backward.
    pub fn activation_bytes(&self) -> usize {
        let inputs: usize = self.inputs.iter().map(|x| 4 * x.capacity()).sum();
        inputs + self.blocks.iter().map(Activations::bytes).sum::<usize>()
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        self.activation_bytes() + self.scratch.bytes() + 4 * self.positions.capacity()
    }
}

/// What a block's backward needs of its forward, apart from the block's input.
#[derive(Debug, Default)]
pub(super) struct Activations {
    /// The normed input of the projections q, k, v.
    pub(super) attention_input: Input,
    /// Queries and keys after RoPE; values.
    pub(super) q: Vec<f32>,
    pub(super) k: Vec<f32>,
    pub(super) v: Vec<f32>,
    /// Queries and keys before their norms; empty where there are none.
    pub(super) plain_q: Vec<f32>,
    pub(super) plain_k: Vec<f32>,
    /// Attention's output and the log-sum-exp of its scores.
    pub(super) attention: Vec<f32>,
    pub(super) lse: Vec<f32>,
    pub(super) output_input: Input,
    /// The residual stream between attention and feed-forward network.
    pub(super) middle: Vec<f32>,
    pub(super) ffn_input: Input,
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    pub(super) down_input: Input,
}

impl Activations {
    fn bytes(&self) -> usize {
        let Self { q, k, v, plain_q, plain_k, attention, lse, middle, gate, up, .. } = self;
        let floats = [q, k, v, plain_q, plain_k, attention, lse, middle, gate, up];
        let inputs = [&self.attention_input, &self.output_input, &self.ffn_input, &self.down_input];
        floats.iter().map(|x| 4 * x.capacity()).sum::<usize>()
            + inputs.iter().map(|x| x.bytes()).sum::<usize>()
    }
}

impl Activations {
    /// The input of a projection.
    pub(super) fn input(&self, projection: Projection) -> &Input {
        match projection {
            Projection::Q | Projection::K | Projection::V => &self.attention_input,
            Projection::O => &self.output_input,
            Projection::Gate | Projection::Up => &self.ffn_input,
            Projection::Down => &self.down_input,
        }
    }
}

/// The input of a projection as the product sees it: int8 where activations are quantized, a quarter of the
/// bytes.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) rows: QuantizedRows,
    /// Empty where the input is quantized.
    pub(super) values: Vec<f32>,
}

impl Input {
    /// The numbers that were multiplied, [tokens, cols].
    pub(super) fn matrix(&self, cols: usize) -> Matrix<'_> {
        if self.values.is_empty() {
            Matrix::int8(&self.rows.codes, &self.rows.scales, cols)
        } else {
            Matrix::f32(&self.values, self.values.len() / cols, cols)
        }
    }

    fn bytes(&self) -> usize {
        rows_bytes(&self.rows) + 4 * self.values.capacity()
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
    /// As wide as the hidden size or the queries.
    pub(super) hidden: Vec<f32>,
    pub(super) dq: Vec<f32>,
    pub(super) dk: Vec<f32>,
    pub(super) dv: Vec<f32>,
    /// As wide as the feed-forward network.
    pub(super) dgate: Vec<f32>,
    pub(super) dup: Vec<f32>,
    /// A chunk of logits, then of their gradients.
    pub(super) logits: Vec<f32>,
    /// The gradient of a projection's output as integers; empty where the backward is in f32.
    pub(super) codes: GradientRows,
    pub(super) adapter: AdapterBuffers,
    pub(super) relation: RelationBuffers,
}

/// What adapters need on the way; empty where there are none.
#[derive(Debug, Default)]
pub(super) struct AdapterBuffers {
    /// The input of a projection before it is quantized.
    pub(super) plain: Vec<f32>,
    /// The same with some of it dropped.
    pub(super) dropped: Vec<f32>,
    /// `s · x · Aᵀ`, [tokens, rank], and its gradient.
    pub(super) product: Vec<f32>,
    pub(super) dproduct: Vec<f32>,
}

impl AdapterBuffers {
    fn bytes(&self) -> usize {
        let Self { plain, dropped, product, dproduct } = self;
        [plain, dropped, product, dproduct].iter().map(|x| 4 * x.capacity()).sum()
    }
}

impl Scratch {
    fn bytes(&self) -> usize {
        let all =
            [&self.dx, &self.hidden, &self.dq, &self.dk, &self.dv, &self.dgate, &self.dup, &self.logits];
        all.iter().map(|x| 4 * x.capacity()).sum::<usize>()
            + rows_bytes(self.codes.rows())
            + self.adapter.bytes()
            + self.relation.bytes()
    }
}

/// The first `len` numbers of a buffer that grows when it must; what they hold is anything.
pub(super) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.reserve_exact(len - buffer.len());
    }
    buffer.resize(len, 0.0);
    buffer
}
