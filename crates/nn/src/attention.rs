//! Causal self-attention with rotary positions and grouped keys and values (arXiv 2305.13245).

use candle_core::{Result, Tensor};
use candle_nn::{Module, VarBuilder};
use tritforge_config::{ModelConfig, Projection};
use tritforge_kernels::AttentionShape;

use crate::ops::{self, RotaryEmbedding};
use crate::{BitLinear, BitLinearConfig, NnError, RmsNorm, Segments};

/// `o_proj(attn_sub_norm(attention(rope(q), rope(k), v)))` with ternary projections.
#[derive(Debug, Clone)]
pub struct Attention {
    q_proj: BitLinear,
    k_proj: BitLinear,
    v_proj: BitLinear,
    o_proj: BitLinear,
    qk_norm: Option<[RmsNorm; 2]>,
    sub_norm: Option<RmsNorm>,
    shape: AttentionShape,
    rope: RotaryEmbedding,
}

impl Attention {
    /// The attention of a model's blocks, under the names of Hugging Face's `self_attn`.
    ///
    /// # Errors
    /// As [`BitLinear::new`].
    pub fn new(
        config: &ModelConfig,
        rope: &RotaryEmbedding,
        vb: VarBuilder<'_>,
    ) -> std::result::Result<Self, NnError> {
        let linear = |projection: Projection, name: &str| {
            let [rows, cols] = config.projection_shape(projection);
            let bias = config.attention_bias.has(projection);
            let config = BitLinearConfig { bias, ..BitLinearConfig::of_model(config) };
            BitLinear::new(cols, rows, config, vb.pp(name))
        };
        let norm = |name: &str, width| RmsNorm::new(width, config.rms_norm_eps, vb.pp(name));
        let head = config.head_dim;
        let qk_norm = match config.use_qk_norm {
            true => Some([norm("q_norm", head)?, norm("k_norm", head)?]),
            false => None,
        };
        let sub_norm = match config.use_sub_norm {
            true => Some(norm("attn_sub_norm", config.q_size())?),
            false => None,
        };
        Ok(Self {
            q_proj: linear(Projection::Q, "q_proj")?,
            k_proj: linear(Projection::K, "k_proj")?,
            v_proj: linear(Projection::V, "v_proj")?,
            o_proj: linear(Projection::O, "o_proj")?,
            qk_norm,
            sub_norm,
            shape: AttentionShape {
                heads: config.num_attention_heads,
                kv_heads: config.num_key_value_heads,
                head_dim: head,
            },
            rope: rope.clone(),
        })
    }

    /// x [tokens, hidden_size] to the same shape; tokens see those before them in their segment.
    ///
    /// # Errors
    /// If the shapes do not fit or a segment is longer than `max_position_embeddings`.
    pub fn forward_segments(&self, x: &Tensor, segments: &Segments) -> Result<Tensor> {
        // Of every head by itself: a head is a row.
        let head_norm = |x: Tensor, which: usize| match &self.qk_norm {
            Some(norms) => norms[which].forward(&x.reshape(((), self.shape.head_dim))?)?.reshape(x.shape()),
            None => Ok(x),
        };
        let rotate = |x: Tensor, heads: usize| ops::rope(&x, heads, &self.rope, segments.positions());
        let q = rotate(head_norm(self.q_proj.forward(x)?, 0)?, self.shape.heads)?;
        let k = rotate(head_norm(self.k_proj.forward(x)?, 1)?, self.shape.kv_heads)?;
        let v = self.v_proj.forward(x)?;
        let h = ops::attention(self.shape, segments.lengths(), &q, &k, &v)?;
        let h = match &self.sub_norm {
            Some(norm) => norm.forward(&h)?,
            None => h,
        };
        self.o_proj.forward(&h)
    }

    /// The projections with their names.
    pub fn projections(&self) -> [(&'static str, &BitLinear); 4] {
        [
            ("q_proj", &self.q_proj),
            ("k_proj", &self.k_proj),
            ("v_proj", &self.v_proj),
            ("o_proj", &self.o_proj),
        ]
    }
}

impl Module for Attention {
    /// x [sequences, length, hidden_size] to the same shape; sequences do not see each other.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (sequences, length, width) = x.dims3()?;
        let segments = Segments::new(sequences * length, sequences, &[])?;
        self.forward_segments(&x.reshape((sequences * length, width))?, &segments)?.reshape(x.shape())
    }
}
