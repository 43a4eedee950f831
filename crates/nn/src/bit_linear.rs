//! `BitLinear` (BitNet b1.58, arXiv 2402.17764): a linear layer whose weight is ternary and whose input is
//! int8, trained through a full-precision latent weight.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, Module, VarBuilder};
use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_ternary::TernaryTensor;

use crate::{LoraLinear, NnError, ops};

/// How a [`BitLinear`] is quantized and initialized.
#[derive(Debug, Clone, Copy)]
pub struct BitLinearConfig {
    /// Quantization of the weight: `Absmean` or `None`.
    pub weights: WeightQuant,
    /// What computes the codes and scales of the weight, and which weights share a scale.
    pub scheme: ops::WeightScheme,
    /// Quantization of the input, a scale a row: `Absmax` or `None`.
    pub activations: ActivationQuant,
    /// Whether a bias is added to the product. It is not quantized.
    pub bias: bool,
    /// What the latent weight begins with where the `VarBuilder` creates it.
    pub init: Init,
}

impl Default for BitLinearConfig {
    /// BitNet b1.58 without bias, weights initialized as in candle's `Linear`.
    fn default() -> Self {
        Self {
            weights: WeightQuant::Absmean,
            scheme: ops::WeightScheme::default(),
            activations: ActivationQuant::Absmax,
            bias: false,
            init: candle_nn::init::DEFAULT_KAIMING_NORMAL,
        }
    }
}

impl BitLinearConfig {
    /// What a model's configuration says of its projections, without bias.
    pub fn of_model(config: &ModelConfig) -> Self {
        let init = Init::Randn { mean: 0.0, stdev: f64::from(config.initializer_range) };
        let scheme = ops::WeightScheme { quantizer: config.quantizer, granularity: config.granularity };
        Self { weights: config.weights, scheme, activations: config.activations, bias: false, init }
    }

    /// The same in full precision: the layer is then a plain linear one.
    pub fn full_precision(self) -> Self {
        Self { weights: WeightQuant::None, activations: ActivationQuant::None, ..self }
    }
}

/// `y = (xq · Wqᵀ) · (s · s_x) + bias`, gradients straight through the quantizers.
///
/// The latent weight is quantized at every forward, so an optimizer may change it in place at any time.
#[derive(Debug, Clone)]
pub struct BitLinear {
    weight: Tensor,
    bias: Option<Tensor>,
    config: BitLinearConfig,
}

impl BitLinear {
    /// A layer from `in_dim` to `out_dim`: the variables `weight` [out_dim, in_dim] and, if the configuration
    /// has one, `bias` `[out_dim]`, which begins with zeros.
    ///
    /// # Errors
    /// If the `VarBuilder` lacks a variable or has it in another shape, or the weights are to be
    /// [`WeightQuant::Ternary`], which have no latent form.
    pub fn new(
        in_dim: usize,
        out_dim: usize,
        config: BitLinearConfig,
        vb: VarBuilder<'_>,
    ) -> std::result::Result<Self, NnError> {
        let weight = vb.get_with_hints((out_dim, in_dim), "weight", config.init)?;
        let bias = match config.bias {
            true => Some(vb.get_with_hints(out_dim, "bias", Init::Const(0.0))?),
            false => None,
        };
        Self::from_tensors(weight, bias, config)
    }

    /// The quantized form of candle's linear layer, of the same variables: its bias decides over
    /// `config.bias`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_linear(
        linear: &candle_nn::Linear,
        config: BitLinearConfig,
    ) -> std::result::Result<Self, NnError> {
        Self::from_tensors(linear.weight().clone(), linear.bias().cloned(), config)
    }

    fn from_tensors(
        weight: Tensor,
        bias: Option<Tensor>,
        config: BitLinearConfig,
    ) -> std::result::Result<Self, NnError> {
        weight.dims2()?;
        if config.weights == WeightQuant::Ternary {
            return Err(NnError::Input {
                what: "weights of a BitLinear",
                found: "Ternary".to_string(),
                expected: "Absmean or None: weights that are ternary as stored have no latent form to train"
                    .to_string(),
            });
        }
        let config = BitLinearConfig { bias: bias.is_some(), ..config };
        Ok(Self { weight, bias, config })
    }

    /// The latent weight, [out_dim, in_dim].
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, `[out_dim]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// How the layer is quantized.
    pub fn config(&self) -> &BitLinearConfig {
        &self.config
    }

    /// The weight as the forward uses it: codes -1, 0, 1 and their scales.
    ///
    /// # Errors
    /// If the layer's weights are full-precision or not finite.
    pub fn to_ternary(&self) -> std::result::Result<TernaryTensor, NnError> {
        if self.config.weights != WeightQuant::Absmean {
            return Err(NnError::Input {
                what: "weights of a BitLinear to be exported as ternary",
                found: format!("{:?}", self.config.weights),
                expected: "Absmean".to_string(),
            });
        }
        let (rows, cols) = self.weight.dims2()?;
        let values = self.weight.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let scheme = self.config.scheme;
        Ok(TernaryTensor::quantize_by(scheme.quantizer, scheme.granularity, &values, [rows, cols])?)
    }

    /// This layer frozen, with a trained low-rank adapter beside it; see [`LoraLinear::new`].
    ///
    /// # Errors
    /// As [`LoraLinear::new`].
    pub fn with_lora(
        &self,
        rank: usize,
        alpha: f64,
        vb: VarBuilder<'_>,
    ) -> std::result::Result<LoraLinear, NnError> {
        LoraLinear::new(self, rank, alpha, vb)
    }

    /// The same layer off the tape: its input still gets a gradient, its weight and bias get none.
    pub(crate) fn frozen(&self) -> Self {
        let bias = self.bias.as_ref().map(Tensor::detach);
        Self { weight: self.weight.detach(), bias, config: self.config }
    }
}

impl Module for BitLinear {
    /// x [.., in_dim] to [.., out_dim], on any device.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let BitLinearConfig { weights, scheme, activations, .. } = self.config;
        let y = match (weights, activations) {
            (WeightQuant::None, ActivationQuant::None) => ops::linear(x, &self.weight)?,
            (WeightQuant::None, ActivationQuant::Absmax) => {
                ops::linear(&ops::fake_quantize_activations(x)?, &self.weight)?
            }
            (_, ActivationQuant::None) => {
                ops::linear(x, &ops::fake_quantize_weights_by(&scheme, &self.weight)?)?
            }
            (_, ActivationQuant::Int4) => {
                candle_core::bail!("BitLinear: int4 activations are those of the fused pass alone")
            }
            (_, ActivationQuant::Absmax) => ops::bit_linear_by(&scheme, x, &self.weight)?,
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
