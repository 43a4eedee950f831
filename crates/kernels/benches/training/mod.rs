//! What benchmarks of training's products share.

use std::time::Instant;

/// Shapes of training: tokens, width of the input, width of the output.
pub(crate) const SHAPES: [(usize, usize, usize); 8] = [
    (2048, 256, 256),
    (2048, 256, 768),
    (2048, 768, 256),
    (2048, 256, 128),
    (1024, 768, 768),
    (1024, 768, 2048),
    (1024, 2048, 768),
    (512, 768, 32000),
];

pub(crate) fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// Seconds of the fastest of so many calls, after one that is not counted.
pub(crate) fn fastest(calls: usize, mut call: impl FnMut()) -> f64 {
    call();
    let mut best = f64::INFINITY;
    for _ in 0..calls {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}
