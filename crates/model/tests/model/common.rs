//! Shapes, batches and comparisons that several tests share.

use tritforge_config::{Granularity, ModelConfig, RopeScaling, WeightQuantizer};
use tritforge_model::{Batch, Decoder, Gradients, Workspace};

/// A shape whose widths groups of 32 divide.
pub(crate) fn grouped_shape(granularity: Granularity, quantizer: WeightQuantizer) -> ModelConfig {
    ModelConfig {
        vocab_size: 61,
        hidden_size: 64,
        intermediate_size: 128,
        num_hidden_layers: 2,
        head_dim: 16,
        max_position_embeddings: 32,
        quantizer,
        granularity,
        ..ModelConfig::default()
    }
}

/// A shape whose widths are no multiples of a register.
pub(crate) fn odd_shape() -> ModelConfig {
    ModelConfig {
        vocab_size: 61,
        hidden_size: 48,
        intermediate_size: 80,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 12,
        max_position_embeddings: 32,
        initializer_range: 0.3,
        ..ModelConfig::default()
    }
}

/// Ids below `vocab_size` in no order.
pub(crate) fn scattered(count: usize, vocab_size: u64) -> Vec<u32> {
    (0..count as u64).map(|i| (i * 2_654_435_761 % vocab_size) as u32).collect()
}

/// Loss and gradients of two sequences of twenty tokens.
pub(crate) fn loss_and_gradients(model: &Decoder) -> (f64, Gradients) {
    let ids = scattered(41, 61);
    let batch = Batch { ids: &ids[..40], targets: &ids[1..], sequences: 2, segments: &[] };
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let loss = model.forward_backward(&mut Workspace::new(false), &batch, 40.0, &mut gradients).unwrap();
    (loss, gradients)
}

/// RoPE scaled from 16 positions to 64, with every part of YaRN.
pub(crate) fn yarn() -> RopeScaling {
    RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 2.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor: 1.2,
        original_max_position_embeddings: 16,
    }
}
