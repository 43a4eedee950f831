//! One pass over the weights, for one sequence or for many: prefill chunks and single tokens mixed.
//!
//! Rows of all sequences stand one after the other in the same matrices, so that every weight is read once
//! for all of them. Only positions, caches and attention are each sequence's own. A row's result depends on
//! no other row: a sequence gets the same bits alone and in any company.

use std::cell::Cell;
use std::sync::Arc;

use tritforge_config::Projection;
use tritforge_kernels::{
    CachedRows, Direction, Observer, QuantizedRows, Step, TernaryWeights, attention_cached_batch, glu,
    quantize_rows_into, rms_norm, rope_in_place, ternary_matmul_i32, ternary_matmul_many,
};
use tritforge_ternary::{NotFinite, check_finite};

use crate::adapter::{Rows, add_products};
use crate::model::EMBEDDING;
use crate::threads::decode_thread_limit;
use crate::weights::{Block, Weight};
use crate::{InferError, Model, Session};

/// Which logits a pass is to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsRequest {
    /// None: a part of a prompt that goes on.
    None,
    /// Those of the last token: `[vocab_size]`.
    Last,
    /// Those of every token: [tokens, vocab_size].
    All,
}

/// One sequence's part of a pass: tokens to append to a session.
#[derive(Debug)]
pub struct SequenceInput<'a> {
    /// The sequence.
    pub session: &'a mut Session,
    /// The tokens to append: a chunk of a prompt or the token chosen last.
    pub ids: &'a [u32],
    /// The logits that are needed.
    pub request: LogitsRequest,
}

/// Appends each part's tokens to its session, in one pass over the weights, and returns the logits that each
/// part wants.
///
/// # Errors
/// If a part has no tokens, a token is unknown, a context is full, or the sessions are of different models;
/// if a token's embedding or a logit is NaN or infinite. No session has changed then.
pub fn step(parts: &mut [SequenceInput<'_>]) -> Result<Vec<Vec<f32>>, InferError> {
    step_observed(parts, None, None)
}

/// The queries, keys and values of one layer, of every token that passes: as the projections give them,
/// before norms of heads and before RoPE.
#[derive(Debug)]
pub(crate) struct StateCapture {
    pub(crate) layer: usize,
    /// Each [tokens, width].
    pub(crate) states: [Vec<f32>; 3],
}

pub(crate) fn step_observed(
    parts: &mut [SequenceInput<'_>],
    observer: Option<&mut Observer<'_>>,
    capture: Option<&mut StateCapture>,
) -> Result<Vec<Vec<f32>>, InferError> {
    let Some(first) = parts.first() else { return Ok(Vec::new()) };
    let model = Arc::clone(first.session.model());
    for part in parts.iter() {
        if !Arc::ptr_eq(&model, part.session.model()) {
            return Err(InferError::Option {
                option: "parts",
                found: "sessions of different models".to_string(),
                expected: "sessions of one model",
            });
        }
        part.session.check(part.ids)?;
    }
    let _threads = decode_thread_limit(parts.iter().all(|part| part.ids.len() == 1));
    let mut buffers = BUFFERS.take();
    let mut pass = Pass::new(&model, parts, &mut buffers, observer, capture)?;
    for layer in 0..model.blocks.len() {
        pass.block(layer);
    }
    let logits = pass.logits();
    let found =
        pass.non_finite.take().or_else(|| non_finite_logit(parts, &logits, model.config().vocab_size));
    BUFFERS.set(buffers);
    if let Some(non_finite) = found {
        // The keys and values of this pass are worth nothing.
        parts.iter_mut().for_each(|part| part.session.truncate(part.session.len()));
        return Err(non_finite.error(&model, parts));
    }
    for part in parts.iter_mut() {
        part.session.extend(part.ids);
    }
    Ok(logits)
}

/// A result of a pass that is NaN or infinite.
struct NonFinite {
    /// The row of the pass.
    row: usize,
    /// The projection whose output it is, by its tensor; none for a logit.
    tensor: Option<String>,
    column: usize,
    value: String,
}

impl NonFinite {
    /// What to say: the weight that it comes of, if there is one.
    fn error(self, model: &Model, parts: &[SequenceInput<'_>]) -> InferError {
        let searched = match &self.tensor {
            Some(tensor) => model.check_tensor(tensor),
            None => model.check_finite(),
        };
        if let Err(error) = searched {
            return error;
        }
        let mut row = self.row;
        let mut position = 0;
        for part in parts {
            position = part.session.len() + row;
            if row < part.ids.len() {
                break;
            }
            row -= part.ids.len();
        }
        let what = match self.tensor {
            Some(tensor) => format!("output {} of {tensor}", self.column),
            None => format!("the logit of token {}", self.column),
        };
        InferError::NotFinite { path: model.path().to_path_buf(), what, position, value: self.value }
    }
}

/// The first logit that is NaN or infinite.
fn non_finite_logit(parts: &[SequenceInput<'_>], logits: &[Vec<f32>], vocab: usize) -> Option<NonFinite> {
    let mut end = 0;
    parts.iter().zip(logits).find_map(|(part, logits)| {
        end += part.ids.len();
        let NotFinite { row, column, value } = check_finite(logits, vocab).err()?;
        // The last rows of a part are those whose logits were wanted.
        let row = end - logits.len() / vocab + row.unwrap_or(0);
        Some(NonFinite { row, tensor: None, column, value })
    })
}

thread_local! {
    /// The buffers of the last pass of this thread, kept for the next one.
    static BUFFERS: Cell<Buffers> = Cell::default();
}

/// Everything that a pass computes and nobody keeps, each [rows, …].
#[derive(Default)]
struct Buffers {
    /// The residual stream.
    x: Vec<f32>,
    /// The attention's output, the gated product, and what a block adds to the stream.
    h: Vec<f32>,
    /// Normalized rows: the input of projections.
    normed: Vec<f32>,
    /// Codes of `normed`.
    codes: QuantizedRows,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    positions: Vec<u32>,
}

/// A pass in progress.
struct Pass<'a, 'p, 'o> {
    model: &'a Model,
    parts: &'a mut [SequenceInput<'p>],
    buffers: &'a mut Buffers,
    observer: Option<&'a mut Observer<'o>>,
    capture: Option<&'a mut StateCapture>,
    rows: usize,
    adapted: Rows,
    /// The first result that is NaN or infinite.
    non_finite: Option<NonFinite>,
}

impl<'a, 'p, 'o> Pass<'a, 'p, 'o> {
    fn new(
        model: &'a Model,
        parts: &'a mut [SequenceInput<'p>],
        buffers: &'a mut Buffers,
        observer: Option<&'a mut Observer<'o>>,
        capture: Option<&'a mut StateCapture>,
    ) -> Result<Self, InferError> {
        let d = model.config().hidden_size;
        let rows = parts.iter().map(|part| part.ids.len()).sum();
        buffers.x.resize(rows * d, 0.0);
        buffers.positions.clear();
        let embedding = model.embedding();
        let ids = parts.iter().flat_map(|part| part.ids);
        for (x, id) in buffers.x.chunks_exact_mut(d).zip(ids) {
            embedding.row(*id as usize, x);
            check_finite(x, d).map_err(|NotFinite { column, value, .. }| InferError::Tensor {
                path: model.path().to_path_buf(),
                tensor: EMBEDDING.to_string(),
                message: NotFinite { row: Some(*id as usize), column, value }.to_string(),
            })?;
        }
        let (mut adapted, mut first) = (Rows::new(), 0);
        for part in parts.iter() {
            let start = part.session.len() as u32;
            buffers.positions.extend(start..start + part.ids.len() as u32);
            let of_part = first..first + part.ids.len();
            first = of_part.end;
            if !part.session.adapters().is_empty() {
                adapted.push((of_part, Arc::clone(part.session.adapters())));
            }
        }
        Ok(Self { model, parts, buffers, observer, capture, rows, adapted, non_finite: None })
    }

    /// One block: the stream is replaced by its output.
    fn block(&mut self, layer: usize) {
        let (model, rows) = (self.model, self.rows);
        let config = model.config();
        let block = &model.blocks[layer];
        let Buffers { x, h, normed, codes, q, k, v, gate, up, positions } = &mut *self.buffers;
        let (adapted, observer, non_finite) = (&self.adapted, &mut self.observer, &mut self.non_finite);
        let eps = config.rms_norm_eps;
        let mut linear = Linear { model, layer, block, rows, eps, adapted, observer, non_finite };

        linear.norm(x, &block.attn_norm, normed);
        linear.project(normed, codes, [Projection::Q, Projection::K, Projection::V], [q, k, v]);
        if let Some(capture) = self.capture.as_mut().filter(|capture| capture.layer == layer) {
            for (kept, state) in capture.states.iter_mut().zip([&*q, &*k, &*v]) {
                kept.extend_from_slice(state);
            }
        }
        if let Some([q_norm, k_norm]) = &block.qk_norm {
            for (heads, norm) in [(&mut *q, q_norm), (&mut *k, k_norm)] {
                linear.norm(heads, norm, normed);
                std::mem::swap(heads, normed);
            }
        }
        rope_in_place(&model.rope, q, config.num_attention_heads, positions, Direction::Forward);
        rope_in_place(&model.rope, k, config.num_key_value_heads, positions, Direction::Forward);
        h.resize(q.len(), 0.0);
        let (mut keys, mut values) = (k.as_slice(), v.as_slice());
        for SequenceInput { session, ids, .. } in self.parts.iter_mut() {
            let of = ids.len() * config.kv_size();
            let ((own_keys, rest_keys), (own_values, rest_values)) = (keys.split_at(of), values.split_at(of));
            session.caches[layer].append(own_keys, own_values);
            (keys, values) = (rest_keys, rest_values);
        }
        let (mut queries, mut outputs) = (q.as_slice(), h.as_mut_slice());
        let mut sequences: Vec<CachedRows<'_>> = (self.parts.iter())
            .map(|SequenceInput { session, ids, .. }| {
                let q = queries.split_off(..ids.len() * config.q_size()).expect("one row for each token");
                let out = outputs.split_off_mut(..q.len()).expect("one row for each token");
                CachedRows { q, cache: &session.caches[layer], out }
            })
            .collect();
        attention_cached_batch(model.attention, &mut sequences);
        linear.sub_norm(h, block.attn_sub_norm.as_deref(), normed);
        linear.project(normed, codes, [Projection::O], [h]);
        add(x, h);

        linear.norm(x, &block.ffn_norm, normed);
        linear.project(normed, codes, [Projection::Gate, Projection::Up], [gate, up]);
        h.resize(gate.len(), 0.0);
        glu(model.gate, gate, up, h);
        linear.sub_norm(h, block.ffn_sub_norm.as_deref(), normed);
        linear.project(normed, codes, [Projection::Down], [h]);
        add(x, h);
    }

    /// The logits that each part wants.
    fn logits(&mut self) -> Vec<Vec<f32>> {
        let config = self.model.config();
        let (d, vocab) = (config.hidden_size, config.vocab_size);
        let h = &mut self.buffers.h;
        h.clear();
        let mut counts = Vec::with_capacity(self.parts.len());
        let mut first = 0;
        for part in self.parts.iter() {
            let rows = part.ids.len();
            let count = match part.request {
                LogitsRequest::None => 0,
                LogitsRequest::Last => 1,
                LogitsRequest::All => rows,
            };
            h.extend_from_slice(&self.buffers.x[(first + rows - count) * d..(first + rows) * d]);
            counts.push(count);
            first += rows;
        }
        let mut normed = vec![0f32; h.len()];
        rms_norm(h, &self.model.norm, config.rms_norm_eps, &mut normed);
        let mut logits = vec![0f32; h.len() / d * vocab];
        self.model.head().matmul(&normed, &mut logits);
        if let [_] = counts[..] {
            return vec![logits];
        }
        let mut rest = logits.as_slice();
        let split = |count: usize| {
            let (own, after) = rest.split_at(count * vocab);
            rest = after;
            own.to_vec()
        };
        counts.into_iter().map(split).collect()
    }
}

/// The linear layers of a block.
struct Linear<'a, 'b, 'o> {
    model: &'a Model,
    layer: usize,
    block: &'a Block,
    rows: usize,
    eps: f32,
    adapted: &'a Rows,
    observer: &'a mut Option<&'b mut Observer<'o>>,
    non_finite: &'a mut Option<NonFinite>,
}

impl Linear<'_, '_, '_> {
    /// Rows as wide as the norm's weight, normalized.
    fn norm(&self, x: &[f32], weight: &[f32], normed: &mut Vec<f32>) {
        normed.resize(x.len(), 0.0);
        rms_norm(x, weight, self.eps, normed);
    }

    /// As [`Self::norm`] if there is one; else `normed` takes the place of `x`, whose content is anything
    /// then.
    fn sub_norm(&self, x: &mut Vec<f32>, weight: Option<&[f32]>, normed: &mut Vec<f32>) {
        match weight {
            Some(weight) => self.norm(x, weight, normed),
            None => std::mem::swap(x, normed),
        }
    }

    /// The products of the same input with several matrices, and their biases. `codes` is where the input's
    /// int8 form stands.
    fn project<const N: usize>(
        &mut self,
        input: &[f32],
        codes: &mut QuantizedRows,
        projections: [Projection; N],
        mut results: [&mut Vec<f32>; N],
    ) {
        let projected = projections.map(|p| &self.block.projections[p as usize]);
        for (projected, result) in projected.iter().zip(&mut results) {
            result.resize(self.rows * projected.weight.rows(), 0.0);
        }
        if projected.iter().any(|projected| projected.weight.ternary().is_some()) {
            quantize_rows_into(input, input.len() / self.rows, codes);
        }
        if let Some(observer) = self.observer.as_deref_mut() {
            for (projection, projected) in projections.iter().zip(projected) {
                let Some(weights) = projected.weight.ternary() else { continue };
                let mut sums = vec![0i32; self.rows * weights.rows()];
                ternary_matmul_i32(codes, weights, &mut sums);
                let projection = projection.hf_name();
                observer(Step { layer: self.layer, projection, input: codes, sums: &sums });
            }
        }
        let (mut weights, mut outputs): (Vec<&TernaryWeights>, Vec<&mut [f32]>) = (Vec::new(), Vec::new());
        for ((projected, result), projection) in projected.iter().zip(&mut results).zip(projections) {
            match &projected.weight {
                Weight::Ternary(ternary, _) => {
                    weights.push(ternary);
                    outputs.push(result);
                }
                Weight::Dense(dense) => {
                    dense.matrix(&self.model.gguf).matmul(input, result);
                    check_output(self.non_finite, result, dense.rows, || projection.gguf_weight(self.layer));
                }
            }
        }
        if !weights.is_empty() {
            ternary_matmul_many(codes, &weights, &mut outputs);
        }
        for ((projected, result), projection) in projected.iter().zip(results).zip(projections) {
            add_products(self.adapted, self.layer, projection, input, result);
            let Some(bias) = &projected.bias else { continue };
            result.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
        }
    }
}

/// Takes note of NaN and infinity in what a matrix gives, [tokens, width]. A weight that is one gives nothing
/// else, whatever it is multiplied with, and the output is so much smaller than the matrix that looking at it
/// costs nothing.
fn check_output(
    non_finite: &mut Option<NonFinite>,
    output: &[f32],
    width: usize,
    tensor: impl Fn() -> String,
) {
    if let (None, Err(NotFinite { row, column, value })) = (&non_finite, check_finite(output, width)) {
        *non_finite = Some(NonFinite { row: row.unwrap_or(0), tensor: Some(tensor()), column, value });
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
