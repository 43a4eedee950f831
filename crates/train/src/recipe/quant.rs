//! `[quant]`: how the architecture is quantized.

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use tritforge_config::{ActivationQuant, WeightQuant};
use tritforge_model::GradPrecision;
use tritforge_recipe::Reader;

/// `[quant]`: the quantization of the seven projections of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Quant {
    /// `"absmean"` (ternary, the default), `"none"`, or `"ternary"`: as `model.base` stores them, never quantized again.
    #[schemars(with = "String")]
    pub weights: WeightQuant,
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
}

impl Default for Quant {
    fn default() -> Self {
        Self {
            weights: WeightQuant::Absmean,
            activations: ActivationQuant::Absmax,
            backward: GradPrecision::Auto,
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
        let backwards = GradPrecision::ALL.map(|backward| (backward.name(), backward));
        let default = Self::default();
        Self {
            weights: r.choice("quant", "weights", &weights).unwrap_or(default.weights),
            activations: r.choice("quant", "activations", &activations).unwrap_or(default.activations),
            backward: r.choice("quant", "backward", &backwards).unwrap_or(default.backward),
        }
    }

    /// Notes what contradicts it.
    pub(super) fn check(&self, r: &mut Reader) {
        let integers = self.weights != WeightQuant::None && self.activations == ActivationQuant::Absmax;
        if self.backward.needs_integers() && !integers {
            let message = format!(
                "quant.backward = \"{}\": expected quant.weights = \"absmean\" and quant.activations = \
                 \"absmax\", since only then the forward pass uses integers",
                self.backward.name()
            );
            r.fault("quant", "backward", message);
        }
    }
}

fn backward_name<S: Serializer>(backward: &GradPrecision, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(backward.name())
}

// serde hands references to `skip_serializing_if`.
fn is_auto(backward: &GradPrecision) -> bool {
    *backward == GradPrecision::Auto
}
