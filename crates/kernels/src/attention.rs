//! Causal grouped-query attention without a T × T tensor.
//!
//! A row's scores are computed against positions 0..=t, their exact maximum is taken out, and values are
//! added in the order of positions: nothing depends on how many rows are asked for at once, so prefill,
//! decode and training agree bit for bit. Rows that share a key head are taken four at a time
//! ([`crate::attention_tiles`]).

use crate::attention_tiles::{
    Columns, dots_of_panels, dots_of_rows, pack_panel, panels_len, side_by_side, weighted_sums,
};
use crate::lanes::{LANES, multiversion};
use crate::softmax::{exp_and_sum, log_of_sum, max};
use crate::{Backend, pool};

/// Query rows of one parallel piece.
const ROWS: usize = 16;

/// From this many queries a key head the keys are transposed, which is faster but must pay for itself.
const PACK_QUERIES: usize = 16;

/// Fused multiply-adds from which threads share the work.
const PARALLEL_PRODUCTS: usize = 1 << 18;

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

    /// Rows of `batch` sequences in `q`.
    pub(crate) fn rows_of(self, batch: usize, q: &[f32]) -> usize {
        let AttentionShape { heads, kv_heads, head_dim } = self;
        assert!(
            heads > 0 && kv_heads > 0 && head_dim > 0 && heads.is_multiple_of(kv_heads),
            "{heads} heads of {head_dim} cannot share {kv_heads} key heads"
        );
        let width = self.q_size();
        assert!(batch > 0 && q.len().is_multiple_of(batch * width), "q is [{batch}, n, {width}]");
        q.len() / (batch * width)
    }
}

/// Attention of `batch` sequences: q and out [batch, n, heads · head_dim], whose rows stand at positions
/// start..start + n; k and v [batch, start + n, kv_heads · head_dim]. `lse`, if given, gets each row's
/// log-sum-exp of its scores, [batch, heads, n].
///
/// # Panics
/// If the lengths do not fit, or `kv_heads` does not divide `heads`.
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
    let (width, kv_width, group) = (shape.q_size(), shape.kv_size(), shape.group());
    let n = shape.rows_of(batch, q);
    let context = start + n;
    assert!(
        k.len() == batch * context * kv_width && v.len() == k.len(),
        "k and v are [{batch}, {context}, {kv_width}]"
    );
    assert_eq!(out.len(), q.len(), "out is as long as q");
    if let Some(lse) = &lse {
        assert_eq!(lse.len(), batch * shape.heads * n, "lse is [{batch}, {}, {n}]", shape.heads);
    }
    if n == 0 {
        return;
    }
    let backend = Backend::active();
    let parallel = q.len() * context >= PARALLEL_PRODUCTS;
    let panels_len = if n * group < PACK_QUERIES { 0 } else { panels_len(context, shape.head_dim) };
    let panels = pack_keys(backend, shape, k, context, batch * panels_len * shape.kv_heads, parallel);

    // One piece a sequence, key head and block of rows; each owns its part of every row.
    let mut pieces = Vec::with_capacity(batch * shape.kv_heads * n.div_ceil(ROWS));
    for (b, out) in out.chunks_exact_mut(n * width).enumerate() {
        for (block, out) in out.chunks_mut(ROWS * width).enumerate() {
            let first = block * ROWS;
            let base = pieces.len();
            pieces.extend((0..shape.kv_heads).map(|kv_head| Piece {
                shape,
                kv_head,
                start: start + first,
                q: &q[(b * n + first) * width..][..out.len()],
                keys: &k[b * context * kv_width..][..context * kv_width],
                values: &v[b * context * kv_width..][..context * kv_width],
                panels: &panels[(b * shape.kv_heads + kv_head) * panels_len..][..panels_len],
                out: Vec::with_capacity(ROWS),
                lse: Vec::new(),
            }));
            for row in out.chunks_exact_mut(width) {
                for (kv_head, part) in row.chunks_exact_mut(group * shape.head_dim).enumerate() {
                    pieces[base + kv_head].out.push(part);
                }
            }
        }
    }
    if let Some(lse) = lse {
        for (i, rows) in lse.chunks_exact_mut(n).enumerate() {
            let (b, kv_head) = (i / shape.heads, i % shape.heads / group);
            for (block, rows) in rows.chunks_mut(ROWS).enumerate() {
                pieces[(b * n.div_ceil(ROWS) + block) * shape.kv_heads + kv_head].lse.push(rows);
            }
        }
    }
    if parallel {
        pool::for_each(pieces.into_iter(), |mut piece| run(backend, &mut piece));
    } else {
        pieces.iter_mut().for_each(|piece| run(backend, piece));
    }
}

/// The keys of every sequence and head in panels, `len` floats in all.
fn pack_keys(
    backend: Backend,
    shape: AttentionShape,
    k: &[f32],
    context: usize,
    len: usize,
    parallel: bool,
) -> Vec<f32> {
    let mut panels = vec![0f32; len];
    let a_head = context.div_ceil(LANES);
    let pack_one = |(i, panel): (usize, &mut [f32])| {
        let (head, first) = (i / a_head, i % a_head * LANES);
        let (b, kv_head) = (head / shape.kv_heads, head % shape.kv_heads);
        let keys = &k[b * context * shape.kv_size()..][..context * shape.kv_size()];
        pack(backend, keys, shape.kv_size(), kv_head * shape.head_dim, first, panel);
    };
    let width = LANES * shape.head_dim;
    if parallel {
        pool::for_each(panels.chunks_exact_mut(width).enumerate(), pack_one);
    } else {
        panels.chunks_exact_mut(width).enumerate().for_each(pack_one);
    }
    panels
}

multiversion! {
    fn pack(rows: &[f32], stride: usize, at: usize, first: usize, panel: &mut [f32]) {
        pack_panel(rows, stride, at, first, panel);
    }
}

/// Some rows of one sequence and one key head, with the query heads that share it.
struct Piece<'a> {
    shape: AttentionShape,
    kv_head: usize,
    /// Position of the first row.
    start: usize,
    /// Whole rows of the queries, [rows, heads · head_dim].
    q: &'a [f32],
    /// The whole sequence, [context, kv_heads · head_dim].
    keys: &'a [f32],
    values: &'a [f32],
    /// This head's keys in panels; empty if they were not packed.
    panels: &'a [f32],
    /// A row's part of the output, `[group · head_dim]`.
    out: Vec<&'a mut [f32]>,
    /// Log-sum-exp of a head's rows; empty if nobody wants it.
    lse: Vec<&'a mut [f32]>,
}

multiversion! {
    fn run(piece: &mut Piece<'_>) {
        let queries = piece.out.len() * piece.shape.group();
        let mut i = 0;
        while i + 4 <= queries {
            tile::<4>(piece, i);
            i += 4;
        }
        if i + 2 <= queries {
            tile::<2>(piece, i);
            i += 2;
        }
        if i < queries {
            tile::<1>(piece, i);
        }
    }
}

/// R queries from number `first` of a piece; query i is head `i % group` of row `i / group`.
#[inline(always)]
fn tile<const R: usize>(piece: &mut Piece<'_>, first: usize) {
    let (shape, hd, group) = (piece.shape, piece.shape.head_dim, piece.shape.group());
    let (stride, at) = (shape.kv_size(), piece.kv_head * hd);
    let row = |r: usize| (first + r) / group;
    let head = |r: usize| (first + r) % group;
    let queries: [&[f32]; R] = std::array::from_fn(|r| {
        &piece.q[row(r) * shape.q_size() + (piece.kv_head * group + head(r)) * hd..][..hd]
    });
    let lens: [usize; R] = std::array::from_fn(|r| piece.start + row(r) + 1);
    let longest = lens[R - 1];
    let padded = longest.next_multiple_of(LANES);
    let mut scores = vec![0f32; R * padded];
    if piece.panels.is_empty() {
        let keys = Columns { rows: piece.keys, stride, at, width: hd };
        dots_of_rows(queries, keys, longest, &mut scores, padded);
    } else {
        let mut rows = Vec::with_capacity(hd);
        side_by_side(queries, &mut rows);
        dots_of_panels(&rows, piece.panels, padded / LANES, &mut scores, padded);
    }
    let scale = shape.scale();
    let mut factors = [0f32; R];
    for (r, scores) in scores.chunks_exact_mut(padded).enumerate() {
        let scores = &mut scores[..lens[r]];
        scores.iter_mut().for_each(|score| *score *= scale);
        let largest = max(scores);
        let total = exp_and_sum(scores, largest);
        factors[r] = 1.0 / total;
        if let Some(lse) = piece.lse.get_mut(head(r)) {
            lse[row(r)] = log_of_sum(largest, total);
        }
    }
    let mut sums = vec![0f32; R * hd];
    let values = Columns { rows: piece.values, stride, at, width: hd };
    weighted_sums(&scores, padded, lens, values, &mut sums);
    for (r, sums) in sums.chunks_exact(hd).enumerate() {
        for (out, sum) in piece.out[row(r)][head(r) * hd..].iter_mut().zip(sums) {
            *out = sum * factors[r];
        }
    }
}
