//! What runs on a device.

mod attention;
mod dense;
mod errors;
mod graphs;
mod largest;
mod rows;
mod ternary;

use tritforge_kernels_cuda::Gpu;

fn gpu() -> Gpu {
    Gpu::open(0).unwrap_or_else(|error| panic!("{error}"))
}

/// Numbers in -1..1 of several magnitudes.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next() * 10f32.powi((next() * 2.0) as i32)).collect()
}

#[track_caller]
fn assert_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{what}: number {i} is {found}, {expected} on the CPU");
    }
}
