//! How many parameters a model has, by part.

use crate::{ModelConfig, Projection};

/// Parameter counts by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// The embedding.
    pub embedding: usize,
    /// The output head; 0 where it is tied to the embedding.
    pub head: usize,
    /// The seven projections of all blocks: what is ternary.
    pub projections: usize,
    /// All norms.
    pub norms: usize,
    /// The biases of the attention.
    pub biases: usize,
    /// The learned scales of the projections.
    pub scales: usize,
}

impl Parameters {
    /// All parameters.
    pub fn total(&self) -> usize {
        self.embedding + self.head + self.projections + self.norms + self.biases + self.scales
    }
}

impl ModelConfig {
    /// Counts the parameters.
    pub fn parameters(&self) -> Parameters {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let attention = d * (2 * self.q_size() + 2 * self.kv_size());
        let sub_norms = if self.use_sub_norm { self.q_size() + f } else { 0 };
        let shared = if self.projection_norms { Projection::SHARING.len() * d } else { 0 };
        let qk_norms = if self.use_qk_norm { 2 * self.head_dim } else { 0 };
        let biased = Projection::ALL.into_iter().filter(|p| self.attention_bias.has(*p));
        let biases: usize = biased.map(|p| self.projection_shape(p)[0]).sum();
        let scales = |p: Projection| {
            let [rows, cols] = self.projection_shape(p);
            self.granularity.count(rows, cols)
        };
        let scales: usize = if self.learns_scales() { Projection::ALL.map(scales).iter().sum() } else { 0 };
        Parameters {
            embedding: self.vocab_size * d,
            head: if self.tie_word_embeddings { 0 } else { self.vocab_size * d },
            projections: self.num_hidden_layers * (attention + 3 * d * f),
            norms: self.num_hidden_layers * (2 * d + sub_norms + shared + qk_norms) + d,
            biases: self.num_hidden_layers * biases,
            scales: self.num_hidden_layers * scales,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AttentionBias;

    #[test]
    fn counts_of_2b4t() {
        // microsoft/bitnet-b1.58-2B-4T: 2,412,820,480 parameters, embedding tied (its model card rounds to 2
        // B).
        let config = ModelConfig {
            vocab_size: 128_256,
            hidden_size: 2560,
            intermediate_size: 6912,
            num_hidden_layers: 30,
            num_attention_heads: 20,
            num_key_value_heads: 5,
            head_dim: 128,
            ..Default::default()
        };
        let counts = config.parameters();
        assert_eq!(counts.embedding, 328_335_360);
        assert_eq!(counts.projections, 30 * (2560 * (2 * 2560 + 2 * 640) + 3 * 2560 * 6912));
        assert_eq!(counts.total(), 2_412_820_480);
    }

    #[test]
    fn counts_of_qwen() {
        // Qwen/Qwen2.5-0.5B: 494,032,768 parameters. Qwen/Qwen3-0.6B: 596,049,920 with its head tied.
        let qwen2 = ModelConfig {
            vocab_size: 151_936,
            hidden_size: 896,
            intermediate_size: 4864,
            num_hidden_layers: 24,
            num_attention_heads: 14,
            num_key_value_heads: 2,
            head_dim: 64,
            use_sub_norm: false,
            attention_bias: AttentionBias::Qkv,
            ..Default::default()
        };
        assert_eq!(qwen2.parameters().total(), 494_032_768);
        let qwen3 = ModelConfig {
            hidden_size: 1024,
            intermediate_size: 3072,
            num_hidden_layers: 28,
            num_attention_heads: 16,
            num_key_value_heads: 8,
            head_dim: 128,
            use_qk_norm: true,
            attention_bias: AttentionBias::None,
            ..qwen2
        };
        assert_eq!(qwen3.parameters().total(), 596_049_920);
    }
}
