//! `TernaryTensor`: codes, scale and shape of one quantized matrix.

use crate::{EPS, TernaryError, absmean, check_finite, weight_codes};

/// A matrix of ternary weights: value of element (r, c) is `codes[r * cols + c] * scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryTensor {
    rows: usize,
    cols: usize,
    codes: Vec<i8>,
    scale: f32,
}

impl TernaryTensor {
    /// Quantizes latent weights [rows, cols] (row-major) with [`absmean`] and [`weight_codes`].
    ///
    /// # Errors
    /// If the length does not fit the shape or a weight is not finite.
    pub fn quantize(weights: &[f32], rows: usize, cols: usize) -> Result<Self, TernaryError> {
        check_length("weights", weights.len(), rows, cols)?;
        check_finite(weights, cols)?;
        let scale = absmean(weights);
        let mut codes = vec![0i8; weights.len()];
        weight_codes(weights, scale, &mut codes);
        Ok(Self { rows, cols, codes, scale })
    }

    /// Puts a tensor together from codes [rows, cols] (row-major) and its scale.
    ///
    /// # Errors
    /// If the length does not fit the shape, a code is not -1, 0 or +1, or the scale is not a positive
    /// number.
    pub fn from_codes(codes: Vec<i8>, rows: usize, cols: usize, scale: f32) -> Result<Self, TernaryError> {
        check_length("codes", codes.len(), rows, cols)?;
        check_scale(scale, String::new())?;
        if let Some(index) = codes.iter().position(|c| !(-1..=1).contains(c)) {
            return Err(TernaryError::Code { index, found: i32::from(codes[index]) });
        }
        Ok(Self { rows, cols, codes, scale })
    }

    /// Takes values [rows, cols] (row-major) that are ternary as they stand: code · scale each. Nothing is
    /// quantized: the scale is that of the values, not their mean magnitude.
    ///
    /// # Errors
    /// If the length does not fit the shape or a value is none of −s, 0, s.
    pub fn from_values(values: &[f32], rows: usize, cols: usize) -> Result<Self, TernaryError> {
        check_length("weights", values.len(), rows, cols)?;
        check_finite(values, cols)?;
        let scale = stored_scale(values)?;
        let mut codes = vec![0i8; values.len()];
        weight_codes(values, scale, &mut codes);
        Ok(Self { rows, cols, codes, scale })
    }

    /// The values code · scale, row-major.
    pub fn values(&self) -> Vec<f32> {
        self.codes.iter().map(|code| f32::from(*code) * self.scale).collect()
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

    /// The scale that multiplies every code.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Share of codes that are 0, in 0..=1.
    pub fn zero_fraction(&self) -> f64 {
        if self.codes.is_empty() {
            return 0.0;
        }
        self.codes.iter().filter(|c| **c == 0).count() as f64 / self.codes.len() as f64
    }
}

/// The scale of values that are ternary as they stand: their one magnitude; 1e-5 if all are 0.
///
/// # Errors
/// If a value is none of −s, 0, s.
pub fn stored_scale(values: &[f32]) -> Result<f32, TernaryError> {
    let Some(scale) = values.iter().map(|v| v.abs()).find(|v| *v != 0.0) else { return Ok(EPS) };
    match values.iter().position(|v| *v != 0.0 && v.abs().to_bits() != scale.to_bits()) {
        None if scale.is_finite() => Ok(scale),
        found => {
            let (index, value) = (found.unwrap_or_default(), values[found.unwrap_or_default()]);
            Err(TernaryError::NotTernary { index, value: value.to_string(), scale: scale.to_string() })
        }
    }
}

/// Refuses a scale that is not a positive number; `of` says whose it is.
pub(crate) fn check_scale(scale: f32, of: String) -> Result<(), TernaryError> {
    if scale > 0.0 && scale.is_finite() {
        return Ok(());
    }
    Err(TernaryError::Scale { of, scale: scale.to_string() })
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
