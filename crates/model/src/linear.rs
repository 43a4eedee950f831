//! One projection: a weight, the way in which it and its input are quantized, and perhaps an adapter.

mod dead_zone;
mod learned;
mod table;

use std::borrow::Cow;
use std::sync::Arc;

use tritforge_config::{ActivationQuant, LoraMode, ModelConfig, WeightQuant};
use tritforge_kernels::{Matrix, TernaryWeights};
use tritforge_ternary::{Fitted, Granularity, Scales, TernaryError, WeightQuantizer, stored_scales};

use self::dead_zone::DeadZone;
pub(crate) use self::learned::LearnedScales;
use crate::lora::Adapter;
use crate::{GradPrecision, ModelError, Tensor, TrainingCodes};

/// A linear layer, [out, in], quantized as the configuration says.
#[derive(Debug)]
pub struct Linear {
    master: Master,
    rows: usize,
    cols: usize,
    weights: WeightQuant,
    quantizer: WeightQuantizer,
    granularity: Granularity,
    /// The learned scales, where the quantizer has them.
    learned: Option<LearnedScales>,
    activations: ActivationQuant,
    adapter: Option<Adapter>,
    /// The bias of the weights with code 0, where the projection has one.
    dead_zone: Option<DeadZone>,
    /// The ternary form of the weight, in the kernels' layout; none until asked for after a change.
    quantized: Option<Arc<TernaryWeights>>,
    /// The ternary form as a backward in f32 reads it, where there is no latent weight to read it from.
    codes: Option<Codes>,
    /// The transpose of `quantized`, where the backward multiplies integers too.
    transposed: Option<TernaryWeights>,
    /// How the gradient is multiplied.
    backward: GradPrecision,
    /// The steps and scales of the present weight, where it is ternary.
    fitted: Option<Fitted>,
    /// How much of the quantization training sees: 1 for all of it.
    blend: f32,
    /// Which codes training sees.
    training_codes: TrainingCodes,
    /// What training multiplies in the place of the ternary values: `W + λ(Q(W) − W)`, where it sees a part λ of the
    /// quantization, or the values of [`TrainingCodes`].
    blended: Option<Vec<f32>>,
}

/// What a weight is made of.
#[derive(Debug)]
enum Master {
    /// The trained full-precision weight, [out, in].
    Latent(Tensor),
    /// Nothing but its codes: the weight is ternary and stays as it is.
    Codes,
    /// The codes that a ternary adapter moves.
    Base(TernaryWeights),
}

/// A ternary matrix as rows of codes.
#[derive(Debug)]
struct Codes {
    codes: Vec<i8>,
    scales: Scales,
}

impl Linear {
    /// A projection whose weight is a matrix.
    pub(crate) fn new(config: &ModelConfig, weight: Tensor, [rows, cols]: [usize; 2]) -> Self {
        Self {
            master: Master::Latent(weight),
            rows,
            cols,
            weights: config.weights,
            quantizer: config.quantizer,
            granularity: config.granularity,
            learned: None,
            activations: config.activations,
            adapter: None,
            dead_zone: None,
            quantized: None,
            codes: None,
            transposed: None,
            backward: GradPrecision::F32,
            fitted: None,
            blend: 1.0,
            training_codes: TrainingCodes::Rounded,
            blended: None,
        }
    }

    /// What computes codes and scales, and which weights share one.
    pub(crate) fn quantizer(&self) -> (WeightQuantizer, Granularity) {
        (self.quantizer, self.granularity)
    }

    /// The steps and scales of latent weights [out, in] in the place of the present ones.
    ///
    /// # Errors
    /// If there are more or fewer weights.
    pub fn fit(&self, latent: &[f32]) -> Result<Fitted, TernaryError> {
        let shape = [self.rows, self.cols];
        match &self.learned {
            None => self.quantizer.fit(self.granularity, latent, shape),
            Some(learned) => {
                self.quantizer.fit_learned(self.granularity, &learned.values.read(), latent, shape)
            }
        }
    }

    /// How much of the weight's quantization training sees from now on: `W + λ(Q(W) − W)`.
    pub(crate) fn set_blend(&mut self, blend: f32) {
        self.blend = blend;
        self.invalidate();
    }

    /// Which codes training sees from now on.
    pub(crate) fn set_training_codes(&mut self, codes: TrainingCodes) {
        if self.training_codes != codes {
            self.training_codes = codes;
            self.invalidate();
        }
    }

    /// Which codes training sees.
    pub(crate) fn training_codes(&self) -> TrainingCodes {
        self.training_codes
    }

    /// Changes the latent weight in place, if there is one, and forgets the ternary form.
    pub(crate) fn change_latent(
        &mut self,
        change: impl FnOnce(&Self, &mut [f32]) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let Master::Latent(weight) = &self.master else { return Ok(()) };
        change(self, &mut weight.write())?;
        self.invalidate();
        Ok(())
    }

    /// The ternary values of latent weights [out, in].
    pub(crate) fn ternary_values(&self, latent: &[f32], fitted: &Fitted) -> Vec<f32> {
        self.values(&self.codes_of(latent, fitted), fitted.scales())
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
        // A ternary adapter has bases of one scale (`Decoder::load_adapted`).
        let scale = self.fitted.as_ref().and_then(|fitted| fitted.scales().of_tensor());
        if let (LoraMode::Lota, Some(scale)) = (adapter.mode, scale) {
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
    pub(crate) fn freeze(&mut self) -> Result<(), ModelError> {
        if self.weights == WeightQuant::None {
            return Ok(());
        }
        self.quantize_with_codes(true)?;
        self.master = Master::Codes;
        Ok(())
    }

    /// The full-precision weight whose quantization the forward multiplies, [out, in]: the trained one, or
    /// the base's with its [`LoraMode::QatLora`] adapter merged; none where only codes are left.
    pub fn latent(&self) -> Option<Vec<f32>> {
        let Master::Latent(weight) = &self.master else { return None };
        let latent = weight.read();
        Some(match self.inner_adapter() {
            Some(adapter) => adapter.merged(&latent),
            None => latent.to_vec(),
        })
    }

    /// The ternary form of the weight, if the forward multiplies integers and it has been quantized.
    pub fn quantized(&self) -> Option<&Arc<TernaryWeights>> {
        self.quantized.as_ref()
    }

    /// The transpose of [`Self::quantized`], [in, out], if the backward multiplies integers.
    pub(crate) fn transposed(&self) -> Option<&TernaryWeights> {
        self.transposed.as_ref()
    }

    /// The steps and scales of the present weight, where it is ternary.
    pub(crate) fn fitted(&self) -> Option<&Fitted> {
        self.fitted.as_ref()
    }

    /// The scales of the present weight, where it is ternary.
    pub(crate) fn scales(&self) -> Option<&Scales> {
        self.fitted.as_ref().map(Fitted::scales)
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
            self.codes = in_f32.then(|| Codes { codes: quantized.codes(), scales: quantized.scales() });
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
        // The scales of codes are not computed from anything: they stay.
        if matches!(self.master, Master::Latent(_)) {
            self.fitted = None;
        }
    }

    /// Rows and columns of the weight: outputs and inputs.
    pub(crate) fn dims(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Hands out the weight as training's forward multiplies it, [out, in].
    ///
    /// # Errors
    /// If the weight changed and was not quantized again.
    pub(crate) fn with_matrix<R>(&self, read: impl FnOnce(Matrix<'_>) -> R) -> Result<R, ModelError> {
        if let Some(blended) = &self.blended {
            return Ok(read(Matrix::f32(blended, self.rows, self.cols)));
        }
        if let Some(Codes { codes, scales }) = &self.codes {
            return Ok(read(Matrix::codes(codes, self.rows, self.cols, scales)));
        }
        let Master::Latent(weight) = &self.master else { return Err(ModelError::Stale) };
        let latent = weight.read();
        match (self.weights, &self.fitted) {
            (WeightQuant::None, _) => Ok(read(Matrix::f32(&latent, self.rows, self.cols))),
            (_, Some(fitted)) => Ok(read(Matrix::ternary(&latent, self.rows, self.cols, fitted))),
            (_, None) => Err(ModelError::Stale),
        }
    }

    /// Hands out the weight as the deployed engine multiplies it where it does not multiply integers: the
    /// numbers of the exported matrix, [out, in].
    ///
    /// # Errors
    /// As [`Self::with_matrix`].
    pub(crate) fn with_values<R>(&self, read: impl FnOnce(&[f32]) -> R) -> Result<R, ModelError> {
        let quantized: Vec<f32> = match (&self.codes, &self.master, &self.fitted) {
            (Some(Codes { codes, scales }), ..) => self.values(codes, scales),
            (None, Master::Latent(weight), fitted) => {
                let latent = weight.read();
                match (self.weights, fitted) {
                    (WeightQuant::None | WeightQuant::Ternary, _) => return Ok(read(&latent)),
                    (WeightQuant::Absmean, Some(fitted)) => {
                        self.values(&self.codes_of(&latent, fitted), fitted.scales())
                    }
                    (WeightQuant::Absmean, None) => return Err(ModelError::Stale),
                }
            }
            (None, ..) => return Err(ModelError::Stale),
        };
        Ok(read(&quantized))
    }

    /// Codes times their scales, [out, in].
    fn values(&self, codes: &[i8], scales: &Scales) -> Vec<f32> {
        let mut values = vec![0.0; codes.len()];
        scales.apply(codes, self.cols, &mut values);
        values
    }

    /// The codes of latent weights.
    fn codes_of(&self, latent: &[f32], fitted: &Fitted) -> Vec<i8> {
        let mut codes = vec![0i8; latent.len()];
        fitted.codes(0, self.cols, latent, &mut codes);
        codes
    }

    /// Makes the scales and the ternary form of the present weight, once for all calls until the weight
    /// changes.
    pub(crate) fn quantize(&mut self) -> Result<(), ModelError> {
        if let Master::Base(base) = &self.master {
            return match &self.adapter {
                Some(adapter) if self.quantized.is_none() && self.codes.is_none() => {
                    let (codes, scales) = (adapter.merged_codes(&base.codes()), base.scales());
                    self.set_codes(codes, scales);
                    Ok(())
                }
                _ => Ok(()),
            };
        }
        if self.weights == WeightQuant::None || self.fitted.is_some() {
            return Ok(());
        }
        let by_integers = self.activations.is_integer() && self.backward != GradPrecision::F32;
        self.quantize_with_codes(self.inner_adapter().is_some() && !by_integers)
    }

    /// Takes codes that were moved, in the forms that forward and backward read.
    fn set_codes(&mut self, codes: Vec<i8>, scales: Scales) {
        let integers = self.activations.is_integer();
        let quantized = integers.then(|| TernaryWeights::new(&codes, self.rows, self.cols, scales.clone()));
        let turned = quantized.as_ref().filter(|_| self.backward != GradPrecision::F32);
        self.transposed = turned.map(TernaryWeights::transposed);
        self.codes = self.transposed.is_none().then_some(Codes { codes, scales });
        self.quantized = quantized.map(Arc::new);
    }

    fn quantize_with_codes(&mut self, with_codes: bool) -> Result<(), ModelError> {
        let Master::Latent(weight) = &self.master else { return Ok(()) };
        let latent = weight.read();
        let latent = match self.inner_adapter() {
            Some(adapter) => Cow::Owned(adapter.merged(&latent)),
            None => Cow::Borrowed(&latent[..]),
        };
        let (rows, cols) = (self.rows, self.cols);
        let fitted = match self.weights {
            WeightQuant::Ternary => Fitted::stored(stored_scales(&latent, [rows, cols], self.granularity)?),
            WeightQuant::Absmean | WeightQuant::None => self.fit(&latent)?,
        };
        let integers = self.activations.is_integer();
        let quantized =
            integers.then(|| Arc::new(TernaryWeights::quantize(&latent, rows, cols, fitted.clone())));
        let by_integers = self.blend == 1.0 && self.training_codes == TrainingCodes::Rounded;
        let transposed = (integers && self.backward != GradPrecision::F32 && by_integers)
            .then(|| TernaryWeights::quantize_transposed(&latent, rows, cols, fitted.clone()));
        let codes = with_codes
            .then(|| Codes { codes: self.codes_of(&latent, &fitted), scales: fitted.scales().clone() });
        let blended = (self.blend < 1.0).then(|| {
            let mut blended = self.values(&self.codes_of(&latent, &fitted), fitted.scales());
            blended.iter_mut().zip(&*latent).for_each(|(q, w)| *q = w + self.blend * (*q - w));
            blended
        });
        let blended = blended.or_else(|| self.training_codes.values(&latent, cols, &fitted));
        self.dead_zone.iter_mut().for_each(|dead_zone| dead_zone.fit(&latent, cols, &fitted));
        drop(latent);
        self.blended = blended;
        self.fitted = Some(fitted);
        (self.quantized, self.transposed, self.codes) = (quantized, transposed, codes);
        Ok(())
    }
}
