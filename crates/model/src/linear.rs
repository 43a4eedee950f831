//! One projection: a weight, the way in which it and its input are quantized, and perhaps an adapter.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var, bail};
use tritforge_config::{ActivationQuant, LoraMode, ModelConfig, WeightQuant};
use tritforge_kernels::{Matrix, TernaryWeights};
use tritforge_ternary::{absmean, stored_scale, weight_codes};

use crate::lora::Adapter;
use crate::{GradPrecision, ops};

/// A linear layer, [out, in], quantized as the configuration says.
#[derive(Debug)]
pub struct Linear {
    master: Master,
    rows: usize,
    cols: usize,
    weights: WeightQuant,
    activations: ActivationQuant,
    adapter: Option<Adapter>,
    /// The ternary form of the weight, in the kernels' layout; none until asked for after a change.
    quantized: Option<Arc<TernaryWeights>>,
    /// The ternary form as a backward in f32 reads it, where there is no latent weight to read it from.
    codes: Option<Codes>,
    /// The transpose of `quantized`, where the backward multiplies integers too.
    transposed: Option<TernaryWeights>,
    /// How the gradient is multiplied.
    backward: GradPrecision,
    /// The scale of the present weight, where it is ternary.
    scale: Option<f32>,
    /// How much of the quantization training sees: 1 for all of it.
    blend: f32,
    /// `W + λ(Q(W) − W)`, where training sees a part λ of the quantization.
    blended: Option<Vec<f32>>,
}

/// What a weight is made of.
#[derive(Debug)]
enum Master {
    /// The trained full-precision weight, [out, in].
    Latent(Var),
    /// Nothing but its codes: the weight is ternary and stays as it is.
    Codes,
    /// The codes that a ternary adapter moves.
    Base(TernaryWeights),
}

/// A ternary matrix as rows of codes.
#[derive(Debug)]
struct Codes {
    codes: Vec<i8>,
    /// The scale, once for every row.
    scales: Vec<f32>,
}

impl Linear {
    pub(crate) fn new(config: &ModelConfig, weight: Var) -> Result<Self> {
        let (rows, cols) = weight.dims2()?;
        Ok(Self {
            master: Master::Latent(weight),
            rows,
            cols,
            weights: config.weights,
            activations: config.activations,
            adapter: None,
            quantized: None,
            codes: None,
            transposed: None,
            backward: GradPrecision::F32,
            scale: None,
            blend: 1.0,
            blended: None,
        })
    }

    /// How much of the quantization training sees from now on: `x + λ(Q(x) − x)` of weight and input.
    pub(crate) fn set_blend(&mut self, blend: f32) {
        self.blend = blend;
        self.invalidate();
    }

    /// How much of the quantization training sees.
    pub(crate) fn blend(&self) -> f32 {
        self.blend
    }

    /// The ternary form of the weight, where training multiplies integers.
    pub(crate) fn integers(&self) -> Option<&Arc<TernaryWeights>> {
        self.quantized.as_ref().filter(|_| self.blended.is_none())
    }

    /// Puts an adapter on a weight that is not trained; a ternary one on codes.
    pub(crate) fn adapt(&mut self, mut adapter: Adapter) {
        if let (LoraMode::Lota, Some(scale)) = (adapter.mode, self.scale) {
            adapter.scaling = scale;
            if let Some(Codes { codes, .. }) = self.codes.take() {
                self.master = Master::Base(TernaryWeights::new(&codes, self.rows, self.cols, scale));
            }
        }
        self.adapter = Some(adapter);
        self.invalidate();
    }

    /// The adapter.
    pub(crate) fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// The adapter, if it works inside the quantizer.
    fn inner_adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref().filter(|adapter| adapter.mode == LoraMode::QatLora)
    }

    /// Forgets the latent weight of a ternary projection that is never to change: codes and scale take a
    /// fifth of its memory.
    pub(crate) fn freeze(&mut self) -> Result<()> {
        if self.weights == WeightQuant::None {
            return Ok(());
        }
        self.quantize_with_codes(true)?;
        self.master = Master::Codes;
        Ok(())
    }

    /// The full-precision weight whose quantization the forward multiplies, [out, in]: the trained one, or
    /// the base's with its [`LoraMode::QatLora`] adapter merged; none where only codes are left.
    ///
    /// # Errors
    /// If candle refuses.
    pub fn latent(&self) -> Result<Option<Vec<f32>>> {
        let Master::Latent(weight) = &self.master else { return Ok(None) };
        let latent = ops::values(weight)?;
        Ok(Some(match self.inner_adapter() {
            Some(adapter) => adapter.merged(&latent)?,
            None => latent.to_vec(),
        }))
    }

    /// The ternary form of the weight, if the forward multiplies integers and it has been quantized.
    pub fn quantized(&self) -> Option<&Arc<TernaryWeights>> {
        self.quantized.as_ref()
    }

    /// The transpose of [`Self::quantized`], [in, out], if the backward multiplies integers.
    pub(crate) fn transposed(&self) -> Option<&TernaryWeights> {
        self.transposed.as_ref()
    }

    /// How the gradient is multiplied: by integers only where [`Self::transposed`] is made.
    pub(crate) fn grad_precision(&self) -> GradPrecision {
        self.backward
    }

    /// How the gradient is multiplied from now on; by integers the transpose is made along with the ternary
    /// form.
    pub(crate) fn set_grad_precision(&mut self, backward: GradPrecision) {
        self.backward = backward;
        self.invalidate();
        if let (Master::Codes, Some(quantized)) = (&self.master, &self.quantized) {
            let in_f32 = backward == GradPrecision::F32;
            self.transposed = (!in_f32).then(|| quantized.transposed());
            self.codes = in_f32
                .then(|| Codes { codes: quantized.codes(), scales: vec![quantized.scale(); self.rows] });
        }
    }

    /// Forgets the ternary form: to be called whenever the weight has changed. Codes that are the weight
    /// stay.
    pub(crate) fn invalidate(&mut self) {
        if matches!(self.master, Master::Codes) {
            return;
        }
        self.quantized = None;
        self.codes = None;
        self.transposed = None;
        self.blended = None;
        // The scale of codes is not computed from anything: it stays.
        if matches!(self.master, Master::Latent(_)) {
            self.scale = None;
        }
    }

    /// Rows and columns of the weight: outputs and inputs.
    pub(crate) fn dims(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Hands out the weight as training's forward multiplies it, [out, in].
    pub(crate) fn with_matrix<R>(&self, read: impl FnOnce(Matrix<'_>) -> R) -> Result<R> {
        if let Some(blended) = &self.blended {
            return Ok(read(Matrix::f32(blended, self.rows, self.cols)));
        }
        if let Some(Codes { codes, scales }) = &self.codes {
            return Ok(read(Matrix::int8(codes, scales, self.cols)));
        }
        let Master::Latent(weight) = &self.master else {
            bail!("ternary codes are stale: call requantize() after changing the adapter")
        };
        let latent = ops::values(weight)?;
        match (self.weights, self.scale) {
            (WeightQuant::None, _) => Ok(read(Matrix::f32(&latent, self.rows, self.cols))),
            (_, Some(scale)) => Ok(read(Matrix::ternary(&latent, self.rows, self.cols, scale))),
            (_, None) => bail!("ternary codes are stale: call requantize() after changing the weights"),
        }
    }

    /// Makes the scale and the ternary form of the present weight, once for all calls until the weight
    /// changes.
    pub(crate) fn quantize(&mut self) -> Result<()> {
        if let Master::Base(base) = &self.master {
            return match &self.adapter {
                Some(adapter) if self.quantized.is_none() && self.codes.is_none() => {
                    let (codes, scale) = (adapter.merged_codes(&base.codes())?, base.scale());
                    self.set_codes(codes, scale);
                    Ok(())
                }
                _ => Ok(()),
            };
        }
        if self.weights == WeightQuant::None || self.scale.is_some() {
            return Ok(());
        }
        let by_integers = self.activations == ActivationQuant::Absmax && self.backward != GradPrecision::F32;
        self.quantize_with_codes(self.inner_adapter().is_some() && !by_integers)
    }

    /// Takes codes that were moved, in the forms that forward and backward read.
    fn set_codes(&mut self, codes: Vec<i8>, scale: f32) {
        let integers = self.activations == ActivationQuant::Absmax;
        let quantized = integers.then(|| TernaryWeights::new(&codes, self.rows, self.cols, scale));
        let turned = quantized.as_ref().filter(|_| self.backward != GradPrecision::F32);
        self.transposed = turned.map(TernaryWeights::transposed);
        self.codes = self.transposed.is_none().then(|| Codes { codes, scales: vec![scale; self.rows] });
        self.quantized = quantized.map(Arc::new);
    }

    fn quantize_with_codes(&mut self, with_codes: bool) -> Result<()> {
        let Master::Latent(weight) = &self.master else { return Ok(()) };
        let latent = ops::values(weight)?;
        let latent = match self.inner_adapter() {
            Some(adapter) => Cow::Owned(adapter.merged(&latent)?),
            None => Cow::Borrowed(&*latent),
        };
        let (rows, cols) = (self.rows, self.cols);
        let scale = match self.weights {
            WeightQuant::Ternary => stored_scale(&latent).map_err(candle_core::Error::wrap)?,
            WeightQuant::Absmean | WeightQuant::None => absmean(&latent),
        };
        let integers = self.activations == ActivationQuant::Absmax;
        let quantized = integers.then(|| Arc::new(TernaryWeights::quantize(&latent, rows, cols, scale)));
        let transposed = (integers && self.backward != GradPrecision::F32 && self.blend == 1.0)
            .then(|| TernaryWeights::quantize_transposed(&latent, rows, cols, scale));
        let codes = with_codes.then(|| {
            let mut codes = vec![0i8; latent.len()];
            weight_codes(&latent, scale, &mut codes);
            Codes { codes, scales: vec![scale; rows] }
        });
        let blended = (self.blend < 1.0).then(|| {
            let mut codes = vec![0i8; latent.len()];
            weight_codes(&latent, scale, &mut codes);
            let blend = |(w, code): (&f32, &i8)| w + self.blend * (f32::from(*code) * scale - w);
            latent.iter().zip(&codes).map(blend).collect()
        });
        drop(latent);
        self.blended = blended;
        self.scale = Some(scale);
        (self.quantized, self.transposed, self.codes) = (quantized, transposed, codes);
        Ok(())
    }

    /// `y = x · Wᵀ` with quantization and adapter, without bias: x [tokens, in], result [tokens, out].
    /// Without `track` the tape records nothing. Nothing is dropped from an adapter's input.
    pub(crate) fn forward(&self, x: &Tensor, track: bool) -> Result<Tensor> {
        let y = self.base_forward(x, track)?;
        match &self.adapter {
            Some(adapter) if adapter.mode == LoraMode::Adapter => y + adapter.forward(x, track)?,
            _ => Ok(y),
        }
    }

    fn base_forward(&self, x: &Tensor, track: bool) -> Result<Tensor> {
        let weight = match &self.master {
            Master::Base(_) if track => return self.lota_forward(x),
            Master::Codes | Master::Base(_) => return self.frozen_forward(x),
            Master::Latent(weight) => match self.inner_adapter() {
                // Off the tape a quantized weight stands for itself: of the latent one only the shape is
                // looked at.
                Some(adapter) if track || self.quantized.is_none() => adapter.merged_tensor(weight, track)?,
                None if track => weight.as_tensor().clone(),
                _ => weight.as_detached_tensor(),
            },
        };
        match (&self.quantized, self.weights, self.activations) {
            (Some(quantized), ..) => ops::bit_linear(x, &weight, quantized),
            (None, WeightQuant::Absmean | WeightQuant::Ternary, ActivationQuant::Absmax) => {
                bail!("ternary codes are stale: call requantize() after changing the weights")
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

    /// The product with codes that a ternary adapter has moved, on the tape.
    fn lota_forward(&self, x: &Tensor) -> Result<Tensor> {
        let (adapter, codes) = (self.adapter.as_ref(), self.codes.as_ref());
        match (adapter, &self.quantized, codes) {
            (Some(adapter), Some(quantized), _) => {
                ops::bit_linear(x, &adapter.ternary_tensor(&quantized.codes())?, quantized)
            }
            (Some(adapter), None, Some(Codes { codes, .. })) => {
                ops::linear(x, &adapter.ternary_tensor(codes)?)
            }
            _ => bail!("ternary codes are stale: call requantize() after changing the adapter"),
        }
    }

    /// The product with a weight of which only codes are left.
    fn frozen_forward(&self, x: &Tensor) -> Result<Tensor> {
        if let Some(quantized) = &self.quantized {
            return ops::frozen_bit_linear(x, quantized);
        }
        let (Some(Codes { codes, .. }), Some(scale)) = (&self.codes, self.scale) else {
            bail!("a frozen weight without codes")
        };
        let values: Vec<f32> = codes.iter().map(|code| f32::from(*code) * scale).collect();
        ops::linear(x, &Tensor::from_vec(values, (self.rows, self.cols), &Device::Cpu)?)
    }
}
