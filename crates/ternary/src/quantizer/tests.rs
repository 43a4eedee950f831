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

/// Steps and scales of a matrix; learned scales are what they start as.
fn fitted(
    quantizer: WeightQuantizer,
    granularity: Granularity,
    weights: &[f32],
    shape: [usize; 2],
) -> Fitted {
    match quantizer.initial_scales(granularity, weights, shape).unwrap() {
        None => quantizer.fit(granularity, weights, shape).unwrap(),
        Some(scales) => quantizer.fit_learned(granularity, &scales, weights, shape).unwrap(),
    }
}

/// Codes of weights that share a scale, and the scale.
fn quantized(name: &str, weights: &[f32]) -> (Vec<i8>, f32) {
    let fitted = fitted(named(name), Granularity::Tensor, weights, [1, weights.len()]);
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
        // P(|x| < 0.7 · mean) = erf(0.7/√π).
        ("threshold", 0.4235),
        ("binary", 0.0),
        ("sherry", 0.25),
        // P(|x| < mean) = erf(1/√π).
        ("lsq", 0.5751),
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
            let fitted = fitted(handle, granularity, &weights, [4, 256]);
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
        let settings = QuantizerSettings::default();
        let fit = |weights: &[f32]| quantizer.fit(weights, &settings);
        let least = if quantizer.name() == "lsq" { 2.0 * EPS } else { EPS };
        assert_eq!(fit(&[0.0; 64]), Fit { step: fit(&[]).step, scale: least });
        for bad in [f32::NAN, f32::INFINITY] {
            let mut weights = gaussian(64);
            weights[9] = bad;
            let Fit { step, scale } = fit(&weights);
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

        fn fit(&self, _: &[f32], _: &QuantizerSettings) -> Fit {
            Fit { step: 2.0, scale: 1.0 }
        }
    }

    let fitted = WeightQuantizer::new(&Unit).fit(Granularity::Row, &[0.9, -1.1, 5.0, 1.0], [2, 2]).unwrap();
    let mut codes = [0; 4];
    fitted.codes(0, 2, &[0.9, -1.1, 5.0, 1.0], &mut codes);
    assert_eq!((codes, fitted.scales().values()), ([0, -1, 1, 0], &[1.0f32, 1.0][..]));
    let unknown = "unit".parse::<WeightQuantizer>().unwrap_err().to_string();
    assert_eq!(
        unknown,
        "quantizer unit: expected one of absmean, absmedian, twn, rms, least_squares, threshold, binary, sherry, lsq, seq, dqt"
    );
}

/// The definitions of what makes codes other than rounding, written apart: signs, and the least of every four.
#[test]
fn signs_have_no_zeros_and_sherry_one_in_four() {
    let w = [0.0, -0.0, -1e-9, 3.0, -2.0, 0.5, 0.5, -0.5];
    assert_eq!(quantized("binary", &w), (vec![1, 1, -1, 1, -1, 1, 1, -1], absmean(&w)));
    // Of 0, 0, 1e-9 and 3 the second 0 falls: of equals the earlier is kept; of 2, ½, ½, ½ the last.
    let kept = (1e-9f64 as f32 as f64 + 3.0 + 2.0 + 0.5 + 0.5) / 6.0;
    assert_eq!(quantized("sherry", &w), (vec![1, 0, -1, 1, -1, 1, 1, 0], kept as f32));
    let weights = gaussian(4096);
    let (codes, scale) = quantized("sherry", &weights);
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1024);
    let mut sum = 0f64;
    for (weights, codes) in weights.chunks(4).zip(codes.chunks(4)) {
        let least = weights.iter().map(|w| w.abs()).fold(f32::MAX, f32::min);
        for (w, code) in weights.iter().zip(codes) {
            assert_eq!(f32::from(*code), if w.abs() == least { 0.0 } else { w.signum() });
        }
        sum += weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() - f64::from(least);
    }
    assert!((f64::from(scale) - sum / 3072.0).abs() < 1e-6);
    // No scale is better for these codes.
    let error = |scale: f32| -> f64 {
        weights.iter().zip(&codes).map(|(w, q)| f64::from(w - f32::from(*q) * scale).powi(2)).sum()
    };
    assert!(error(scale) < error(scale * 0.99) && error(scale) < error(scale * 1.01));
}

#[test]
fn the_threshold_is_the_fraction_that_was_chosen() {
    let weights = gaussian(200_000);
    let mean = absmean(&weights);
    for threshold in [0.25f32, 0.5, 0.75, 1.5] {
        let settings = QuantizerSettings { threshold, ..Default::default() };
        let fitted =
            named("threshold").with(settings).fit(Granularity::Tensor, &weights, [1, weights.len()]).unwrap();
        let mut codes = vec![0; weights.len()];
        fitted.codes(0, weights.len(), &weights, &mut codes);
        let kept: Vec<f64> =
            weights.iter().map(|w| w.abs()).filter(|w| *w > threshold * mean).map(f64::from).collect();
        let nonzero = codes.iter().filter(|code| **code != 0).count();
        // A weight within rounding of the threshold may fall on either side.
        assert!(nonzero.abs_diff(kept.len()) <= 1, "{threshold}: {nonzero} {}", kept.len());
        let expected = kept.iter().sum::<f64>() / kept.len() as f64;
        assert!((f64::from(fitted.scales().values()[0]) - expected).abs() < 1e-4);
    }
    // At three quarters it is TWN.
    let settings = QuantizerSettings { threshold: 0.75, ..Default::default() };
    let of =
        |quantizer: WeightQuantizer| quantizer.fit(Granularity::Row, &weights[..1024], [4, 256]).unwrap();
    assert_eq!(of(named("threshold").with(settings)), of(named("twn")));
}

/// Sparsity on every quantizer in every granularity: the codes and scales of the dense matrix, less the smallest of
/// every window.
#[test]
fn sparsity_drops_the_smallest_of_every_window_and_nothing_else() {
    let (rows, cols) = (4, 256);
    let weights = gaussian(rows * cols);
    for quantizer in QUANTIZERS.into_iter().filter(|quantizer| quantizer.sparsity().is_none()) {
        for granularity in [Granularity::Tensor, Granularity::Row, Granularity::Group(32)] {
            for text in ["1:2", "2:4", "3:4", "4:8", "7:16"] {
                let sparsity: Sparsity = text.parse().unwrap();
                let dense = named(quantizer.name());
                let settings = QuantizerSettings { sparsity: Some(sparsity), ..Default::default() };
                let codes = |quantizer: WeightQuantizer| {
                    let fitted = fitted(quantizer, granularity, &weights, [rows, cols]);
                    let mut codes = vec![0; weights.len()];
                    fitted.codes(0, cols, &weights, &mut codes);
                    (codes, fitted.scales().clone())
                };
                let ((dense, dense_scales), (sparse, scales)) = (codes(dense), codes(dense.with(settings)));
                assert_eq!(scales, dense_scales);
                for (at, weights) in weights.chunks(sparsity.window()).enumerate() {
                    let mut order: Vec<usize> = (0..weights.len()).collect();
                    order.sort_by(|a, b| weights[*b].abs().total_cmp(&weights[*a].abs()));
                    for (rank, i) in order.into_iter().enumerate() {
                        let j = at * sparsity.window() + i;
                        let expected = if rank < sparsity.keep() { dense[j] } else { 0 };
                        assert_eq!(sparse[j], expected, "{quantizer:?} {granularity} {text}");
                    }
                }
            }
        }
    }
    let settings = QuantizerSettings { sparsity: Some("2:5".parse().unwrap()), ..Default::default() };
    let error = named("absmean").with(settings).fit(Granularity::Row, &weights, [rows, cols]).unwrap_err();
    assert_eq!(error.to_string(), "windows of sparsity 2:5 do not divide a row of 256 weights");
}

/// What is on the grid already is quantized to itself by the quantizers whose scale is that of what is kept; absmean
/// shrinks it by the share of what is not 0.
#[test]
fn quantizing_twice_keeps_the_scale_or_shrinks_it_by_the_share_of_nonzeros() {
    let weights = gaussian(4096);
    for quantizer in QUANTIZERS {
        let (codes, scale) = quantized(quantizer.name(), &weights);
        let values: Vec<f32> = codes.iter().map(|code| f32::from(*code) * scale).collect();
        let (again, second) = quantized(quantizer.name(), &values);
        let nonzero = codes.iter().filter(|code| **code != 0).count() as f64 / codes.len() as f64;
        let ratio = f64::from(second / scale);
        let expected = match quantizer.name() {
            "absmean" => nonzero,
            // The root of the mean square of values of one magnitude.
            "rms" => 1.2240 * nonzero.sqrt(),
            // They start from twice the mean, and from the largest, of which SEQ has two thirds.
            "lsq" => 2.0 * nonzero,
            "seq" => 2.0 / 3.0,
            _ => 1.0,
        };
        assert!((ratio - expected).abs() < 1e-5, "{quantizer:?}: {ratio} {expected}");
        assert_eq!(again, codes, "{quantizer:?}");
    }
}

#[test]
fn scales_that_are_learned_are_asked_for() {
    let weights = gaussian(64);
    for quantizer in QUANTIZERS.map(WeightQuantizer::new) {
        let learned = quantizer.learned().is_some();
        assert_eq!(quantizer.fit(Granularity::Row, &weights, [2, 32]).is_err(), learned);
        let given = quantizer.fit_learned(Granularity::Row, &[0.1, 0.2], &weights, [2, 32]);
        assert_eq!(given.is_ok(), learned, "{quantizer}");
    }
    let seq = named("seq").fit_learned(Granularity::Tensor, &[0.3], &weights, [2, 32]).unwrap();
    assert!((seq.scales().values()[0] - 0.2).abs() < 1e-7, "two thirds");
}
