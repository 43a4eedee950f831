//! One transformer block: attention and feed-forward network, each behind its norm.

use std::sync::Arc;

use candle_core::{Result, Tensor, Var};
use tritforge_config::{ActivationQuant, HiddenAct, ModelConfig, Projection};
use tritforge_kernels::{AttentionShape, Gate, Observer, RopeTable, Step, quantize_rows, ternary_matmul_i32};

use crate::decoder::AttentionStates;
use crate::linear::Linear;
use crate::ops;
use crate::parameter::FROZEN;

/// What all blocks of a forward pass share.
pub(crate) struct Context<'a> {
    /// Tokens of each segment, one after the other: attention stays within them.
    pub(crate) lengths: &'a [usize],
    /// Whether the tape records the pass for a backward.
    pub(crate) track: bool,
    pub(crate) rope: &'a Arc<RopeTable>,
    pub(crate) positions: &'a Arc<[u32]>,
}

impl Context<'_> {
    /// A parameter as the pass sees it: on the tape or off it.
    pub(crate) fn read(&self, parameter: &Var) -> Tensor {
        if self.track { parameter.as_tensor().clone() } else { parameter.as_detached_tensor() }
    }
}

/// The weight of a norm or a bias, and which of the model's parameters it is.
#[derive(Debug)]
pub(crate) struct Vector {
    pub(crate) weight: Var,
    /// [`crate::parameter::FROZEN`] where it is not trained.
    pub(crate) index: usize,
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) layer: usize,
    pub(crate) input_layernorm: Vector,
    /// The seven projections, in the order of [`Projection::ALL`].
    pub(crate) projections: [Linear; 7],
    /// Which of the model's parameters the projections are.
    pub(crate) projection_indices: [usize; 7],
    /// Biases of the first four projections, the attention's.
    pub(crate) biases: [Option<Vector>; 4],
    /// Norms of every head's query and key.
    pub(crate) qk_norm: Option<[Vector; 2]>,
    pub(crate) attn_sub_norm: Option<Vector>,
    pub(crate) post_attention_layernorm: Vector,
    pub(crate) ffn_sub_norm: Option<Vector>,
    pub(crate) eps: f32,
    pub(crate) attention: AttentionShape,
    pub(crate) gate: Gate,
    /// Whether the projections' inputs are quantized.
    pub(crate) int8: bool,
}

impl Block {
    /// Puts a block together; `tensor` gives each parameter by name and shape, and its index among the
    /// model's. Projections that `keep_codes` names have no latent weights afterwards.
    pub(crate) fn new<E: From<candle_core::Error>>(
        config: &ModelConfig,
        layer: usize,
        keep_codes: impl Fn(Projection) -> bool,
        mut tensor: impl FnMut(&str, &[usize]) -> std::result::Result<(Var, usize), E>,
    ) -> std::result::Result<Self, E> {
        let prefix = format!("model.layers.{layer}");
        let d = config.hidden_size;
        let mut norm = |name: &str, width| {
            let (weight, index) = tensor(&format!("{prefix}.{name}.weight"), &[width])?;
            Ok::<_, E>(Vector { weight, index })
        };
        let input_layernorm = norm("input_layernorm", d)?;
        let post_attention_layernorm = norm("post_attention_layernorm", d)?;
        let (attn_sub_norm, ffn_sub_norm) = if config.use_sub_norm {
            (
                Some(norm("self_attn.attn_sub_norm", config.q_size())?),
                Some(norm("mlp.ffn_sub_norm", config.intermediate_size)?),
            )
        } else {
            (None, None)
        };
        let qk_norm = if config.use_qk_norm {
            Some([norm("self_attn.q_norm", config.head_dim)?, norm("self_attn.k_norm", config.head_dim)?])
        } else {
            None
        };
        let mut projection_indices = [FROZEN; 7];
        let mut projection = |p: Projection| {
            let (weight, index) = tensor(&p.hf_weight(layer), &config.projection_shape(p))?;
            projection_indices[p as usize] = index;
            let mut linear = Linear::new(config, weight)?;
            if keep_codes(p) {
                linear.freeze()?;
            }
            Ok::<_, E>(linear)
        };
        use Projection::{Down, Gate as G, K, O, Q, Up, V};
        let projections = [
            projection(Q)?,
            projection(K)?,
            projection(V)?,
            projection(O)?,
            projection(G)?,
            projection(Up)?,
            projection(Down)?,
        ];
        let mut bias = |p: Projection| {
            if !config.attention_bias.has(p) {
                return Ok(None);
            }
            let (weight, index) = tensor(&p.hf_bias(layer), &[config.projection_shape(p)[0]])?;
            Ok::<_, E>(Some(Vector { weight, index }))
        };
        let biases = [bias(Q)?, bias(K)?, bias(V)?, bias(O)?];
        Ok(Self {
            layer,
            input_layernorm,
            projections,
            projection_indices,
            biases,
            qk_norm,
            attn_sub_norm,
            post_attention_layernorm,
            ffn_sub_norm,
            eps: config.rms_norm_eps,
            attention: AttentionShape {
                heads: config.num_attention_heads,
                kv_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
            },
            gate: match config.hidden_act {
                HiddenAct::Silu => Gate::Silu,
                HiddenAct::Relu2 => Gate::Relu2,
            },
            int8: config.activations == ActivationQuant::Absmax,
        })
    }

    pub(crate) fn linear(&self, projection: Projection) -> &Linear {
        &self.projections[projection as usize]
    }

    /// The bias of a projection.
    pub(crate) fn bias(&self, projection: Projection) -> Option<&Vector> {
        self.biases.get(projection as usize)?.as_ref()
    }

    /// Queries, keys and values for the block's input x [tokens, hidden_size].
    pub(crate) fn states(&self, x: &Tensor, context: &Context<'_>) -> Result<AttentionStates> {
        let h = ops::rms_norm(x, &context.read(&self.input_layernorm.weight), self.eps)?;
        let state = |p: Projection| {
            let y = self.linear(p).forward(&h, context.track)?;
            let y = match self.bias(p) {
                Some(bias) => y.broadcast_add(&context.read(&bias.weight))?,
                None => y,
            };
            ops::values(&y).map(|values| values.to_vec())
        };
        Ok([state(Projection::Q)?, state(Projection::K)?, state(Projection::V)?])
    }

    /// The block's output for x [tokens, hidden_size].
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        context: &Context<'_>,
        observer: &mut Option<&mut Observer<'_>>,
    ) -> Result<Tensor> {
        let mut project = |p: Projection, input: &Tensor| {
            let linear = &self.projections[p as usize];
            if let (Some(observer), Some(weights)) = (observer.as_deref_mut(), linear.quantized()) {
                let rows = quantize_rows(&ops::values(input)?, weights.cols());
                let mut sums = vec![0i32; rows.scales.len() * weights.rows()];
                ternary_matmul_i32(&rows, weights, &mut sums);
                observer(Step { layer: self.layer, projection: p.hf_name(), input: &rows, sums: &sums });
            }
            let y = linear.forward(input, context.track)?;
            match self.bias(p) {
                Some(bias) => y.broadcast_add(&context.read(&bias.weight)),
                None => Ok(y),
            }
        };
        let norm = |x: &Tensor, norm: &Vector| ops::rms_norm(x, &context.read(&norm.weight), self.eps);
        let sub_norm = |x: Tensor, weight: &Option<Vector>| match weight {
            Some(weight) => norm(&x, weight),
            None => Ok(x),
        };
        let (heads, kv_heads) = (self.attention.heads, self.attention.kv_heads);

        // Of every head by itself: a head is a row.
        let head_norm = |x: Tensor, which: usize| match &self.qk_norm {
            Some(norms) => {
                norm(&x.reshape(((), self.attention.head_dim))?, &norms[which])?.reshape(x.shape())
            }
            None => Ok(x),
        };

        let h = norm(x, &self.input_layernorm)?;
        let (q, k) = (project(Projection::Q, &h)?, project(Projection::K, &h)?);
        let q = ops::rope(&head_norm(q, 0)?, heads, context.rope, context.positions)?;
        let k = ops::rope(&head_norm(k, 1)?, kv_heads, context.rope, context.positions)?;
        let v = project(Projection::V, &h)?;
        let h = ops::attention(self.attention, context.lengths, &q, &k, &v)?;
        let x = (x + project(Projection::O, &sub_norm(h, &self.attn_sub_norm)?)?)?;

        let h = norm(&x, &self.post_attention_layernorm)?;
        let h = ops::glu(self.gate, &project(Projection::Gate, &h)?, &project(Projection::Up, &h)?)?;
        &x + project(Projection::Down, &sub_norm(h, &self.ffn_sub_norm)?)?
    }
}
