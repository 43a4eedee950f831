//! How far scales and biases of two models are apart.

use tritforge_ternary::{Granularity, Scales};

use super::logits::max_difference;

/// The largest difference of two weights' scales, but for those of zeros alone, which may be any; infinite where the scales
/// of one matrix are those of groups and the other's are not, or of other groups: their products round in other places.
pub(super) fn scale_difference(shape: [usize; 2], codes: &[i8], [left, right]: [Scales; 2]) -> f32 {
    let refined = |scales: Scales| match scales.granularity() {
        Granularity::Tensor => scales.refined(Granularity::Row, shape).unwrap_or(scales),
        _ => scales,
    };
    let (left, right) = (refined(left), refined(right));
    if left.granularity() != right.granularity() {
        return f32::INFINITY;
    }
    let width = left.granularity().width(shape[0], shape[1]);
    let pairs = codes.chunks(width).zip(left.values().iter().zip(right.values()));
    let scaled = pairs.filter(|(codes, _)| codes.iter().any(|code| *code != 0));
    scaled.map(|(_, (a, b))| (a - b).abs()).fold(0.0, f32::max)
}

/// The largest difference of two biases; infinite if there is only one.
pub(super) fn bias_difference(left: Option<Vec<f32>>, right: Option<Vec<f32>>) -> f32 {
    match (left, right) {
        (None, None) => 0.0,
        (Some(left), Some(right)) => max_difference(&left, &right),
        _ => f32::INFINITY,
    }
}
