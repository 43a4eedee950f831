//! The training pass against itself: with and without checkpointing, in one micro-batch and in many, on one
//! thread and on several. Its gradients are held against `transformers` in golden.rs, against finite
//! differences in finite_differences.rs, and against candle's tape in tests of `tritforge-nn`.

use tritforge_config::{ActivationQuant, AttentionBias, ModelConfig};
use tritforge_model::{Batch, Decoder, GradPrecision, Gradients, IGNORE_INDEX, Workspace};

use crate::common::{odd_shape, scattered};

const LENGTH: usize = 20;

/// Eight sequences, their targets, some of which do not count, and how many do.
fn tokens() -> (Vec<u32>, Vec<u32>, usize) {
    let ids = scattered(8 * LENGTH, 61);
    let targets: Vec<u32> =
        (0..ids.len()).map(|i| if i % 7 == 3 { IGNORE_INDEX } else { ids[(i + 1) % ids.len()] }).collect();
    let count = targets.iter().filter(|t| **t != IGNORE_INDEX).count();
    (ids, targets, count)
}

/// Loss and gradients of the eight sequences in micro-batches of `size`.
fn run(model: &Decoder, size: usize, checkpointing: bool) -> (f64, Gradients) {
    let (ids, targets, count) = tokens();
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let mut workspace = Workspace::new(checkpointing);
    let mut loss = 0.0;
    for (ids, targets) in ids.chunks(size * LENGTH).zip(targets.chunks(size * LENGTH)) {
        let batch = Batch { ids, targets, sequences: size, segments: &[] };
        loss += model.forward_backward(&mut workspace, &batch, count as f32, &mut gradients).unwrap();
    }
    (loss, gradients)
}

/// The largest difference of two gradients, each parameter's in units of its largest element.
fn difference(model: &Decoder, a: &Gradients, b: &Gradients) -> f32 {
    let mut worst = 0f32;
    for i in 0..model.parameters().len() {
        let (a, b) = (a.get(i).unwrap(), b.get(i).unwrap());
        let size = a.iter().fold(0f32, |m, x| m.max(x.abs()));
        assert!(size > 0.0, "{} has a zero gradient", model.parameters()[i].name);
        worst = a.iter().zip(b).fold(worst, |m, (a, b)| m.max((a - b).abs() / size));
    }
    worst
}

#[test]
fn checkpointing_changes_no_bit_and_keeps_less() {
    let model = Decoder::init(&odd_shape(), 5).unwrap();
    let (loss, gradients) = run(&model, 4, false);
    let (again, checkpointed) = run(&model, 4, true);
    assert_eq!(loss.to_bits(), again.to_bits());
    for (a, b) in gradients.iter().zip(checkpointed.iter()) {
        assert_eq!(a, b);
    }
}

#[test]
fn the_estimate_of_memory_is_what_is_used() {
    for (checkpointing, activations, use_qk_norm) in [
        (false, ActivationQuant::Absmax, false),
        (true, ActivationQuant::Absmax, true),
        (false, ActivationQuant::None, true),
    ] {
        let config = ModelConfig { activations, use_qk_norm, ..odd_shape() };
        let mut model = Decoder::init(&config, 5).unwrap();
        model.set_grad_precision(GradPrecision::Int24).unwrap();
        let (ids, targets, count) = tokens();
        let batch = Batch { ids: &ids, targets: &targets, sequences: 8, segments: &[] };
        let mut workspace = Workspace::new(checkpointing);
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        model.forward_backward(&mut workspace, &batch, count as f32, &mut gradients).unwrap();
        let found = (workspace.activation_bytes(), workspace.bytes());
        assert_eq!(found, Workspace::estimate(&config, ids.len(), checkpointing), "{checkpointing}");
    }
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    let model = Decoder::init(&odd_shape(), 5).unwrap();
    let (whole, gradients) = run(&model, 8, false);
    let (parts, sums) = run(&model, 1, false);
    assert!((whole - parts).abs() < 1e-6 * whole, "{whole} against {parts}");
    let difference = difference(&model, &gradients, &sums);
    assert!(difference < 1e-6, "gradients differ by {difference}");
}

#[test]
fn threads_change_no_bit() {
    let model = Decoder::init(&ModelConfig { vocab_size: 5000, ..odd_shape() }, 5).unwrap();
    let on = |threads: usize| {
        tritforge_kernels::set_threads(threads);
        run(&model, 8, false)
    };
    let ((one, first), (three, second)) = (on(1), on(tritforge_kernels::max_threads()));
    assert_eq!(one.to_bits(), three.to_bits());
    assert!(first.iter().zip(second.iter()).all(|(a, b)| a == b));
}

#[test]
fn a_workspace_serves_batches_of_any_size() {
    let model = Decoder::init(&odd_shape(), 5).unwrap();
    let (ids, targets, count) = tokens();
    let mut workspace = Workspace::new(false);
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    for sequences in [8, 1, 3] {
        let n = sequences * LENGTH;
        let batch = Batch { ids: &ids[..n], targets: &targets[..n], sequences, segments: &[] };
        gradients.clear();
        let loss = model.forward_backward(&mut workspace, &batch, count as f32, &mut gradients).unwrap();
        let mut alone = Gradients::new(model.parameters(), |_| true);
        let fresh =
            model.forward_backward(&mut Workspace::new(false), &batch, count as f32, &mut alone).unwrap();
        assert_eq!(loss.to_bits(), fresh.to_bits());
        assert!(gradients.iter().zip(alone.iter()).all(|(a, b)| a == b));
    }
}

#[test]
fn frozen_parameters_get_nothing_and_change_nothing_else() {
    let model = Decoder::init(&odd_shape(), 5).unwrap();
    let (ids, targets, count) = tokens();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 8, segments: &[] };
    let (_, all) = run(&model, 8, false);
    // Among them sets that need no backward of the first blocks.
    let sets: [&[&str]; 5] = [
        &["up_proj", "norm"],
        &["layers.1.self_attn.q_proj"],
        &["layers.2.mlp"],
        &["model.norm"],
        &["embed"],
    ];
    for (set, checkpointing) in sets.into_iter().flat_map(|set| [(set, false), (set, true)]) {
        let trained = |name: &str| set.iter().any(|part| name.contains(part));
        let mut some = Gradients::new(model.parameters(), |p| trained(&p.name));
        model.forward_backward(&mut Workspace::new(checkpointing), &batch, count as f32, &mut some).unwrap();
        for (i, p) in model.parameters().iter().enumerate() {
            assert_eq!(some.get(i), all.get(i).filter(|_| trained(&p.name)), "{}", p.name);
        }
    }
}

/// The configuration names the parameters that a model has, in its order.
#[test]
fn parameters_are_those_that_the_configuration_names() {
    let biased = ModelConfig { attention_bias: AttentionBias::Qkv, use_sub_norm: false, ..odd_shape() };
    let other =
        ModelConfig { tie_word_embeddings: false, use_qk_norm: true, use_sub_norm: false, ..odd_shape() };
    let normed = ModelConfig { projection_norms: true, ..odd_shape() };
    for config in [odd_shape(), biased, other, normed] {
        let model = Decoder::init(&config, 5).unwrap();
        let found = model.parameters().iter().map(|p| (p.name.clone(), p.tensor.dims().to_vec()));
        assert_eq!(found.collect::<Vec<_>>(), config.parameter_shapes().collect::<Vec<_>>());
        let numbers: usize = model.parameters().iter().map(|p| p.tensor.len()).sum();
        assert_eq!(numbers, config.parameters().total());
        assert!(model.parameters().iter().all(|p| config.has_tensor(&p.name)));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = Decoder::init(&odd_shape(), 5).unwrap();
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let mut fault = |ids: &[u32], targets: &[u32], normalizer: f32| {
        let batch = Batch { ids, targets, sequences: 1, segments: &[] };
        let result = model.forward_backward(&mut Workspace::new(false), &batch, normalizer, &mut gradients);
        result.unwrap_err().to_string()
    };
    assert!(fault(&[1, 2], &[1], 1.0).contains("targets"));
    assert!(fault(&[1, 61], &[1, 2], 1.0).contains("token id: found 61"));
    assert!(fault(&[1, 2], &[61, 1], 1.0).contains("target: found 61"));
    assert!(fault(&[1, 2], &[1, 2], 0.0).contains("normalizer"));
    assert!(fault(&[], &[], 1.0).contains("token ids"));
    let other = Decoder::init(&ModelConfig { num_hidden_layers: 1, ..odd_shape() }, 5).unwrap();
    let mut small = Gradients::new(other.parameters(), |_| true);
    let batch = Batch { ids: &[1], targets: &[2], sequences: 1, segments: &[] };
    assert!(model.forward_backward(&mut Workspace::new(false), &batch, 1.0, &mut small).is_err());
}

#[test]
fn weights_scale_the_gradients_of_their_targets() {
    let model = Decoder::init(&odd_shape(), 5).unwrap();
    let (ids, targets, count) = tokens();
    let run = |targets: &[u32], weights: Option<&[f32]>| {
        let batch = Batch { ids: &ids, targets, sequences: 8, segments: &[] };
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        let n = count as f32;
        let loss = match weights {
            None => model.forward_backward(&mut workspace, &batch, n, &mut gradients),
            Some(w) => model.forward_backward_weighted(&mut workspace, &batch, w, n, &mut gradients),
        };
        (loss.unwrap(), gradients)
    };
    // All weights 1: the same bits.
    let (plain, ones) = (run(&targets, None), run(&targets, Some(&vec![1.0; targets.len()])));
    assert_eq!(plain.0.to_bits(), ones.0.to_bits());
    assert!(plain.1.iter().zip(ones.1.iter()).all(|(a, b)| a == b));
    // 2 for some, −1 for others, 0 for the rest: the sum of what each set gives alone.
    let kind = |i: usize| [2.0f32, -1.0, 0.0][i % 3];
    let only = |wanted: f32| -> Vec<u32> {
        let keep = |(i, target): (usize, &u32)| if kind(i) == wanted { *target } else { IGNORE_INDEX };
        targets.iter().enumerate().map(keep).collect()
    };
    let weights: Vec<f32> = (0..targets.len()).map(kind).collect();
    let (loss, weighted) = run(&targets, Some(&weights));
    let (twice, minus) = (run(&only(2.0), None), run(&only(-1.0), None));
    assert!((loss - (2.0 * twice.0 - minus.0)).abs() < 1e-6);
    for i in 0..model.parameters().len() {
        let parts = twice.1.get(i).unwrap().iter().zip(minus.1.get(i).unwrap());
        let expected: Vec<f32> = parts.map(|(a, b)| 2.0 * a - b).collect();
        let size = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (found, expected) in weighted.get(i).unwrap().iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5 * size, "{}", model.parameters()[i].name);
        }
    }
    let batch = Batch { ids: &ids, targets: &targets, sequences: 8, segments: &[] };
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    for (weights, expected) in [(vec![1.0; 3], "one a target"), (vec![f32::NAN; targets.len()], "finite")] {
        let mut workspace = Workspace::new(false);
        let error = model
            .forward_backward_weighted(&mut workspace, &batch, &weights, 1.0, &mut gradients)
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn log_probabilities_sum_to_the_score() {
    let model = Decoder::init(&odd_shape(), 5).unwrap();
    let (ids, targets, count) = tokens();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 8, segments: &[] };
    let log_probs = model.log_probs(&batch).unwrap();
    let score = model.score(&batch).unwrap();
    let sum: f64 = log_probs.iter().map(|p| f64::from(*p)).sum();
    assert_eq!((score.targets, log_probs.len()), (count, ids.len()));
    assert!((sum + score.nats).abs() < 1e-4, "{sum} {}", score.nats);
    let scored = targets.iter().zip(&log_probs);
    assert!(scored.clone().all(|(target, p)| (*target == IGNORE_INDEX) == (*p == 0.0)));
}
