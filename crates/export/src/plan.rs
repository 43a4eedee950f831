//! Which tensors a model has: name in a checkpoint, name in a GGUF file, shape, and what each is.

use tritforge_config::{Architecture, Granularity, ModelConfig, Projection, ROPE_FACTORS, WeightQuant};
use tritforge_gguf::{GgmlType, TensorSpec};
use tritforge_ternary::Packing;

use crate::dense::ggml_type;
use crate::gguf::ExportOptions;

/// What a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TensorRole {
    /// Embedding or head.
    Embedding,
    /// The weight of a norm or a bias, kept as F32.
    Vector,
    /// The weight of a projection: ternary, or in full precision as the model says.
    Projection,
}

/// One tensor of a model.
#[derive(Debug, Clone)]
pub(crate) struct TensorPlan {
    /// The name in a checkpoint, which is that of Hugging Face.
    pub(crate) source: String,
    /// The name in a GGUF file.
    pub(crate) target: String,
    /// Outermost dimension first.
    pub(crate) shape: Vec<usize>,
    pub(crate) role: TensorRole,
    /// Which of its weights share a scale, if it is ternary.
    pub(crate) ternary: Option<Granularity>,
    /// The projection whose dead zone is part of it, if it is a bias of such a one; the others are what is stored.
    pub(crate) dead_zone: Option<DeadZone>,
    /// Whether it belongs to queries or keys, whose rows GGUF's `llama` orders in its own way.
    pub(crate) rotated: bool,
}

/// What the bias of a projection is made of beside, or instead of, what is stored under its name.
#[derive(Debug, Clone)]
pub(crate) struct DeadZone {
    /// The name of the projection's weight in a checkpoint.
    pub(crate) weight: String,
    /// Its shape.
    pub(crate) shape: [usize; 2],
    /// What the sum of its weights with code 0 is multiplied by.
    pub(crate) lambda: f32,
    /// Whether the projection has a bias of its own, too.
    pub(crate) own: bool,
}

impl TensorPlan {
    /// The name of the scale beside a ternary weight.
    pub(crate) fn scale_name(&self) -> String {
        self.target.replace(".weight", ".scale")
    }

    /// Rows and columns of a matrix; a vector is one row.
    pub(crate) fn matrix(&self) -> [usize; 2] {
        match self.shape[..] {
            [rows, cols] => [rows, cols],
            _ => [1, self.shape.iter().product()],
        }
    }
}

/// All tensors of the deployed model, in the order in which a GGUF file holds them.
pub(crate) fn items(config: &ModelConfig) -> Vec<TensorPlan> {
    let item = |source: String, target: String, shape: &[usize], role| TensorPlan {
        source,
        target,
        shape: shape.to_vec(),
        role,
        ternary: None,
        dead_zone: None,
        rotated: false,
    };
    let (d, table) = (config.hidden_size, [config.vocab_size, config.hidden_size]);
    let mut items = vec![
        TensorPlan {
            ternary: config.ternary_embedding,
            ..item(
                "model.embed_tokens.weight".into(),
                "token_embd.weight".into(),
                &table,
                TensorRole::Embedding,
            )
        },
        item("model.norm.weight".into(), "output_norm.weight".into(), &[d], TensorRole::Vector),
    ];
    if !config.tie_word_embeddings {
        let head = item("lm_head.weight".into(), "output.weight".into(), &table, TensorRole::Embedding);
        items.push(TensorPlan { ternary: config.ternary_head, ..head });
    }
    for layer in 0..config.num_hidden_layers {
        let mut norms =
            vec![("input_layernorm", "attn_norm", d), ("post_attention_layernorm", "ffn_norm", d)];
        if config.use_sub_norm {
            norms.push(("self_attn.attn_sub_norm", "attn_sub_norm", config.q_size()));
            norms.push(("mlp.ffn_sub_norm", "ffn_sub_norm", config.intermediate_size));
        }
        if config.projection_norms {
            for p in Projection::SHARING {
                items.push(item(p.hf_norm(layer), p.gguf_norm(layer), &[d], TensorRole::Vector));
            }
        }
        if config.use_qk_norm {
            norms.push(("self_attn.q_norm", "attn_q_norm", config.head_dim));
            norms.push(("self_attn.k_norm", "attn_k_norm", config.head_dim));
        }
        for (source, target, width) in norms {
            items.push(item(
                format!("model.layers.{layer}.{source}.weight"),
                format!("blk.{layer}.{target}.weight"),
                &[width],
                TensorRole::Vector,
            ));
        }
        for p in Projection::ALL {
            let rotated = matches!(p, Projection::Q | Projection::K);
            let shape = config.projection_shape(p);
            let weight = item(p.hf_weight(layer), p.gguf_weight(layer), &shape, TensorRole::Projection);
            let ternary = (config.weights != WeightQuant::None).then_some(config.granularity);
            items.push(TensorPlan { rotated, ternary, ..weight });
            if config.deployed_bias().has(p) {
                let bias = item(p.hf_bias(layer), p.gguf_bias(layer), &shape[..1], TensorRole::Vector);
                let own = config.attention_bias.has(p);
                let dead_zone = config.dead_zone(p);
                let dead_zone =
                    dead_zone.map(|lambda| DeadZone { weight: p.hf_weight(layer), shape, lambda, own });
                items.push(TensorPlan { rotated, dead_zone, ..bias });
            }
        }
    }
    items
}

/// The tensors that the file declares.
pub(crate) fn specs(
    config: &ModelConfig,
    items: &[TensorPlan],
    architecture: &Architecture,
    ternary: bool,
    options: &ExportOptions,
) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    if let Some(factors) = config.rope_factors() {
        let dims = vec![factors.len() as u64];
        specs.push(TensorSpec { name: ROPE_FACTORS.to_string(), dims, ty: GgmlType::F32 });
    }
    for item in items {
        let ty = match item.role {
            _ if ternary && item.ternary.is_some() => ternary_type(options.packing),
            TensorRole::Embedding => ggml_type(options.embeddings),
            TensorRole::Vector => GgmlType::F32,
            TensorRole::Projection => ggml_type(options.linears),
        };
        let dims = item.shape.iter().rev().map(|d| *d as u64).collect();
        specs.push(TensorSpec { name: item.target.clone(), dims, ty });
        if ternary
            && item.ternary == Some(Granularity::Tensor)
            && has_scale_tensor(item, architecture, options.packing)
        {
            specs.push(TensorSpec { name: item.scale_name(), dims: vec![1], ty: GgmlType::F32 });
        }
    }
    specs
}

/// The type of a packing.
fn ternary_type(packing: Packing) -> GgmlType {
    // Every packing's type is one of the reader's (a test checks it).
    GgmlType::from_name(packing.ggml_type()).unwrap_or(GgmlType::TQ2_0)
}

/// Whether a `.scale` tensor stands beside a ternary weight: where the packing would round the scale.
pub(crate) fn has_scale_tensor(item: &TensorPlan, architecture: &Architecture, packing: Packing) -> bool {
    item.role == TensorRole::Projection && architecture.has_scale_tensors() && packing.is_f16()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packing_has_the_size_of_its_type() {
        for packing in Packing::ALL {
            let ty = ternary_type(packing);
            assert_eq!(ty.name(), packing.ggml_type());
            let [rows, cols] = [3, 512];
            let bytes = packing.packed_len(rows, cols).unwrap() as u64;
            assert_eq!(ty.nbytes(&[cols as u64, rows as u64]).unwrap(), bytes, "{ty}");
            assert_eq!(ty.block_size(), packing.block() as u64, "{ty}");
        }
    }
}
