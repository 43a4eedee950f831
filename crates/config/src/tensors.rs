//! Which tensors a model has, by their names in a checkpoint.

use crate::{Granularity, ModelConfig, Projection, WeightQuant};

impl ModelConfig {
    /// Name and shape of every parameter, in the order in which a model has them. Names are those of Hugging Face's layout.
    pub fn parameter_shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let (table, d) = (vec![self.vocab_size, self.hidden_size], self.hidden_size);
        let head = (!self.tie_word_embeddings).then(|| ("lm_head.weight".to_string(), table.clone()));
        std::iter::once(("model.embed_tokens.weight".to_string(), table))
            .chain((0..self.num_hidden_layers).flat_map(|layer| self.block_shapes(layer)))
            .chain(std::iter::once(("model.norm.weight".to_string(), vec![d])))
            .chain(head)
    }

    /// Name and shape of every parameter of a block.
    fn block_shapes(&self, layer: usize) -> Vec<(String, Vec<usize>)> {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let mut norms = vec![("input_layernorm".to_string(), d), ("post_attention_layernorm".to_string(), d)];
        if self.use_sub_norm {
            norms.push(("self_attn.attn_sub_norm".to_string(), self.q_size()));
            norms.push(("mlp.ffn_sub_norm".to_string(), f));
        }
        if self.projection_norms {
            norms.extend(Projection::SHARING.map(|p| (format!("{}.norm", p.hf_name()), d)));
        }
        if self.use_qk_norm {
            norms.push(("self_attn.q_norm".to_string(), self.head_dim));
            norms.push(("self_attn.k_norm".to_string(), self.head_dim));
        }
        let norm = |(name, width)| (format!("model.layers.{layer}.{name}.weight"), vec![width]);
        let weights = |p: Projection| {
            let shape = self.projection_shape(p);
            let scales = (p.hf_clip_val(layer), self.granularity.scale_shape(shape));
            let scales = self.learns_scales().then_some(scales);
            std::iter::once((p.hf_weight(layer), shape.to_vec())).chain(scales)
        };
        let bias = |p: Projection| (p.hf_bias(layer), vec![self.projection_shape(p)[0]]);
        let biased = Projection::ALL.into_iter().filter(|p| self.attention_bias.has(*p));
        let norms = norms.into_iter().map(norm);
        norms.chain(Projection::ALL.into_iter().flat_map(weights)).chain(biased.map(bias)).collect()
    }

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
                || (of(".weight_clip_val") && self.learns_scales())
                || (of(".bias") && self.attention_bias.has(projection))
                || (of(".norm.weight") && self.projection_norms && projection.sharing().is_some())
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
        let learned = ModelConfig { quantizer: "seq".parse().unwrap(), ..config.clone() };
        let name = "model.layers.3.mlp.up_proj.weight_clip_val";
        assert!(learned.has_tensor(name) && !has(name));
        assert_eq!(learned.learned_scales(name), Some((3, Projection::Up)));
        assert_eq!(config.learned_scales(name), None);
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
