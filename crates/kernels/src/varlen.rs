//! Attention over segments of different lengths: several documents in a row, none of which sees another.
//!
//! A segment gets the bits that it gets alone, whatever stands beside it.

use crate::attention::{AttentionShape, attention};
use crate::attention_backward::attention_backward;
use crate::pool;

/// From this many tokens a segment is shared among the threads; shorter ones are handed out whole.
const LONG: usize = 256;

/// Causal attention within each segment: `lengths` are the tokens of the segments, which follow each other; q
/// and out [tokens, heads · head_dim], k and v [tokens, kv_heads · head_dim]. `lse` gets each row's
/// log-sum-exp of its scores, for every segment [heads, length].
///
/// # Panics
/// If the lengths do not fit, one is 0, or `kv_heads` does not divide `heads`.
pub fn attention_varlen(
    shape: AttentionShape,
    lengths: &[usize],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
) {
    if let Some(count) = equal(lengths) {
        return attention(shape, count, q, k, v, 0, out, Some(lse));
    }
    let (width, kv) = (shape.q_size(), shape.kv_size());
    let tokens: usize = lengths.iter().sum();
    assert!(
        q.len() == tokens * width && k.len() == tokens * kv && v.len() == k.len() && out.len() == q.len(),
        "q and out are [{tokens}, {width}], k and v [{tokens}, {kv}]"
    );
    assert_eq!(lse.len(), tokens * shape.heads, "lse has a number a token and head");
    let (mut out, mut lse) = (out, lse);
    let segments = starts(lengths)
        .map(|(start, n)| (start, n, take(&mut out, n * width), take(&mut lse, n * shape.heads)));
    let segments: Vec<_> = segments.collect();
    spread(
        segments,
        |segment| segment.1,
        |(start, n, out, lse)| {
            let q = &q[start * width..][..n * width];
            let (k, v) = (&k[start * kv..][..n * kv], &v[start * kv..][..n * kv]);
            attention(shape, 1, q, k, v, 0, out, Some(lse));
        },
    );
}

/// The gradients of [`attention_varlen`] for the upstream gradient `dout`: q, out, dout, dq [tokens, heads ·
/// head_dim]; k, v, dk, dv [tokens, kv_heads · head_dim]; `lse` from the forward. dq, dk and dv are
/// overwritten.
///
/// # Panics
/// As [`attention_varlen`].
pub fn attention_varlen_backward(
    shape: AttentionShape,
    lengths: &[usize],
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
    if let Some(count) = equal(lengths) {
        return attention_backward(shape, count, q, k, v, out, lse, dout, dq, dk, dv);
    }
    let (width, kv) = (shape.q_size(), shape.kv_size());
    let tokens: usize = lengths.iter().sum();
    assert!(
        [q.len(), out.len(), dout.len(), dq.len()] == [tokens * width; 4],
        "q, out, dout and dq are [{tokens}, {width}]"
    );
    assert!([k.len(), v.len(), dk.len(), dv.len()] == [tokens * kv; 4], "k, v, dk, dv are [{tokens}, {kv}]");
    assert_eq!(lse.len(), tokens * shape.heads, "lse has a number a token and head");
    let (mut dq, mut dk, mut dv) = (dq, dk, dv);
    let segments = starts(lengths)
        .map(|(start, n)| (start, n, take(&mut dq, n * width), take(&mut dk, n * kv), take(&mut dv, n * kv)));
    let segments: Vec<_> = segments.collect();
    spread(
        segments,
        |segment| segment.1,
        |(start, n, dq, dk, dv)| {
            let wide = start * width..(start + n) * width;
            let narrow = start * kv..(start + n) * kv;
            let lse = &lse[start * shape.heads..][..n * shape.heads];
            let (k, v) = (&k[narrow.clone()], &v[narrow]);
            let (q, out, dout) = (&q[wide.clone()], &out[wide.clone()], &dout[wide]);
            attention_backward(shape, 1, q, k, v, out, lse, dout, dq, dk, dv);
        },
    );
}

/// How many segments there are, if they are equally long.
fn equal(lengths: &[usize]) -> Option<usize> {
    let first = lengths.first()?;
    lengths.iter().all(|n| n == first).then_some(lengths.len())
}

/// First token and length of every segment.
fn starts(lengths: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    lengths.iter().scan(0, |start, n| {
        let segment = (*start, *n);
        *start += n;
        Some(segment)
    })
}

/// Cuts the first `len` numbers off.
fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (first, behind) = std::mem::take(rest).split_at_mut(len);
    *rest = behind;
    first
}

/// Computes long segments one after the other, each on all threads, and short ones side by side.
fn spread<T: Send>(segments: Vec<T>, length: impl Fn(&T) -> usize, compute: impl Fn(T) + Sync) {
    let (long, short): (Vec<T>, Vec<T>) = segments.into_iter().partition(|segment| length(segment) >= LONG);
    long.into_iter().for_each(&compute);
    pool::for_each(short.into_iter(), compute);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 7919 % 1009) as f32 - 504.0) * 3e-3).collect()
    }

    #[test]
    fn a_segment_gets_the_bits_that_it_gets_alone() {
        let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 12 };
        let (width, kv) = (shape.q_size(), shape.kv_size());
        for lengths in [vec![1, 300, 2, 17, 40], vec![7, 7], vec![5]] {
            let tokens: usize = lengths.iter().sum();
            let (q, k, v) = (numbers(tokens * width, 1), numbers(tokens * kv, 2), numbers(tokens * kv, 3));
            let dout = numbers(tokens * width, 4);
            let (mut out, mut lse) = (vec![f32::NAN; tokens * width], vec![f32::NAN; tokens * shape.heads]);
            attention_varlen(shape, &lengths, &q, &k, &v, &mut out, &mut lse);
            let (mut dq, mut dk, mut dv) =
                (vec![f32::NAN; q.len()], vec![f32::NAN; k.len()], vec![f32::NAN; v.len()]);
            attention_varlen_backward(
                shape, &lengths, &q, &k, &v, &out, &lse, &dout, &mut dq, &mut dk, &mut dv,
            );
            for (start, n) in starts(&lengths) {
                let wide = start * width..(start + n) * width;
                let narrow = start * kv..(start + n) * kv;
                let (q, k, v) = (&q[wide.clone()], &k[narrow.clone()], &v[narrow.clone()]);
                let (mut alone, mut own) = (vec![0.0; q.len()], vec![0.0; n * shape.heads]);
                attention(shape, 1, q, k, v, 0, &mut alone, Some(&mut own));
                assert_eq!(out[wide.clone()], alone, "{lengths:?}");
                assert_eq!(lse[start * shape.heads..][..own.len()], own);
                let (mut a, mut b, mut c) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; k.len()]);
                let dout = &dout[wide.clone()];
                attention_backward(shape, 1, q, k, v, &alone, &own, dout, &mut a, &mut b, &mut c);
                assert_eq!((&dq[wide], &dk[narrow.clone()], &dv[narrow]), (&a[..], &b[..], &c[..]));
            }
        }
    }

    #[test]
    #[should_panic(expected = "q and out are [5, 8]")]
    fn lengths_that_do_not_add_up_are_refused() {
        let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 8 };
        let x = [0f32; 32];
        attention_varlen(shape, &[2, 3], &x, &x, &x, &mut [0.0; 32], &mut [0.0; 4]);
    }
}
