//! The backward by integers: of 24 bits that in f32, of fewer bits on average that in f32, the same bits for
//! the same seed, refused where there are no integers.

use tritforge_config::{ActivationQuant, Granularity, ModelConfig, WeightQuant};
use tritforge_model::{Batch, Decoder, GradPrecision, Gradients, Workspace};

use crate::common::{odd_shape, scattered};

const LENGTH: usize = 20;
const SEQUENCES: usize = 4;

fn run(model: &Decoder, workspace: &mut Workspace, noise: u64, gradients: &mut Gradients) -> f64 {
    let ids = scattered(SEQUENCES * LENGTH + 1, 61);
    let batch = Batch { ids: &ids[..ids.len() - 1], targets: &ids[1..], sequences: SEQUENCES, segments: &[] };
    workspace.set_noise(noise);
    model.forward_backward(workspace, &batch, (ids.len() - 1) as f32, gradients).unwrap()
}

fn fresh(model: &Decoder, checkpointing: bool, noise: u64) -> (f64, Gradients) {
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let loss = run(model, &mut Workspace::new(checkpointing), noise, &mut gradients);
    (loss, gradients)
}

fn model(backward: GradPrecision) -> Decoder {
    model_of(&odd_shape(), backward)
}

fn model_of(config: &ModelConfig, backward: GradPrecision) -> Decoder {
    let mut model = Decoder::init(config, 5).unwrap();
    model.set_grad_precision(backward).unwrap();
    model
}

fn same(a: &Gradients, b: &Gradients) -> bool {
    a.iter().zip(b.iter()).all(|(a, b)| a == b)
}

#[test]
fn the_mean_over_seeds_approaches_the_exact_gradients() {
    const SEEDS: u64 = 100;
    let (exact_loss, exact) = fresh(&model(GradPrecision::F32), false, 0);
    let model = model(GradPrecision::Int8);
    let mut mean = Gradients::new(model.parameters(), |_| true);
    let mut workspace = Workspace::new(false);
    let (mut single, mut averaged) = (0f64, 0f64);
    let distance = |sum: &Gradients, count: f32| {
        let (mut difference, mut size) = (0f64, 0f64);
        for (sum, exact) in sum.iter().zip(exact.iter()) {
            for (sum, exact) in sum.unwrap().iter().zip(exact.unwrap()) {
                difference += f64::from(sum / count - exact).powi(2);
                size += f64::from(*exact).powi(2);
            }
        }
        (difference / size).sqrt()
    };
    for seed in 0..SEEDS {
        // The forward and the head are the exact ones.
        assert_eq!(run(&model, &mut workspace, seed, &mut mean).to_bits(), exact_loss.to_bits());
        if seed == 0 {
            single = distance(&mean, 1.0);
        }
        averaged = distance(&mean, SEEDS as f32);
    }
    assert!(single > 1e-3 && single < 0.1, "one pass is off by {single}");
    // The noise of a hundred passes is a tenth; what stays would be a bias.
    assert!(averaged < 0.15 * single, "{averaged} on average, {single} once");
}

#[test]
fn more_bits_come_closer_to_f32() {
    closer_to_f32(&odd_shape());
}

/// Scales of rows are multiplied into the gradient before it is rounded, those of groups once for each group.
#[test]
fn more_bits_come_closer_to_f32_with_scales_of_rows_and_groups() {
    let wide = ModelConfig { hidden_size: 64, head_dim: 16, intermediate_size: 128, ..odd_shape() };
    for granularity in [Granularity::Row, Granularity::Group(32), Granularity::Group(64)] {
        closer_to_f32(&ModelConfig { granularity, ..wide.clone() });
    }
}

fn closer_to_f32(config: &ModelConfig) {
    let (loss, exact) = fresh(&model_of(config, GradPrecision::F32), false, 0);
    for (backward, least, most) in [(GradPrecision::Int24, 0.0, 1e-6), (GradPrecision::Int16, 1e-6, 1e-3)] {
        let (found_loss, found) = fresh(&model_of(config, backward), false, 0);
        assert_eq!(found_loss.to_bits(), loss.to_bits());
        let mut largest = 0f64;
        for (found, exact) in found.iter().zip(exact.iter()) {
            let (found, exact) = (found.unwrap(), exact.unwrap());
            let difference: f64 = found.iter().zip(exact).map(|(f, e)| f64::from(f - e).powi(2)).sum();
            let size: f64 = exact.iter().map(|e| f64::from(*e).powi(2)).sum();
            largest = largest.max((difference / size).sqrt());
        }
        assert!(
            (least..most).contains(&largest),
            "{backward:?}: a parameter's gradient is off by {largest:e}"
        );
    }
}

#[test]
fn of_24_bits_the_number_of_threads_and_checkpointing_change_nothing() {
    let wide = ModelConfig { hidden_size: 64, head_dim: 16, intermediate_size: 128, ..odd_shape() };
    for granularity in [Granularity::Tensor, Granularity::Row, Granularity::Group(32)] {
        let model = model_of(&ModelConfig { granularity, ..wide.clone() }, GradPrecision::Int24);
        tritforge_kernels::set_threads(1);
        let (_, first) = fresh(&model, false, 7);
        tritforge_kernels::set_threads(tritforge_kernels::max_threads());
        assert!(same(&first, &fresh(&model, true, 8).1), "{granularity}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_on_any_number_of_threads_and_with_checkpointing() {
    let model = model(GradPrecision::Int8);
    tritforge_kernels::set_threads(1);
    let (_, first) = fresh(&model, false, 7);
    tritforge_kernels::set_threads(tritforge_kernels::max_threads());
    assert!(same(&first, &fresh(&model, false, 7).1));
    assert!(same(&first, &fresh(&model, true, 7).1));
    assert!(!same(&first, &fresh(&model, false, 8).1));
}

#[test]
fn the_exact_backward_comes_back_and_does_not_look_at_seeds() {
    let exact = fresh(&model(GradPrecision::F32), false, 1).1;
    let mut model = model(GradPrecision::Int8);
    assert!(!same(&exact, &fresh(&model, false, 1).1));
    model.set_grad_precision(GradPrecision::F32).unwrap();
    assert!(same(&exact, &fresh(&model, false, 2).1));
}

#[test]
fn changed_weights_are_turned_anew() {
    let mut first = model(GradPrecision::Int8);
    let (mut other, before) = (Decoder::init(&odd_shape(), 6).unwrap(), fresh(&first, false, 3).1);
    other.set_grad_precision(GradPrecision::Int8).unwrap();
    for (to, from) in first.parameters().iter().zip(other.parameters()) {
        to.tensor.write().copy_from_slice(&from.tensor.read());
    }
    first.requantize().unwrap();
    let after = fresh(&first, false, 3).1;
    assert!(same(&after, &fresh(&other, false, 3).1) && !same(&after, &before));
}

#[test]
fn without_integers_in_the_forward_it_is_refused() {
    for (weights, activations) in
        [(WeightQuant::None, ActivationQuant::Absmax), (WeightQuant::Absmean, ActivationQuant::None)]
    {
        let mut model = Decoder::init(&ModelConfig { weights, activations, ..odd_shape() }, 5).unwrap();
        let error = model.set_grad_precision(GradPrecision::Int8).unwrap_err().to_string();
        assert!(error.contains("backward by integers") && error.contains("quantized activations"), "{error}");
        assert!(model.set_grad_precision(GradPrecision::Int16).is_err());
        for backward in [GradPrecision::F32, GradPrecision::Int24] {
            model.set_grad_precision(backward).unwrap();
        }
    }
}
