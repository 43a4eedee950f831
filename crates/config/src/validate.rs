//! What a model can be: every value of its configuration, and every pair of values that can contradict each other.

use tritforge_ternary::TopK;

use crate::{ConfigError, ModelConfig, Projection, WeightQuant};

impl ModelConfig {
    /// Checks every value and every pair of values that can contradict each other.
    ///
    /// # Errors
    /// The first fault found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (key, value) in positive {
            // Products of two sizes must fit, and no real model comes near this.
            if value == 0 || value > 1 << 28 {
                return Err(fault(key, &value, "expected 1 to 268435456"));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(fault(
                "num_key_value_heads",
                &self.num_key_value_heads,
                format!("it must divide num_attention_heads = {}", self.num_attention_heads),
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(fault("head_dim", &self.head_dim, "it must be even: RoPE rotates pairs"));
        }
        if self.use_sub_norm && self.q_size() != self.hidden_size {
            return Err(fault(
                "head_dim",
                &self.head_dim,
                format!(
                    "attn_sub_norm has width hidden_size = {}, so num_attention_heads · head_dim = {} must equal it",
                    self.hidden_size,
                    self.q_size()
                ),
            ));
        }
        if self.projection_norms && !self.use_sub_norm {
            return Err(fault(
                "projection_norms",
                &true,
                "use_sub_norm = true: norms before o_proj and down_proj are among those of all projections",
            ));
        }
        if let Some(part) = self.activation_top_k {
            let expected = if TopK::new(part).is_none() {
                "a part above 0 and below 1"
            } else if !self.activations.is_integer() {
                "quantized activations: the codes of the others are 0"
            } else {
                ""
            };
            if !expected.is_empty() {
                return Err(fault("activation_top_k", &part, expected));
            }
        }
        let ranges = [
            ("rms_norm_eps", self.rms_norm_eps, 0.0, 1.0),
            ("rope_theta", self.rope_theta, 1.0, 1e12),
            ("initializer_range", self.initializer_range, 0.0, 10.0),
        ];
        for (key, value, low, high) in ranges {
            if !(value > low && value <= high) {
                return Err(fault(key, &value, format!("expected more than {low} and at most {high}")));
            }
        }
        if self.weights != WeightQuant::None {
            for projection in Projection::ALL {
                let [_, cols] = self.projection_shape(projection);
                let at = |error| format!("{}: {error}", projection.hf_name());
                self.granularity
                    .check(cols)
                    .map_err(|error| fault("granularity", &self.granularity, at(error)))?;
                if let (Some(sparsity), WeightQuant::Absmean) = (self.quantizer.kept(), self.weights) {
                    let granularity = self.granularity.on(cols);
                    sparsity
                        .check(granularity, cols)
                        .map_err(|error| fault("sparsity", &sparsity, at(error)))?;
                }
            }
            let threshold = self.quantizer.settings().threshold;
            if !(threshold > 0.0 && threshold.is_finite()) {
                return Err(fault("threshold", &threshold, "expected a number above 0"));
            }
        }
        self.validate_dead_zone()?;
        self.validate_tables()?;
        self.rope_scaling.as_ref().map_or(Ok(()), |scaling| scaling.validate(self.head_dim))
    }

    /// Checks what is said of a ternary embedding and head.
    fn validate_tables(&self) -> Result<(), ConfigError> {
        let tables = [("ternary_embedding", self.ternary_embedding), ("ternary_head", self.ternary_head)];
        for (key, granularity) in tables {
            let Some(granularity) = granularity else { continue };
            if self.weights == WeightQuant::None {
                let expected = "expected none, or ternary projections: it is quantized as they are";
                return Err(fault(key, &granularity, expected));
            }
            granularity
                .check(self.hidden_size)
                .map_err(|error| fault(key, &granularity, error.to_string()))?;
            let latent = self.weights == WeightQuant::Absmean;
            if latent && (self.quantizer.learned().is_some() || self.quantizer.on_grid()) {
                let expected = format!("expected none: quantizer {} is of projections alone", self.quantizer);
                return Err(fault(key, &granularity, expected));
            }
            if let (Some(sparsity), WeightQuant::Absmean) = (self.quantizer.kept(), self.weights) {
                sparsity
                    .check(granularity.on(self.hidden_size), self.hidden_size)
                    .map_err(|error| fault("sparsity", &sparsity, format!("{key}: {error}")))?;
            }
        }
        match self.ternary_head {
            Some(granularity) if self.tie_word_embeddings => {
                let expected = "tie_word_embeddings = true: the head is the embedding; set ternary_embedding";
                Err(fault("ternary_head", &granularity, expected))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn fault(key: &'static str, found: &impl ToString, expected: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, found: found.to_string(), expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use tritforge_ternary::Granularity;

    use super::*;
    use crate::ActivationQuant;

    #[test]
    fn contradictions_name_the_key() {
        let bad = ModelConfig { num_key_value_heads: 3, ..Default::default() };
        assert!(bad.validate().unwrap_err().to_string().starts_with("num_key_value_heads = 3"));
        let grouped = |intermediate_size| ModelConfig {
            granularity: Granularity::Group(256),
            intermediate_size,
            ..Default::default()
        };
        assert_eq!(grouped(768).validate(), Ok(()));
        assert_eq!(
            grouped(640).validate().unwrap_err().to_string(),
            "granularity = 256: mlp.down_proj: a group of 256 weights does not divide 640 columns: expected 32, 64, \
             128, row or tensor"
        );
        let tied = ModelConfig { ternary_head: Some(Granularity::Row), ..Default::default() };
        assert!(tied.validate().unwrap_err().to_string().contains("set ternary_embedding"));
        let table = |weights| ModelConfig {
            weights,
            ternary_embedding: Some(Granularity::Group(256)),
            hidden_size: 128,
            head_dim: 32,
            ..Default::default()
        };
        let error = table(WeightQuant::Absmean).validate().unwrap_err().to_string();
        assert!(error.starts_with("ternary_embedding = 256: a group of 256 weights"), "{error}");
        let error = table(WeightQuant::None).validate().unwrap_err().to_string();
        assert!(error.contains("ternary projections"), "{error}");
        let bad = ModelConfig { head_dim: 48, ..Default::default() };
        assert!(bad.validate().unwrap_err().to_string().contains("attn_sub_norm"));
        let bad = ModelConfig { rms_norm_eps: f32::NAN, ..Default::default() };
        assert!(bad.validate().is_err());
        let part = |part, activations| ModelConfig {
            activation_top_k: Some(part),
            activations,
            ..Default::default()
        };
        assert_eq!(part(0.5, ActivationQuant::Absmax).validate(), Ok(()));
        for part in [part(1.0, ActivationQuant::Absmax), part(f32::NAN, ActivationQuant::Absmax)] {
            assert!(part.validate().unwrap_err().to_string().contains("a part above 0 and below 1"));
        }
        let error = part(0.5, ActivationQuant::None).validate().unwrap_err().to_string();
        assert!(error.contains("quantized activations"), "{error}");
    }
}
