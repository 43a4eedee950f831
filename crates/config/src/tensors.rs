//! Which tensors a model has, by their names in a checkpoint.

use crate::{ModelConfig, Projection};

impl ModelConfig {
    /// Name and shape of every parameter, in the order in which a model has them. Names are those of Hugging Face's layout.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let mut shapes = vec![("model.embed_tokens.weight".to_string(), vec![self.vocab_size, d])];
        for layer in 0..self.num_hidden_layers {
            let mut norm = |name: &str, width: usize| {
                shapes.push((format!("model.layers.{layer}.{name}.weight"), vec![width]));
            };
            norm("input_layernorm", d);
            norm("post_attention_layernorm", d);
            if self.use_sub_norm {
                norm("self_attn.attn_sub_norm", self.q_size());
                norm("mlp.ffn_sub_norm", f);
            }
            if self.projection_norms {
                for projection in Projection::SHARING {
                    norm(&format!("{}.norm", projection.hf_name()), d);
                }
            }
            if self.use_qk_norm {
                norm("self_attn.q_norm", self.head_dim);
                norm("self_attn.k_norm", self.head_dim);
            }
            for projection in Projection::ALL {
                shapes.push((projection.hf_weight(layer), self.projection_shape(projection).to_vec()));
            }
            for projection in Projection::ALL.into_iter().filter(|p| self.attention_bias.has(*p)) {
                shapes.push((projection.hf_bias(layer), vec![self.projection_shape(projection)[0]]));
            }
        }
        shapes.push(("model.norm.weight".to_string(), vec![d]));
        if !self.tie_word_embeddings {
            shapes.push(("lm_head.weight".to_string(), vec![self.vocab_size, d]));
        }
        shapes
    }

    /// Whether a checkpoint of this model has a tensor of this name, which is that of Hugging Face's layout.
    /// The scale beside a packed weight is part of it.
    pub fn has_tensor(&self, name: &str) -> bool {
        match name {
            "model.embed_tokens.weight" | "model.norm.weight" => return true,
            "lm_head.weight" => return !self.tie_word_embeddings,
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
                || (of(".weight_scale") && self.weights == crate::WeightQuant::Ternary)
                || (of(".bias") && self.attention_bias.has(projection))
                || (of(".norm.weight") && self.projection_norms && projection.sharing().is_some())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttentionBias, WeightQuant};

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
