//! Which tensors a model has, by their names in a checkpoint.

use crate::{Granularity, ModelConfig, Projection, WeightQuant};

impl ModelConfig {
    /// Whether a checkpoint of this model has a tensor of this name, which is that of Hugging Face's layout.
    /// The scale beside a packed weight is part of it.
    pub fn has_tensor(&self, name: &str) -> bool {
        let stored = |table: Option<Granularity>| table.is_some() && self.weights == WeightQuant::Ternary;
        match name {
            "model.embed_tokens.weight" | "model.norm.weight" => return true,
            "lm_head.weight" => return !self.tie_word_embeddings,
            "model.embed_tokens.weight_scale" => return stored(self.ternary_embedding),
            "lm_head.weight_scale" => return !self.tie_word_embeddings && stored(self.ternary_head),
            _ => {}
        }
        let Some((layer, part)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'))
        else {
            return false;
        };
        // Leading zeros would be another name.
        let number = layer.parse::<usize>().ok().filter(|number| number.to_string() == layer);
        if number.is_none_or(|number| number >= self.num_hidden_layers) {
            return false;
        }
        match part {
            "input_layernorm.weight" | "post_attention_layernorm.weight" => return true,
            "self_attn.attn_sub_norm.weight" | "mlp.ffn_sub_norm.weight" => return self.use_sub_norm,
            "self_attn.q_norm.weight" | "self_attn.k_norm.weight" => return self.use_qk_norm,
            _ => {}
        }
        Projection::ALL.into_iter().any(|projection| {
            let of = |end: &str| part.strip_prefix(projection.hf_name()) == Some(end);
            of(".weight")
                || (of(".weight_scale") && self.weights == WeightQuant::Ternary)
                || (of(".bias") && self.attention_bias.has(projection))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AttentionBias;

    #[test]
    fn every_tensor_has_one_name() {
        let config = ModelConfig { num_hidden_layers: 11, ..ModelConfig::default() };
        let has = |name: &str| config.has_tensor(name);
        for name in [
            "model.embed_tokens.weight",
            "model.norm.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.10.self_attn.attn_sub_norm.weight",
            "model.layers.10.mlp.down_proj.weight",
        ] {
            assert!(has(name), "{name}");
        }
        for name in [
            "lm_head.weight",
            "norm.weight",
            "model.layers.11.input_layernorm.weight",
            "model.layers.01.input_layernorm.weight",
            "model.layers.0.self_attn.q_proj.bias",
            "model.layers.0.self_attn.q_norm.weight",
            "model.layers.0.self_attn.q_proj.weight_scale",
            "model.layers.0.mlp.q_proj.weight",
            "model.layers.0.self_attn.rotary_emb.inv_freq",
        ] {
            assert!(!has(name), "{name}");
        }
        let other = ModelConfig {
            tie_word_embeddings: false,
            use_sub_norm: false,
            use_qk_norm: true,
            attention_bias: AttentionBias::Qkv,
            weights: WeightQuant::Ternary,
            ..config
        };
        assert!(other.has_tensor("lm_head.weight"));
        assert!(other.has_tensor("model.layers.0.self_attn.q_norm.weight"));
        assert!(other.has_tensor("model.layers.0.self_attn.v_proj.bias"));
        assert!(other.has_tensor("model.layers.0.mlp.up_proj.weight_scale"));
        assert!(!other.has_tensor("model.layers.0.self_attn.o_proj.bias"));
        assert!(!other.has_tensor("model.layers.0.mlp.ffn_sub_norm.weight"));
    }
}
