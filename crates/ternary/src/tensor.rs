//! `TernaryTensor`: codes, scales and shape of one quantized matrix.

use crate::{EPS, Fitted, Granularity, Scales, TernaryError, WeightQuantizer, check_finite};

/// A matrix of ternary weights: the value of an element is its code times the scale that it shares with others
/// ([`Scales`]).
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryTensor {
    rows: usize,
    cols: usize,
    codes: Vec<i8>,
    scales: Scales,
}

impl TernaryTensor {
    /// Quantizes latent weights [rows, cols] (row-major) by absmean, with one scale: the default of training.
    ///
    /// # Errors
    /// If the length does not fit the shape or a weight is not finite.
    pub fn quantize(weights: &[f32], rows: usize, cols: usize) -> Result<Self, TernaryError> {
        Self::quantize_by(WeightQuantizer::default(), Granularity::Tensor, weights, [rows, cols])
    }

    /// Quantizes latent weights [rows, cols] (row-major).
    ///
    /// # Errors
    /// If the length does not fit the shape, a weight is not finite, a group does not fit the columns, or a scale is
    /// no positive number.
    pub fn quantize_by(
        quantizer: WeightQuantizer,
        granularity: Granularity,
        weights: &[f32],
        [rows, cols]: [usize; 2],
    ) -> Result<Self, TernaryError> {
        check_length("weights", weights.len(), rows, cols)?;
        check_finite(weights, cols)?;
        Self::of_fitted(&quantizer.fit(granularity, weights, [rows, cols])?, weights, [rows, cols])
    }

    /// [`TernaryTensor::quantize_by`] a quantizer whose scales are learned, row-major.
    ///
    /// # Errors
    /// As there; if the quantizer has no learned scales or there are more or fewer of them.
    pub fn quantize_learned(
        quantizer: WeightQuantizer,
        granularity: Granularity,
        scales: &[f32],
        weights: &[f32],
        [rows, cols]: [usize; 2],
    ) -> Result<Self, TernaryError> {
        check_length("weights", weights.len(), rows, cols)?;
        check_finite(weights, cols)?;
        check_finite(scales, 1)?;
        let fitted = quantizer.fit_learned(granularity, scales, weights, [rows, cols])?;
        Self::of_fitted(&fitted, weights, [rows, cols])
    }

    fn of_fitted(fitted: &Fitted, weights: &[f32], [rows, cols]: [usize; 2]) -> Result<Self, TernaryError> {
        fitted.scales().check()?;
        let mut codes = vec![0i8; weights.len()];
        fitted.codes(0, cols, weights, &mut codes);
        Ok(Self { rows, cols, codes, scales: fitted.scales().clone() })
    }

    /// Puts a tensor together from codes [rows, cols] (row-major) and its scales: a number is that of the whole
    /// tensor.
    ///
    /// # Errors
    /// If the length does not fit the shape, a code is not -1, 0 or +1, the scales are those of another shape, or a
    /// scale is not a positive number.
    pub fn from_codes(
        codes: Vec<i8>,
        rows: usize,
        cols: usize,
        scales: impl Into<Scales>,
    ) -> Result<Self, TernaryError> {
        let scales = scales.into();
        check_length("codes", codes.len(), rows, cols)?;
        let scales = Scales::new(scales.granularity(), [rows, cols], scales.values().to_vec())?;
        if let Some(index) = codes.iter().position(|c| !(-1..=1).contains(c)) {
            return Err(TernaryError::Code { index, found: i32::from(codes[index]) });
        }
        Ok(Self { rows, cols, codes, scales })
    }

    /// Takes values [rows, cols] (row-major) that are ternary as they stand: code · scale each. Nothing is
    /// quantized: the scales are those of the values, not their mean magnitude.
    ///
    /// # Errors
    /// If the length does not fit the shape or a value is none of −s, 0, s of the weights that share its scale.
    pub fn from_values(
        values: &[f32],
        rows: usize,
        cols: usize,
        granularity: Granularity,
    ) -> Result<Self, TernaryError> {
        check_length("weights", values.len(), rows, cols)?;
        check_finite(values, cols)?;
        let scales = stored_scales(values, [rows, cols], granularity)?;
        Self::of_fitted(&Fitted::stored(scales), values, [rows, cols])
    }

    /// The values code · scale, row-major.
    pub fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.codes.len()];
        if !values.is_empty() {
            self.scales.apply(&self.codes, self.cols, &mut values);
        }
        values
    }

    /// Rows: output features of a linear layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: input features of a linear layer.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The codes, row-major.
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// The scales that multiply the codes.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// Share of codes that are 0, in 0..=1.
    pub fn zero_fraction(&self) -> f64 {
        if self.codes.is_empty() {
            return 0.0;
        }
        self.codes.iter().filter(|c| **c == 0).count() as f64 / self.codes.len() as f64
    }
}

/// The scales of values [rows, cols] that are ternary as they stand: the one magnitude of those that share a scale;
/// [`EPS`], rounded to f16 for a row or a group, if all of these are 0.
///
/// # Errors
/// If a value is none of −s, 0, s, or a group does not fit the columns.
pub fn stored_scales(
    values: &[f32],
    [rows, cols]: [usize; 2],
    granularity: Granularity,
) -> Result<Scales, TernaryError> {
    granularity.check(cols)?;
    let width = granularity.width(rows, cols).max(1);
    let mut scales = Vec::with_capacity(granularity.count(rows, cols));
    for (part, values) in values.chunks(width).enumerate() {
        scales.push(stored_scale(values, part * width, granularity)?);
    }
    Scales::unchecked(granularity, [rows, cols], scales)
}

/// The scale of the values of one part, which begins at element `first`.
fn stored_scale(values: &[f32], first: usize, granularity: Granularity) -> Result<f32, TernaryError> {
    let Some(scale) = values.iter().map(|v| v.abs()).find(|v| *v != 0.0) else {
        return Ok(match granularity {
            Granularity::Tensor => EPS,
            _ => half::f16::from_f32(EPS).to_f32(),
        });
    };
    let found = values.iter().position(|v| *v != 0.0 && v.abs().to_bits() != scale.to_bits());
    match found {
        None if scale.is_finite() => Ok(scale),
        found => {
            let index = found.unwrap_or_default();
            let value = values[index].to_string();
            Err(TernaryError::NotTernary { index: first + index, value, scale: scale.to_string() })
        }
    }
}

/// Refuses a scale that is not a positive number; `of` says whose it is.
pub(crate) fn check_scale(scale: f32, of: impl FnOnce() -> String) -> Result<(), TernaryError> {
    if scale > 0.0 && scale.is_finite() {
        return Ok(());
    }
    Err(TernaryError::Scale { of: of(), scale: scale.to_string() })
}

/// Refuses a count that is not rows · cols.
pub(crate) fn check_length(
    what: &'static str,
    found: usize,
    rows: usize,
    cols: usize,
) -> Result<(), TernaryError> {
    let expected = rows.checked_mul(cols).ok_or(TernaryError::TooLarge { rows, cols })?;
    if found == expected { Ok(()) } else { Err(TernaryError::Length { what, rows, cols, found, expected }) }
}
