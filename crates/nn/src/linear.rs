//! One projection: a latent weight and the way in which it and its input are quantized.

use std::sync::Arc;

use candle_core::{Result, Tensor, Var, bail};
use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_kernels::{Matrix, TernaryWeights};
use tritforge_ternary::{absmean, stored_scale};

use crate::ops;

/// A linear layer, [out, in], quantized as the configuration says.
#[derive(Debug)]
pub struct Linear {
    weight: Var,
    weights: WeightQuant,
    activations: ActivationQuant,
    /// The ternary form of `weight`, in the kernels' layout; none until asked for after a change.
    quantized: Option<Arc<TernaryWeights>>,
    /// The transpose of `quantized`, where the backward multiplies integers too.
    transposed: Option<TernaryWeights>,
    /// Whether `transposed` is made along with `quantized`.
    transposes: bool,
    /// The scale of the present weight, where it is ternary.
    scale: Option<f32>,
}

impl Linear {
    pub(crate) fn new(config: &ModelConfig, weight: Var) -> Self {
        Self {
            weight,
            weights: config.weights,
            activations: config.activations,
            quantized: None,
            transposed: None,
            transposes: false,
            scale: None,
        }
    }

    /// The trained full-precision weight, [out, in].
    pub fn weight(&self) -> &Var {
        &self.weight
    }

    /// The ternary form of the weight, if the forward multiplies integers and it has been quantized.
    pub fn quantized(&self) -> Option<&Arc<TernaryWeights>> {
        self.quantized.as_ref()
    }

    /// The transpose of [`Self::quantized`], [in, out], if the backward multiplies integers.
    pub(crate) fn transposed(&self) -> Option<&TernaryWeights> {
        self.transposed.as_ref()
    }

    /// Whether the transpose is made along with the ternary form from now on.
    pub(crate) fn set_transposes(&mut self, transposes: bool) {
        self.transposes = transposes;
        self.invalidate();
    }

    /// Forgets the ternary form: to be called whenever the weight has changed.
    pub(crate) fn invalidate(&mut self) {
        self.quantized = None;
        self.transposed = None;
        self.scale = None;
    }

    /// Rows and columns of the weight: outputs and inputs.
    pub(crate) fn dims(&self) -> Result<(usize, usize)> {
        self.weight.dims2()
    }

    /// The weight as the forward multiplies it, given its latent values.
    pub(crate) fn matrix<'a>(&self, latent: &'a [f32]) -> Result<Matrix<'a>> {
        let (rows, cols) = self.dims()?;
        match (self.weights, self.scale) {
            (WeightQuant::None, _) => Ok(Matrix::f32(latent, rows, cols)),
            (_, Some(scale)) => Ok(Matrix::ternary(latent, rows, cols, scale)),
            (_, None) => bail!("the weights changed and were not quantized again"),
        }
    }

    /// Makes the scale and the ternary form of the present weight, once for all calls until the weight changes.
    pub(crate) fn quantize(&mut self) -> Result<()> {
        if self.weights == WeightQuant::None || self.scale.is_some() {
            return Ok(());
        }
        let (rows, cols) = self.dims()?;
        let latent = ops::values(&self.weight)?;
        let scale = match self.weights {
            WeightQuant::Ternary => stored_scale(&latent).map_err(candle_core::Error::wrap)?,
            WeightQuant::Absmean | WeightQuant::None => absmean(&latent),
        };
        if self.activations == ActivationQuant::Absmax {
            self.quantized = Some(Arc::new(TernaryWeights::quantize(&latent, rows, cols, scale)));
            if self.transposes {
                self.transposed = Some(TernaryWeights::quantize_transposed(&latent, rows, cols, scale));
            }
        }
        drop(latent);
        self.scale = Some(scale);
        Ok(())
    }

    /// `y = x · Wᵀ` with quantization, without bias: x [tokens, in], result [tokens, out]. Without `track` the tape records nothing.
    pub(crate) fn forward(&self, x: &Tensor, track: bool) -> Result<Tensor> {
        let weight = if track { self.weight.as_tensor().clone() } else { self.weight.as_detached_tensor() };
        match (&self.quantized, self.weights, self.activations) {
            (Some(quantized), ..) => ops::bit_linear(x, &weight, quantized),
            (None, WeightQuant::Absmean | WeightQuant::Ternary, ActivationQuant::Absmax) => {
                bail!("the weights changed and were not quantized again")
            }
            (None, WeightQuant::Absmean, ActivationQuant::None) => {
                ops::linear(x, &ops::fake_quantize_weights(&weight)?)
            }
            (None, WeightQuant::None, ActivationQuant::Absmax) => {
                ops::linear(&ops::fake_quantize_activations(x)?, &weight)
            }
            (None, WeightQuant::None | WeightQuant::Ternary, ActivationQuant::None) => {
                ops::linear(x, &weight)
            }
        }
    }
}
