//! The cross-entropy with label smoothing, z-loss and DFT: on ternary and on full-precision models, with masked targets and
//! packed documents.

use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_model::{
    Batch, CrossEntropyLoss, Decoder, Gradients, IGNORE_INDEX, LossTerms, ModelError, Workspace,
};

use crate::common::{odd_shape, scattered};
use crate::differences::assert_gradients;

const ALL: LossTerms = LossTerms { label_smoothing: 0.1, z_loss: 0.02, dft: false };
const DFT: LossTerms = LossTerms { label_smoothing: 0.0, z_loss: 0.0, dft: true };

/// Two rows of twenty tokens, a document that begins within the first, and masked targets; how many are not.
fn batch<'a>(ids: &'a [u32], targets: &'a mut [u32]) -> (Batch<'a>, f32) {
    for at in [0, 1, 2, 19, 27] {
        targets[at] = IGNORE_INDEX;
    }
    (Batch { ids, targets, sequences: 2, segments: &[7] }, 35.0)
}

fn run(
    model: &Decoder,
    batch: &Batch<'_>,
    terms: LossTerms,
    n: f32,
) -> Result<(CrossEntropyLoss, Gradients), ModelError> {
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let mut workspace = Workspace::new(false);
    let loss = model.forward_backward_with_terms(&mut workspace, batch, terms, n, &mut gradients)?;
    Ok((loss, gradients))
}

fn shapes() -> [ModelConfig; 2] {
    let full = ModelConfig { weights: WeightQuant::None, activations: ActivationQuant::None, ..odd_shape() };
    [odd_shape(), full]
}

#[test]
fn no_terms_give_the_bits_of_the_plain_pass() {
    let ids = scattered(41, 61);
    let mut targets = ids[1..].to_vec();
    let (batch, n) = batch(&ids[..40], &mut targets);
    for config in shapes() {
        let model = Decoder::init(&config, 5).unwrap();
        let (loss, gradients) = run(&model, &batch, LossTerms::default(), n).unwrap();
        let mut plain = Gradients::new(model.parameters(), |_| true);
        let expected = model.forward_backward(&mut Workspace::new(false), &batch, n, &mut plain).unwrap();
        assert_eq!((loss.total, loss.cross_entropy), (expected, expected));
        assert!(gradients.iter().eq(plain.iter()));
    }
}

/// DFT weighs each target by a constant: its probability, as another pass finds it.
#[test]
fn dft_is_the_cross_entropy_weighted_by_probabilities() {
    let ids = scattered(41, 61);
    let mut targets = ids[1..].to_vec();
    let (batch, n) = batch(&ids[..40], &mut targets);
    for config in shapes() {
        let model = Decoder::init(&config, 5).unwrap();
        let (loss, gradients) = run(&model, &batch, DFT, n).unwrap();
        let weights: Vec<f32> = model.log_probs(&batch).unwrap().iter().map(|p| p.exp()).collect();
        let mut weighted = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        let expected =
            model.forward_backward_weighted(&mut workspace, &batch, &weights, n, &mut weighted).unwrap();
        assert!((loss.total - expected).abs() < 1e-6 && loss.total < loss.cross_entropy);
        for (i, parameter) in model.parameters().iter().enumerate() {
            let expected = weighted.get(i).unwrap();
            let size = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
            for (found, expected) in gradients.get(i).unwrap().iter().zip(expected) {
                assert!((found - expected).abs() < 1e-4 * size, "{}", parameter.name);
            }
        }
    }
}

/// In full precision, where the loss is smooth; against the definition, written out again in f64.
#[test]
fn the_gradient_is_that_of_differences() {
    let config = ModelConfig { num_hidden_layers: 1, ..shapes()[1].clone() };
    let model = Decoder::init(&config, 5).unwrap();
    let ids = scattered(41, 61);
    let mut targets = ids[1..].to_vec();
    let (batch, n) = batch(&ids[..40], &mut targets);
    let defined = |model: &Decoder| {
        // `logits` knows no documents: the two of the first row, then the second row.
        let rows = [&ids[..7], &ids[7..20], &ids[20..40]];
        let logits: Vec<f32> = rows.iter().flat_map(|row| model.logits(row, 1, None).unwrap()).collect();
        let of = |(row, target): (&[f32], &u32)| {
            let log_z = row.iter().map(|z| f64::from(*z).exp()).sum::<f64>().ln();
            let mean = row.iter().map(|z| log_z - f64::from(*z)).sum::<f64>() / row.len() as f64;
            let own = log_z - f64::from(row[*target as usize]);
            0.9 * own + 0.1 * mean + 0.02 * log_z * log_z
        };
        let rows = logits.chunks_exact(61).zip(batch.targets);
        rows.filter(|(_, target)| **target != IGNORE_INDEX).map(of).sum::<f64>() / f64::from(n)
    };
    let (loss, gradients) = run(&model, &batch, ALL, n).unwrap();
    assert!((loss.total - defined(&model)).abs() < 1e-5, "{loss:?} {}", defined(&model));
    assert!((loss.cross_entropy - model.score(&batch).unwrap().mean()).abs() < 1e-5);
    assert_gradients(&model, &gradients, 1e-2, [1e-2, 1e-4], defined);
}

#[test]
fn terms_out_of_range_are_refused() {
    let model = Decoder::init(&odd_shape(), 5).unwrap();
    let batch = Batch { ids: &[1, 2], targets: &[2, 3], sequences: 1, segments: &[] };
    for (terms, message) in [
        (LossTerms { label_smoothing: 1.0, ..ALL }, "label smoothing: found 1"),
        (LossTerms { label_smoothing: f32::NAN, ..ALL }, "label smoothing: found NaN"),
        (LossTerms { z_loss: -1.0, ..ALL }, "z-loss: found -1"),
        (LossTerms { z_loss: f32::INFINITY, ..ALL }, "z-loss: found inf"),
    ] {
        let error = run(&model, &batch, terms, 2.0).err().unwrap().to_string();
        assert!(error.contains(message), "{error}");
    }
}
