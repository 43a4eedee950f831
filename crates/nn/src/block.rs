//! One transformer block: attention and feed-forward network, each behind its norm.

use std::sync::Arc;

use candle_core::{Result, Tensor, Var};
use tritforge_config::{ActivationQuant, HiddenAct, ModelConfig, Projection};
use tritforge_kernels::{AttentionShape, Gate, Observer, RopeTable, Step, quantize_rows, ternary_matmul_i32};

use crate::linear::Linear;
use crate::ops;

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

/// The weight of a norm, and which of the model's parameters it is.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Var,
    pub(crate) index: usize,
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) layer: usize,
    pub(crate) input_layernorm: Norm,
    /// The seven projections, in the order of [`Projection::ALL`].
    pub(crate) projections: [Linear; 7],
    /// Which of the model's parameters the first projection is; the others follow.
    pub(crate) first_projection: usize,
    pub(crate) attn_sub_norm: Option<Norm>,
    pub(crate) post_attention_layernorm: Norm,
    pub(crate) ffn_sub_norm: Option<Norm>,
    pub(crate) eps: f32,
    pub(crate) attention: AttentionShape,
    pub(crate) gate: Gate,
    /// Whether the projections' inputs are quantized.
    pub(crate) int8: bool,
}

impl Block {
    /// Puts a block together; `tensor` gives each parameter by name and shape, and its index among the model's.
    pub(crate) fn new<E>(
        config: &ModelConfig,
        layer: usize,
        mut tensor: impl FnMut(&str, &[usize]) -> std::result::Result<(Var, usize), E>,
    ) -> std::result::Result<Self, E> {
        let prefix = format!("model.layers.{layer}");
        let d = config.hidden_size;
        let mut norm = |name: &str, width| {
            let (weight, index) = tensor(&format!("{prefix}.{name}.weight"), &[width])?;
            Ok(Norm { weight, index })
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
        let mut first_projection = None;
        let mut projection = |p: Projection| {
            let (weight, index) = tensor(&p.hf_weight(layer), &config.projection_shape(p))?;
            first_projection.get_or_insert(index);
            Ok(Linear::new(config, weight))
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
        Ok(Self {
            layer,
            input_layernorm,
            projections,
            first_projection: first_projection.unwrap_or_default(),
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
            linear.forward(input, context.track)
        };
        let norm = |x: &Tensor, norm: &Norm| ops::rms_norm(x, &context.read(&norm.weight), self.eps);
        let sub_norm = |x: Tensor, weight: &Option<Norm>| match weight {
            Some(weight) => norm(&x, weight),
            None => Ok(x),
        };
        let (heads, kv_heads) = (self.attention.heads, self.attention.kv_heads);

        let h = norm(x, &self.input_layernorm)?;
        let q = ops::rope(&project(Projection::Q, &h)?, heads, context.rope, context.positions)?;
        let k = ops::rope(&project(Projection::K, &h)?, kv_heads, context.rope, context.positions)?;
        let v = project(Projection::V, &h)?;
        let h = ops::attention(self.attention, context.lengths, &q, &k, &v)?;
        let x = (x + project(Projection::O, &sub_norm(h, &self.attn_sub_norm)?)?)?;

        let h = norm(&x, &self.post_attention_layernorm)?;
        let h = ops::gated(self.gate, &project(Projection::Gate, &h)?, &project(Projection::Up, &h)?)?;
        &x + project(Projection::Down, &sub_norm(h, &self.ffn_sub_norm)?)?
    }
}
