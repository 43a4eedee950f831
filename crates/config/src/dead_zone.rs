//! The bias that weights with code 0 make (Tequila, arXiv 2509.23809): which projections have one, and what a model is once it
//! is folded into an ordinary bias.

use crate::{AttentionBias, ConfigError, ModelConfig, Projection, WeightQuant};

impl ModelConfig {
    /// What the sum of a projection's weights with code 0 is multiplied by, if it is a bias of that projection: of those of the
    /// attention that have a bias, or of all four if none has. No architecture has a place for others.
    pub fn dead_zone(&self, projection: Projection) -> Option<f32> {
        self.dead_zone_bias.filter(|_| self.deployed_bias().has(projection))
    }

    /// Which projections of the attention have a bias in the deployed model.
    pub fn deployed_bias(&self) -> AttentionBias {
        match (self.dead_zone_bias, self.attention_bias) {
            (Some(_), AttentionBias::None) => AttentionBias::All,
            (_, own) => own,
        }
    }

    /// The model as files of other programs hold it, the bias of the dead zone among the ordinary ones.
    #[must_use]
    pub fn folded(&self) -> Self {
        Self { attention_bias: self.deployed_bias(), dead_zone_bias: None, ..self.clone() }
    }

    /// The layer and the projection whose bias, of this name in a checkpoint, is made of its dead zone.
    pub fn dead_zone_of(&self, bias: &str) -> Option<(usize, Projection)> {
        let prefix = bias.strip_prefix("model.layers.")?.split_once('.')?.0;
        let layer = prefix.parse().ok().filter(|layer| *layer < self.num_hidden_layers)?;
        let of = |projection: &Projection| projection.hf_bias(layer) == bias;
        let projection = Projection::ALL.into_iter().find(of)?;
        self.dead_zone(projection).map(|_| (layer, projection))
    }

    /// Why the model can have no such bias, if it cannot.
    pub fn dead_zone_fault(&self) -> Option<String> {
        let quantizer = self.quantizer;
        if self.weights != WeightQuant::Absmean {
            return Some("expected latent weights (absmean): the sum is of those with code 0".to_string());
        }
        if quantizer.signs() && quantizer.kept().is_none() {
            return Some(format!("quantizer {quantizer} has no code 0, so that there is nothing to sum"));
        }
        if quantizer.on_grid() {
            return Some(format!(
                "quantizer {quantizer} has no latent weights: those with code 0 are 0, and so is their sum"
            ));
        }
        None
    }

    /// Checks it.
    pub(crate) fn validate_dead_zone(&self) -> Result<(), ConfigError> {
        let Some(lambda) = self.dead_zone_bias else { return Ok(()) };
        let key = "dead_zone_bias";
        if !(lambda > 0.0 && lambda.is_finite()) {
            return Err(crate::validate::fault(key, &lambda, "expected a number above 0"));
        }
        self.dead_zone_fault().map_or(Ok(()), |why| Err(crate::validate::fault(key, &lambda, why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Architecture;

    fn config(attention_bias: AttentionBias) -> ModelConfig {
        ModelConfig { attention_bias, use_sub_norm: false, dead_zone_bias: Some(1e-3), ..Default::default() }
    }

    #[test]
    fn it_stands_where_biases_stand_or_in_all_of_the_attention() {
        let of = |config: &ModelConfig| Projection::ALL.map(|p| config.dead_zone(p).is_some());
        let none = config(AttentionBias::None);
        assert_eq!(of(&none), [true, true, true, true, false, false, false]);
        assert_eq!(of(&config(AttentionBias::Qkv)), [true, true, true, false, false, false, false]);
        assert_eq!(of(&none.folded()), [false; 7]);
        assert_eq!(none.folded().attention_bias, AttentionBias::All);
        assert_eq!(none.dead_zone_of("model.layers.1.self_attn.o_proj.bias"), Some((1, Projection::O)));
        for other in ["model.layers.4.self_attn.o_proj.bias", "model.layers.1.self_attn.o_proj.weight", "x"] {
            assert_eq!(none.dead_zone_of(other), None);
        }
        // Checkpoints have the biases of its own alone.
        assert!(!none.has_tensor("model.layers.1.self_attn.o_proj.bias"));
        assert!(none.folded().has_tensor("model.layers.1.self_attn.o_proj.bias"));
        assert_eq!(ModelConfig::from_json(&none.to_json()).unwrap(), none);
        assert!(!none.folded().to_json().contains("dead_zone"));
    }

    #[test]
    fn architectures_with_biases_hold_it() {
        let name = |config: &ModelConfig| Architecture::of(config).map(Architecture::name);
        assert_eq!(name(&config(AttentionBias::None)), Ok("llama"));
        assert_eq!(name(&config(AttentionBias::Qkv)), Ok("qwen2"));
        let sub_norms = ModelConfig { use_sub_norm: true, ..config(AttentionBias::None) };
        let error = name(&sub_norms).unwrap_err().to_string();
        assert!(error.contains("`bitnet` would need attention_bias = \"none\""), "{error}");
    }

    #[test]
    fn what_has_no_dead_zone_is_refused() {
        let base = config(AttentionBias::None);
        assert_eq!(base.validate(), Ok(()));
        let of = |quantizer: &str| ModelConfig { quantizer: quantizer.parse().unwrap(), ..base.clone() };
        for (config, expected) in [
            (of("binary"), "binary has no code 0"),
            (of("dqt"), "dqt has no latent weights"),
            (ModelConfig { weights: WeightQuant::Ternary, ..base.clone() }, "expected latent weights"),
            (ModelConfig { dead_zone_bias: Some(f32::NAN), ..base.clone() }, "a number above 0"),
        ] {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with("dead_zone_bias = ") && error.contains(expected), "{error}");
        }
        assert_eq!(of("sherry").validate(), Ok(()));
    }
}
