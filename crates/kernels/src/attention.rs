//! Causal grouped-query attention, one row of queries after the other, without a T × T tensor.
//!
//! A row's scores are computed against positions 0..=t, their exact maximum is taken out, and values are added in the order of
//! positions: nothing depends on how many rows are asked for at once, so prefill, decode and training agree bit for bit.

use rayon::prelude::*;

use crate::Backend;
use crate::lanes::{LANES, dot, fma, multiversion};
use crate::softmax::{exp_and_sum, max};

/// Query rows of one parallel piece.
const ROWS: usize = 16;

/// The shape of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Width of the queries and of the output.
    pub fn q_size(self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the keys and of the values.
    pub fn kv_size(self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Query heads that share a key head.
    pub(crate) fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// head_dim^-½.
    pub(crate) fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// Attention of `batch` sequences: q and out [batch, n, heads · head_dim], whose rows stand at positions start..start + n; k and v
/// [batch, start + n, kv_heads · head_dim]. `lse`, if given, gets each row's log-sum-exp of its scores, [batch, heads, n].
///
/// # Panics
/// If the lengths do not fit.
pub fn attention(
    shape: AttentionShape,
    batch: usize,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    start: usize,
    out: &mut [f32],
    lse: Option<&mut [f32]>,
) {
    let (width, kv_width) = (shape.q_size(), shape.kv_size());
    assert!(batch > 0 && q.len().is_multiple_of(batch * width), "q is [{batch}, n, {width}]");
    let n = q.len() / (batch * width);
    let context = start + n;
    assert!(
        k.len() == batch * context * kv_width && v.len() == k.len(),
        "k and v are [{batch}, {context}, {kv_width}]"
    );
    assert_eq!(out.len(), q.len(), "out is as long as q");
    if n == 0 {
        return;
    }
    let backend = Backend::active();
    let mut own = Vec::new();
    let lse = match lse {
        Some(lse) => lse,
        None => {
            own.resize(batch * shape.heads * n, 0.0);
            &mut own
        }
    };
    assert_eq!(lse.len(), batch * shape.heads * n, "lse is [{batch}, {}, {n}]", shape.heads);
    // A piece is a block of rows of one sequence; its log-sum-exps are put in place afterwards.
    let pieces: Vec<(usize, usize, Vec<f32>)> = out
        .par_chunks_mut(n * width)
        .enumerate()
        .flat_map(|(b, out)| {
            out.par_chunks_mut(ROWS * width).enumerate().map(move |(i, out)| {
                let first = i * ROWS;
                let keys = &k[b * context * kv_width..][..context * kv_width];
                let values = &v[b * context * kv_width..][..context * kv_width];
                let q = &q[(b * n + first) * width..][..out.len()];
                let mut sums = vec![0f32; out.len() / width * shape.heads];
                rows(backend, shape, q, keys, values, start + first, out, &mut sums);
                (b, first, sums)
            })
        })
        .collect();
    for (b, first, sums) in pieces {
        for (row, sums) in sums.chunks_exact(shape.heads).enumerate() {
            for (head, sum) in sums.iter().enumerate() {
                lse[(b * shape.heads + head) * n + first + row] = *sum;
            }
        }
    }
}

multiversion! {
    fn rows(
        shape: AttentionShape,
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        start: usize,
        out: &mut [f32],
        lse: &mut [f32],
    ) {
        let (width, hd) = (shape.q_size(), shape.head_dim);
        let mut scores = vec![0f32; start + q.len() / width];
        for (row, (q, out)) in q.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            let scores = &mut scores[..start + row + 1];
            for (head, (q, out)) in q.chunks_exact(hd).zip(out.chunks_exact_mut(hd)).enumerate() {
                let at = head / shape.group() * hd;
                score(shape, q, keys, at, scores);
                let largest = max(scores);
                let total = exp_and_sum(scores, largest);
                lse[row * shape.heads + head] = largest + total.ln();
                weighted_sum(shape, scores, 1.0 / total, values, at, out);
            }
        }
    }
}

/// `scores[j] = (q · k_j) / √head_dim`; the head's columns of the keys begin at `at`.
#[inline(always)]
fn score(shape: AttentionShape, q: &[f32], keys: &[f32], at: usize, scores: &mut [f32]) {
    let scale = shape.scale();
    for (key, score) in keys.chunks_exact(shape.kv_size()).zip(scores) {
        *score = dot(q, &key[at..at + q.len()]) * scale;
    }
}

/// `out = factor · Σ p_j v_j`, in the order of positions.
#[inline(always)]
fn weighted_sum(shape: AttentionShape, p: &[f32], factor: f32, values: &[f32], at: usize, out: &mut [f32]) {
    let stride = shape.kv_size();
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    let rest_at = at + blocks.len() * LANES;
    for (i, block) in blocks.iter_mut().enumerate() {
        let mut acc = [0f32; LANES];
        for (p, v) in p.iter().zip(values.chunks_exact(stride)) {
            if let Some(v) = v[at + i * LANES..].first_chunk::<LANES>() {
                acc = fma(&[*p; LANES], v, &acc);
            }
        }
        *block = acc.map(|x| x * factor);
    }
    for (i, x) in rest.iter_mut().enumerate() {
        let sum = p
            .iter()
            .zip(values.chunks_exact(stride))
            .fold(0f32, |sum, (p, v)| p.mul_add(v[rest_at + i], sum));
        *x = sum * factor;
    }
}
