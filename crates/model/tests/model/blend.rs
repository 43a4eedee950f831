//! Quantization that sets in gradually: its ends are the model with and without, its middle is differentiated
//! like both.

use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_model::{Batch, Decoder, GradPrecision, Gradients, Workspace};

fn config(weights: WeightQuant, activations: ActivationQuant, use_sub_norm: bool) -> ModelConfig {
    ModelConfig {
        vocab_size: 48,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        initializer_range: 0.2,
        use_sub_norm,
        weights,
        activations,
        ..ModelConfig::default()
    }
}

fn ternary(use_sub_norm: bool) -> Decoder {
    Decoder::init(&config(WeightQuant::Absmean, ActivationQuant::Absmax, use_sub_norm), 4).unwrap()
}

fn run(model: &Decoder, workspace: &mut Workspace) -> (f64, Vec<Vec<f32>>) {
    let ids: Vec<u32> = (0..21).map(|i| i * 7 % 48).collect();
    let batch = Batch { ids: &ids[..20], targets: &ids[1..], sequences: 2, segments: &[] };
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let loss = model.forward_backward(workspace, &batch, 20.0, &mut gradients).unwrap();
    (loss, gradients.iter().map(|g| g.unwrap().to_vec()).collect())
}

/// Loss and gradients within 1e-6 of those of a model that is made like that.
fn assert_same_function(model: &Decoder, config: &ModelConfig) {
    let (expected, theirs) = run(&Decoder::init(config, 4).unwrap(), &mut Workspace::new(false));
    let (loss, ours) = run(model, &mut Workspace::new(false));
    assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
    for (a, b) in ours.iter().flatten().zip(theirs.iter().flatten()) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn nothing_of_it_is_the_full_precision_model() {
    for use_sub_norm in [true, false] {
        let plain = config(WeightQuant::None, ActivationQuant::None, use_sub_norm);
        let mut model = ternary(use_sub_norm);
        model.set_blend(&[0.0; 3], &[0.0; 3]).unwrap();
        model.requantize().unwrap();
        assert_same_function(&model, &plain);
    }
}

#[test]
fn all_of_it_has_the_bits_of_a_model_that_never_had_less() {
    let mut workspace = Workspace::new(false);
    for use_sub_norm in [true, false] {
        let mut model = ternary(use_sub_norm);
        let expected = run(&model, &mut workspace);
        model.set_blend(&[0.3, 0.6, 1.0], &[0.3, 0.6, 1.0]).unwrap();
        model.requantize().unwrap();
        let between = run(&model, &mut workspace);
        assert_ne!(between.0, expected.0);
        model.set_blend(&[1.0; 3], &[1.0; 3]).unwrap();
        model.requantize().unwrap();
        assert_eq!(run(&model, &mut workspace), expected, "in the same workspace");
    }
}

/// Weights alone and inputs alone are the models that quantize the one and not the other.
#[test]
fn either_of_them_alone_is_the_model_that_quantizes_it_alone() {
    for backward in [GradPrecision::F32, GradPrecision::Int24] {
        let alone = config(WeightQuant::Absmean, ActivationQuant::None, true);
        let mut model = ternary(true);
        model.set_grad_precision(backward).unwrap();
        model.set_blend(&[1.0; 3], &[0.0; 3]).unwrap();
        model.requantize().unwrap();
        assert_same_function(&model, &alone);
        let alone = config(WeightQuant::None, ActivationQuant::Absmax, true);
        model.set_blend(&[0.0; 3], &[1.0; 3]).unwrap();
        model.requantize().unwrap();
        assert_same_function(&model, &alone);
    }
}

#[test]
fn evaluation_always_sees_all_of_it() {
    let ids = [1, 2, 3, 4];
    let mut model = ternary(true);
    let expected = model.logits(&ids, 1, None).unwrap();
    model.set_blend(&[0.0, 0.5, 1.0], &[0.0, 0.5, 1.0]).unwrap();
    model.requantize().unwrap();
    assert_eq!(model.logits(&ids, 1, None).unwrap(), expected);
}

#[test]
fn a_part_is_between_the_ends_and_grows_with_lambda() {
    // The quantized model is another function; a small part of it moves the loss a little, a larger one more.
    let loss = |part: f32| {
        let mut model = ternary(true);
        model.set_blend(&[part; 3], &[part; 3]).unwrap();
        model.requantize().unwrap();
        run(&model, &mut Workspace::new(false)).0
    };
    let (none, little, more) = (loss(0.0), loss(0.01), loss(0.1));
    assert!(
        (little - none).abs() > 0.0 && (little - none).abs() < (more - none).abs(),
        "{none} {little} {more}"
    );
}

#[test]
fn parts_out_of_range_and_models_without_latent_weights_are_refused() {
    let mut model = ternary(true);
    for (bad, expected) in
        [(&[0.5, 0.5][..], "one a block"), (&[0.5, 1.5, 0.5], "0 to 1"), (&[f32::NAN; 3], "0 to 1")]
    {
        let error = model.set_blend(bad, bad).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let plain = config(WeightQuant::None, ActivationQuant::None, true);
    assert!(Decoder::init(&plain, 1).unwrap().set_blend(&[0.5; 3], &[0.5; 3]).is_err());
}
