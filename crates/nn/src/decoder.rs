//! The whole decoder on candle's tape: embedding, blocks, final norm, head.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, Module, VarBuilder};
use tritforge_config::ModelConfig;

use crate::ops::{self, RotaryEmbedding};
use crate::{BitLinear, DecoderLayer, NnError, RmsNorm, Segments};

/// A decoder-only transformer of the BitNet, Llama and Qwen families. Its variables have the names of a
/// Hugging Face checkpoint (`model.layers.0.self_attn.q_proj.weight`).
#[derive(Debug, Clone)]
pub struct Decoder {
    config: ModelConfig,
    embedding: Tensor,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    /// None where the embedding is the head.
    head: Option<Tensor>,
}

impl Decoder {
    /// A model of the variables that `vb` has or creates: matrices from N(0, `initializer_range`²), norms 1,
    /// biases 0.
    ///
    /// # Errors
    /// If the configuration is impossible or its weights have no latent form, or a variable is missing or of
    /// another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder<'_>) -> std::result::Result<Self, NnError> {
        config.validate()?;
        if config.ternary_embedding.is_some() || config.ternary_head.is_some() {
            return Err(NnError::Input {
                what: "embedding and head",
                found: "a ternary one".to_string(),
                expected: "full precision: only the fused engine has them ternary".to_string(),
            });
        }
        if config.projection_norms {
            return Err(NnError::Input {
                what: "a decoder on candle's tape",
                found: "norms before all projections".to_string(),
                expected: "sub-norms or none; the fused pass has the others".to_string(),
            });
        }
        if !config.has_plain_activations() {
            return Err(NnError::Input {
                what: "a decoder on candle's tape",
                found: config.activations_text(),
                expected:
                    "all activations in int8 (absmax) as they are, or none; the fused pass has the others"
                        .to_string(),
            });
        }
        let model = vb.pp("model");
        let normal = Init::Randn { mean: 0.0, stdev: f64::from(config.initializer_range) };
        let table = (config.vocab_size, config.hidden_size);
        let rope = RotaryEmbedding::new(config, vb.device())?;
        let layers = model.pp("layers");
        Ok(Self {
            embedding: model.pp("embed_tokens").get_with_hints(table, "weight", normal)?,
            layers: (0..config.num_hidden_layers)
                .map(|layer| DecoderLayer::new(config, &rope, layers.pp(layer)))
                .collect::<std::result::Result<_, _>>()?,
            norm: RmsNorm::new(config.hidden_size, config.rms_norm_eps, model.pp("norm"))?,
            head: match config.tie_word_embeddings {
                true => None,
                false => Some(vb.pp("lm_head").get_with_hints(table, "weight", normal)?),
            },
            config: config.clone(),
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The final norm's output, [tokens, hidden_size].
    fn hidden(&self, ids: &[u32], segments: &Segments) -> Result<Tensor> {
        let error = |found: String, expected: String| NnError::Input { what: "token ids", found, expected };
        if ids.len() != segments.positions().len() {
            let expected = format!("the segments' {}", segments.positions().len());
            return Err(error(ids.len().to_string(), expected).into());
        }
        let longest = self.config.max_position_embeddings;
        if let Some(length) = segments.lengths().iter().find(|length| **length > longest) {
            let expected = format!("at most max_position_embeddings = {longest}");
            return Err(error(format!("{length} in a segment"), expected).into());
        }
        let mut x = ops::embedding(&self.embedding, ids)?;
        for layer in &self.layers {
            x = layer.forward_segments(&x, segments)?;
        }
        self.norm.forward(&x)
    }

    fn output_weight(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// `Σ cross-entropy / normalizer` over the targets of a batch, a scalar. `targets` holds the next token after each of
    /// `ids`, or [`crate::IGNORE_INDEX`]; the normalizer is the number of targets of the whole optimizer step, so that the
    /// gradients of micro-batches add up.
    ///
    /// # Errors
    /// If ids, targets and segments differ in length or do not fit the model.
    pub fn loss_of_batch(
        &self,
        ids: &[u32],
        targets: &[u32],
        segments: &Segments,
        normalizer: f32,
    ) -> Result<Tensor> {
        let hidden = self.hidden(ids, segments)?;
        ops::linear_cross_entropy(&hidden, self.output_weight(), targets, normalizer)
    }

    /// The mean cross-entropy of `targets` [sequences, length] after `ids` of the same shape, over all
    /// targets that are not [`crate::IGNORE_INDEX`]; a scalar.
    ///
    /// # Errors
    /// If the shapes differ or do not fit the model, or no target counts.
    pub fn loss(&self, ids: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let (sequences, _) = ids.dims2()?;
        let (ids, targets) = (numbers(ids)?, numbers(targets)?);
        let count = targets.iter().filter(|target| **target != crate::IGNORE_INDEX).count();
        let segments = Segments::new(ids.len(), sequences, &[])?;
        self.loss_of_batch(&ids, &targets, &segments, count as f32)
    }

    /// The ternary projections under the names of their weights, without `.weight`.
    pub fn projections(&self) -> impl Iterator<Item = (String, &BitLinear)> {
        self.layers.iter().enumerate().flat_map(|(i, layer)| {
            let attention = layer.attention().projections();
            let attention = attention
                .into_iter()
                .map(move |(p, linear)| (format!("model.layers.{i}.self_attn.{p}"), linear));
            let mlp = layer.mlp().projections();
            attention
                .chain(mlp.into_iter().map(move |(p, linear)| (format!("model.layers.{i}.mlp.{p}"), linear)))
        })
    }
}

fn numbers(ids: &Tensor) -> Result<Vec<u32>> {
    ids.to_dtype(DType::U32)?.flatten_all()?.to_vec1()
}

impl Module for Decoder {
    /// Logits [sequences, length, vocab_size] of ids [sequences, length].
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (sequences, length) = ids.dims2()?;
        let hidden = self.hidden(&numbers(ids)?, &Segments::new(sequences * length, sequences, &[])?)?;
        ops::linear(&hidden, self.output_weight())?.reshape((sequences, length, self.config.vocab_size))
    }
}
