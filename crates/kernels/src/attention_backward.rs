//! The gradients of causal attention; probabilities are recomputed from the log-sum-exp (FlashAttention,
//! arXiv 2205.14135).
//!
//! Query rows are taken in blocks: a block's probabilities and their gradients stand in a small buffer, from
//! which `dq` sums over positions and `dk`, `dv` over rows, each in ascending order.

use crate::attention::AttentionShape;
use crate::attention_tiles::{
    Columns, add_products, dots_of_panels, pack_panel, panels_len, side_by_side, weighted_sums,
};
use crate::exp::exp;
use crate::lanes::{LANES, dot, multiversion};
use crate::{Backend, pool};

/// Query rows of a block.
const BLOCK: usize = 16;

/// Fused multiply-adds from which threads share the work.
const PARALLEL_PRODUCTS: usize = 1 << 17;

/// The gradients of [`crate::attention`] of whole sequences (`start` = 0) for the upstream gradient `dout`:
/// q, out, dout, dq [batch, n, heads · head_dim]; k, v, dk, dv [batch, n, kv_heads · head_dim]; lse [batch,
/// heads, n] from the forward. dq, dk and dv are overwritten. One task a sequence and key head: the order of
/// every sum is fixed.
///
/// # Panics
/// If the lengths do not fit, or `kv_heads` does not divide `heads`.
pub fn attention_backward(
    shape: AttentionShape,
    batch: usize,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let n = shape.rows_of(batch, q);
    let (width, kv_width, group) = (shape.q_size(), shape.kv_size(), shape.group());
    assert!([out.len(), dout.len(), dq.len()] == [q.len(); 3], "out, dout and dq are as long as q");
    assert!(
        [v.len(), dk.len(), dv.len()] == [k.len(); 3] && k.len() == batch * n * kv_width,
        "k, v, dk, dv are [{batch}, {n}, {kv_width}]"
    );
    assert_eq!(lse.len(), batch * shape.heads * n, "lse is [{batch}, {}, {n}]", shape.heads);
    if n == 0 {
        return;
    }
    let backend = Backend::active();
    let (q_part, kv_part) = (group * shape.head_dim, shape.head_dim);
    let targets = parts(dq, n * width, width, q_part)
        .into_iter()
        .zip(parts(dk, n * kv_width, kv_width, kv_part))
        .zip(parts(dv, n * kv_width, kv_width, kv_part));
    let mut tasks: Vec<_> = targets.map(|((dq, dk), dv)| Targets { dq, dk, dv }).collect();
    let compute = |(task, targets): (usize, &mut Targets<'_>)| {
        let (b, kv_head) = (task / shape.kv_heads, task % shape.kv_heads);
        let gather = |x: &[f32], width: usize, columns: usize| -> Vec<f32> {
            let mut out = Vec::with_capacity(n * columns);
            for row in x[b * n * width..][..n * width].chunks_exact(width) {
                out.extend_from_slice(&row[kv_head * columns..][..columns]);
            }
            out
        };
        let heads = Heads {
            hd: shape.head_dim,
            group,
            scale: shape.scale(),
            q: gather(q, width, q_part),
            k: gather(k, kv_width, kv_part),
            v: gather(v, kv_width, kv_part),
            out: gather(out, width, q_part),
            dout: gather(dout, width, q_part),
            lse: &lse[(b * shape.heads + kv_head * group) * n..][..group * n],
        };
        let mut gradients =
            Gradients { q: vec![0.0; n * q_part], k: vec![0.0; n * kv_part], v: vec![0.0; n * kv_part] };
        key_head(backend, &heads, &mut gradients);
        for (rows, part) in [
            (&mut targets.dq, &gradients.q),
            (&mut targets.dk, &gradients.k),
            (&mut targets.dv, &gradients.v),
        ] {
            for (row, part) in rows.iter_mut().zip(part.chunks_exact(part.len() / n)) {
                row.copy_from_slice(part);
            }
        }
    };
    if q.len() * n >= PARALLEL_PRODUCTS {
        pool::for_each(tasks.iter_mut().enumerate(), compute);
    } else {
        tasks.iter_mut().enumerate().for_each(compute);
    }
}

/// The columns of a tensor [batch, n, width] that belong to each sequence and key head: n slices of `columns`
/// for each.
fn parts(x: &mut [f32], sequence: usize, width: usize, columns: usize) -> Vec<Vec<&mut [f32]>> {
    let (heads, n) = (width / columns, sequence / width);
    let mut parts = Vec::new();
    for sequence in x.chunks_exact_mut(sequence) {
        let base = parts.len();
        parts.extend((0..heads).map(|_| Vec::with_capacity(n)));
        for row in sequence.chunks_exact_mut(width) {
            for (part, columns) in parts[base..].iter_mut().zip(row.chunks_exact_mut(columns)) {
                part.push(columns);
            }
        }
    }
    parts
}

/// Where the gradients of one sequence and key head go, row by row.
struct Targets<'a> {
    dq: Vec<&'a mut [f32]>,
    dk: Vec<&'a mut [f32]>,
    dv: Vec<&'a mut [f32]>,
}

/// One key head of one sequence and the query heads that share it, each matrix contiguous.
struct Heads<'a> {
    hd: usize,
    group: usize,
    scale: f32,
    /// [n, group · hd], as `out` and `dout`.
    q: Vec<f32>,
    /// [n, hd], as `v`.
    k: Vec<f32>,
    v: Vec<f32>,
    out: Vec<f32>,
    dout: Vec<f32>,
    /// [group, n].
    lse: &'a [f32],
}

/// As in [`Heads`].
struct Gradients {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// The panels of K and V, and a block's probabilities and their gradients, both [BLOCK, padded].
struct Buffers {
    k_panels: Vec<f32>,
    v_panels: Vec<f32>,
    padded: usize,
    p: Vec<f32>,
    ds: Vec<f32>,
}

multiversion! {
    fn key_head(heads: &Heads<'_>, gradients: &mut Gradients) {
        let (hd, n) = (heads.hd, heads.k.len() / heads.hd);
        let padded = n.next_multiple_of(LANES);
        let mut buffers = Buffers {
            k_panels: vec![0.0; panels_len(n, hd)],
            v_panels: vec![0.0; panels_len(n, hd)],
            padded,
            p: vec![0.0; BLOCK * padded],
            ds: vec![0.0; BLOCK * padded],
        };
        for (rows, panels) in [(&heads.k, &mut buffers.k_panels), (&heads.v, &mut buffers.v_panels)] {
            for (i, panel) in panels.chunks_exact_mut(LANES * hd).enumerate() {
                pack_panel(rows, hd, 0, i * LANES, panel);
            }
        }
        // Row i is head i % group of position i / group.
        let rows = n * heads.group;
        for first in (0..rows).step_by(BLOCK) {
            let end = rows.min(first + BLOCK);
            let mut i = first;
            while i + 4 <= end {
                tile::<4>(heads, &mut buffers, first, i, gradients);
                i += 4;
            }
            while i < end {
                tile::<1>(heads, &mut buffers, first, i, gradients);
                i += 1;
            }
            add_products(&buffers.p, padded, first..end, heads.group, &heads.dout, hd, &mut gradients.v);
            add_products(&buffers.ds, padded, first..end, heads.group, &heads.q, hd, &mut gradients.k);
        }
    }
}

/// Probabilities, their gradients and dq of R rows from row `i`, in the block that begins with row `first`.
#[inline(always)]
fn tile<const R: usize>(
    heads: &Heads<'_>,
    buffers: &mut Buffers,
    first: usize,
    i: usize,
    gradients: &mut Gradients,
) {
    let (hd, padded, scale) = (heads.hd, buffers.padded, heads.scale);
    let row = |r: usize| (i + r) * hd..(i + r + 1) * hd;
    let lens: [usize; R] = std::array::from_fn(|r| (i + r) / heads.group + 1);
    let panels = lens[R - 1].div_ceil(LANES);
    let p = &mut buffers.p[(i - first) * padded..][..R * padded];
    let ds = &mut buffers.ds[(i - first) * padded..][..R * padded];
    let mut columns = Vec::with_capacity(hd);
    side_by_side::<R>(std::array::from_fn(|r| &heads.q[row(r)]), &mut columns);
    dots_of_panels(&columns, &buffers.k_panels, panels, p, padded);
    side_by_side::<R>(std::array::from_fn(|r| &heads.dout[row(r)]), &mut columns);
    dots_of_panels(&columns, &buffers.v_panels, panels, ds, padded);
    for r in 0..R {
        let delta = dot(&heads.dout[row(r)], &heads.out[row(r)]);
        let (position, head) = ((i + r) / heads.group, (i + r) % heads.group);
        let lse = heads.lse[head * (heads.k.len() / hd) + position];
        // Whole lanes: what lies past the row's own position is never read.
        let len = lens[r].next_multiple_of(LANES);
        let p = p[r * padded..][..len].as_chunks_mut::<LANES>().0;
        let ds = ds[r * padded..][..len].as_chunks_mut::<LANES>().0;
        for (p, ds) in p.iter_mut().zip(ds) {
            for l in 0..LANES {
                p[l] = exp(p[l] * scale - lse);
            }
            for l in 0..LANES {
                ds[l] = (ds[l] - delta) * (p[l] * scale);
            }
        }
    }
    let ds = &buffers.ds[(i - first) * padded..];
    let keys = Columns { rows: &heads.k, stride: hd, at: 0, width: hd };
    weighted_sums(ds, padded, lens, keys, &mut gradients.q[i * hd..(i + R) * hd]);
}
