//! Which tensors a GGUF file of a model holds: name there, name in the checkpoint, shape, and what becomes of each.

use tritforge_config::{Architecture, ModelConfig, Projection};
use tritforge_gguf::{GgmlType, TensorSpec};
use tritforge_kernels::DenseType;
use tritforge_ternary::Packing;

use crate::dense::ggml_type;

/// What becomes of a tensor of the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Embedding or head.
    Dense,
    /// A norm, kept as F32.
    Norm,
    /// A projection, made ternary; with a `.scale` tensor where the architecture has them.
    Ternary,
}

/// One tensor of the checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: Kind,
}

impl Item {
    /// The name of the scale beside a ternary weight.
    pub(crate) fn scale_name(&self) -> String {
        self.target.replace(".weight", ".scale")
    }
}

/// All tensors, in the order in which the file holds them.
pub(crate) fn items(config: &ModelConfig) -> Vec<Item> {
    let item = |source: String, target: String, shape: &[usize], kind| Item {
        source,
        target,
        shape: shape.to_vec(),
        kind,
    };
    let (d, table) = (config.hidden_size, [config.vocab_size, config.hidden_size]);
    let mut items = vec![
        item("model.embed_tokens.weight".into(), "token_embd.weight".into(), &table, Kind::Dense),
        item("model.norm.weight".into(), "output_norm.weight".into(), &[d], Kind::Norm),
    ];
    if !config.tie_word_embeddings {
        items.push(item("lm_head.weight".into(), "output.weight".into(), &table, Kind::Dense));
    }
    for layer in 0..config.num_hidden_layers {
        let mut norms =
            vec![("input_layernorm", "attn_norm", d), ("post_attention_layernorm", "ffn_norm", d)];
        if config.use_sub_norm {
            norms.push(("self_attn.attn_sub_norm", "attn_sub_norm", config.q_size()));
            norms.push(("mlp.ffn_sub_norm", "ffn_sub_norm", config.intermediate_size));
        }
        for (source, target, width) in norms {
            items.push(item(
                format!("model.layers.{layer}.{source}.weight"),
                format!("blk.{layer}.{target}.weight"),
                &[width],
                Kind::Norm,
            ));
        }
        for p in Projection::ALL {
            items.push(item(
                p.hf_weight(layer),
                p.gguf_weight(layer),
                &config.projection_shape(p),
                Kind::Ternary,
            ));
        }
    }
    items
}

/// The tensors that the file declares.
pub(crate) fn specs(
    items: &[Item],
    architecture: Architecture,
    packing: Packing,
    dense: DenseType,
) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    for item in items {
        let ty = match item.kind {
            Kind::Dense => ggml_type(dense),
            Kind::Norm => GgmlType::F32,
            Kind::Ternary => match packing {
                Packing::Tq1_0 => GgmlType::TQ1_0,
                Packing::Tq2_0 => GgmlType::TQ2_0,
                Packing::I2S => GgmlType::I2_S,
            },
        };
        let dims = item.shape.iter().rev().map(|d| *d as u64).collect();
        specs.push(TensorSpec { name: item.target.clone(), dims, ty });
        if has_scale_tensor(item, architecture, packing) {
            specs.push(TensorSpec { name: item.scale_name(), dims: vec![1], ty: GgmlType::F32 });
        }
    }
    specs
}

/// Whether a `.scale` tensor stands beside the weight. I2_S holds its scale itself.
pub(crate) fn has_scale_tensor(item: &Item, architecture: Architecture, packing: Packing) -> bool {
    item.kind == Kind::Ternary && architecture.has_scale_tensors() && packing != Packing::I2S
}
