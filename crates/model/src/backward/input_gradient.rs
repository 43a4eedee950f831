//! The gradient of a projection's input, `dx = dy · (wq · s)`, by integers: dy is rounded to a few int8 digits and
//! multiplied with the codes. Scales that differ among rows or groups are multiplied into dy before it is rounded,
//! for groups once each.

use tritforge_kernels::{
    GradientRows, Rounding, TernaryWeights, WriteMode, gradient_matmul, gradient_matmul_rows,
    parallel_for_each, quantize_gradient_rows,
};
use tritforge_ternary::{Granularity, Scales};

use crate::device::sized;

/// Elements of a parallel piece.
const PIECE: usize = 1 << 14;

/// A gradient on its way to integers.
#[derive(Debug, Default)]
pub(super) struct Rounded {
    pub(super) codes: GradientRows,
    /// The gradient times the scales of rows or of one group; empty where the tensor has one scale.
    pub(super) scaled: Vec<f32>,
}

/// Writes, or adds, the gradient dx [tokens, in] for dy [tokens, out] and the transposed codes [in, out] with the
/// scales of the weight [out, in]. `rounding` is given the number of the group, from 0.
pub(super) fn input_gradient(
    scales: &Scales,
    transposed: &TernaryWeights,
    dy: &[f32],
    rounding: impl Fn(usize) -> Rounding,
    (dx, write): (&mut [f32], WriteMode),
    Rounded { codes, scaled }: &mut Rounded,
) {
    let (cols, rows) = (transposed.rows(), transposed.cols());
    let Granularity::Group(size) = scales.granularity() else {
        let dy = match scales.granularity() {
            Granularity::Row => scale_columns(dy, scales.values(), scaled),
            _ => dy,
        };
        quantize_gradient_rows(dy, rows, rounding(0), codes);
        return gradient_matmul(codes, transposed, dx, write);
    };
    let groups = cols / size;
    for group in 0..groups {
        let of_rows: Vec<f32> = scales.values().iter().skip(group).step_by(groups).copied().collect();
        let dy = scale_columns(dy, &of_rows, scaled);
        quantize_gradient_rows(dy, rows, rounding(group), codes);
        gradient_matmul_rows(codes, transposed, group * size..(group + 1) * size, dx, write);
    }
}

/// dy [tokens, out] with every column multiplied by its scale.
fn scale_columns<'a>(dy: &[f32], scales: &[f32], scaled: &'a mut Vec<f32>) -> &'a [f32] {
    let scaled = sized(scaled, dy.len());
    let piece = PIECE.div_ceil(scales.len()) * scales.len();
    parallel_for_each(dy.chunks(piece).zip(scaled.chunks_mut(piece)), |(dy, scaled)| {
        let rows = dy.chunks_exact(scales.len()).zip(scaled.chunks_exact_mut(scales.len()));
        for (dy, scaled) in rows {
            for ((scaled, dy), scale) in scaled.iter_mut().zip(dy).zip(scales) {
                *scaled = dy * scale;
            }
        }
    });
    scaled
}

#[cfg(test)]
mod tests;
