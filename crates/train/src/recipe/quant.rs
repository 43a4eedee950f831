//! `[quant]`: how the architecture is quantized.

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use tritforge_config::{ActivationQuant, Granularity, ModelConfig, WeightQuant, WeightQuantizer};
use tritforge_model::GradPrecision;
use tritforge_recipe::{Model, Reader};
use tritforge_ternary::{QUANTIZERS, Ste};

/// `[quant]`: the quantization of the seven projections of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Quant {
    /// `"absmean"` (ternary, the default), `"none"`, or `"ternary"`: as `model.base` stores them, never quantized again.
    #[schemars(with = "String")]
    pub weights: WeightQuant,
    /// What computes the codes and scales of latent weights, where `weights = "absmean"`: `"absmean"` (the default), `"absmedian"`,
    /// `"twn"` (threshold 0.75 · mean|W|, scale the mean of what is above it), `"rms"` (1.2240 · √(mean W²), of least squared error on a
    /// Gaussian) or `"least_squares"` (the codes of absmean with the scale of least squared error).
    #[serde(serialize_with = "display", skip_serializing_if = "is_default")]
    #[schemars(with = "String")]
    pub scale: WeightQuantizer,
    /// Which weights share a scale: `"tensor"` (one scale, the default), `"row"` (one an output), or groups of 32, 64, 128 or 256
    /// consecutive inputs, which must divide every width. Scales of rows and groups are f16 numbers.
    #[serde(serialize_with = "granularity", skip_serializing_if = "is_default")]
    #[schemars(with = "String")]
    pub granularity: Granularity,
    /// What of its gradient a latent weight gets: `"identity"` (all of it, the default), `"clip"` (none beyond 1.5 steps of the rounding,
    /// where the clamp sets in), `"trust"` (none where weight and value are more than half a step apart) or `"damp"` (half of it where
    /// the code is 0).
    #[serde(serialize_with = "display", skip_serializing_if = "is_default")]
    #[schemars(with = "String")]
    pub ste: Ste,
    /// `"absmax"` (int8, the default) or `"none"`.
    #[schemars(with = "String")]
    pub activations: ActivationQuant,
    /// How training multiplies the gradients of the projections: `"int24"` (rounded to 24 bits and multiplied by integers, about as
    /// precise as f32; in f32 where the forward multiplies no integers), `"f32"`, `"auto"` (the default: `"int24"` where that is faster, on
    /// processors with AVX-512 VNNI, else `"f32"`), or `"int16"` and `"int8"`, faster and noisier: rounded at random. These two need
    /// ternary weights and int8 activations.
    #[serde(serialize_with = "backward_name", skip_serializing_if = "is_auto")]
    #[schemars(with = "String")]
    pub backward: GradPrecision,
    /// Whether the embedding is ternary too, and which of its weights share a scale: `"none"` (full precision, the default),
    /// `"tensor"`, `"row"` (one a token) or the size of a group, as `granularity`. The quantizer is that of the projections. A
    /// tied head is the embedding.
    #[serde(serialize_with = "optional_granularity", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub embedding: Option<Granularity>,
    /// The same of a head that is not the embedding. Its input is quantized as `activations` says; its gradients are f32.
    #[serde(serialize_with = "optional_granularity", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub head: Option<Granularity>,
}

impl Default for Quant {
    fn default() -> Self {
        Self {
            weights: WeightQuant::Absmean,
            scale: WeightQuantizer::default(),
            granularity: Granularity::Tensor,
            ste: Ste::Identity,
            activations: ActivationQuant::Absmax,
            backward: GradPrecision::Auto,
            embedding: None,
            head: None,
        }
    }
}

impl Quant {
    /// Reads the section.
    pub(super) fn read(r: &mut Reader) -> Self {
        let weights = [
            ("absmean", WeightQuant::Absmean),
            ("none", WeightQuant::None),
            ("ternary", WeightQuant::Ternary),
        ];
        let activations = [("absmax", ActivationQuant::Absmax), ("none", ActivationQuant::None)];
        let quantizers = QUANTIZERS.map(|quantizer| (quantizer.name(), WeightQuantizer::new(quantizer)));
        let sizes = Granularity::GROUPS.map(|size| (size.to_string(), Granularity::Group(size)));
        let mut granularities = vec![("tensor", Granularity::Tensor), ("row", Granularity::Row)];
        granularities.extend(sizes.iter().map(|(name, granularity)| (name.as_str(), *granularity)));
        let tables: Vec<_> = std::iter::once(("none", None))
            .chain(granularities.iter().map(|(name, granularity)| (*name, Some(*granularity))))
            .collect();
        let estimators = Ste::ALL.map(|ste| (ste.name(), ste));
        let backwards = GradPrecision::ALL.map(|backward| (backward.name(), backward));
        let default = Self::default();
        Self {
            weights: r.choice("quant", "weights", &weights).unwrap_or(default.weights),
            scale: r.choice("quant", "scale", &quantizers).unwrap_or(default.scale),
            granularity: r.choice("quant", "granularity", &granularities).unwrap_or(default.granularity),
            ste: r.choice("quant", "ste", &estimators).unwrap_or(default.ste),
            activations: r.choice("quant", "activations", &activations).unwrap_or(default.activations),
            backward: r.choice("quant", "backward", &backwards).unwrap_or(default.backward),
            embedding: r.choice("quant", "embedding", &tables).unwrap_or(default.embedding),
            head: r.choice("quant", "head", &tables).unwrap_or(default.head),
        }
    }

    /// The configuration of a model with this quantization and a vocabulary of `vocab_size`, unchecked.
    pub(super) fn config(&self, model: &Model, vocab_size: usize) -> ModelConfig {
        ModelConfig {
            quantizer: self.scale,
            granularity: self.granularity,
            ternary_embedding: self.embedding,
            // What is said of a tied head is checked apart.
            ternary_head: self.head.filter(|_| !model.tie_word_embeddings),
            ..model.config(self.weights, self.activations, vocab_size)
        }
    }

    /// Notes what contradicts it.
    pub(super) fn check(&self, r: &mut Reader, model: &Model) {
        if model.tie_word_embeddings && self.head.is_some() && self.head != self.embedding {
            let message = "quant.head contradicts model.tie_word_embeddings = true: the head is the embedding; set \
                           quant.embedding";
            r.fault("quant", "head", message);
        }
        for (key, table) in [("embedding", self.embedding), ("head", self.head)] {
            if table.is_some() && self.weights == WeightQuant::None {
                let message = format!(
                    "quant.{key}: expected quant.weights = \"absmean\": a ternary {key} is quantized as the projections are"
                );
                r.fault("quant", key, message);
            }
        }
        let integers = self.weights != WeightQuant::None && self.activations == ActivationQuant::Absmax;
        if self.backward.needs_integers() && !integers {
            let message = format!(
                "quant.backward = \"{}\": expected quant.weights = \"absmean\" and quant.activations = \
                 \"absmax\", since only then the forward pass uses integers",
                self.backward.name()
            );
            r.fault("quant", "backward", message);
        }
        if self.weights != WeightQuant::Absmean && self.scale != WeightQuantizer::default() {
            let message = format!(
                "quant.scale = \"{}\": expected quant.weights = \"absmean\": no latent weights are quantized",
                self.scale
            );
            r.fault("quant", "scale", message);
        }
        if self.weights != WeightQuant::Absmean && self.ste != Ste::Identity {
            let message = format!(
                "quant.ste = \"{}\": expected quant.weights = \"absmean\": only latent weights have an estimator",
                self.ste
            );
            r.fault("quant", "ste", message);
        }
        if self.weights == WeightQuant::None && self.granularity != Granularity::Tensor {
            let message = "quant.granularity: expected quant.weights = \"absmean\": full-precision weights have no scales";
            r.fault("quant", "granularity", message);
        }
    }
}

fn backward_name<S: Serializer>(backward: &GradPrecision, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(backward.name())
}

fn display<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The size of a group as a number, the rest as text.
fn granularity<S: Serializer>(granularity: &Granularity, serializer: S) -> Result<S::Ok, S::Error> {
    match granularity {
        Granularity::Group(size) => serializer.serialize_u64(*size as u64),
        other => serializer.collect_str(other),
    }
}

/// As [`granularity`]; none is not written.
fn optional_granularity<S: Serializer>(
    value: &Option<Granularity>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => granularity(value, serializer),
        None => serializer.serialize_str("none"),
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// serde hands references to `skip_serializing_if`.
fn is_auto(backward: &GradPrecision) -> bool {
    *backward == GradPrecision::Auto
}
