//! Quantizers against their definitions and what they are on a Gaussian.

use super::*;

/// Numbers of a standard normal distribution.
fn gaussian(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    (0..n)
        .map(|_| ((-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32)
        .collect()
}

fn named(name: &str) -> WeightQuantizer {
    name.parse().unwrap()
}

/// Codes of weights that share a scale, and the scale.
fn quantized(name: &str, weights: &[f32]) -> (Vec<i8>, f32) {
    let fitted = named(name).fit(Granularity::Tensor, weights, [1, weights.len()]).unwrap();
    let mut codes = vec![0; weights.len()];
    fitted.codes(0, weights.len(), weights, &mut codes);
    (codes, fitted.scales().values()[0])
}

#[test]
fn absmean_is_the_mean_of_magnitudes() {
    assert_eq!(absmean(&[1.0, -3.0, 0.5, -0.5]), 1.25);
    assert_eq!(absmean(&[]), EPS);
    assert_eq!(absmean(&[0.0; 100]), EPS);
    assert!(absmean(&[1.0, f32::NAN]).is_nan());
}

#[test]
fn ties_round_to_even() {
    // ±0.5 of the scale is a tie: to even means to 0. Away from zero would give ±1.
    let mut codes = [9i8; 6];
    weight_codes(&[1.0, -1.0, 1.0001, -1.0001, 3.0, -7.0], 2.0, &mut codes);
    assert_eq!(codes, [0, 0, 1, -1, 1, -1]);
}

#[test]
fn a_hand_computed_tensor() {
    let w = [4.0, -1.0, 0.5, -2.0, 0.1, 0.4];
    // Magnitudes 0.1 0.4 0.5 1 2 4: the lower middle is 0.5, half of it 0.25.
    assert_eq!(quantized("absmedian", &w), (vec![1, -1, 1, -1, 0, 1], 0.5));
    // mean|W| = 8/6; threshold 0.75 of it is 1.0, which -1.0 only reaches: a tie, so 0.
    assert_eq!(quantized("twn", &w), (vec![1, 0, 0, -1, 0, 0], 3.0));
    // Half of mean|W| is 0.667: three weights remain, whose mean is 7/3.
    assert_eq!(quantized("least_squares", &w), (vec![1, -1, 0, -1, 0, 0], 7.0 / 3.0));
    let rms = (1.2240 * (21.42f64 / 6.0).sqrt()) as f32;
    let (codes, scale) = quantized("rms", &w);
    assert!(((scale - rms) / rms).abs() < 1e-6, "{scale} {rms}");
    assert_eq!(codes, [1, 0, 0, -1, 0, 0]);
}

#[test]
fn zero_fractions_of_a_gaussian() {
    // P(|x| < t) = erf(t/√2) with the threshold t of each: mean/2 = 0.3989, median/2 = 0.3372, 0.75 · mean = 0.5984,
    // 1.2240/2 = 0.6120.
    let weights = gaussian(200_000);
    let expected = [
        ("absmean", 0.3101),
        ("absmedian", 0.2641),
        ("twn", 0.4504),
        ("rms", 0.4595),
        ("least_squares", 0.3101),
    ];
    for (name, share) in expected {
        let (codes, _) = quantized(name, &weights);
        let zeros = codes.iter().filter(|c| **c == 0).count() as f64 / codes.len() as f64;
        assert!((zeros - share).abs() < 0.005, "{name}: {zeros} of the codes are 0, expected {share}");
    }
}

#[test]
fn rms_has_the_least_squared_error_on_a_gaussian() {
    let weights = gaussian(100_000);
    let error = |codes: &[i8], scale: f32| -> f64 {
        let each = weights.iter().zip(codes).map(|(w, q)| f64::from(w - f32::from(*q) * scale).powi(2));
        each.sum::<f64>() / weights.len() as f64
    };
    let of = |name: &str| {
        let (codes, scale) = quantized(name, &weights);
        error(&codes, scale)
    };
    // The distortion of the three-level Lloyd-Max quantizer is 0.1902.
    assert!((of("rms") - 0.1902).abs() < 0.003, "{}", of("rms"));
    for name in ["absmean", "absmedian", "twn", "least_squares"] {
        assert!(of(name) >= of("rms") - 1e-4, "{name}: {} against {}", of(name), of("rms"));
    }
    // For given codes no scale is better than that of least squares.
    let (codes, scale) = quantized("least_squares", &weights);
    assert_eq!(codes, quantized("absmean", &weights).0);
    for other in [0.99f32, 1.01] {
        assert!(error(&codes, scale) < error(&codes, scale * other));
    }
}

#[test]
fn every_quantizer_in_every_granularity() {
    let weights = gaussian(4 * 256);
    for quantizer in QUANTIZERS {
        let handle = named(quantizer.name());
        assert_eq!(
            (handle, handle.to_string()),
            (WeightQuantizer::new(quantizer), quantizer.name().to_string())
        );
        for granularity in [Granularity::Row, Granularity::Group(64), Granularity::Group(256)] {
            let fitted = handle.fit(granularity, &weights, [4, 256]).unwrap();
            fitted.scales().check().unwrap();
            let mut codes = vec![0; weights.len()];
            fitted.codes(0, 256, &weights, &mut codes);
            // Each part by itself, as a tensor; its scale rounded to f16.
            let width = granularity.width(4, 256);
            for (i, (part, codes)) in weights.chunks(width).zip(codes.chunks(width)).enumerate() {
                let (expected, scale) = quantized(quantizer.name(), part);
                assert_eq!(codes, expected, "{quantizer:?} {granularity}");
                let rounded = half::f16::from_f32(scale).to_f32();
                assert_eq!(fitted.scales().values()[i].to_bits(), rounded.to_bits());
            }
        }
        // Zeros have the smallest scale; a fault is the scale's.
        assert_eq!(quantizer.fit(&[0.0; 64]), Fit { step: quantizer.fit(&[]).step, scale: EPS });
        for bad in [f32::NAN, f32::INFINITY] {
            let mut weights = gaussian(64);
            weights[9] = bad;
            let Fit { step, scale } = quantizer.fit(&weights);
            assert!(!(step.is_finite() && scale.is_finite()), "{quantizer:?} {bad}: {step} {scale}");
        }
    }
}

#[test]
fn a_quantizer_of_ones_own() {
    /// Every weight beyond 1 is ±1.
    #[derive(Debug)]
    struct Unit;

    impl Quantizer for Unit {
        fn name(&self) -> &'static str {
            "unit"
        }

        fn about(&self) -> &'static str {
            "a step of 2 and a scale of 1"
        }

        fn fit(&self, _: &[f32]) -> Fit {
            Fit { step: 2.0, scale: 1.0 }
        }
    }

    let fitted = WeightQuantizer::new(&Unit).fit(Granularity::Row, &[0.9, -1.1, 5.0, 1.0], [2, 2]).unwrap();
    let mut codes = [0; 4];
    fitted.codes(0, 2, &[0.9, -1.1, 5.0, 1.0], &mut codes);
    assert_eq!((codes, fitted.scales().values()), ([0, -1, 1, 0], &[1.0f32, 1.0][..]));
    let unknown = "unit".parse::<WeightQuantizer>().unwrap_err().to_string();
    assert_eq!(unknown, "quantizer unit: expected one of absmean, absmedian, twn, rms, least_squares");
}
