//! The gradients of causal attention; probabilities are recomputed from the log-sum-exp (FlashAttention, arXiv 2205.14135).

use rayon::prelude::*;

use crate::Backend;
use crate::attention::AttentionShape;
use crate::exp::exp;
use crate::lanes::{axpy, dot, multiversion};

/// The gradients of [`crate::attention`] of whole sequences (`start` = 0) for the upstream gradient `dout`: q, out, dout, dq [batch, n,
/// heads · head_dim]; k, v, dk, dv [batch, n, kv_heads · head_dim]; lse [batch, heads, n] from the forward. dq, dk and dv are
/// overwritten. One task a sequence and key head: the order of every sum is fixed.
///
/// # Panics
/// If the lengths do not fit.
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
    let (width, kv_width, hd, group) = (shape.q_size(), shape.kv_size(), shape.head_dim, shape.group());
    assert!(batch > 0 && q.len().is_multiple_of(batch * width), "q is [{batch}, n, {width}]");
    let n = q.len() / (batch * width);
    assert!([out.len(), dout.len(), dq.len()] == [q.len(); 3], "out, dout and dq are as long as q");
    assert!(
        [v.len(), dk.len(), dv.len()] == [k.len(); 3] && k.len() == batch * n * kv_width,
        "k, v, dk, dv are [{batch}, {n}, {kv_width}]"
    );
    assert_eq!(lse.len(), batch * shape.heads * n, "lse is [{batch}, {}, {n}]", shape.heads);
    let backend = Backend::active();
    let tasks: Vec<Gradients> = (0..batch * shape.kv_heads)
        .into_par_iter()
        .map(|task| {
            let (b, kv_head) = (task / shape.kv_heads, task % shape.kv_heads);
            let gather = |x: &[f32], width: usize, first: usize, columns: usize| -> Vec<f32> {
                let rows = x[b * n * width..][..n * width].chunks_exact(width);
                rows.flat_map(|row| &row[first..first + columns]).copied().collect()
            };
            let first = kv_head * group * hd;
            let heads = Heads {
                hd,
                scale: shape.scale(),
                q: gather(q, width, first, group * hd),
                k: gather(k, kv_width, kv_head * hd, hd),
                v: gather(v, kv_width, kv_head * hd, hd),
                out: gather(out, width, first, group * hd),
                dout: gather(dout, width, first, group * hd),
                lse: lse[(b * shape.heads + kv_head * group) * n..][..group * n].to_vec(),
            };
            let mut gradients =
                Gradients { q: vec![0.0; n * group * hd], k: vec![0.0; n * hd], v: vec![0.0; n * hd] };
            key_head(backend, &heads, &mut gradients);
            gradients
        })
        .collect();
    for (task, gradients) in tasks.iter().enumerate() {
        let (b, kv_head) = (task / shape.kv_heads, task % shape.kv_heads);
        let scatter = |part: &[f32], whole: &mut [f32], width: usize, first: usize, columns: usize| {
            let rows = whole[b * n * width..][..n * width].chunks_exact_mut(width);
            for (row, part) in rows.zip(part.chunks_exact(columns)) {
                row[first..first + columns].copy_from_slice(part);
            }
        };
        scatter(&gradients.q, dq, width, kv_head * group * hd, group * hd);
        scatter(&gradients.k, dk, kv_width, kv_head * hd, hd);
        scatter(&gradients.v, dv, kv_width, kv_head * hd, hd);
    }
}

/// One key head of one sequence and the query heads that share it, each matrix contiguous.
struct Heads {
    hd: usize,
    scale: f32,
    /// [n, group · hd], as `out` and `dout`.
    q: Vec<f32>,
    /// [n, hd], as `v`.
    k: Vec<f32>,
    v: Vec<f32>,
    out: Vec<f32>,
    dout: Vec<f32>,
    /// [group, n].
    lse: Vec<f32>,
}

struct Gradients {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

multiversion! {
    fn key_head(heads: &Heads, gradients: &mut Gradients) {
        let hd = heads.hd;
        let n = heads.k.len() / hd;
        let group = heads.q.len() / heads.k.len().max(1);
        let mut p = vec![0f32; n];
        let mut ds = vec![0f32; n];
        for t in 0..n {
            for g in 0..group {
                let at = (t * group + g) * hd;
                let q = &heads.q[at..at + hd];
                let dout = &heads.dout[at..at + hd];
                let delta = dot(dout, &heads.out[at..at + hd]);
                let lse = heads.lse[g * n + t];
                let keys = heads.k.chunks_exact(hd).zip(heads.v.chunks_exact(hd));
                for ((k, v), (p, ds)) in keys.zip(p[..=t].iter_mut().zip(&mut ds[..=t])) {
                    *p = dot(q, k) * heads.scale - lse;
                    *ds = dot(dout, v) - delta;
                }
                for (p, ds) in p[..=t].iter_mut().zip(&mut ds[..=t]) {
                    *p = exp(*p);
                    *ds *= *p * heads.scale;
                }
                let dq = &mut gradients.q[at..at + hd];
                for j in 0..=t {
                    axpy(ds[j], &heads.k[j * hd..(j + 1) * hd], dq);
                    axpy(ds[j], q, &mut gradients.k[j * hd..(j + 1) * hd]);
                    axpy(p[j], dout, &mut gradients.v[j * hd..(j + 1) * hd]);
                }
            }
        }
    }
}
