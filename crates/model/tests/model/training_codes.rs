//! Codes that only training sees, and the pull towards the deployed ones.

use tritforge_config::{Granularity, ModelConfig, Projection};
use tritforge_model::{Decoder, GradPrecision, TrainingCodes};
use tritforge_ternary::{Ste, TernaryTensor};

use crate::common::{grouped_shape, loss_and_gradients};

/// Training multiplies the mean codes; what is deployed is the rounding; the gradient of a weight is that of the mean
/// code, by finite differences of the function as it is defined.
#[test]
fn soft_codes_are_trained_and_rounded_ones_deployed() {
    let (temperature, share) = (0.4f32, 0.7f32);
    for (granularity, quantizer) in [
        (Granularity::Tensor, "absmean"),
        (Granularity::Row, "twn"),
        (Granularity::Group(32), "least_squares"),
    ] {
        let config = grouped_shape(granularity, quantizer.parse().unwrap());
        let mut model = Decoder::init(&config, 5).unwrap();
        let deployed = model.projection(1, Projection::Up).quantized().unwrap().codes();
        model.set_training_codes(TrainingCodes::Soft { temperature, share }, &[]).unwrap();
        model.requantize().unwrap();
        assert_eq!(model.projection(1, Projection::Up).quantized().unwrap().codes(), deployed);

        // A model in full precision whose weights are the soft values, by the definition in f64.
        let soft = |w: f32, inverse: f32, scale: f32| {
            let (u, tau) = (f64::from(w) * f64::from(inverse), f64::from(temperature));
            let weight = |c: f64| (-(u - c).powi(2) / tau).exp();
            let mean = (weight(1.0) - weight(-1.0)) / (weight(1.0) + weight(0.0) + weight(-1.0));
            f64::from(w) + f64::from(share) * (f64::from(scale) * mean - f64::from(w))
        };
        let mut slopes = Vec::new();
        let values = |name: &str, _: &[usize]| {
            let mut values = model.values(name).unwrap();
            let all = (0..2).flat_map(|layer| Projection::ALL.map(|p| (layer, p)));
            let mut factors = vec![1.0; values.len()];
            if let Some((layer, p)) = all.into_iter().find(|(layer, p)| p.hf_weight(*layer) == name) {
                let cols = config.projection_shape(p)[1];
                let fitted = model.projection(layer, p).fit(&values).unwrap();
                for (i, (w, factor)) in values.iter_mut().zip(&mut factors).enumerate() {
                    let (inverses, scales) = (fitted.inverse_steps(i / cols), fitted.scales().row(i / cols));
                    let group = i % cols / (cols / scales.len());
                    let of = |w: f32| soft(w, inverses[group], scales[group]);
                    let step = 1e-3 / inverses[group];
                    *factor = (of(*w + step) - of(*w - step)) / (2.0 * f64::from(step));
                    *w = of(*w) as f32;
                }
            }
            slopes.push(factors);
            Ok(values)
        };
        let full = ModelConfig { weights: tritforge_config::WeightQuant::None, ..config.clone() };
        let mut soft_model = Decoder::load(&full, values).unwrap();
        model.set_grad_precision(GradPrecision::F32).unwrap();
        soft_model.set_grad_precision(GradPrecision::F32).unwrap();
        let ((loss, mut found), (expected_loss, expected)) =
            (loss_and_gradients(&model), loss_and_gradients(&soft_model));
        assert!((loss - expected_loss).abs() < 1e-5 * expected_loss, "{loss} {expected_loss}");
        model.apply_ste(Ste::Identity, &mut found);
        for (i, (parameter, slopes)) in model.parameters().iter().zip(&slopes).enumerate() {
            let (found, expected) = (found.get(i).unwrap(), expected.get(i).unwrap());
            let size = expected.iter().map(|d| d.abs()).fold(0f32, f32::max);
            for ((found, expected), slope) in found.iter().zip(expected).zip(slopes) {
                let expected = f64::from(*expected) * slope;
                // An activation may tip to its neighbor where values differ by a rounding.
                let off = (f64::from(*found) - expected).abs();
                assert!(off < 2e-2 * f64::from(size), "{}: {found} {expected}", parameter.name);
            }
        }
    }
}

/// Training multiplies the deployed values plus a part of the latent weights: the loss and the gradients are those of a
/// model in full precision with these weights, times one plus that part.
#[test]
fn residuals_are_trained_and_codes_deployed() {
    let share = 0.5f32;
    for (granularity, quantizer) in
        [(Granularity::Tensor, "absmean"), (Granularity::Row, "sherry"), (Granularity::Group(32), "binary")]
    {
        let config = grouped_shape(granularity, quantizer.parse().unwrap());
        let mut model = Decoder::init(&config, 5).unwrap();
        let codes = |model: &Decoder| model.projection(1, Projection::Up).quantized().unwrap().codes();
        let deployed = codes(&model);
        model.set_training_codes(TrainingCodes::Residual { share }, &[]).unwrap();
        model.requantize().unwrap();
        assert_eq!(codes(&model), deployed);

        let mut factors = Vec::new();
        let values = |name: &str, _: &[usize]| {
            let mut values = model.values(name).unwrap();
            let mut all = (0..2).flat_map(|layer| Projection::ALL.map(|p| (layer, p)));
            let projection = all.find(|(layer, p)| p.hf_weight(*layer) == name);
            factors.push(if projection.is_some() { 1.0 + share } else { 1.0 });
            if let Some((layer, p)) = projection {
                let quantized = model.projection(layer, p).quantized().unwrap();
                let cols = config.projection_shape(p)[1];
                let (codes, scales) = (quantized.codes(), quantized.scales());
                for (i, w) in values.iter_mut().enumerate() {
                    let scales = scales.row(i / cols);
                    let scale = scales[i % cols / (cols / scales.len())];
                    *w = f32::from(codes[i]) * scale + share * *w;
                }
            }
            Ok(values)
        };
        let full = ModelConfig { weights: tritforge_config::WeightQuant::None, ..config.clone() };
        let mut full = Decoder::load(&full, values).unwrap();
        model.set_grad_precision(GradPrecision::F32).unwrap();
        full.set_grad_precision(GradPrecision::F32).unwrap();
        let ((loss, mut found), (expected_loss, expected)) =
            (loss_and_gradients(&model), loss_and_gradients(&full));
        assert!((loss - expected_loss).abs() < 1e-5 * expected_loss, "{loss} {expected_loss}");
        model.apply_ste(Ste::Identity, &mut found);
        for (i, (parameter, factor)) in model.parameters().iter().zip(&factors).enumerate() {
            let (found, expected) = (found.get(i).unwrap(), expected.get(i).unwrap());
            let size = expected.iter().map(|d| d.abs()).fold(0f32, f32::max);
            for (found, expected) in found.iter().zip(expected) {
                let off = (found - expected * factor).abs();
                assert!(off < 2e-2 * size, "{}: {found} {expected}", parameter.name);
            }
        }
    }
    let mut model =
        Decoder::init(&grouped_shape(Granularity::Tensor, "absmean".parse().unwrap()), 5).unwrap();
    let error = model.set_training_codes(TrainingCodes::Residual { share: f32::NAN }, &[]).unwrap_err();
    assert!(error.to_string().contains("share NaN"), "{error}");
}

#[test]
fn drawn_codes_are_those_of_their_seed_and_not_deployed() {
    let mut model =
        Decoder::init(&grouped_shape(Granularity::Tensor, "absmean".parse().unwrap()), 5).unwrap();
    let rounded = loss_and_gradients(&model).0;
    let mut of_seed = |seed| {
        model.set_training_codes(TrainingCodes::Stochastic { seed }, &[]).unwrap();
        model.requantize().unwrap();
        loss_and_gradients(&model).0
    };
    let (first, second, again) = (of_seed(1), of_seed(2), of_seed(1));
    assert_eq!(first, again);
    assert!(first != second && first != rounded);
    model.set_training_codes(TrainingCodes::Rounded, &[]).unwrap();
    model.requantize().unwrap();
    assert_eq!(loss_and_gradients(&model).0, rounded);
    let mut sparse =
        Decoder::init(&grouped_shape(Granularity::Tensor, "binary".parse().unwrap()), 5).unwrap();
    let error =
        sparse.set_training_codes(TrainingCodes::Stochastic { seed: 1 }, &[]).unwrap_err().to_string();
    assert!(error.contains("binary") && error.contains("rounds latent weights"), "{error}");
    let soft = TrainingCodes::Soft { temperature: f32::NAN, share: 1.0 };
    assert!(model.set_training_codes(soft, &[]).unwrap_err().to_string().contains("temperature NaN"));
}

#[test]
fn the_pull_goes_towards_the_ternary_values() {
    for (granularity, quantizer) in
        [(Granularity::Tensor, "absmean"), (Granularity::Group(32), "twn"), (Granularity::Row, "sherry")]
    {
        let config = grouped_shape(granularity, quantizer.parse().unwrap());
        let mut model = Decoder::init(&config, 5).unwrap();
        let names = Projection::ALL.map(|p| (p.hf_weight(0), config.projection_shape(p)));
        let before: Vec<Vec<f32>> = names.iter().map(|(name, _)| model.values(name).unwrap()).collect();
        let embedding = model.values("model.embed_tokens.weight");
        model.pull_towards_codes(0.25).unwrap();
        model.requantize().unwrap();
        assert_eq!(model.values("model.embed_tokens.weight"), embedding);
        for ((name, shape), before) in names.iter().zip(&before) {
            let values =
                TernaryTensor::quantize_by(config.quantizer, granularity, before, *shape).unwrap().values();
            for ((after, w), value) in model.values(name).unwrap().iter().zip(before).zip(values) {
                assert_eq!(*after, w - 0.25 * (w - value), "{quantizer}");
            }
        }
    }
}
