//! Scales that are trained: parameters of the model beside its latent weights, one for each part of a matrix that
//! shares a scale.

use super::{Fit, Fitted, WeightQuantizer};
use crate::{EPS, Granularity, TernaryError};

/// A quantizer whose scales come from trained parameters α. The value of a weight w is a function of α and w/α; below
/// [`EPS`] α counts as that.
pub trait LearnedScale {
    /// Where α starts, for the weights that share it.
    fn initial(&self, weights: &[f32]) -> f32;

    /// Step and scale for an α of at least [`EPS`].
    fn fit(&self, alpha: f32) -> Fit;

    /// For a weight of u = w/α: the derivative of its value with respect to α, and whether the gradient of its value
    /// passes to the weight.
    fn derivatives(&self, u: f32) -> (f32, bool);

    /// What the gradient of an α that `sharing` weights share in a matrix of `total` weights is multiplied by.
    fn gradient_scale(&self, sharing: usize, total: usize) -> f64;
}

impl WeightQuantizer {
    /// What α starts as for every part of a matrix [rows, cols], row-major; none if the quantizer has no learned scales.
    ///
    /// # Errors
    /// If the number of weights is another, or a group does not fit the columns.
    pub fn initial_scales(
        self,
        granularity: Granularity,
        weights: &[f32],
        [rows, cols]: [usize; 2],
    ) -> Result<Option<Vec<f32>>, TernaryError> {
        crate::tensor::check_length("weights", weights.len(), rows, cols)?;
        granularity.check(cols)?;
        let Some(learned) = self.learned() else { return Ok(None) };
        let parts = weights.chunks(granularity.width(rows, cols).max(1));
        Ok(Some(parts.map(|part| learned.initial(part)).collect()))
    }

    /// Step and scale of every part of a matrix [rows, cols], row-major, by its learned scales α; with the codes where
    /// these are more than roundings.
    ///
    /// # Errors
    /// If the quantizer has no learned scales, or the number of weights or of scales is another.
    pub fn fit_learned(
        self,
        granularity: Granularity,
        alphas: &[f32],
        weights: &[f32],
        [rows, cols]: [usize; 2],
    ) -> Result<Fitted, TernaryError> {
        crate::tensor::check_length("weights", weights.len(), rows, cols)?;
        granularity.check(cols)?;
        let learned = self.learned().ok_or(TernaryError::NotLearned { quantizer: self.name() })?;
        let expected = granularity.count(rows, cols);
        if alphas.len() != expected {
            let found = alphas.len();
            return Err(TernaryError::Length { what: "learned scales", rows, cols, found, expected });
        }
        let mut fits = alphas.iter().map(|alpha| learned.fit(floored(*alpha)));
        let fitted = match (granularity, fits.next()) {
            (Granularity::Tensor, Some(fit)) => fit.into(),
            (_, first) => Fitted::of_parts(granularity, [rows, cols], first.into_iter().chain(fits))?,
        };
        self.with_codes(fitted, granularity, weights, cols)
    }

    /// Turns the gradients of the values of weights that share α into those of the weights, and gives α's own, not yet
    /// multiplied by [`LearnedScale::gradient_scale`]. The weights are whole windows of the sparsity, if there is one: what
    /// it drops is 0 whatever α is, and gets its gradient all the same.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn learn(self, alpha: f32, weights: &[f32], gradients: &mut [f32]) -> f64 {
        assert_eq!(weights.len(), gradients.len(), "one gradient for every weight");
        let Some(learned) = self.learned() else { return 0.0 };
        let (alpha, kept) = (floored(alpha), self.kept());
        let window = kept.map_or(weights.len().max(1), |kept| kept.window());
        let mut sum = 0f64;
        for (weights, gradients) in weights.chunks(window).zip(gradients.chunks_mut(window)) {
            for (i, (w, gradient)) in weights.iter().zip(gradients).enumerate() {
                let (of_alpha, passes) = learned.derivatives(w / alpha);
                if kept.is_none_or(|kept| kept.keeps(weights, i)) {
                    sum += f64::from(*gradient) * f64::from(of_alpha);
                }
                if !passes {
                    *gradient = 0.0;
                }
            }
        }
        sum
    }
}

/// At least [`EPS`]; NaN stays NaN, which `f32::max` would drop.
fn floored(alpha: f32) -> f32 {
    if alpha < EPS { EPS } else { alpha }
}
