//! Every quantizer in the training pass: its codes are those that are exported, in the forward and in the backward.

use tritforge_config::{Granularity, ModelConfig, Projection, QuantizerSettings, WeightQuantizer};
use tritforge_model::{Decoder, GradPrecision};
use tritforge_ternary::{QUANTIZERS, TernaryTensor};

use crate::common::{grouped_shape, loss_and_gradients};

#[test]
fn codes_of_training_are_those_of_the_export_and_gradients_those_of_the_ternary_values() {
    // Learned scales have tests of their own.
    for quantizer in QUANTIZERS.into_iter().filter(|quantizer| quantizer.learned().is_none()) {
        for (granularity, sparsity) in [
            (Granularity::Tensor, None),
            (Granularity::Tensor, Some("2:4")),
            (Granularity::Row, Some("3:8")),
            (Granularity::Group(32), Some("2:4")),
        ] {
            let sparsity = sparsity.map(|text| text.parse().unwrap());
            let settings = QuantizerSettings { sparsity, ..Default::default() };
            let config = grouped_shape(granularity, WeightQuantizer::new(quantizer).with(settings));
            let mut model = Decoder::init(&config, 5).unwrap();
            for layer in 0..2 {
                for projection in Projection::ALL {
                    let linear = model.projection(layer, projection);
                    let (latent, shape) = (linear.latent().unwrap(), config.projection_shape(projection));
                    let exported =
                        TernaryTensor::quantize_by(config.quantizer, granularity, &latent, shape).unwrap();
                    let found = linear.quantized().unwrap();
                    assert_eq!(found.codes(), exported.codes(), "{quantizer:?}");
                    assert_eq!(&found.scales(), exported.scales(), "{quantizer:?}");
                    if let Some(kept) = config.quantizer.kept() {
                        for window in found.codes().chunks(kept.window()) {
                            assert!(window.iter().filter(|code| **code != 0).count() <= kept.keep());
                        }
                    }
                }
            }
            // The model of the ternary values themselves, which nothing quantizes again: the same loss and gradients.
            let values = |name: &str, shape: &[usize]| {
                let values = model.values(name).unwrap();
                let all = (0..2).flat_map(|layer| Projection::ALL.map(|p| p.hf_weight(layer)));
                Ok(match all.into_iter().any(|weight| weight == name) {
                    true => {
                        let shape = [shape[0], shape[1]];
                        TernaryTensor::quantize_by(config.quantizer, granularity, &values, shape)
                            .unwrap()
                            .values()
                    }
                    false => values,
                })
            };
            let stored = ModelConfig { weights: tritforge_config::WeightQuant::Ternary, ..config.clone() };
            let mut fixed = Decoder::load(&stored, values).unwrap();
            for precision in [GradPrecision::F32, GradPrecision::Int24] {
                model.set_grad_precision(precision).unwrap();
                fixed.set_grad_precision(precision).unwrap();
                let ((loss, found), (expected_loss, expected)) =
                    (loss_and_gradients(&model), loss_and_gradients(&fixed));
                assert_eq!(loss, expected_loss, "{quantizer:?} {granularity}");
                for i in 0..model.parameters().len() {
                    assert_eq!(found.get(i), expected.get(i), "{quantizer:?} {granularity} {precision:?}");
                }
            }
        }
    }
}
