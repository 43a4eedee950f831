//! What happens to activations: the gate of the feed-forward network, and how projections round and rotate their inputs.

use serde::{Deserialize, Serialize};

use crate::Projection;

/// The gate of the feed-forward network: `act(gate(x)) · up(x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HiddenAct {
    /// `relu(x)²`, as in BitNet b1.58 2B4T.
    Relu2,
    /// `x · sigmoid(x)`, as in Llama and llama.cpp's `bitnet`.
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// `x · Φ(x)`, with the distribution of a Gaussian.
    Gelu,
    /// GELU's approximation by tanh.
    #[serde(rename = "gelu_pytorch_tanh")]
    GeluTanh,
}

impl HiddenAct {
    /// All of them.
    pub const ALL: [HiddenAct; 5] =
        [HiddenAct::Silu, HiddenAct::Relu2, HiddenAct::Relu, HiddenAct::Gelu, HiddenAct::GeluTanh];

    /// The name in `transformers`, recipes and GGUF files.
    pub fn name(self) -> &'static str {
        match self {
            HiddenAct::Relu2 => "relu2",
            HiddenAct::Silu => "silu",
            HiddenAct::Relu => "relu",
            HiddenAct::Gelu => "gelu",
            HiddenAct::GeluTanh => "gelu_pytorch_tanh",
        }
    }

    /// The activation of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|act| act.name() == name)
    }

    /// All names, in a message.
    pub fn names() -> String {
        Self::ALL.map(HiddenAct::name).join(", ")
    }
}

/// How the inputs of the seven projections are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationQuant {
    /// int8 by the largest magnitude of the token.
    Absmax,
    /// 4 bits, -7 to 7, by the largest magnitude of the token.
    Int4,
    /// Full precision.
    None,
}

impl ActivationQuant {
    /// All of them.
    pub const ALL: [ActivationQuant; 3] =
        [ActivationQuant::Absmax, ActivationQuant::Int4, ActivationQuant::None];

    /// The name in recipes and GGUF files.
    pub fn name(self) -> &'static str {
        match self {
            ActivationQuant::Absmax => "absmax",
            ActivationQuant::Int4 => "int4",
            ActivationQuant::None => "none",
        }
    }

    /// The quantization of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|activations| activations.name() == name)
    }

    /// Whether products with ternary weights are of integers.
    pub fn is_integer(self) -> bool {
        self != ActivationQuant::None
    }
}

/// How inputs are rotated before they are quantized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// Not at all.
    #[default]
    None,
    /// The inputs of `o_proj` and `down_proj`, in blocks of the largest power of two that divides their width, at most 256,
    /// by the orthonormal Hadamard matrix (BitNet v2, arXiv 2504.18415).
    Hadamard,
}

impl Rotation {
    /// Both.
    pub const ALL: [Rotation; 2] = [Rotation::None, Rotation::Hadamard];

    /// The name in recipes and GGUF files.
    pub fn name(self) -> &'static str {
        match self {
            Rotation::None => "none",
            Rotation::Hadamard => "hadamard",
        }
    }

    /// The rotation of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rotation| rotation.name() == name)
    }

    /// Whether the inputs of a projection are rotated.
    pub fn rotates(self, projection: Projection) -> bool {
        self == Rotation::Hadamard && matches!(projection, Projection::O | Projection::Down)
    }

    // serde hands references to `skip_serializing_if`.
    pub(crate) fn is_none(&self) -> bool {
        *self == Rotation::None
    }
}
