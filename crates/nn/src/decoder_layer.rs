//! One transformer block: attention and feed-forward network, each behind its norm.

use candle_core::{Result, Tensor};
use candle_nn::{Module, VarBuilder};
use tritforge_config::ModelConfig;

use crate::ops::RotaryEmbedding;
use crate::{Attention, Mlp, NnError, RmsNorm, Segments};

/// `x += self_attn(input_layernorm(x)); x += mlp(post_attention_layernorm(x))`.
#[derive(Debug, Clone)]
pub struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl DecoderLayer {
    /// A block of a model, under the names of a Hugging Face layer.
    ///
    /// # Errors
    /// As [`crate::BitLinear::new`].
    pub fn new(
        config: &ModelConfig,
        rope: &RotaryEmbedding,
        vb: VarBuilder<'_>,
    ) -> std::result::Result<Self, NnError> {
        let norm = |name: &str| RmsNorm::new(config.hidden_size, config.rms_norm_eps, vb.pp(name));
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::new(config, rope, vb.pp("self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: Mlp::new(config, vb.pp("mlp"))?,
        })
    }

    /// x [tokens, hidden_size] to the same shape.
    ///
    /// # Errors
    /// As [`Attention::forward_segments`].
    pub fn forward_segments(&self, x: &Tensor, segments: &Segments) -> Result<Tensor> {
        let x = (x + self.self_attn.forward_segments(&self.input_layernorm.forward(x)?, segments)?)?;
        &x + self.mlp.forward(&self.post_attention_layernorm.forward(&x)?)?
    }

    /// The attention.
    pub fn attention(&self) -> &Attention {
        &self.self_attn
    }

    /// The feed-forward network.
    pub fn mlp(&self) -> &Mlp {
        &self.mlp
    }
}

impl Module for DecoderLayer {
    /// x [sequences, length, hidden_size] to the same shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (sequences, length, width) = x.dims3()?;
        let segments = Segments::new(sequences * length, sequences, &[])?;
        self.forward_segments(&x.reshape((sequences * length, width))?, &segments)?.reshape(x.shape())
    }
}
