//! Distillation: its loss against the formula, its gradient against finite differences, its ends against
//! cross-entropy.

use tritforge_config::ModelConfig;
use tritforge_model::{Batch, Decoder, Distillation, Gradients, IGNORE_INDEX, Workspace};

use crate::differences::{assert_gradients, smooth};

const VOCAB: usize = 29;

fn config() -> ModelConfig {
    ModelConfig { initializer_range: 0.3, ..smooth(VOCAB, 2) }
}

fn batch() -> (Vec<u32>, Vec<u32>) {
    let ids: Vec<u32> = (0..12).map(|i| i * 7 % VOCAB as u32).collect();
    let mut targets: Vec<u32> = ids.iter().map(|id| (id + 3) % VOCAB as u32).collect();
    targets[4] = IGNORE_INDEX;
    (ids, targets)
}

/// The `k` likeliest tokens of another model.
fn teacher(ids: &[u32], k: usize) -> (Vec<u32>, Vec<f32>) {
    let logits = Decoder::init(&config(), 9).unwrap().logits(ids, 2, None).unwrap();
    let (mut best, mut values) = (Vec::new(), Vec::new());
    for row in logits.chunks_exact(VOCAB) {
        let mut order: Vec<u32> = (0..VOCAB as u32).collect();
        order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        best.extend(&order[..k]);
        values.extend(order[..k].iter().map(|id| row[*id as usize]));
    }
    (best, values)
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let exp: Vec<f64> = logits.iter().map(|z| z.exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|e| e / sum).collect()
}

/// The loss by its definition, in f64.
fn expected(model: &Decoder, ids: &[u32], targets: &[u32], d: &Distillation<'_>) -> f64 {
    let logits = model.logits(ids, 2, None).unwrap();
    let t = f64::from(d.temperature);
    let mut total = 0.0;
    for (i, row) in logits.chunks_exact(VOCAB).enumerate() {
        if targets[i] == IGNORE_INDEX {
            continue;
        }
        let row: Vec<f64> = row.iter().map(|z| f64::from(*z)).collect();
        let q = softmax(&row.iter().map(|z| z / t).collect::<Vec<_>>());
        let theirs = &d.logits[i * d.k..][..d.k];
        let p = softmax(&theirs.iter().map(|z| f64::from(*z) / t).collect::<Vec<_>>());
        let ids = &d.ids[i * d.k..][..d.k];
        let kl: f64 = if d.jsd_beta == 0.0 {
            p.iter().zip(ids).map(|(p, id)| p * (p / q[*id as usize]).ln()).sum()
        } else {
            // Both over the teacher's tokens.
            let (q, beta) = (
                softmax(&ids.iter().map(|id| row[*id as usize] / t).collect::<Vec<_>>()),
                f64::from(d.jsd_beta),
            );
            let term = |(p, q): (&f64, &f64)| {
                let m = beta * p + (1.0 - beta) * q;
                if beta == 1.0 {
                    q * (q / p).ln()
                } else {
                    beta * p * (p / m).ln() + (1.0 - beta) * q * (q / m).ln()
                }
            };
            p.iter().zip(&q).map(term).sum()
        };
        let ce = -softmax(&row)[targets[i] as usize].ln();
        total += f64::from(d.ce) * ce + f64::from(d.kl) * t * t * kl;
    }
    total
}

#[test]
fn the_loss_is_the_formulas_and_the_gradient_that_of_differences() {
    let (ids, targets) = batch();
    let model = Decoder::init(&config(), 3).unwrap();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 2, segments: &[] };
    for (k, ce, kl, temperature, jsd_beta) in [
        (VOCAB, 0.0, 1.0, 1.0, 0.0),
        (5, 0.5, 2.0, 1.0, 0.0),
        (8, 1.0, 1.0, 5.0, 0.0),
        (1, 0.3, 0.7, 0.5, 0.0),
        (VOCAB, 0.0, 1.0, 1.0, 1.0),
        (5, 0.5, 2.0, 1.0, 1.0),
        (8, 1.0, 1.0, 2.0, 0.3),
    ] {
        let (best, values) = teacher(&ids, k);
        let d =
            Distillation { ids: &best, logits: &values, k, ce, kl, jsd_beta, temperature, relation: None };
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        let loss =
            model.forward_backward_distilled(&mut workspace, &batch, &d, 1.0, &mut gradients).unwrap().total;
        let reference = expected(&model, &ids, &targets, &d);
        assert!((loss - reference).abs() < 1e-4 * reference.abs().max(1.0), "{loss} {reference}");
        assert_gradients(&model, &gradients, 2e-3, [2e-2, 1e-3], |moved| expected(moved, &ids, &targets, &d));
    }
}

#[test]
fn without_the_divergence_it_is_cross_entropy() {
    let (ids, targets) = batch();
    let model = Decoder::init(&config(), 3).unwrap();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 2, segments: &[] };
    let (best, values) = teacher(&ids, 4);
    let d = Distillation {
        ids: &best,
        logits: &values,
        k: 4,
        ce: 1.0,
        kl: 0.0,
        jsd_beta: 0.0,
        temperature: 2.0,
        relation: None,
    };
    let mut workspace = Workspace::new(false);
    let (mut ours, mut theirs) =
        (Gradients::new(model.parameters(), |_| true), Gradients::new(model.parameters(), |_| true));
    let loss = model.forward_backward_distilled(&mut workspace, &batch, &d, 11.0, &mut ours).unwrap().total;
    let plain = model.forward_backward(&mut workspace, &batch, 11.0, &mut theirs).unwrap();
    assert!((loss - plain).abs() < 1e-6);
    for (a, b) in ours.iter().flatten().flatten().zip(theirs.iter().flatten().flatten()) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn teachers_that_do_not_fit_are_refused() {
    let (ids, targets) = batch();
    let model = Decoder::init(&config(), 3).unwrap();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 2, segments: &[] };
    let (best, values) = teacher(&ids, 2);
    let good = Distillation {
        ids: &best,
        logits: &values,
        k: 2,
        ce: 1.0,
        kl: 1.0,
        jsd_beta: 0.0,
        temperature: 1.0,
        relation: None,
    };
    let (strange, nan) = (vec![VOCAB as u32; best.len()], vec![f32::NAN; best.len()]);
    for (bad, expected) in [
        (Distillation { k: 3, ..good }, "3 of each"),
        (Distillation { ids: &strange, ..good }, "vocabulary"),
        (Distillation { logits: &nan, ..good }, "finite"),
        (Distillation { temperature: 0.0, ..good }, "above 0"),
        (Distillation { jsd_beta: 1.5, ..good }, "from 0 to 1"),
    ] {
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        let error = model.forward_backward_distilled(&mut workspace, &batch, &bad, 1.0, &mut gradients);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
