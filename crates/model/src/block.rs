//! One transformer block of a model that can be trained: its weights, and which parameters they are.

use std::sync::{Mutex, PoisonError};

use tritforge_config::{ActivationQuant, LoraMode, ModelConfig, Projection, Rotation};
use tritforge_kernels::parallel_for_each;
use tritforge_ternary::TopK;

use crate::device::{InputForm, activation_width};
use crate::forward::{BlockShape, Norms};
use crate::linear::Linear;
use crate::parameter::FROZEN;
use crate::{ModelError, Tensor};

/// The weight of a norm or a bias, and which of the model's parameters it is.
#[derive(Debug)]
pub(crate) struct Vector {
    pub(crate) weight: Tensor,
    /// [`crate::parameter::FROZEN`] where it is not trained.
    pub(crate) index: usize,
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) shape: BlockShape,
    pub(crate) norms: Norms<Vector>,
    /// The seven projections, in the order of [`Projection::ALL`].
    pub(crate) projections: [Linear; 7],
    /// Which of the model's parameters the projections are.
    pub(crate) projection_indices: [usize; 7],
    /// Biases of the first four projections, the attention's.
    pub(crate) biases: [Option<Vector>; 4],
    /// How the projections' inputs are quantized.
    pub(crate) activations: ActivationQuant,
    /// How they are rotated before.
    pub(crate) rotation: Rotation,
    /// Which part of their codes is kept.
    pub(crate) top_k: Option<TopK>,
    /// How much of the quantization of the inputs training sees.
    pub(crate) input_blend: f32,
}

impl Block {
    /// Puts a block together; `tensor` gives each parameter by name and shape, and its index among the
    /// model's. Projections that `keep_codes` names have no latent weights afterwards.
    pub(crate) fn new(
        config: &ModelConfig,
        layer: usize,
        keep_codes: impl Fn(Projection) -> bool,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<(Tensor, usize), ModelError>,
    ) -> Result<Self, ModelError> {
        let prefix = format!("model.layers.{layer}");
        let d = config.hidden_size;
        let mut norm = |name: &str, width| {
            let (weight, index) = tensor(&format!("{prefix}.{name}.weight"), &[width])?;
            Ok::<_, ModelError>(Vector { weight, index })
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
        let projections = if config.projection_norms {
            let [q, k, v, gate, up] = Projection::SHARING.map(|p| norm(&format!("{}.norm", p.hf_name()), d));
            Some([q?, k?, v?, gate?, up?])
        } else {
            None
        };
        let qk_norm = if config.use_qk_norm {
            Some([norm("self_attn.q_norm", config.head_dim)?, norm("self_attn.k_norm", config.head_dim)?])
        } else {
            None
        };
        let norms = Norms {
            input_layernorm,
            qk_norm,
            attn_sub_norm,
            post_attention_layernorm,
            ffn_sub_norm,
            projections,
        };
        let mut projection_indices = [FROZEN; 7];
        let mut projection = |p: Projection| {
            let shape = config.projection_shape(p);
            let (weight, index) = tensor(&p.hf_weight(layer), &shape)?;
            projection_indices[p as usize] = index;
            let mut linear = Linear::new(config, weight, shape);
            linear.set_dead_zone(config.dead_zone(p));
            if config.learns_scales() {
                let (scales, index) = tensor(&p.hf_clip_val(layer), &config.granularity.scale_shape(shape))?;
                linear.set_learned(scales, index);
            }
            if keep_codes(p) {
                linear.freeze()?;
            }
            Ok::<_, ModelError>(linear)
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
            Ok::<_, ModelError>(Some(Vector { weight, index }))
        };
        let biases = [bias(Q)?, bias(K)?, bias(V)?, bias(O)?];
        Ok(Self {
            shape: BlockShape::new(config, layer),
            norms,
            projections,
            projection_indices,
            biases,
            activations: config.activations,
            rotation: config.rotation,
            top_k: config.top_k(),
            input_blend: 1.0,
        })
    }

    /// Which of the model's parameters are the block's, those of adapters included; [`FROZEN`] among them where there is
    /// nothing to train.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = usize> {
        let Norms {
            input_layernorm,
            qk_norm,
            attn_sub_norm,
            post_attention_layernorm,
            ffn_sub_norm,
            projections,
        } = &self.norms;
        let shared = projections.iter().flatten();
        let norms = [
            Some(input_layernorm),
            attn_sub_norm.as_ref(),
            Some(post_attention_layernorm),
            ffn_sub_norm.as_ref(),
        ];
        let vectors = norms
            .into_iter()
            .flatten()
            .chain(qk_norm.iter().flatten())
            .chain(shared)
            .chain(self.biases.iter().flatten());
        let adapters = self.projections.iter().filter_map(Linear::adapter);
        let adapters = adapters.flat_map(|adapter| [adapter.index, adapter.index + 1]);
        vectors.map(|vector| vector.index).chain(self.projection_indices).chain(adapters)
    }

    pub(crate) fn linear(&self, projection: Projection) -> &Linear {
        &self.projections[projection as usize]
    }

    /// How projections that share an input read it, given how much of its quantization is to be seen.
    pub(crate) fn input_form(&self, projections: &[Projection], quantized: f32) -> InputForm {
        InputForm {
            quantized: self.activations.is_integer().then_some(quantized),
            plain: self.adapted_beside(projections),
            width: activation_width(self.activations),
            top_k: self.top_k,
            rotated: projections.iter().any(|p| self.rotation.rotates(*p)),
        }
    }

    /// Whether an adapter stands beside any of these projections: it reads their input before it is rounded.
    pub(crate) fn adapted_beside(&self, projections: &[Projection]) -> bool {
        let beside = |p: &Projection| self.linear(*p).adapter().is_some_and(|a| a.mode == LoraMode::Adapter);
        projections.iter().any(beside)
    }

    /// The bias of a projection.
    pub(crate) fn bias(&self, projection: Projection) -> Option<&Vector> {
        self.biases.get(projection as usize)?.as_ref()
    }
}

/// Makes scales and ternary forms of all projections that have none.
pub(crate) fn quantize_blocks(blocks: &mut [Block]) -> Result<(), ModelError> {
    quantize_linears(blocks.iter_mut().flat_map(|block| &mut block.projections))
}

/// Makes scales and ternary forms of all of these that have none.
pub(crate) fn quantize_linears<'a>(linears: impl Iterator<Item = &'a mut Linear>) -> Result<(), ModelError> {
    let faults = Mutex::new(Vec::new());
    parallel_for_each(linears, |linear| {
        if let Err(error) = linear.quantize() {
            faults.lock().unwrap_or_else(PoisonError::into_inner).push(error);
        }
    });
    match faults.into_inner().unwrap_or_else(PoisonError::into_inner).pop() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
