//! Gradients of losses against differences, for the tests of any crate.

use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_model::{Decoder, Gradients};

/// A small model without rounding, whose gradient is another function's.
pub(crate) fn smooth(vocab_size: usize, num_hidden_layers: usize) -> ModelConfig {
    ModelConfig {
        vocab_size,
        hidden_size: 24,
        intermediate_size: 32,
        num_hidden_layers,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 12,
        max_position_embeddings: 16,
        initializer_range: 0.2,
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..ModelConfig::default()
    }
}

/// Compares the gradient of each parameter with the difference of `loss` over `step` to either side: along the gradient the
/// derivative is its length. The two may differ by `bound`, relative and absolute.
pub(crate) fn assert_gradients(
    model: &Decoder,
    gradients: &Gradients,
    step: f64,
    bound: [f64; 2],
    loss: impl Fn(&Decoder) -> f64,
) {
    let values = model.snapshot();
    for (i, parameter) in model.parameters().iter().enumerate() {
        let gradient = gradients.get(i).unwrap();
        let size = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let along = |step: f64| {
            let mut moved = values.clone();
            let own = moved.get_mut(&parameter.name).unwrap();
            own.iter_mut().zip(gradient).for_each(|(x, g)| *x += (step * f64::from(*g) / size) as f32);
            loss(&Decoder::load(model.config(), |name, _| Ok(moved[name].clone())).unwrap())
        };
        let slope = (along(step) - along(-step)) / (2.0 * step);
        assert!(
            size > 0.0 && (slope - size).abs() < bound[0] * size + bound[1],
            "{}: {slope} {size}",
            parameter.name
        );
    }
}
