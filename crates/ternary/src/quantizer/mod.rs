//! How latent weights are made ternary: one file a quantizer, one line each in [`QUANTIZERS`].
//!
//! A quantizer looks at the weights that share a scale ([`Granularity`]) and finds two numbers: the step of the
//! rounding and the scale of the codes. The code of a weight is `clamp(round_half_even(w · (1/step)), −1, 1)`,
//! so it is 0 up to half a step; the value is code · scale. Everything else (packing, products, gradients) is
//! the same for all of them.
//!
//! Two things make other codes: a quantizer may take the sign of a weight instead of rounding it
//! ([`Quantizer::signs`]), and [`Sparsity`] keeps N codes of every M. Such codes are computed once, with the scales, and
//! [`Fitted`] carries them: training, kernels and export read the same ones.
//!
//! The scale of a row or a group is rounded to f16, half to even, by definition: the file formats hold such
//! scales as f16, and what is trained is what is deployed. Only the one scale of a tensor is an f32.

mod absmean;
mod absmedian;
mod binary;
mod dqt;
mod learned;
mod least_squares;
mod lsq;
mod rms;
mod seq;
mod sherry;
mod threshold;
mod twn;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use self::absmean::{absmean, weight_codes};
pub use self::learned::LearnedScale;
use crate::{EPS, Granularity, Scales, Sparsity, TernaryError};

/// What a quantizer finds for weights that share a scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The code of a weight is `clamp(round_half_even(w / step), −1, 1)`.
    pub step: f32,
    /// The value of a weight is code · scale.
    pub scale: f32,
}

/// A quantizer of weights.
pub trait Quantizer: fmt::Debug + Sync {
    /// The name in recipes and checkpoints.
    fn name(&self) -> &'static str;

    /// What it is, in a line, with its source.
    fn about(&self) -> &'static str;

    /// Step and scale of weights that share them; at least [`EPS`] each. NaN and infinity among the weights are
    /// those of the scale, which the caller is to refuse.
    fn fit(&self, weights: &[f32], settings: &QuantizerSettings) -> Fit;

    /// Whether the code of a weight is its sign, that of 0 being +1, and not its rounding.
    fn signs(&self) -> bool {
        false
    }

    /// The sparsity that belongs to the definition.
    fn sparsity(&self) -> Option<Sparsity> {
        None
    }

    /// Whether the weights are no latent ones but ternary themselves, and training rounds them onto their levels after
    /// every step.
    fn on_grid(&self) -> bool {
        false
    }

    /// How its scales are learned, if they are: trained parameters of the model, for which [`Quantizer::fit`] says what
    /// they are at the start.
    fn learned(&self) -> Option<&dyn LearnedScale> {
        None
    }
}

/// All quantizers.
pub const QUANTIZERS: [&dyn Quantizer; 11] = [
    &absmean::Absmean,
    &absmedian::Absmedian,
    &twn::Twn,
    &rms::Rms,
    &least_squares::LeastSquares,
    &threshold::Threshold,
    &binary::Binary,
    &sherry::Sherry,
    &lsq::Lsq,
    &seq::Seq,
    &dqt::Dqt,
];

/// The names of the quantizers of which this is true.
pub fn quantizer_names(is: impl Fn(&dyn Quantizer) -> bool) -> impl Iterator<Item = &'static str> {
    QUANTIZERS.into_iter().filter(move |quantizer| is(*quantizer)).map(Quantizer::name)
}

/// What can be chosen about a quantizer beside its name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuantizerSettings {
    /// The threshold of the quantizer `threshold`, as a fraction of mean|W|; the others have none.
    pub threshold: f32,
    /// How many codes of every few consecutive ones may differ from 0; all of them if none is given.
    pub sparsity: Option<Sparsity>,
}

impl Default for QuantizerSettings {
    fn default() -> Self {
        Self { threshold: threshold::DEFAULT, sparsity: None }
    }
}

/// A quantizer as a value: compared, written and read by its name and settings.
#[derive(Clone, Copy)]
pub struct WeightQuantizer {
    quantizer: &'static dyn Quantizer,
    settings: QuantizerSettings,
}

impl WeightQuantizer {
    /// A quantizer, which need not be one of [`QUANTIZERS`].
    pub fn new(quantizer: &'static dyn Quantizer) -> Self {
        Self { quantizer, settings: QuantizerSettings::default() }
    }

    /// The same quantizer with other settings.
    #[must_use]
    pub fn with(self, settings: QuantizerSettings) -> Self {
        Self { settings, ..self }
    }

    /// What was chosen beside the name.
    pub fn settings(self) -> QuantizerSettings {
        self.settings
    }

    /// How many codes of every few may differ from 0: by the definition of the quantizer, or as it was chosen.
    pub fn kept(self) -> Option<Sparsity> {
        self.quantizer.sparsity().or(self.settings.sparsity)
    }

    /// Whether its codes are more than the rounding of each weight, so that [`Fitted`] carries them: a byte a weight.
    pub fn makes_codes(self) -> bool {
        self.quantizer.signs() || self.kept().is_some()
    }

    /// Step and scale of every part of a matrix [rows, cols], row-major, that shares them.
    ///
    /// # Errors
    /// If the number of weights is another, a group or the sparsity does not fit the columns, or the scales are learned
    /// ([`WeightQuantizer::fit_learned`]). Weights that are NaN or infinite are no error here: their scale is one.
    pub fn fit(
        self,
        granularity: Granularity,
        weights: &[f32],
        [rows, cols]: [usize; 2],
    ) -> Result<Fitted, TernaryError> {
        crate::tensor::check_length("weights", weights.len(), rows, cols)?;
        granularity.check(cols)?;
        if self.learned().is_some() {
            return Err(TernaryError::LearnedScales { quantizer: self.name() });
        }
        let fit = |part: &[f32]| self.quantizer.fit(part, &self.settings);
        let fitted = match granularity {
            Granularity::Tensor => fit(weights).into(),
            _ => {
                let parts = weights.chunks_exact(granularity.width(rows, cols).max(1));
                Fitted::of_parts(granularity, [rows, cols], parts.map(fit))?
            }
        };
        self.with_codes(fitted, granularity, weights, cols)
    }

    /// The codes of weights [.., cols] beside their steps and scales, where they are more than roundings.
    fn with_codes(
        self,
        fitted: Fitted,
        granularity: Granularity,
        weights: &[f32],
        cols: usize,
    ) -> Result<Fitted, TernaryError> {
        if !self.makes_codes() || weights.is_empty() {
            return Ok(fitted);
        }
        let mut codes = vec![0i8; weights.len()];
        if self.quantizer.signs() {
            codes.iter_mut().zip(weights).for_each(|(code, w)| *code = if *w < 0.0 { -1 } else { 1 });
        } else {
            fitted.codes(0, cols, weights, &mut codes);
        }
        if let Some(sparsity) = self.kept() {
            sparsity.check(granularity, cols)?;
            sparsity.mask(weights, &mut codes);
        }
        Ok(Fitted { codes: Some(codes.into()), ..fitted })
    }
}

impl Default for WeightQuantizer {
    /// Absmean.
    fn default() -> Self {
        Self::new(&absmean::Absmean)
    }
}

impl std::ops::Deref for WeightQuantizer {
    type Target = dyn Quantizer;

    fn deref(&self) -> &Self::Target {
        self.quantizer
    }
}

impl PartialEq for WeightQuantizer {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.settings == other.settings
    }
}

// The threshold is no NaN: it comes from recipes and configurations, which refuse it.
impl Eq for WeightQuantizer {}

impl fmt::Debug for WeightQuantizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.quantizer, self.settings)
    }
}

/// The name.
impl fmt::Display for WeightQuantizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WeightQuantizer {
    type Err = TernaryError;

    fn from_str(name: &str) -> Result<Self, TernaryError> {
        let known = QUANTIZERS.into_iter().find(|quantizer| quantizer.name() == name);
        known.map(Self::new).ok_or_else(|| TernaryError::Quantizer { found: name.to_string() })
    }
}

/// A matrix's steps, as what weights are multiplied with before they are rounded, its scales, and its codes where
/// they are more than roundings.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    inverse_steps: Vec<f32>,
    scales: Scales,
    codes: Option<Arc<[i8]>>,
}

impl Fitted {
    /// Of the rows or groups of a matrix; the scale of each is rounded to f16.
    fn of_parts(
        granularity: Granularity,
        shape: [usize; 2],
        fits: impl Iterator<Item = Fit>,
    ) -> Result<Self, TernaryError> {
        let (inverse_steps, scales): (Vec<f32>, Vec<f32>) =
            fits.map(|fit| (1.0 / fit.step, half::f16::from_f32(fit.scale).to_f32())).unzip();
        let scales = Scales::unchecked(granularity, shape, scales)?;
        Ok(Self { inverse_steps, scales, codes: None })
    }

    /// Ternary values as they stand: a code is a value divided by its scale.
    pub fn stored(scales: Scales) -> Self {
        let inverse_steps = scales.values().iter().map(|scale| 1.0 / scale).collect();
        Self { inverse_steps, scales, codes: None }
    }

    /// The codes of the matrix, row-major, where they are more than the rounding of each weight.
    pub fn given_codes(&self) -> Option<&[i8]> {
        self.codes.as_deref()
    }

    /// The scales.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// What the weights of a row are multiplied with before they are rounded: one number, or one a group.
    pub fn inverse_steps(&self, row: usize) -> &[f32] {
        match self.scales.granularity() {
            Granularity::Tensor => &self.inverse_steps,
            _ => {
                let per_row = self.scales.row(row).len();
                &self.inverse_steps[row * per_row..][..per_row]
            }
        }
    }

    /// The codes of whole rows of `cols` weights from row `first` on, which are those that were fitted.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn codes(&self, first: usize, cols: usize, weights: &[f32], codes: &mut [i8]) {
        assert_eq!(weights.len(), codes.len(), "one code for every weight");
        if let Some(given) = self.given_codes() {
            codes.copy_from_slice(&given[first * cols..][..codes.len()]);
            return;
        }
        let rows = weights.chunks_exact(cols).zip(codes.chunks_exact_mut(cols));
        for (row, (weights, codes)) in rows.enumerate() {
            let inverses = self.inverse_steps(first + row);
            let width = cols / inverses.len();
            let groups = weights.chunks_exact(width).zip(codes.chunks_exact_mut(width));
            for ((weights, codes), inverse) in groups.zip(inverses) {
                absmean::codes(weights, *inverse, codes);
            }
        }
    }
}

impl From<Fit> for Fitted {
    /// Of a whole tensor.
    fn from(fit: Fit) -> Self {
        Self { inverse_steps: vec![1.0 / fit.step], scales: Scales::tensor(fit.scale), codes: None }
    }
}

impl From<f32> for Fitted {
    /// Of a whole tensor whose step is its scale.
    fn from(scale: f32) -> Self {
        Fit { step: scale, scale }.into()
    }
}

/// A number of at least [`EPS`]; NaN stays NaN, which `f32::max` would drop.
fn at_least_eps(number: f32) -> f32 {
    if number < EPS { EPS } else { number }
}

/// The mean magnitude of the weights whose code by this step is not 0; [`EPS`] if there is none. It minimizes
/// `Σ (w − scale · code)²`.
fn mean_of_kept(weights: &[f32], step: f32) -> f32 {
    let inverse = 1.0 / step;
    let (mut sum, mut kept) = (0f64, 0usize);
    for w in weights {
        // As `codes` rounds: half a step, a tie, becomes 0.
        if (w * inverse).abs() > 0.5 {
            (sum, kept) = (sum + f64::from(w.abs()), kept + 1);
        }
    }
    // A step that is NaN or infinite keeps nothing: the fault must be seen all the same.
    if kept == 0 { at_least_eps(step * 0.0) } else { at_least_eps((sum / kept as f64) as f32) }
}

#[cfg(test)]
mod tests;
