//! `Session`: one sequence of tokens with its KV cache.

use std::sync::Arc;

use tritforge_config::Projection;
use tritforge_kernels::{
    Direction, Observer, QuantizedRows, Step, TernaryWeights, attention, gated, quantize_rows, rms_norm,
    rope_in_place, ternary_matmul, ternary_matmul_i32,
};

use crate::{InferError, Model};

/// Which logits a forward pass is to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those of the last token: `[vocab_size]`.
    Last,
    /// Those of every token: [tokens, vocab_size].
    All,
}

/// A sequence of tokens and the keys and values of all its positions.
#[derive(Debug)]
pub struct Session {
    model: Arc<Model>,
    context: usize,
    used: usize,
    /// Keys of each block, [used, kv_heads · head_dim].
    keys: Vec<Vec<f32>>,
    /// Values of each block, likewise.
    values: Vec<Vec<f32>>,
}

impl Session {
    /// An empty sequence of at most `context` tokens.
    ///
    /// # Errors
    /// If the context is 0 or longer than the model's.
    pub fn new(model: Arc<Model>, context: usize) -> Result<Self, InferError> {
        if context == 0 || context > model.config().max_position_embeddings {
            return Err(InferError::Option {
                option: "context",
                found: format!("{context}, of a model with {}", model.config().max_position_embeddings),
                expected: "1 to the model's context length",
            });
        }
        let layers = model.config().num_hidden_layers;
        Ok(Self { model, context, used: 0, keys: vec![Vec::new(); layers], values: vec![Vec::new(); layers] })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether no token has been seen yet.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Most tokens that the cache will hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Forgets all tokens after the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.used = self.used.min(len);
        let numbers = self.used * self.model.config().kv_size();
        for cache in self.keys.iter_mut().chain(&mut self.values) {
            cache.truncate(numbers);
        }
    }

    /// Appends tokens and returns the wanted logits. One token after another or all at once gives the same bits.
    ///
    /// # Errors
    /// If there is no token, a token is unknown, or the context is full; the session is then as it was.
    pub fn forward(&mut self, ids: &[u32], wanted: Wanted) -> Result<Vec<f32>, InferError> {
        self.forward_observed(ids, wanted, None)
    }

    /// As [`Session::forward`]; the observer sees every quantized product.
    ///
    /// # Errors
    /// As [`Session::forward`].
    pub fn forward_observed(
        &mut self,
        ids: &[u32],
        wanted: Wanted,
        mut observer: Option<&mut Observer<'_>>,
    ) -> Result<Vec<f32>, InferError> {
        self.check(ids)?;
        let model = Arc::clone(&self.model);
        let (d, vocab, eps) =
            (model.config().hidden_size, model.config().vocab_size, model.config().rms_norm_eps);
        let embedding = model.embedding();
        let mut x = vec![0f32; ids.len() * d];
        for (row, id) in x.chunks_exact_mut(d).zip(ids) {
            embedding.row(*id as usize, row);
        }
        let start = self.used as u32;
        let positions: Vec<u32> = (start..start + ids.len() as u32).collect();
        for layer in 0..model.blocks.len() {
            self.block(&model, layer, &mut x, &positions, &mut observer);
        }
        self.used += ids.len();
        let rows = match wanted {
            Wanted::Last => &x[x.len() - d..],
            Wanted::All => &x[..],
        };
        let mut h = vec![0f32; rows.len()];
        rms_norm(rows, &model.norm, eps, &mut h);
        let mut logits = vec![0f32; rows.len() / d * vocab];
        model.head().matmul(&h, &mut logits);
        Ok(logits)
    }

    fn check(&self, ids: &[u32]) -> Result<(), InferError> {
        if ids.is_empty() {
            return Err(InferError::EmptyPrompt);
        }
        let vocab_size = self.model.config().vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(InferError::Token { id: *id, vocab_size });
        }
        if self.used + ids.len() > self.context {
            return Err(InferError::ContextFull { used: self.used, asked: ids.len(), context: self.context });
        }
        Ok(())
    }

    /// One block: x [tokens, hidden_size] is replaced by its output.
    fn block(
        &mut self,
        model: &Model,
        layer: usize,
        x: &mut [f32],
        positions: &[u32],
        observer: &mut Option<&mut Observer<'_>>,
    ) {
        let config = model.config();
        let block = &model.blocks[layer];
        let (d, eps, tokens) = (config.hidden_size, config.rms_norm_eps, positions.len());
        let norm = |x: &[f32], weight: &[f32]| {
            let mut y = vec![0f32; x.len()];
            rms_norm(x, weight, eps, &mut y);
            y
        };
        let mut project = |projection: Projection, input: &QuantizedRows| {
            let weights: &TernaryWeights = &block.projections[projection as usize];
            if let Some(observer) = observer.as_deref_mut() {
                let mut sums = vec![0i32; tokens * weights.rows()];
                ternary_matmul_i32(input, weights, &mut sums);
                observer(Step { layer, projection: projection.hf_name(), input, sums: &sums });
            }
            let mut y = vec![0f32; tokens * weights.rows()];
            ternary_matmul(input, weights, &mut y);
            y
        };
        let rotate =
            |x: &mut [f32], heads| rope_in_place(&model.rope, x, heads, positions, Direction::Forward);

        let h = quantize_rows(&norm(x, &block.attn_norm), d);
        let mut q = project(Projection::Q, &h);
        let mut k = project(Projection::K, &h);
        let v = project(Projection::V, &h);
        rotate(&mut q, config.num_attention_heads);
        rotate(&mut k, config.num_key_value_heads);
        self.keys[layer].extend_from_slice(&k);
        self.values[layer].extend_from_slice(&v);
        let mut h = vec![0f32; q.len()];
        attention(model.attention, 1, &q, &self.keys[layer], &self.values[layer], self.used, &mut h, None);
        let h = quantize_rows(&norm(&h, &block.attn_sub_norm), config.q_size());
        add(x, &project(Projection::O, &h));

        let h = quantize_rows(&norm(x, &block.ffn_norm), d);
        let gate = project(Projection::Gate, &h);
        let up = project(Projection::Up, &h);
        let mut h = vec![0f32; gate.len()];
        gated(model.gate, &gate, &up, &mut h);
        let h = quantize_rows(&norm(&h, &block.ffn_sub_norm), config.intermediate_size);
        add(x, &project(Projection::Down, &h));
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
