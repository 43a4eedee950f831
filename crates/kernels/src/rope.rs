//! Rotary position embedding (arXiv 2104.09864) in NeoX halves: element i of a head is rotated with element i
//! + head_dim/2.

use crate::lanes::multiversion;
use crate::{Backend, pool};

/// Rows of one parallel piece.
const ROWS: usize = 32;

/// Elements from which threads share the work.
const PARALLEL_ELEMENTS: usize = 1 << 16;

/// Cosines and sines of every position, [positions, head_dim / 2].
#[derive(Debug, Clone)]
pub struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// Whether to rotate or to rotate back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// By the position.
    Forward,
    /// By minus the position: the transpose, for gradients.
    Backward,
}

impl RopeTable {
    /// The table for heads of `head_dim` and positions 0..`positions`. Frequencies θ^(−2i/d) and angles are
    /// rounded to f32, as in `transformers`; their cosines and sines are computed in f64 and rounded.
    ///
    /// # Panics
    /// If `head_dim` is odd.
    pub fn new(head_dim: usize, theta: f32, positions: usize) -> Self {
        Self::with_frequencies(&Self::frequencies(head_dim, theta), 1.0, positions)
    }

    /// The frequencies θ^(−2i/d), i in 0..d/2, of heads of `head_dim`.
    ///
    /// # Panics
    /// If `head_dim` is odd.
    pub fn frequencies(head_dim: usize, theta: f32) -> Vec<f32> {
        assert!(head_dim.is_multiple_of(2), "head_dim {head_dim} is odd");
        let frequency = |i: usize| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / (f64::from(theta).powf(f64::from(exponent)) as f32)
        };
        (0..head_dim / 2).map(frequency).collect()
    }

    /// The table of given frequencies, radians a position, as scaled RoPE has them; cosines and sines are
    /// multiplied by `factor` (YaRN's attention factor, else 1).
    pub fn with_frequencies(frequencies: &[f32], factor: f32, positions: usize) -> Self {
        let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * f)));
        let (cos, sin) = angles.map(|a| (a.cos() as f32 * factor, a.sin() as f32 * factor)).unzip();
        Self { half: frequencies.len(), cos, sin }
    }

    /// The cosines and the sines, [positions, head_dim / 2] each.
    pub fn cos_sin(&self) -> [&[f32]; 2] {
        [&self.cos, &self.sin]
    }
}

/// Rotates every head of x [tokens, heads · head_dim] by its token's position.
///
/// # Panics
/// If the lengths do not fit or a position is outside the table.
pub fn rope_in_place(
    table: &RopeTable,
    x: &mut [f32],
    heads: usize,
    positions: &[u32],
    direction: Direction,
) {
    let width = heads * table.half * 2;
    assert_eq!(x.len(), positions.len() * width, "x is [{}, {width}]", positions.len());
    let sign = if direction == Direction::Forward { 1.0 } else { -1.0 };
    let backend = Backend::active();
    let rotate_rows = |(rows, positions): (&mut [f32], &[u32])| {
        for (row, position) in rows.chunks_exact_mut(width).zip(positions) {
            let at = *position as usize * table.half;
            rotate(backend, row, &table.cos[at..at + table.half], &table.sin[at..at + table.half], sign);
        }
    };
    if x.len() < PARALLEL_ELEMENTS {
        rotate_rows((x, positions));
    } else {
        pool::for_each(x.chunks_mut(ROWS * width).zip(positions.chunks(ROWS)), rotate_rows);
    }
}

multiversion! {
    fn rotate(row: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let half = cos.len();
        for head in row.chunks_exact_mut(2 * half) {
            let (a, b) = head.split_at_mut(half);
            for i in 0..half {
                let (x, y, s) = (a[i], b[i], sign * sin[i]);
                a[i] = x * cos[i] - y * s;
                b[i] = y * cos[i] + x * s;
            }
        }
    }
}
