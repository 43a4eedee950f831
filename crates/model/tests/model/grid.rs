//! Training without latent weights: they are ternary before and after every step.

use tritforge_config::{ModelConfig, Projection};
use tritforge_model::Decoder;
use tritforge_ternary::{Granularity, TernaryTensor};

#[test]
fn weights_stay_on_their_levels() {
    let config = ModelConfig {
        vocab_size: 61,
        hidden_size: 64,
        intermediate_size: 128,
        num_hidden_layers: 1,
        head_dim: 16,
        max_position_embeddings: 32,
        quantizer: "dqt".parse().unwrap(),
        ..ModelConfig::default()
    };
    let mut model = Decoder::init(&config, 5).unwrap();
    let names = Projection::ALL.map(|p| (p.hf_weight(0), config.projection_shape(p)));
    let drawn: Vec<Vec<f32>> = names.iter().map(|(name, _)| model.values(name).unwrap()).collect();
    model.put_on_grid().unwrap();
    model.requantize().unwrap();
    let mut before = Vec::new();
    for ((name, [rows, cols]), drawn) in names.iter().zip(&drawn) {
        let absmean = TernaryTensor::quantize(drawn, *rows, *cols).unwrap();
        assert_eq!(model.values(name).unwrap(), absmean.values());
        before.push(absmean);
    }
    // What is on its levels is left there.
    model.put_on_grid().unwrap();
    model.requantize().unwrap();
    // A step that moves every weight by a tenth of the scale towards the positive.
    for (parameter, tensor) in model.parameters().iter().flat_map(|p| {
        let of = names.iter().position(|(name, _)| *name == p.name);
        of.map(|i| (p, &before[i]))
    }) {
        let step = 0.1 * tensor.scales().values()[0];
        parameter.tensor.write().iter_mut().for_each(|w| *w += step);
    }
    model.round_onto_grid(7).unwrap();
    model.requantize().unwrap();
    for ((name, [rows, cols]), before) in names.iter().zip(&before) {
        let values = model.values(name).unwrap();
        let after = TernaryTensor::from_values(&values, *rows, *cols, Granularity::Tensor).unwrap();
        assert_eq!(after.scales(), before.scales());
        let moved: Vec<i32> =
            before.codes().iter().zip(after.codes()).map(|(a, b)| i32::from(*b) - i32::from(*a)).collect();
        // None down, none by two; of those with room a tenth up, within five standard deviations.
        assert!(moved.iter().all(|by| [0, 1].contains(by)));
        let room = before.codes().iter().filter(|code| **code < 1).count() as f64;
        let up = moved.iter().filter(|by| **by == 1).count() as f64;
        assert!((up - 0.1 * room).abs() < 5.0 * (0.09 * room).sqrt(), "{name}: {up} of {room}");
    }
}
