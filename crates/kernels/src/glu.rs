//! The gate of the feed-forward network: `act(gate) · up` with SiLU, ReLU, ReLU² or one of two GELUs.
//!
//! Φ, the distribution of a Gaussian, is Abramowitz and Stegun's approximation 7.1.26 of the error function: within 1.5e-7,
//! which is what f32 leaves of `1 + erf`.

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
    /// `max(x, 0)`; its derivative at 0 is 0.
    Relu,
    /// `x · Φ(x)` (GELU, arXiv 1606.08415).
    Gelu,
    /// `x · sigmoid(2z)`, `z = √(2/π) · (x + 0.044715 · x³)`: GELU's approximation by tanh.
    GeluTanh,
}

impl Gate {
    /// All of them.
    pub const ALL: [Gate; 5] = [Gate::Silu, Gate::Relu2, Gate::Relu, Gate::Gelu, Gate::GeluTanh];
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
        Gate::Relu => {
            for ((y, g), u) in out.iter_mut().zip(gate).zip(up) {
                *y = relu(*g) * u;
            }
        }
        Gate::Gelu => {
            for ((y, g), u) in out.iter_mut().zip(gate).zip(up) {
                *y = g * normal(*g).0 * u;
            }
        }
        Gate::GeluTanh => {
            for ((y, g), u) in out.iter_mut().zip(gate).zip(up) {
                *y = g * by_tanh(*g).0 * u;
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
        Gate::Relu => {
            for i in 0..n {
                let slope = if gate[i] > 0.0 { 1.0 } else { 0.0 };
                dup[i] = dy[i] * relu(gate[i]);
                dy[i] = dy[i] * up[i] * slope;
            }
        }
        Gate::Gelu => {
            for i in 0..n {
                let (share, density) = normal(gate[i]);
                dup[i] = dy[i] * (gate[i] * share);
                dy[i] = dy[i] * up[i] * (share + gate[i] * density);
            }
        }
        Gate::GeluTanh => {
            for i in 0..n {
                let (share, slope) = by_tanh(gate[i]);
                dup[i] = dy[i] * (gate[i] * share);
                dy[i] = dy[i] * up[i] * (share + gate[i] * (share * (1.0 - share) * slope));
            }
        }
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Φ(x) and its derivative, the density of a Gaussian.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    // Abramowitz and Stegun, 7.1.26, at |x|/√2: erfc ≈ (a1·t + … + a5·t⁵) · e^(-x²/2).
    const P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / x.abs().mul_add(P, 1.0);
    let mut sum = 1.061_405_4;
    sum = t.mul_add(sum, -1.453_152);
    sum = t.mul_add(sum, 1.421_413_7);
    sum = t.mul_add(sum, -0.284_496_74);
    sum = t.mul_add(sum, 0.254_829_6);
    let bell = exp(-0.5 * x * x);
    let tail = 0.5 * (sum * t) * bell;
    let share = if x < 0.0 { tail } else { 1.0 - tail };
    const DENSITY: f32 = 0.398_942_3;
    (share, DENSITY * bell)
}

/// `sigmoid(2z)` of GELU's approximation by tanh, and the derivative of 2z.
#[inline(always)]
fn by_tanh(x: f32) -> (f32, f32) {
    // 2 · √(2/π).
    const ROOT: f32 = 1.595_769;
    const CUBE: f32 = 0.044_715;
    // Beyond these sigmoid is 0 or 1. `clamp` keeps NaN.
    let x = x.clamp(-100.0, 100.0);
    let square = x * x;
    (sigmoid(ROOT * x * square.mul_add(CUBE, 1.0)), ROOT * square.mul_add(3.0 * CUBE, 1.0))
}

/// max(x, 0) that keeps NaN.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}
