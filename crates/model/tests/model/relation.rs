//! The attention-relation loss: against its definition in f64, its gradient against finite differences, and
//! where it has no part.

use tritforge_config::{ActivationQuant, AttentionBias, ModelConfig, WeightQuant};
use tritforge_model::{
    AttentionStates, Batch, Decoder, Distillation, DistillationLoss, Gradients, IGNORE_INDEX, ModelError,
    Relation, Workspace,
};

use crate::common::yarn;

const VOCAB: usize = 31;
const LENGTH: usize = 9;
const SEGMENTS: [usize; 3] = [4, 9, 14];

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: VOCAB,
        hidden_size: 24,
        intermediate_size: 32,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        initializer_range: 0.3,
        // Rounding has another gradient than differences.
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..ModelConfig::default()
    }
}

/// A model of other widths.
fn teacher() -> Decoder {
    let config = ModelConfig {
        hidden_size: 32,
        num_attention_heads: 4,
        head_dim: 8,
        num_hidden_layers: 2,
        ..config()
    };
    Decoder::init(&config, 9).unwrap()
}

/// Two sequences of two segments each; the last segment has no target.
fn tokens() -> (Vec<u32>, Vec<u32>) {
    let ids: Vec<u32> = (0..2 * LENGTH as u32).map(|i| i * i * 7 % VOCAB as u32).collect();
    let mut targets: Vec<u32> = ids.iter().map(|id| (id + 3) % VOCAB as u32).collect();
    targets[2] = IGNORE_INDEX;
    targets[14..].fill(IGNORE_INDEX);
    (ids, targets)
}

fn relation(states: &AttentionStates) -> Relation<'_> {
    let [q, k, v] = states;
    Relation {
        layer: 1,
        states: [q, k, v],
        heads: 2,
        temperature: Some(0.3),
        weight: 40.0,
        alphas: [1.0, 0.5, 2.0],
        rows: 14,
    }
}

fn learn(
    model: &Decoder,
    relation: Option<Relation<'_>>,
    workspace: &mut Workspace,
) -> Result<(DistillationLoss, Gradients), ModelError> {
    let (ids, targets) = tokens();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 2, segments: &SEGMENTS };
    // A teacher whose distribution does not count.
    let (top, logits) = (vec![0; ids.len()], vec![0.0; ids.len()]);
    let d = Distillation {
        ids: &top,
        logits: &logits,
        k: 1,
        ce: 0.0,
        kl: 0.0,
        jsd_beta: 0.0,
        temperature: 1.0,
        relation,
    };
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let loss = model.forward_backward_distilled(workspace, &batch, &d, 1.0, &mut gradients)?;
    Ok((loss, gradients))
}

/// What relates to what: [T, T] of one head.
fn softmax_of_products(rows: &[Vec<f64>], temperature: f64) -> Vec<Vec<f64>> {
    let length = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
    let cosine = |a: &[f64], b: &[f64]| {
        a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / length(a) / length(b) / temperature
    };
    rows.iter()
        .map(|a| {
            let exp: Vec<f64> = rows.iter().map(|b| cosine(a, b).exp()).collect();
            let sum: f64 = exp.iter().sum();
            exp.into_iter().map(|e| e / sum).collect()
        })
        .collect()
}

/// The loss without its weight by its definition, in f64, from states that a model's own evaluation gives.
fn expected(model: &Decoder, relation: &Relation<'_>) -> f64 {
    let (ids, _) = tokens();
    let states = model.attention_states(&ids, 2, &SEGMENTS, relation.layer).unwrap();
    let part = |states: &[f32], tokens: std::ops::Range<usize>, head: usize| -> Vec<Vec<f64>> {
        let width = states.len() / ids.len();
        let d = width / relation.heads;
        tokens.map(|t| states[t * width + head * d..][..d].iter().map(|x| f64::from(*x)).collect()).collect()
    };
    let mut total = 0.0;
    for i in 0..3 {
        let d = states[i].len() / ids.len() / relation.heads;
        let temperature = relation.temperature.map_or((d as f64).sqrt(), f64::from);
        for segment in [0..4, 4..9, 9..14] {
            for head in 0..relation.heads {
                let ours = softmax_of_products(&part(&states[i], segment.clone(), head), temperature);
                let theirs =
                    softmax_of_products(&part(relation.states[i], segment.clone(), head), temperature);
                let kl = ours.iter().flatten().zip(theirs.iter().flatten()).map(|(q, p)| p * (p / q).ln());
                total += f64::from(relation.alphas[i]) * kl.sum::<f64>() / (relation.heads * 14) as f64;
            }
        }
    }
    total
}

#[test]
fn the_loss_is_its_definitions_and_the_gradient_that_of_differences() {
    let (ids, _) = tokens();
    let states = teacher().attention_states(&ids, 2, &SEGMENTS, 1).unwrap();
    for (config, relation) in [
        (config(), relation(&states)),
        (config(), Relation { heads: 1, alphas: [0.0, 0.0, 1.0], layer: 2, ..relation(&states) }),
        (config(), Relation { heads: 4, temperature: None, weight: 1000.0, layer: 0, ..relation(&states) }),
        (
            ModelConfig {
                use_qk_norm: true,
                attention_bias: AttentionBias::Qkv,
                rope_scaling: Some(yarn()),
                ..config()
            },
            relation(&states),
        ),
    ] {
        let model = Decoder::init(&config, 3).unwrap();
        let (loss, gradients) = learn(&model, Some(relation), &mut Workspace::new(false)).unwrap();
        let reference = expected(&model, &relation);
        assert!((loss.relation - reference).abs() < 1e-5 * reference, "{} {reference}", loss.relation);
        let weight = f64::from(relation.weight);
        assert!((loss.total - weight * loss.relation).abs() < 1e-9);

        let values = model.snapshot();
        let mut some = 0;
        for (i, parameter) in model.parameters().iter().enumerate() {
            let gradient = gradients.get(i).unwrap();
            let size = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let below = |layer: usize| parameter.name.contains(&format!("layers.{layer}."));
            if size == 0.0 {
                let reached = (0..relation.layer).any(below)
                    || (below(relation.layer) && parameter.name.contains("v_proj.weight"));
                assert!(!reached, "{} has no gradient", parameter.name);
                continue;
            }
            some += 1;
            let along = |step: f64| {
                let mut moved = values.clone();
                let own = moved.get_mut(&parameter.name).unwrap();
                own.iter_mut().zip(gradient).for_each(|(x, g)| *x += (step * f64::from(*g) / size) as f32);
                let moved = Decoder::load(&config, |name, _| Ok(moved[name].clone())).unwrap();
                weight * expected(&moved, &relation)
            };
            let step = 2e-3;
            let slope = (along(step) - along(-step)) / (2.0 * step);
            assert!((slope - size).abs() < 1e-2 * size + 1e-4, "{}: {slope} {size}", parameter.name);
        }
        assert!(some > 2, "{some} parameters have a gradient");
    }
}

#[test]
fn it_adds_to_the_other_losses() {
    let (ids, targets) = tokens();
    let model = Decoder::init(&config(), 3).unwrap();
    let states = teacher().attention_states(&ids, 2, &SEGMENTS, 1).unwrap();
    let (apart, own) = learn(&model, Some(relation(&states)), &mut Workspace::new(false)).unwrap();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 2, segments: &SEGMENTS };
    let (top, logits) = (vec![5; ids.len()], vec![1.0; ids.len()]);
    let mut d = Distillation {
        ids: &top,
        logits: &logits,
        k: 1,
        ce: 1.0,
        kl: 2.0,
        jsd_beta: 0.0,
        temperature: 1.0,
        relation: None,
    };
    let pass = |d: &Distillation<'_>| {
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        (
            model.forward_backward_distilled(&mut workspace, &batch, d, 13.0, &mut gradients).unwrap(),
            gradients,
        )
    };
    let (plain, without) = pass(&d);
    d.relation = Some(relation(&states));
    let (both, with) = pass(&d);
    assert_eq!((plain.relation, both.relation), (0.0, apart.relation));
    assert!((both.total - plain.total - apart.total).abs() < 1e-6);
    for ((with, without), own) in with.iter().zip(without.iter()).zip(own.iter()) {
        let all = with.unwrap().iter().zip(without.unwrap()).zip(own.unwrap());
        all.for_each(|((with, without), own)| {
            assert!((with - without - own).abs() < 2e-4, "{with} {without} {own}");
        });
    }
}

#[test]
fn checkpointing_and_threads_change_no_bit() {
    let (ids, _) = tokens();
    let config = ModelConfig {
        weights: WeightQuant::Absmean,
        activations: ActivationQuant::Absmax,
        use_qk_norm: true,
        ..config()
    };
    let model = Decoder::init(&config, 3).unwrap();
    let states = teacher().attention_states(&ids, 2, &SEGMENTS, 0).unwrap();
    let threads = tritforge_kernels::max_threads();
    let run = |checkpointing: bool, threads: usize| {
        tritforge_kernels::set_threads(threads);
        learn(&model, Some(relation(&states)), &mut Workspace::new(checkpointing)).unwrap()
    };
    let (loss, gradients) = run(false, 1);
    for (again, others) in [run(true, threads), run(false, threads)] {
        assert_eq!(
            (loss.total.to_bits(), loss.relation.to_bits()),
            (again.total.to_bits(), again.relation.to_bits())
        );
        assert!(gradients.iter().zip(others.iter()).all(|(a, b)| a == b));
    }
}

#[test]
fn states_are_those_before_norms_and_rope_and_logits_stay_what_they_are() {
    let (ids, _) = tokens();
    let plain = config();
    let normed = ModelConfig { use_qk_norm: true, ..config() };
    let states = |config: &ModelConfig| {
        let model = Decoder::init(config, 3).unwrap();
        let (logits, states) = model.segment_logits_and_states(&ids, 2, &SEGMENTS, 0).unwrap();
        assert_eq!(logits, model.segment_logits(&ids, 2, &SEGMENTS, None).unwrap());
        assert_eq!(states, model.attention_states(&ids, 2, &SEGMENTS, 0).unwrap());
        states
    };
    // Norms of 1 take no random numbers: both models have the same weights.
    assert_eq!(states(&plain), states(&normed));
    // The same token in the same layer 0 has the same states at any position.
    let [q, k, _] = states(&plain);
    assert_eq!(ids[15], ids[16]);
    assert_eq!(q[15 * 24..][..24], q[16 * 24..][..24]);
    assert_eq!(k[15 * 12..][..12], k[16 * 12..][..12]);
    let error = Decoder::init(&plain, 3).unwrap().attention_states(&ids, 2, &[], 3).unwrap_err().to_string();
    assert!(error.contains("below the model's 3"), "{error}");
}

#[test]
fn segments_without_a_target_have_no_rows() {
    let (ids, targets) = tokens();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 2, segments: &SEGMENTS };
    assert_eq!(batch.relation_rows().unwrap(), 14);
    assert_eq!(Batch { segments: &[], ..batch }.relation_rows().unwrap(), 18);
    // What stands in the padding changes nothing.
    let model = Decoder::init(&config(), 3).unwrap();
    let mut states = teacher().attention_states(&ids, 2, &SEGMENTS, 1).unwrap();
    let (loss, _) = learn(&model, Some(relation(&states)), &mut Workspace::new(false)).unwrap();
    states.iter_mut().for_each(|states| {
        let width = states.len() / ids.len();
        states[14 * width..].fill(7.0);
    });
    let (again, _) = learn(&model, Some(relation(&states)), &mut Workspace::new(false)).unwrap();
    assert_eq!(loss, again);
}

#[test]
fn relations_that_do_not_fit_are_refused() {
    let (ids, _) = tokens();
    let model = Decoder::init(&config(), 3).unwrap();
    let states = teacher().attention_states(&ids, 2, &SEGMENTS, 1).unwrap();
    let good = relation(&states);
    let nan = vec![f32::NAN; states[0].len()];
    for (bad, expected) in [
        (Relation { layer: 3, ..good }, "relation layer: found 3, expected below the model's 3"),
        (Relation { heads: 5, ..good }, "width of the queries: 24 of the model, 32 of the teacher"),
        (Relation { heads: 8, ..good }, "width of the keys: 12 of the model, 16 of the teacher"),
        (Relation { heads: 0, ..good }, "relation heads"),
        (Relation { states: [&states[0], &states[1][1..], &states[2]], ..good }, "keys of 18 tokens"),
        (Relation { states: [&nan, &states[1], &states[2]], ..good }, "finite queries"),
        (Relation { temperature: Some(0.0), ..good }, "above 0"),
        (Relation { rows: 0, ..good }, "rows"),
    ] {
        let error = learn(&model, Some(bad), &mut Workspace::new(false)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
