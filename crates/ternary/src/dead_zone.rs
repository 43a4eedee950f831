//! The bias that the weights with code 0 make (Tequila, arXiv 2509.23809): such a weight says nothing in the product and,
//! near 0, gets a gradient that seldom leads it away. λ times the sum of a row's dead weights is added to its output, so
//! that each of them is heard and pulled at; at export the sum is an ordinary bias.
//!
//! The definition, once for training, export and verification: of a row the latent weights whose code is 0 are summed in
//! f64 in the order of the columns, the sum is multiplied by λ in f64, and the product is rounded to f32. Where a
//! projection has a bias of its own, the two are added in f32 before either is added to the output.

use crate::Fitted;

impl Fitted {
    /// The bias of every row of latent weights [rows, cols], which are those that were fitted: `λ · Σ w` over the weights
    /// with code 0.
    ///
    /// # Panics
    /// If the weights are no whole rows of `cols`.
    pub fn dead_zone_bias(&self, lambda: f32, weights: &[f32], cols: usize) -> Vec<f32> {
        assert!(cols > 0 && weights.len().is_multiple_of(cols), "whole rows of {cols} weights");
        let mut codes = vec![0i8; cols];
        let rows = weights.chunks_exact(cols).enumerate().map(|(row, weights)| {
            self.codes(row, cols, weights, &mut codes);
            let dead = weights.iter().zip(&codes).filter(|(_, code)| **code == 0);
            let sum = dead.fold(0f64, |sum, (w, _)| sum + f64::from(*w));
            (f64::from(lambda) * sum) as f32
        });
        rows.collect()
    }

    /// Adds to the gradients of latent weights [rows, cols] what they get through that bias: λ times the gradient of their
    /// row's output, summed over tokens, where the code is 0.
    ///
    /// # Panics
    /// If the lengths differ, or there is not one output for each row.
    pub fn add_dead_zone_gradient(
        &self,
        lambda: f32,
        weights: &[f32],
        outputs: &[f32],
        gradients: &mut [f32],
    ) {
        assert_eq!(weights.len(), gradients.len(), "one gradient for every weight");
        assert!(
            weights.len().is_multiple_of(outputs.len().max(1)),
            "whole rows for {} outputs",
            outputs.len()
        );
        let cols = weights.len() / outputs.len().max(1);
        let mut codes = vec![0i8; cols];
        let rows =
            weights.chunks_exact(cols.max(1)).zip(gradients.chunks_exact_mut(cols.max(1))).zip(outputs);
        for (row, ((weights, gradients), output)) in rows.enumerate() {
            self.codes(row, cols, weights, &mut codes);
            let dead = gradients.iter_mut().zip(&codes).filter(|(_, code)| **code == 0);
            dead.for_each(|(gradient, _)| *gradient += lambda * output);
        }
    }
}

/// A projection's bias with that of its dead zone, of which `part` is seen (all of it where the model is deployed): its
/// own one, if there is one, plus `part · dead`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn fold_bias(own: Option<&[f32]>, dead: &[f32], part: f32) -> Vec<f32> {
    match own {
        None => dead.iter().map(|bias| part * bias).collect(),
        Some(own) => {
            assert_eq!(own.len(), dead.len(), "one bias for every output");
            own.iter().zip(dead).map(|(own, bias)| own + part * bias).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Granularity, QuantizerSettings, TernaryTensor, WeightQuantizer};

    const SHAPE: [usize; 2] = [6, 64];

    fn weights() -> Vec<f32> {
        (0..SHAPE[0] * SHAPE[1]).map(|i| ((i * 37 % 101) as f32 - 50.3) * 1e-3).collect()
    }

    /// The definition from the exported codes: quantizers that round, that drop by sparsity, and that take signs.
    #[test]
    fn the_bias_is_what_exported_codes_leave_out() {
        for (name, granularity, sparsity) in [
            ("absmean", Granularity::Tensor, None),
            ("twn", Granularity::Row, None),
            ("absmean", Granularity::Group(32), Some("2:4")),
            ("sherry", Granularity::Row, None),
        ] {
            let sparsity = sparsity.map(|text: &str| text.parse().unwrap());
            let quantizer: WeightQuantizer = name.parse().unwrap();
            let quantizer = quantizer.with(QuantizerSettings { sparsity, ..Default::default() });
            let weights = weights();
            let exported = TernaryTensor::quantize_by(quantizer, granularity, &weights, SHAPE).unwrap();
            let fitted = quantizer.fit(granularity, &weights, SHAPE).unwrap();
            let found = fitted.dead_zone_bias(0.25, &weights, SHAPE[1]);
            for (row, found) in found.iter().enumerate() {
                let of_row = row * SHAPE[1]..(row + 1) * SHAPE[1];
                let pairs = weights[of_row.clone()].iter().zip(&exported.codes()[of_row]);
                let mut sum = 0f64;
                for (w, _) in pairs.filter(|(_, code)| **code == 0) {
                    sum += f64::from(*w);
                }
                assert!(sum != 0.0, "{name}: a row without dead weights shows nothing");
                // A quarter is exact: only the order of the sum and its one rounding are at stake.
                assert_eq!(*found, (sum * 0.25) as f32, "{name}, row {row}");
            }
        }
    }

    /// The gradient is the derivative of `Σ output · bias` by each weight, whose codes stay.
    #[test]
    fn only_dead_weights_get_the_gradient_of_their_row() {
        let (weights, quantizer) = (weights(), WeightQuantizer::default());
        let fitted = quantizer.fit(Granularity::Row, &weights, SHAPE).unwrap();
        let outputs: Vec<f32> = (0..SHAPE[0]).map(|row| row as f32 - 2.5).collect();
        let mut gradients = vec![1f32; weights.len()];
        fitted.add_dead_zone_gradient(0.5, &weights, &outputs, &mut gradients);
        let exported = TernaryTensor::quantize_by(quantizer, Granularity::Row, &weights, SHAPE).unwrap();
        for (i, (found, code)) in gradients.iter().zip(exported.codes()).enumerate() {
            let through = if *code == 0 { 0.5 * outputs[i / SHAPE[1]] } else { 0.0 };
            assert_eq!(*found, 1.0 + through, "{i}");
        }
        fitted.add_dead_zone_gradient(0.5, &[], &[], &mut []);
    }

    #[test]
    fn biases_are_added_once() {
        assert_eq!(fold_bias(None, &[0.5, -2.0], 1.0), [0.5, -2.0]);
        assert_eq!(fold_bias(Some(&[1.0, 1.0]), &[0.5, -2.0], 1.0), [1.5, -1.0]);
        assert_eq!(fold_bias(Some(&[1.0, 1.0]), &[0.5, -2.0], 0.5), [1.25, 0.0]);
    }
}
