//! Noise on the embeddings: the same for any number of threads, with checkpointing and in micro-batches.

use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_model::{Batch, Decoder, EmbeddingNoise, Gradients, Workspace};

use crate::common::{odd_shape, scattered};

fn run(
    model: &Decoder,
    batch: &Batch<'_>,
    noise: Option<EmbeddingNoise>,
    checkpointing: bool,
) -> (f64, Gradients) {
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let mut workspace = Workspace::new(checkpointing);
    workspace.set_embedding_noise(noise);
    let loss = model.forward_backward(&mut workspace, batch, 40.0, &mut gradients).unwrap();
    (loss, gradients)
}

#[test]
fn the_bits_depend_on_seed_and_row_alone() {
    let full = ModelConfig { weights: WeightQuant::None, activations: ActivationQuant::None, ..odd_shape() };
    let ternary = ModelConfig { ternary_embedding: Some(odd_shape().granularity), ..odd_shape() };
    let ids = scattered(41, 61);
    let batch = |rows: std::ops::Range<usize>, segments| Batch {
        ids: &ids[rows.start..rows.end],
        targets: &ids[rows.start + 1..rows.end + 1],
        sequences: rows.len() / 20,
        segments,
    };
    let noise = EmbeddingNoise { alpha: 5.0, seed: 7, first_row: 0 };
    for config in [odd_shape(), full, ternary] {
        let model = Decoder::init(&config, 5).unwrap();
        let whole = batch(0..40, &[6]);
        let (loss, gradients) = run(&model, &whole, Some(noise), false);
        for threads in [1, tritforge_kernels::max_threads()] {
            tritforge_kernels::set_threads(threads);
            for checkpointing in [false, true] {
                let (again, same) = run(&model, &whole, Some(noise), checkpointing);
                assert!(again.to_bits() == loss.to_bits() && same.iter().eq(gradients.iter()), "{threads}");
            }
        }
        // Each row as a micro-batch of its own.
        let first = run(&model, &batch(0..20, &[6]), Some(noise), false).0;
        let second =
            run(&model, &batch(20..40, &[]), Some(EmbeddingNoise { first_row: 1, ..noise }), false).0;
        assert!((first + second - loss).abs() < 1e-9, "{loss} {first} {second}");
        // None is none, and other seeds and rows are other noise.
        let plain = run(&model, &whole, None, false).0;
        assert_eq!(run(&model, &whole, Some(EmbeddingNoise { alpha: 0.0, ..noise }), false).0, plain);
        let others = [EmbeddingNoise { seed: 8, ..noise }, EmbeddingNoise { first_row: 2, ..noise }];
        let mut losses = others.map(|noise| run(&model, &whole, Some(noise), false).0).to_vec();
        losses.extend([plain, loss]);
        for (i, a) in losses.iter().enumerate() {
            assert!(losses[i + 1..].iter().all(|b| (a - b).abs() > 1e-6), "{losses:?}");
        }
    }
}

#[test]
fn noise_that_is_no_number_is_refused() {
    let model = Decoder::init(&odd_shape(), 5).unwrap();
    let batch = Batch { ids: &[1, 2], targets: &[2, 3], sequences: 1, segments: &[] };
    for alpha in [f32::NAN, f32::INFINITY, -1.0] {
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        workspace.set_embedding_noise(Some(EmbeddingNoise { alpha, seed: 0, first_row: 0 }));
        let error = model.forward_backward(&mut workspace, &batch, 2.0, &mut gradients).unwrap_err();
        assert!(error.to_string().contains("alpha of the embeddings' noise"), "{error}");
    }
}
