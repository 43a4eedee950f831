//! Learned scales in the training pass: where they start, what codes and scales they mean, and their gradients, written
//! here from the definitions of LSQ and SEQ.

use tritforge_config::{Granularity, ModelConfig, Projection, QuantizerSettings, WeightQuantizer};
use tritforge_model::Decoder;
use tritforge_ternary::{EPS, Ste, TernaryTensor, is_f16};

use crate::common::{grouped_shape, loss_and_gradients};

fn config(name: &str, granularity: Granularity, sparsity: Option<&str>) -> ModelConfig {
    let quantizer: WeightQuantizer = name.parse().unwrap();
    let sparsity = sparsity.map(|text| text.parse().unwrap());
    grouped_shape(granularity, quantizer.with(QuantizerSettings { sparsity, ..Default::default() }))
}

fn index(model: &Decoder, name: &str) -> usize {
    model.parameters().iter().position(|p| p.name == name).unwrap()
}

const ALL: [(&str, Granularity, Option<&str>); 8] = [
    ("lsq", Granularity::Tensor, None),
    ("lsq", Granularity::Row, None),
    ("lsq", Granularity::Group(32), None),
    ("lsq", Granularity::Row, Some("2:4")),
    ("seq", Granularity::Tensor, None),
    ("seq", Granularity::Row, None),
    ("seq", Granularity::Group(64), None),
    ("seq", Granularity::Tensor, Some("3:4")),
];

/// The numbers of a matrix that share scale `i`.
fn part(granularity: Granularity, shape: [usize; 2], i: usize) -> std::ops::Range<usize> {
    let width = granularity.width(shape[0], shape[1]);
    i * width..(i + 1) * width
}

#[test]
fn scales_start_as_their_papers_say_and_do_not_decay() {
    for (name, granularity, sparsity) in ALL {
        let config = config(name, granularity, sparsity);
        let model = Decoder::init(&config, 5).unwrap();
        let mut scales = 0;
        for (layer, projection) in (0..2).flat_map(|layer| Projection::ALL.map(|p| (layer, p))) {
            let shape = config.projection_shape(projection);
            let weights = model.values(&projection.hf_weight(layer)).unwrap();
            let found = index(&model, &projection.hf_clip_val(layer));
            let parameter = &model.parameters()[found];
            assert_eq!(parameter.group, tritforge_model::DecayGroup::NoDecay);
            assert_eq!(parameter.tensor.dims(), granularity.scale_shape(shape));
            scales += parameter.tensor.len();
            for (i, alpha) in parameter.tensor.read().iter().enumerate() {
                let weights = &weights[part(granularity, shape, i)];
                let expected = match name {
                    "lsq" => {
                        2.0 * weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() / weights.len() as f64
                    }
                    _ => weights.iter().fold(0.0, |most: f64, w| most.max(f64::from(w.abs()))),
                };
                assert!((f64::from(*alpha) / expected - 1.0).abs() < 1e-6, "{name} {granularity}");
            }
        }
        assert_eq!(config.parameters().scales, scales);
        // The weights are those of the same seed without learned scales.
        let plain = ModelConfig { quantizer: WeightQuantizer::default(), ..config.clone() };
        let plain = Decoder::init(&plain, 5).unwrap();
        assert_eq!(plain.values("model.norm.weight"), model.values("model.norm.weight"));
        assert_eq!(
            plain.values(&Projection::Down.hf_weight(1)),
            model.values(&Projection::Down.hf_weight(1))
        );
        let total: usize = model.parameters().iter().map(|p| p.tensor.len()).sum();
        assert_eq!(config.parameters().total(), total);
    }
}

#[test]
fn codes_and_scales_are_those_of_alpha_in_training_and_export() {
    for (name, granularity, sparsity) in ALL {
        let config = config(name, granularity, sparsity);
        let mut model = Decoder::init(&config, 5).unwrap();
        for (layer, projection) in (0..2).flat_map(|layer| Projection::ALL.map(|p| (layer, p))) {
            let (shape, alphas) = (config.projection_shape(projection), projection.hf_clip_val(layer));
            let mut changed = model.values(&alphas).unwrap();
            changed.iter_mut().enumerate().for_each(|(i, alpha)| *alpha *= 0.4 + (i % 5) as f32 * 0.11);
            model.replace(&alphas, &changed).unwrap();
            let (linear, weights) =
                (model.projection(layer, projection), model.values(&projection.hf_weight(layer)).unwrap());
            let found = linear.quantized().unwrap();
            let exported =
                TernaryTensor::quantize_learned(config.quantizer, granularity, &changed, &weights, shape)
                    .unwrap();
            assert_eq!((found.codes().as_slice(), &found.scales()), (exported.codes(), exported.scales()));
            for (i, alpha) in changed.iter().enumerate() {
                let (threshold, scale) = match name {
                    "lsq" => (alpha / 2.0, *alpha),
                    _ => (alpha / 3.0, 2.0 * alpha / 3.0),
                };
                let stored = exported.scales().values()[i];
                match granularity {
                    Granularity::Tensor => assert_eq!(stored, scale, "{name}"),
                    // Rounded to f16, which has 11 bits.
                    _ => assert!(is_f16(stored) && (stored / scale - 1.0).abs() <= 1.0 / 2048.0, "{name}"),
                }
                let range = part(granularity, shape, i);
                for (w, code) in weights[range.clone()].iter().zip(&exported.codes()[range]) {
                    // Within rounding of the threshold either side is right; sparsity makes some codes 0.
                    let sure = (w.abs() / threshold - 1.0).abs() > 1e-5;
                    let expected = if w.abs() > threshold { w.signum() } else { 0.0 };
                    assert!(!sure || f32::from(*code) == expected || sparsity.is_some() && *code == 0);
                }
            }
        }
    }
    let weights = [0.5f32; 64];
    let quantizer: WeightQuantizer = "lsq".parse().unwrap();
    let error = TernaryTensor::quantize_by(quantizer, Granularity::Row, &weights, [1, 64]).unwrap_err();
    assert!(error.to_string().contains("the scales of quantizer lsq are trained parameters"), "{error}");
    let learned = |alphas: &[f32]| {
        TernaryTensor::quantize_learned(quantizer, Granularity::Row, alphas, &weights, [1, 64])
    };
    assert!(learned(&[1.0, 2.0]).unwrap_err().to_string().contains("learned scales: found 2, expected 1"));
    assert!(learned(&[f32::NAN]).is_err());
    // A scale that training drove below the floor counts as the floor.
    let floor = learned(&[-1.0]).unwrap().scales().values()[0];
    assert!((floor / EPS - 1.0).abs() < 1e-2, "{floor}");
}

#[test]
fn gradients_of_weights_and_scales_are_those_of_the_definitions() {
    for (name, granularity, sparsity) in ALL {
        let config = config(name, granularity, sparsity);
        let mut model = Decoder::init(&config, 5).unwrap();
        // Smaller scales, so that some weights are beyond them.
        for (layer, projection) in (0..2).flat_map(|layer| Projection::ALL.map(|p| (layer, p))) {
            let alphas = projection.hf_clip_val(layer);
            let smaller: Vec<f32> = model.values(&alphas).unwrap().iter().map(|alpha| alpha * 0.55).collect();
            model.replace(&alphas, &smaller).unwrap();
        }
        let plain = loss_and_gradients(&model).1;
        let mut found = plain.clone();
        model.apply_ste(Ste::Identity, &mut found);
        let (mut clipped, mut passed) = (0, 0);
        for (layer, projection) in (0..2).flat_map(|layer| Projection::ALL.map(|p| (layer, p))) {
            let shape = config.projection_shape(projection);
            let weights = model.values(&projection.hf_weight(layer)).unwrap();
            let alphas = model.values(&projection.hf_clip_val(layer)).unwrap();
            let of_values = plain.get(index(&model, &projection.hf_weight(layer))).unwrap();
            let of_weights = found.get(index(&model, &projection.hf_weight(layer))).unwrap();
            let of_scales = found.get(index(&model, &projection.hf_clip_val(layer))).unwrap();
            for (i, alpha) in alphas.iter().enumerate() {
                let range = part(granularity, shape, i);
                let (mut expected, mut size) = (0f64, 0f64);
                for j in range.clone() {
                    let (u, d) = (f64::from(weights[j]) / f64::from(*alpha), f64::from(of_values[j]));
                    let (h, passes) = match name {
                        "lsq" if u.abs() < 1.0 => (u.round_ties_even() - u, true),
                        "seq" if u.abs() <= 0.99 => ((1.5 * u).round_ties_even() / 1.5 - u, true),
                        _ => (u.signum(), false),
                    };
                    // What sparsity drops has no part in the value of the scale.
                    let kept = sparsity.is_none_or(|text| {
                        let (keep, window) = text.split_once(':').unwrap();
                        let (keep, window): (usize, usize) = (keep.parse().unwrap(), window.parse().unwrap());
                        let first = j / window * window;
                        let larger = |k: &usize| {
                            let (a, b) = (weights[*k].abs(), weights[j].abs());
                            a > b || a == b && *k < j
                        };
                        (first..first + window).filter(larger).count() < keep
                    });
                    expected += if kept { d * h } else { 0.0 };
                    size += (d * h).abs();
                    assert_eq!(of_weights[j], if passes { of_values[j] } else { 0.0 }, "{name}");
                    if passes { passed += 1 } else { clipped += 1 }
                }
                let n = if name == "lsq" { range.len() } else { weights.len() };
                let (expected, size) = (expected / (n as f64).sqrt(), size / (n as f64).sqrt());
                assert!(
                    (f64::from(of_scales[i]) - expected).abs() <= 1e-5 * size,
                    "{name} {granularity} {sparsity:?}: {} {expected}",
                    of_scales[i]
                );
            }
        }
        assert!(clipped > 100 && passed > 1000, "{name}: {clipped} {passed}");
    }
}

/// With the rounding's error held as it is, the value of a weight is a smooth function of the scale: its derivative is
/// what the papers give.
#[test]
fn derivatives_of_scales_are_those_of_the_value_with_its_rounding_error_held() {
    for name in ["lsq", "seq"] {
        let quantizer: WeightQuantizer = name.parse().unwrap();
        let learned = quantizer.learned().unwrap();
        let clip: f64 = if name == "lsq" { 1.0 } else { 0.99 };
        let round = |u: f64| match name {
            "lsq" => u.clamp(-clip, clip).round_ties_even(),
            _ => (1.5 * u.clamp(-clip, clip)).round_ties_even() / 1.5,
        };
        for i in -30..=30 {
            let (w, alpha) = (f64::from(i) * 0.0527, 0.9f64);
            let held = round(w / alpha) - (w / alpha).clamp(-clip, clip);
            let value = |alpha: f64| alpha * ((w / alpha).clamp(-clip, clip) + held);
            let slope = (value(alpha + 1e-6) - value(alpha - 1e-6)) / 2e-6;
            let (found, passes) = learned.derivatives((w / alpha) as f32);
            let within = (w / alpha).abs() <= clip;
            assert_eq!(passes, within, "{name} {w}");
            // Beyond the clip the reference code of SEQ has ±1, where the value has the slope ±2/3.
            let expected = if within || name == "lsq" { slope } else { slope * 1.5 };
            assert!((f64::from(found) - expected).abs() < 1e-5, "{name} {w}: {found} {slope}");
        }
    }
}
