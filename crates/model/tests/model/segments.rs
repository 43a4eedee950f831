//! Documents that share a row: each gets what it gets alone, bit for bit.

use tritforge_config::ModelConfig;
use tritforge_model::{Batch, Decoder, Gradients, IGNORE_INDEX, Workspace};

use crate::common::odd_shape;

/// Tokens of the first document: whole blocks of every sum over tokens, so that the second document's sums
/// are cut as alone.
const FIRST: usize = 256;
const SECOND: usize = 77;

fn model() -> Decoder {
    let config = ModelConfig {
        vocab_size: 700,
        max_position_embeddings: FIRST + SECOND,
        tie_word_embeddings: false,
        ..odd_shape()
    };
    Decoder::init(&config, 3).unwrap()
}

/// Two documents without a common token in one row; the first one's last token has no target.
fn row() -> (Vec<u32>, Vec<u32>) {
    let first = (0..FIRST as u32).map(|i| i * 37 % 300);
    let ids: Vec<u32> = first.chain((0..SECOND as u32).map(|i| 300 + i * 37 % 400)).collect();
    let mut targets: Vec<u32> = (0..ids.len()).map(|i| ids[(i + 1) % ids.len()]).collect();
    targets[FIRST - 1] = IGNORE_INDEX;
    (ids, targets)
}

fn run(
    model: &Decoder,
    ids: &[u32],
    targets: &[u32],
    segments: &[usize],
    checkpointing: bool,
) -> (f64, Gradients) {
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let batch = Batch { ids, targets, sequences: 1, segments };
    let mut workspace = Workspace::new(checkpointing);
    let loss = model.forward_backward(&mut workspace, &batch, 100.0, &mut gradients).unwrap();
    (loss, gradients)
}

fn same(a: &Gradients, b: &Gradients) -> bool {
    a.iter().zip(b.iter()).all(|(a, b)| a == b)
}

#[test]
fn a_document_in_a_row_has_the_loss_and_the_gradients_that_it_has_alone() {
    let model = model();
    let (ids, targets) = row();
    let silent = |range: std::ops::Range<usize>| {
        let mut targets = targets.clone();
        targets[range].fill(IGNORE_INDEX);
        targets
    };
    let of_first = run(&model, &ids, &silent(FIRST..ids.len()), &[0, FIRST], false);
    let alone = run(&model, &ids[..FIRST], &targets[..FIRST], &[], false);
    assert_eq!(of_first.0.to_bits(), alone.0.to_bits());
    assert!(same(&of_first.1, &alone.1));
    let of_second = run(&model, &ids, &silent(0..FIRST), &[FIRST], true);
    let alone = run(&model, &ids[FIRST..], &targets[FIRST..], &[], false);
    assert_eq!(of_second.0.to_bits(), alone.0.to_bits());
    assert!(same(&of_second.1, &alone.1));

    // Both together: the gradient of each token's embedding has one term, and the loss is the sum.
    let both = run(&model, &ids, &targets, &[0, FIRST], false);
    let width = model.config().hidden_size;
    for (token, gradient) in both.1.get(0).unwrap().chunks_exact(width).enumerate() {
        let own = if token < 300 { &of_first.1 } else { &of_second.1 };
        assert_eq!(gradient, &own.get(0).unwrap()[token * width..][..width], "token {token}");
    }
    assert!((both.0 - of_first.0 - of_second.0).abs() < 1e-12 * both.0);
    // Without the boundary the second document sees the first.
    let across = run(&model, &ids, &silent(0..FIRST), &[], false);
    assert!((across.0 - of_second.0).abs() > 1e-3 * of_second.0);
}

#[test]
fn the_score_keeps_documents_apart_too() {
    let model = model();
    let (ids, targets) = row();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 1, segments: &[0, FIRST] };
    let (loss, _) = run(&model, &ids, &targets, batch.segments, false);
    assert!((model.score(&batch).unwrap().nats / 100.0 - loss).abs() < 1e-5 * loss);
    let whole = model.score(&batch).unwrap();
    let part = |range: std::ops::Range<usize>| {
        let batch = Batch { ids: &ids[range.clone()], targets: &targets[range], sequences: 1, segments: &[] };
        model.score(&batch).unwrap()
    };
    let (first, second) = (part(0..FIRST), part(FIRST..ids.len()));
    assert_eq!(whole.targets, first.targets + second.targets);
    assert!((whole.nats - first.nats - second.nats).abs() < 1e-9 * whole.nats);
}

#[test]
fn boundaries_that_do_not_ascend_or_lie_outside_are_refused() {
    let model = model();
    for segments in [&[3, 2][..], &[5], &[0, 0]] {
        let batch = Batch { ids: &[1, 2, 3, 4, 5], targets: &[2, 3, 4, 5, 6], sequences: 1, segments };
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let result = model.forward_backward(&mut Workspace::new(false), &batch, 5.0, &mut gradients);
        assert!(result.unwrap_err().to_string().contains("segments: found"), "{segments:?}");
        assert!(model.score(&batch).is_err());
    }
}
