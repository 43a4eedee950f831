//! The layouts against plain codes.

use proptest::prelude::*;

use super::*;

fn ternary(n: usize, seed: usize) -> Vec<i8> {
    (0..n).map(|i| (((i + seed).wrapping_mul(2_654_435_761) >> 7) % 3) as i8 - 1).collect()
}

#[test]
fn codes_come_back() {
    for (rows, cols) in [(1, 1), (1, 17), (31, 16), (32, 256), (33, 257), (65, 300), (400, 513)] {
        let codes = ternary(rows * cols, rows);
        let weights = TernaryWeights::new(&codes, rows, cols, 0.25);
        assert_eq!(weights.codes(), codes, "[{rows}, {cols}]");
        assert_eq!((weights.rows(), weights.cols(), weights.scales().of_tensor()), (rows, cols, Some(0.25)));
    }
}

#[test]
fn a_row_is_its_codes_times_their_scales() {
    use tritforge_ternary::{Granularity, Scales};

    for (rows, cols) in [(1, 256), (33, 512), (70, 768)] {
        let codes = ternary(rows * cols, cols);
        for granularity in
            [Granularity::Tensor, Granularity::Row, Granularity::Group(32), Granularity::Group(128)]
        {
            let count = granularity.count(rows, cols);
            let scales = (0..count).map(|i| 0.25 + (i % 7) as f32 / 64.0).collect();
            let scales = Scales::new(granularity, [rows, cols], scales).unwrap();
            let mut expected = vec![0.0; codes.len()];
            scales.apply(&codes, cols, &mut expected);
            for layout in [TernaryLayout::TwoBits, TernaryLayout::FiveTrits] {
                let weights = TernaryWeights::with_layout(&codes, rows, cols, scales.clone(), layout);
                let mut row = vec![f32::NAN; cols];
                for (i, expected) in expected.chunks_exact(cols).enumerate() {
                    weights.row(i, &mut row);
                    assert!(row == expected, "row {i} of [{rows}, {cols}], {granularity}, {layout:?}");
                }
            }
        }
    }
}

#[test]
fn two_bits_a_weight() {
    assert_eq!(TernaryWeights::new(&ternary(64 * 256, 0), 64, 256, 1.0).packed_bytes(), 64 * 256 / 4);
}

#[test]
fn latent_weights_get_the_codes_of_the_definition() {
    let (rows, cols) = (401, 333); // large enough for several threads
    let mut latent: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919 % 4001) as f32 - 2000.0) * 1e-3).collect();
    latent[..9].copy_from_slice(&[0.5, -0.5, 0.500_000_06, -0.500_000_06, 1e30, -1e30, f32::NAN, 0.0, -0.0]);
    for scale in [1.0, 0.5, 0.731, 1e-5, f32::MIN_POSITIVE / 8.0, f32::NAN] {
        let mut codes = vec![0; latent.len()];
        tritforge_ternary::weight_codes(&latent, scale, &mut codes);
        assert_eq!(TernaryWeights::quantize(&latent, rows, cols, scale).codes(), codes, "scale {scale}");
    }
}

#[test]
fn the_transpose_holds_the_same_codes() {
    for (rows, cols) in [(1, 1), (16, 32), (17, 33), (5, 70), (400, 333)] {
        let latent: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919 % 4001) as f32 - 2000.0) * 1e-3).collect();
        let codes = TernaryWeights::quantize(&latent, rows, cols, 0.7).codes();
        let turned = TernaryWeights::quantize_transposed(&latent, rows, cols, 0.7);
        assert_eq!((turned.rows(), turned.cols(), turned.scales().of_tensor()), (cols, rows, Some(0.7)));
        let expected: Vec<i8> =
            (0..cols).flat_map(|c| (0..rows).map(move |r| r * cols + c)).map(|i| codes[i]).collect();
        assert_eq!(turned, TernaryWeights::new(&expected, cols, rows, 0.7), "[{rows}, {cols}]");
    }
}

proptest! {
    #[test]
    fn any_latent_weight_gets_the_code_of_the_definition(
        latent in prop::collection::vec(any::<f32>(), 1..100),
        scale in 1e-5f32..1e3,
    ) {
        let mut codes = vec![0; latent.len()];
        tritforge_ternary::weight_codes(&latent, scale, &mut codes);
        prop_assert_eq!(TernaryWeights::quantize(&latent, 1, latent.len(), scale).codes(), codes);
    }
}

#[test]
#[should_panic(expected = "must be -1, 0 or +1")]
fn a_code_that_is_not_ternary_is_refused() {
    TernaryWeights::new(&[0, 1, -1, 2], 2, 2, 1.0);
}

#[test]
#[should_panic(expected = "weights must be [2, 3]")]
fn a_wrong_length_is_refused() {
    TernaryWeights::new(&[0; 5], 2, 3, 1.0);
}

#[test]
fn latent_weights_are_quantized_by_row_and_by_group() {
    use tritforge_ternary::{Granularity, WeightQuantizer};

    for (rows, cols) in [(1, 256), (33, 512), (70, 768)] {
        let latent: Vec<f32> = (0..rows * cols)
            .map(|i| ((i * 7919 % 1009) as f32 - 504.0) * ((i / 64 % 7) as f32 + 1.0))
            .collect();
        for granularity in [Granularity::Row, Granularity::Group(32), Granularity::Group(256)] {
            let fitted = WeightQuantizer::default().fit(granularity, &latent, [rows, cols]).unwrap();
            let mut codes = vec![0; latent.len()];
            fitted.codes(0, cols, &latent, &mut codes);
            let weights = TernaryWeights::quantize(&latent, rows, cols, fitted.clone());
            assert_eq!((weights.codes(), &weights.scales()), (codes.clone(), fitted.scales()));
            let turned = TernaryWeights::quantize_transposed(&latent, rows, cols, fitted);
            assert_eq!(turned, weights.transposed());
            let expected: Vec<i8> = (0..rows * cols).map(|i| codes[i % rows * cols + i / rows]).collect();
            assert_eq!((turned.codes(), turned.scales().of_tensor()), (expected, Some(1.0)));
        }
    }
}
