//! A ternary embedding and head: forward and gradients against models that have the quantized numbers in full precision,
//! and against textbook formulas.

use tritforge_config::{ActivationQuant, Granularity, ModelConfig, WeightQuant};
use tritforge_model::{Batch, Decoder, GradPrecision, Gradients, Workspace};
use tritforge_ternary::{Scales, Ste, TernaryTensor, absmax_quantize};

use crate::common::scattered;

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const VOCAB: usize = 96;
const WIDTH: usize = 64;
const LENGTH: usize = 16;
const SEQUENCES: usize = 3;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: VOCAB,
        hidden_size: WIDTH,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        max_position_embeddings: 32,
        initializer_range: 0.3,
        tie_word_embeddings: false,
        ..ModelConfig::default()
    }
}

const GRANULARITIES: [Granularity; 3] = [Granularity::Tensor, Granularity::Row, Granularity::Group(32)];

/// Ids and their targets.
fn ids() -> Vec<u32> {
    scattered(SEQUENCES * LENGTH + 1, VOCAB as u64)
}

fn batch(ids: &[u32]) -> Batch<'_> {
    Batch { ids: &ids[..ids.len() - 1], targets: &ids[1..], sequences: SEQUENCES, segments: &[] }
}

/// Loss and gradients by name.
fn step(model: &Decoder) -> (f64, Vec<(String, Vec<f32>)>) {
    let ids = ids();
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let mut workspace = Workspace::new(false);
    let loss = model.forward_backward(&mut workspace, &batch(&ids), 48.0, &mut gradients).unwrap();
    let names = model.parameters().iter().map(|p| p.name.clone());
    (loss, names.zip(gradients.iter().map(|g| g.unwrap().to_vec())).collect())
}

fn of<'a>(gradients: &'a [(String, Vec<f32>)], name: &str) -> &'a [f32] {
    &gradients.iter().find(|(found, _)| found == name).unwrap().1
}

/// The same parameters in a model of another configuration, some of them replaced.
fn with(model: &Decoder, config: &ModelConfig, replaced: &[(&str, &[f32])]) -> Decoder {
    let mut values = model.snapshot();
    for (name, other) in replaced {
        values.insert((*name).to_string(), other.to_vec());
    }
    Decoder::load(config, |name, _| Ok(values[name].clone())).unwrap()
}

#[test]
fn a_ternary_embedding_looks_up_codes_times_scales_and_passes_gradients_straight_through() {
    for activations in [ActivationQuant::Absmax, ActivationQuant::None] {
        for granularity in GRANULARITIES {
            let dense = ModelConfig { activations, ..config() };
            let ternary = ModelConfig { ternary_embedding: Some(granularity), ..dense.clone() };
            let model = Decoder::init(&ternary, 3).unwrap();
            let latent = model.values(EMBEDDING).unwrap();
            let quantized =
                TernaryTensor::quantize_by(ternary.quantizer, granularity, &latent, [VOCAB, WIDTH]).unwrap();
            assert_eq!(model.ternary_table(EMBEDDING).unwrap().as_ref(), Some(&quantized));
            assert_eq!(model.ternary_table(HEAD).unwrap(), None);
            let reference = with(&model, &dense, &[(EMBEDDING, &quantized.values())]);
            let ((loss, gradients), (expected_loss, expected)) = (step(&model), step(&reference));
            assert_eq!(loss, expected_loss);
            assert!(gradients == expected, "{activations:?}, {granularity}");
            let ids = &ids()[..LENGTH];
            assert_eq!(model.logits(ids, 1, None).unwrap(), reference.logits(ids, 1, None).unwrap());
        }
    }
}

/// Softmax of logits minus the target, over the number of targets: [tokens, VOCAB] in f64.
fn logit_gradients(logits: &[f32], targets: &[u32]) -> Vec<f64> {
    let mut gradients = Vec::with_capacity(logits.len());
    for (row, target) in logits.chunks_exact(VOCAB).zip(targets) {
        let largest = row.iter().fold(f64::MIN, |m, x| m.max(f64::from(*x)));
        let sum: f64 = row.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
        gradients.extend(row.iter().enumerate().map(|(i, x)| {
            let p = (f64::from(*x) - largest).exp() / sum;
            (p - f64::from(u8::from(i as u32 == *target))) / targets.len() as f64
        }));
    }
    gradients
}

/// `x · scale` of a head's product, by the definition: one sum a row, or one a group by ascending group.
fn logit(codes: &[i8], scales: &[f32], x: &[i8], x_scale: f32, whole: bool) -> f32 {
    let sum = |codes: &[i8], x: &[i8]| -> i32 {
        codes.iter().zip(x).map(|(code, x)| i32::from(*code) * i32::from(*x)).sum()
    };
    if whole {
        return sum(codes, x) as f32 * (scales[0] * x_scale);
    }
    let width = codes.len() / scales.len();
    let groups = codes.chunks_exact(width).zip(x.chunks_exact(width)).zip(scales);
    let total = groups.fold(0f32, |total, ((codes, x), scale)| total + scale * sum(codes, x) as f32);
    x_scale * total
}

fn close(found: &[f32], expected: &[f64], what: &str) {
    let largest = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
    assert!(largest > 0.0 && found.len() == expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let distance = (f64::from(*found) - expected).abs();
        assert!(distance < 1e-5 * largest, "{what}[{i}]: {found}, {expected}");
    }
}

#[test]
fn a_ternary_head_multiplies_int8_inputs_by_codes() {
    for granularity in GRANULARITIES {
        let ternary = ModelConfig { ternary_head: Some(granularity), ..config() };
        let model = Decoder::init(&ternary, 3).unwrap();
        let latent = model.values(HEAD).unwrap();
        let head =
            TernaryTensor::quantize_by(ternary.quantizer, granularity, &latent, [VOCAB, WIDTH]).unwrap();
        assert_eq!(model.ternary_table(HEAD).unwrap().as_ref(), Some(&head));
        // A head of unit vectors gives the hidden states.
        let units: Vec<f32> =
            (0..VOCAB * WIDTH).map(|i| f32::from(u8::from(i / WIDTH == i % WIDTH))).collect();
        let ids = ids();
        let (inputs, targets) = (&ids[..ids.len() - 1], &ids[1..]);
        let states = with(&model, &config(), &[(HEAD, &units)]).logits(inputs, SEQUENCES, None).unwrap();
        let hidden: Vec<f32> = states.chunks_exact(VOCAB).flat_map(|row| &row[..WIDTH]).copied().collect();
        let mut rounded = Vec::with_capacity(hidden.len());
        let mut expected = Vec::new();
        let scales: &Scales = head.scales();
        let whole = !matches!(granularity, Granularity::Group(_));
        for row in hidden.chunks_exact(WIDTH) {
            let mut codes = vec![0i8; WIDTH];
            let x_scale = absmax_quantize(row, &mut codes);
            for (i, of_row) in head.codes().chunks_exact(WIDTH).enumerate() {
                expected.push(logit(of_row, scales.row(i), &codes, x_scale, whole));
            }
            rounded.extend(codes.iter().map(|code| f64::from(*code) * f64::from(x_scale)));
        }
        let logits = model.logits(inputs, SEQUENCES, None).unwrap();
        assert!(logits == expected, "{granularity}");

        // dW = dyᵀ · x as it was rounded, dx = dy · (code · scale); the norm's weight is 1, so that its gradient is the
        // sum of dx · hidden.
        let dy = logit_gradients(&logits, targets);
        let (loss, gradients) = step(&model);
        let nats: f64 = logits
            .chunks_exact(VOCAB)
            .zip(targets)
            .map(|(row, target)| {
                let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
                sum.ln() - f64::from(row[*target as usize])
            })
            .sum();
        assert!((loss - nats / 48.0).abs() < 1e-5, "{loss}");
        let (values, tokens) = (head.values(), targets.len());
        let mut of_head = vec![0f64; VOCAB * WIDTH];
        let mut of_norm = vec![0f64; WIDTH];
        for t in 0..tokens {
            for v in 0..VOCAB {
                for i in 0..WIDTH {
                    of_head[v * WIDTH + i] += dy[t * VOCAB + v] * rounded[t * WIDTH + i];
                    let dx = dy[t * VOCAB + v] * f64::from(values[v * WIDTH + i]);
                    of_norm[i] += dx * f64::from(hidden[t * WIDTH + i]);
                }
            }
        }
        close(of(&gradients, HEAD), &of_head, HEAD);
        close(of(&gradients, "model.norm.weight"), &of_norm, "model.norm.weight");
    }
}

#[test]
fn a_ternary_head_of_full_precision_inputs_is_one_of_its_numbers() {
    for granularity in GRANULARITIES {
        let dense = ModelConfig { activations: ActivationQuant::None, ..config() };
        let ternary = ModelConfig { ternary_head: Some(granularity), ..dense.clone() };
        let model = Decoder::init(&ternary, 3).unwrap();
        let head = model.ternary_table(HEAD).unwrap().unwrap();
        let reference = with(&model, &dense, &[(HEAD, &head.values())]);
        let ids = &ids()[..LENGTH];
        assert_eq!(model.logits(ids, 1, None).unwrap(), reference.logits(ids, 1, None).unwrap());
        let ((loss, gradients), (expected_loss, expected)) = (step(&model), step(&reference));
        assert!((loss - expected_loss).abs() < 1e-6);
        for ((name, gradient), (_, expected)) in gradients.iter().zip(&expected) {
            let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
            close(gradient, &expected, name);
        }
    }
}

#[test]
fn the_input_of_a_ternary_head_is_counted() {
    for activations in [ActivationQuant::Absmax, ActivationQuant::None] {
        let bytes = |ternary_head: Option<Granularity>| {
            let model = Decoder::init(&ModelConfig { activations, ternary_head, ..config() }, 3).unwrap();
            let ids = ids();
            let mut gradients = Gradients::new(model.parameters(), |_| true);
            let mut workspace = Workspace::new(false);
            model.forward_backward(&mut workspace, &batch(&ids), 48.0, &mut gradients).unwrap();
            (workspace.bytes(), Workspace::estimate(model.config(), SEQUENCES * LENGTH, false).1)
        };
        let ((dense, estimated_dense), (ternary, estimated)) = (bytes(None), bytes(Some(Granularity::Row)));
        assert!(ternary > dense);
        assert_eq!(ternary - dense, estimated - estimated_dense, "{activations:?}");
    }
}

/// A tied embedding is both: its gradient is the sum of what an embedding and a head apart would have.
#[test]
fn a_tied_table_has_both_gradients() {
    let granularity = Some(Granularity::Row);
    let tied = ModelConfig { tie_word_embeddings: true, ternary_embedding: granularity, ..config() };
    let model = Decoder::init(&tied, 9).unwrap();
    let apart = ModelConfig { ternary_embedding: granularity, ternary_head: granularity, ..config() };
    let latent = model.values(EMBEDDING).unwrap();
    let reference = with(&model, &apart, &[(HEAD, &latent)]);
    let ((loss, gradients), (expected_loss, expected)) = (step(&model), step(&reference));
    assert_eq!(loss, expected_loss);
    let both = of(&expected, EMBEDDING).iter().zip(of(&expected, HEAD));
    let both: Vec<f64> = both.map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
    close(of(&gradients, EMBEDDING), &both, EMBEDDING);
    let ids = &ids()[..LENGTH];
    assert_eq!(model.logits(ids, 1, None).unwrap(), reference.logits(ids, 1, None).unwrap());
}

#[test]
fn changes_estimators_and_blends_reach_the_tables() {
    let both = ModelConfig {
        ternary_embedding: Some(Granularity::Row),
        ternary_head: Some(Granularity::Group(32)),
        ..config()
    };
    let mut model = Decoder::init(&both, 4).unwrap();
    model.set_grad_precision(GradPrecision::Int24).unwrap();
    // Other values are quantized anew.
    let other: Vec<f32> = model.values(HEAD).unwrap().iter().map(|x| -2.0 * x).collect();
    let before = model.ternary_table(HEAD).unwrap().unwrap();
    model.replace(HEAD, &other).unwrap();
    let after = model.ternary_table(HEAD).unwrap().unwrap();
    assert!(before.codes().iter().zip(after.codes()).all(|(a, b)| *a == -*b));
    // Clipping stops gradients beyond 1.5 steps, in the head as anywhere.
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let ids = ids();
    model.forward_backward(&mut Workspace::new(false), &batch(&ids), 48.0, &mut gradients).unwrap();
    model.apply_ste(Ste::Clip, &mut gradients);
    let clipped =
        gradients.iter().zip(model.parameters()).filter(|(_, p)| [EMBEDDING, HEAD].contains(&&*p.name));
    for (gradient, parameter) in clipped {
        let gradient = gradient.unwrap();
        let table = model.ternary_table(&parameter.name).unwrap().unwrap();
        let latent = model.values(&parameter.name).unwrap();
        let width = WIDTH / table.scales().row(0).len();
        for (i, (g, w)) in gradient.iter().zip(&latent).enumerate() {
            let scale = table.scales().row(i / WIDTH)[i % WIDTH / width];
            if w.abs() > 1.51 * scale {
                assert_eq!(*g, 0.0, "{}[{i}]", parameter.name);
            }
        }
        assert!(gradient.iter().any(|g| *g != 0.0));
    }
    // With nothing of the quantization to be seen, training computes the full-precision model.
    model.set_blend(&[0.0, 0.0], &[0.0, 0.0]).unwrap();
    model.requantize().unwrap();
    let plain = ModelConfig {
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ternary_embedding: None,
        ternary_head: None,
        ..both.clone()
    };
    let reference = with(&model, &plain, &[]);
    assert!((step_loss(&model) - step_loss(&reference)).abs() < 1e-6);
    // Evaluation is that of the model that is deployed.
    let deployed = with(&model, &both, &[]);
    assert_eq!(
        model.logits(&ids[..LENGTH], 1, None).unwrap(),
        deployed.logits(&ids[..LENGTH], 1, None).unwrap()
    );
}

fn step_loss(model: &Decoder) -> f64 {
    let ids = ids();
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    model.forward_backward(&mut Workspace::new(true), &batch(&ids), 48.0, &mut gradients).unwrap()
}
