//! t-SignSGD (LoTA-QAF, arXiv 2505.18724): ternary numbers that stay ternary. The elements with the largest
//! gradients move by one against its sign, within -1 and 1; all others stay. Nothing is remembered from step
//! to step.

/// Gradients of this magnitude and below move nothing: the paper's τ.
const TAU: f32 = 1e-9;

/// A step of one parameter of numbers -1, 0 and 1: moves the elements whose gradient's magnitude is beyond
/// the quantile 1 − `share`, about that share of them. Ties at the quantile stay.
pub(super) fn step(parameter: &mut [f32], gradient: &[f32], share: f64) {
    let Some(last) = gradient.len().checked_sub(1) else { return };
    let mut magnitudes: Vec<f32> = gradient.iter().map(|g| g.abs()).collect();
    // What is larger than the interpolated quantile is larger than the element below it, and the other way
    // round but for ties.
    let below = ((1.0 - share).clamp(0.0, 1.0) * last as f64) as usize;
    let (_, quantile, _) = magnitudes.select_nth_unstable_by(below, f32::total_cmp);
    let least = quantile.max(TAU);
    for (p, g) in parameter.iter_mut().zip(gradient) {
        if g.abs() > least {
            *p = (*p - g.signum()).clamp(-1.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_gradients_move_by_one_and_no_further_than_one() {
        let mut p = [0.0, 1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let g = [5.0, 4.0, -3.0, -2.0, -1.0, 0.1, 0.1, 0.1, 0.1, 0.0];
        step(&mut p, &g, 0.3);
        assert_eq!(p, [-1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        // All of them: the one in the grid's corner stays there.
        step(&mut p, &g, 1.0);
        assert_eq!(p, [-1.0, -1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 0.0]);
    }

    #[test]
    fn as_many_move_as_the_quantile_says() {
        let n = 1000;
        let g: Vec<f32> = (0..n).map(|i| ((i * 389) % n + 1) as f32).collect();
        for (share, moved) in [(0.05, 50), (0.001, 1), (0.0001, 1), (0.9999, 999), (0.0, 0)] {
            let mut p = vec![0.0; n];
            step(&mut p, &g, share);
            assert_eq!(p.iter().filter(|p| **p != 0.0).count(), moved, "{share}");
            assert_eq!(p[g.iter().position(|g| *g == n as f32).unwrap()], if moved > 0 { -1.0 } else { 0.0 });
        }
    }

    #[test]
    fn no_gradient_moves_nothing() {
        let mut p = [1.0, -1.0, 0.0];
        step(&mut p, &[0.0, 1e-10, -1e-10], 1.0);
        assert_eq!(p, [1.0, -1.0, 0.0]);
        step(&mut [], &[], 0.5);
    }
}
