//! The loss of a window: how far its states are from those of the full-precision model, large distances counting
//! less than squared. Some channels of some tokens are hundreds of times larger than the rest, and a squared error
//! would see nothing else.

/// Σ huber(y − target) / n over n numbers, in units of `delta`²: half the square up to `delta`, linear beyond (Huber
/// 1964). Writes the derivative by each y.
pub(crate) fn huber(y: &[f32], target: &[f32], delta: f32, dy: &mut [f32]) -> f64 {
    let scale = 1.0 / (y.len().max(1) as f32 * delta * delta);
    let mut sum = 0f64;
    for ((y, target), dy) in y.iter().zip(target).zip(dy) {
        let error = y - target;
        sum += loss(error, delta);
        *dy = error.clamp(-delta, delta) * scale;
    }
    sum * f64::from(scale)
}

/// The loss of [`huber`] without its derivative.
pub(crate) fn distance(y: &[f32], target: &[f32], delta: f32) -> f64 {
    let sum: f64 = y.iter().zip(target).map(|(y, target)| loss(y - target, delta)).sum();
    sum / (y.len().max(1) as f64 * f64::from(delta) * f64::from(delta))
}

fn loss(error: f32, delta: f32) -> f64 {
    let (error, delta) = (f64::from(error.abs()), f64::from(delta));
    if error <= delta { 0.5 * error * error } else { delta * (error - 0.5 * delta) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_errors_are_squared_and_large_ones_are_not() {
        let (y, target) = ([1.0, 2.0, -7.0, 0.5], [1.0, 1.5, 3.0, 0.25]);
        // ½·0.5², 2·(10 − 1), ½·0.25², over 4 numbers and δ² = 4.
        let expected = (0.0 + 0.125 + 18.0 + 0.03125) / 16.0;
        let mut dy = [9.0; 4];
        assert!((huber(&y, &target, 2.0, &mut dy) - expected).abs() < 1e-12);
        assert!((distance(&y, &target, 2.0) - expected).abs() < 1e-12);
    }

    #[test]
    fn the_derivative_is_that_of_the_loss() {
        let target = [0.3, -1.0, 2.0, 0.0, 4.0];
        let y = [0.31, -1.4, 5.0, -6.0, 4.0];
        let mut dy = [0.0; 5];
        huber(&y, &target, 0.7, &mut dy);
        for i in 0..5 {
            let at = |shift: f32| {
                let mut y = y;
                y[i] += shift;
                distance(&y, &target, 0.7)
            };
            let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((f64::from(dy[i]) - numeric).abs() < 1e-4, "{i}: {} {numeric}", dy[i]);
        }
    }
}
