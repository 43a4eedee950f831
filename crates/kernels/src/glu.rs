//! The gate of the feed-forward network: `act(gate) · up`, SiLU or ReLU².

use crate::exp::exp;
use crate::lanes::multiversion;
use crate::{Backend, pool};

/// Elements of one parallel piece.
const CHUNK: usize = 1 << 14;

/// Elements from which threads share the work.
const PARALLEL_ELEMENTS: usize = 1 << 16;

/// The activation of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `x · sigmoid(x)`.
    Silu,
    /// `relu(x)²`.
    Relu2,
}

/// `out = act(gate) · up`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn glu(kind: Gate, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len(), "gate, up and out have the same length");
    let backend = Backend::active();
    if out.len() < PARALLEL_ELEMENTS {
        return forward(backend, kind, gate, up, out);
    }
    let chunks = out.chunks_mut(CHUNK).zip(gate.chunks(CHUNK).zip(up.chunks(CHUNK)));
    pool::for_each(chunks, |(out, (gate, up))| forward(backend, kind, gate, up, out));
}

/// The gradients of `act(gate) · up` for its upstream gradient `dy`; those of `gate` and `up` are
/// overwritten.
///
/// # Panics
/// If the lengths differ.
pub fn glu_backward(kind: Gate, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let n = gate.len();
    assert!([up.len(), dy.len(), dgate.len(), dup.len()] == [n; 4], "all five have the same length");
    let backend = Backend::active();
    if n < PARALLEL_ELEMENTS {
        return backward(backend, kind, gate, up, dy, dgate, dup);
    }
    let gradients = dgate.chunks_mut(CHUNK).zip(dup.chunks_mut(CHUNK));
    let chunks = gradients.zip(gate.chunks(CHUNK).zip(up.chunks(CHUNK)).zip(dy.chunks(CHUNK)));
    pool::for_each(chunks, |((dgate, dup), ((gate, up), dy))| {
        backward(backend, kind, gate, up, dy, dgate, dup);
    });
}

multiversion! {
    fn forward(kind: Gate, gate: &[f32], up: &[f32], out: &mut [f32]) {
        forward_row(kind, gate, up, out);
    }
}

multiversion! {
    fn backward(kind: Gate, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        dgate.copy_from_slice(dy);
        backward_row(kind, gate, up, dgate, dup);
    }
}

#[inline(always)]
pub(crate) fn forward_row(kind: Gate, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match kind {
        Gate::Silu => {
            for ((y, g), u) in out.iter_mut().zip(gate).zip(up) {
                *y = g * sigmoid(*g) * u;
            }
        }
        Gate::Relu2 => {
            for ((y, g), u) in out.iter_mut().zip(gate).zip(up) {
                let r = relu(*g);
                *y = r * r * u;
            }
        }
    }
}

/// `dy` becomes the gate's gradient.
#[inline(always)]
pub(crate) fn backward_row(kind: Gate, gate: &[f32], up: &[f32], dy: &mut [f32], dup: &mut [f32]) {
    let n = gate.len();
    let (up, dy, dup) = (&up[..n], &mut dy[..n], &mut dup[..n]);
    match kind {
        Gate::Silu => {
            for i in 0..n {
                let s = sigmoid(gate[i]);
                dup[i] = dy[i] * (gate[i] * s);
                dy[i] = dy[i] * up[i] * (s * (1.0 + gate[i] * (1.0 - s)));
            }
        }
        Gate::Relu2 => {
            for i in 0..n {
                let r = relu(gate[i]);
                dup[i] = dy[i] * (r * r);
                dy[i] = dy[i] * up[i] * (2.0 * r);
            }
        }
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// max(x, 0) that keeps NaN.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}
