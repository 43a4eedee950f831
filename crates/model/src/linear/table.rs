//! A matrix whose rows are looked up, or that makes logits: the embedding and the head, where they are ternary.

use tritforge_config::{ActivationQuant, ModelConfig};
use tritforge_ternary::{Granularity, TernaryTensor};

use super::{Codes, Linear, Master};
use crate::{ModelError, Tensor};

impl Linear {
    /// The embedding or the head, [vocab_size, hidden_size], whose weights share scales in a granularity of their own.
    pub(crate) fn table(config: &ModelConfig, weight: Tensor, granularity: Granularity) -> Self {
        let linear = Self::new(config, weight, [config.vocab_size, config.hidden_size]);
        Self { granularity, ..linear }
    }

    /// The same matrix without the form that multiplies integers: of an embedding only rows are read.
    pub(crate) fn for_lookup(self) -> Self {
        Self { activations: ActivationQuant::None, ..self }
    }

    /// Row `i` of the weight, `[in]`: as the deployed engine reads it or, where the quantization has set in only in part, as
    /// training's forward does.
    ///
    /// # Errors
    /// As [`Self::with_matrix`].
    pub(crate) fn row(&self, i: usize, deployed: bool, out: &mut [f32]) -> Result<(), ModelError> {
        let of_row = i * self.cols..(i + 1) * self.cols;
        if let (Some(blended), false) = (&self.blended, deployed) {
            out.copy_from_slice(&blended[of_row]);
            return Ok(());
        }
        if let Some(quantized) = &self.quantized {
            quantized.row(i, out);
            return Ok(());
        }
        let scale = |codes: &[i8], scales: &[f32], out: &mut [f32]| {
            let width = self.cols / scales.len();
            let groups = codes.chunks_exact(width).zip(out.chunks_exact_mut(width));
            for ((codes, out), scale) in groups.zip(scales) {
                out.iter_mut().zip(codes).for_each(|(out, code)| *out = f32::from(*code) * scale);
            }
        };
        if let Some(Codes { codes, scales }) = &self.codes {
            scale(&codes[of_row], scales.row(i), out);
            return Ok(());
        }
        let (Master::Latent(weight), Some(fitted)) = (&self.master, &self.fitted) else {
            return Err(ModelError::Stale);
        };
        let mut codes = vec![0i8; self.cols];
        fitted.codes(i, self.cols, &weight.read()[of_row], &mut codes);
        scale(&codes, fitted.scales().row(i), out);
        Ok(())
    }

    /// The weight as it is exported, where it is ternary.
    ///
    /// # Errors
    /// As [`Self::with_matrix`], and if a scale is no positive number.
    pub(crate) fn ternary(&self) -> Result<TernaryTensor, ModelError> {
        let (codes, scales) = match (&self.quantized, &self.codes, &self.master, &self.fitted) {
            (Some(quantized), ..) => (quantized.codes(), quantized.scales()),
            (None, Some(Codes { codes, scales }), ..) => (codes.clone(), scales.clone()),
            (None, None, Master::Latent(weight), Some(fitted)) => {
                (self.codes_of(&weight.read(), fitted), fitted.scales().clone())
            }
            _ => return Err(ModelError::Stale),
        };
        Ok(TernaryTensor::from_codes(codes, self.rows, self.cols, scales)?)
    }
}
