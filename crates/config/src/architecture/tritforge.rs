//! `tritforge`: models that no architecture of other programs describes, because of their gate's activation, their norms or
//! the quantization of their activations. Their files say under `tritforge.` what a block is made of; other programs do not know
//! the architecture and refuse them, rather than compute something else.

use tritforge_gguf::{Metadata, Value, optional};

use super::Architecture;
use crate::{ActivationQuant, AttentionBias, ConfigError, HiddenAct, ModelConfig, Rotation};

pub(super) static TRITFORGE: Architecture = Architecture {
    name: "tritforge",
    hidden_act: HiddenAct::Silu,
    reads_hidden_act: true,
    use_sub_norm: false,
    use_qk_norm: false,
    attention_bias: &[AttentionBias::None, AttentionBias::Qkv, AttentionBias::All],
    reads_attention_bias: true,
    tied: false,
    interleaved: false,
    rope_factors: true,
    scale_tensors: true,
    tensor_data_layout: None,
    classes: &[],
};

/// The keys that this architecture alone has, without their beginning `tritforge.`.
pub(crate) const KEYS: [&str; 6] = [
    "use_sub_norm",
    "use_qk_norm",
    "activations",
    "activation_rotation",
    "projection_norms",
    "activation_top_k",
];

/// Whether a model has what no other architecture describes.
pub(super) fn describes(config: &ModelConfig) -> bool {
    !matches!(config.hidden_act, HiddenAct::Silu | HiddenAct::Relu2)
        || !config.has_plain_activations()
        || config.projection_norms
}

impl Architecture {
    /// Whether this is the architecture of this project's own files.
    pub(crate) fn is_own(&self) -> bool {
        self.name == TRITFORGE.name
    }
}

/// What a model's metadata says under the keys of this architecture.
pub(crate) fn to_metadata(config: &ModelConfig) -> Vec<(String, Value)> {
    let text = |name: &str| Value::String(name.to_string());
    let values = [
        ("hidden_activation", text(config.hidden_act.name())),
        (KEYS[0], Value::Bool(config.use_sub_norm)),
        (KEYS[1], Value::Bool(config.use_qk_norm)),
        (KEYS[2], text(config.activations.name())),
        (KEYS[3], text(config.rotation.name())),
        (KEYS[4], Value::Bool(config.projection_norms)),
    ];
    let top_k = config.activation_top_k.map(|part| (KEYS[5], Value::F32(part)));
    let all = values.into_iter().chain(top_k);
    all.map(|(key, value)| (format!("tritforge.{key}"), value)).collect()
}

/// Reads those keys into a configuration that has everything else.
pub(crate) fn from_metadata(metadata: &Metadata, config: &mut ModelConfig) -> Result<(), ConfigError> {
    let fault = |error: tritforge_gguf::Error| ConfigError::Gguf(error.to_string());
    let flag = |key: &str| {
        let key = format!("tritforge.{key}");
        match metadata.get(&key) {
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(ConfigError::Gguf(format!("{key}: expected true or false"))),
            None => Err(ConfigError::Gguf(format!("metadata key `{key}` is missing"))),
        }
    };
    config.use_sub_norm = flag(KEYS[0])?;
    config.use_qk_norm = flag(KEYS[1])?;
    config.projection_norms = flag(KEYS[4])?;
    let text = |key: &str| optional(metadata.get_str(&format!("tritforge.{key}"))).map_err(fault);
    let unknown = |key: &str, found: &str, known: String| {
        Err(ConfigError::Gguf(format!("tritforge.{key} = \"{found}\": expected {known}")))
    };
    if let Some(name) = text(KEYS[2])? {
        let Some(activations) = ActivationQuant::from_name(name) else {
            return unknown(KEYS[2], name, ActivationQuant::ALL.map(ActivationQuant::name).join(", "));
        };
        if activations.is_integer() != config.activations.is_integer() {
            let found = if config.activations.is_integer() { "ternary" } else { "not ternary" };
            return unknown(
                KEYS[2],
                name,
                format!("another value, since the file's projections are {found}"),
            );
        }
        config.activations = activations;
    }
    if let Some(name) = text(KEYS[3])? {
        let Some(rotation) = Rotation::from_name(name) else {
            return unknown(KEYS[3], name, Rotation::ALL.map(Rotation::name).join(", "));
        };
        config.rotation = rotation;
    }
    config.activation_top_k = match metadata.get(&format!("tritforge.{}", KEYS[5])) {
        None => None,
        Some(Value::F32(part)) => Some(*part),
        Some(_) => return Err(ConfigError::Gguf(format!("tritforge.{}: expected an f32", KEYS[5]))),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use tritforge_gguf::{GgmlType, TensorInfo};

    use super::*;
    use crate::{Projection, WeightQuant};

    fn round_trip(config: &ModelConfig) -> ModelConfig {
        let mut metadata = Metadata::new();
        for (key, value) in config.to_gguf().unwrap() {
            metadata.insert(key, value);
        }
        let ternary = config.weights != WeightQuant::None;
        let ty = if ternary { GgmlType::TQ2_0 } else { GgmlType::F16 };
        let (name, dims) = (Projection::Q.gguf_weight(0), vec![256]);
        let tensors = [TensorInfo { name, dims, ty, offset: 0, nbytes: 0, part: 0 }];
        ModelConfig::from_gguf(&metadata, &tensors).unwrap()
    }

    #[test]
    fn what_no_other_architecture_describes_round_trips() {
        let base = ModelConfig { weights: WeightQuant::Ternary, ..ModelConfig::default() };
        let plain = ModelConfig { use_sub_norm: false, ..base.clone() };
        let dense =
            ModelConfig { weights: WeightQuant::None, activations: ActivationQuant::None, ..plain.clone() };
        for config in [
            ModelConfig { hidden_act: HiddenAct::Relu, ..base.clone() },
            ModelConfig { hidden_act: HiddenAct::Gelu, use_qk_norm: true, ..plain.clone() },
            ModelConfig { hidden_act: HiddenAct::GeluTanh, ..dense.clone() },
            ModelConfig { activations: ActivationQuant::Int4, ..base.clone() },
            ModelConfig { projection_norms: true, ..base.clone() },
            ModelConfig { activation_top_k: Some(0.55), ..base.clone() },
            ModelConfig { activations: ActivationQuant::Int4, rotation: Rotation::Hadamard, ..plain },
            ModelConfig { rotation: Rotation::Hadamard, ..dense },
        ] {
            assert_eq!(Architecture::of(&config).unwrap().name(), "tritforge");
            assert_eq!(round_trip(&config), config);
        }
        assert_eq!(Architecture::of(&base).unwrap().name(), "bitnet");
    }

    #[test]
    fn damaged_keys_are_named() {
        let config = ModelConfig {
            activations: ActivationQuant::Int4,
            weights: WeightQuant::Ternary,
            ..ModelConfig::default()
        };
        for (key, value, expected) in [
            (
                "activations",
                Value::String("int3".to_string()),
                "tritforge.activations = \"int3\": expected absmax, int4, none",
            ),
            ("activations", Value::String("none".to_string()), "the file's projections are ternary"),
            ("activation_rotation", Value::String("dct".to_string()), "expected none, hadamard"),
            ("activation_top_k", Value::U32(1), "tritforge.activation_top_k: expected an f32"),
            ("activation_top_k", Value::F32(1.5), "activation_top_k = 1.5"),
            ("use_sub_norm", Value::U32(1), "tritforge.use_sub_norm: expected true or false"),
            (
                "hidden_activation",
                Value::String("mish".to_string()),
                "tritforge.hidden_activation = \"mish\"",
            ),
        ] {
            let mut metadata = Metadata::new();
            for (name, value) in config.to_gguf().unwrap() {
                metadata.insert(name, value);
            }
            metadata.insert(format!("tritforge.{key}"), value);
            let (name, dims) = (Projection::Q.gguf_weight(0), vec![256]);
            let tensors = [TensorInfo { name, dims, ty: GgmlType::TQ2_0, offset: 0, nbytes: 0, part: 0 }];
            let error = ModelConfig::from_gguf(&metadata, &tensors).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
