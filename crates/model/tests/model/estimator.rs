//! What each straight-through estimator lets pass, against its definition from codes, scales and latent weights.

use tritforge_config::{Granularity, Projection, WeightQuantizer};
use tritforge_model::Decoder;
use tritforge_ternary::Ste;

use crate::common::{grouped_shape, loss_and_gradients};

#[test]
fn every_estimator_masks_what_it_says() {
    for granularity in [Granularity::Tensor, Granularity::Row, Granularity::Group(32)] {
        let config = grouped_shape(granularity, WeightQuantizer::default());
        let model = Decoder::init(&config, 5).unwrap();
        let plain = loss_and_gradients(&model).1;
        for ste in Ste::ALL {
            let mut masked = plain.clone();
            model.apply_ste(ste, &mut masked);
            let mut changed = 0;
            for (i, parameter) in model.parameters().iter().enumerate() {
                let (before, after) = (plain.get(i).unwrap(), masked.get(i).unwrap());
                let all = (0..2).flat_map(|layer| Projection::ALL.map(|p| (layer, p)));
                let Some((layer, p)) = all.into_iter().find(|(l, p)| parameter.name == p.hf_weight(*l))
                else {
                    assert_eq!(before, after, "{}", parameter.name);
                    continue;
                };
                let linear = model.projection(layer, p);
                let (weights, codes) = (linear.latent().unwrap(), linear.quantized().unwrap().codes());
                let scales = linear.quantized().unwrap().scales();
                let [_, cols] = config.projection_shape(p);
                for (j, (w, code)) in weights.iter().zip(&codes).enumerate() {
                    let of_row = scales.row(j / cols);
                    let value = f32::from(*code) * of_row[j % cols / (cols / of_row.len())];
                    // Within rounding of a boundary either side is right.
                    let scale = of_row[j % cols / (cols / of_row.len())];
                    let (ratio, distance) = ((w / scale).abs(), (value - w).abs() / scale);
                    let (at, factor) = match ste {
                        Ste::Identity => (f32::MAX, 1.0),
                        Ste::Clip => (ratio - 1.5, if ratio <= 1.5 { 1.0 } else { 0.0 }),
                        Ste::Trust => (distance - 0.5, if distance <= 0.5 { 1.0 } else { 0.0 }),
                        Ste::Damp => (f32::MAX, if *code == 0 { 0.5 } else { 1.0 }),
                    };
                    if at.abs() > 1e-2 {
                        assert_eq!(after[j], before[j] * factor, "{ste}, {granularity}, {}", parameter.name);
                    }
                    changed += usize::from(after[j] != before[j]);
                }
            }
            assert_eq!(changed > 0, ste != Ste::Identity, "{ste} changes something");
        }
    }
}
