//! N:M sparsity: of every M consecutive inputs of a row at most N weights differ from 0 (Sparse-BitNet,
//! arXiv 2603.05168).

use std::fmt;
use std::str::FromStr;

use crate::{Granularity, TernaryError};

/// Of every M consecutive inputs the N weights of largest magnitude keep their codes, the others have the code 0. Of
/// equal magnitudes the earlier is kept. Scales are those of all weights, and gradients reach all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sparsity {
    keep: usize,
    window: usize,
}

impl Sparsity {
    /// The largest M: it divides every group of [`Granularity::GROUPS`].
    pub const LARGEST: usize = 32;

    /// Three of four, as Sherry has it.
    pub(crate) const SHERRY: Self = Self { keep: 3, window: 4 };

    /// N of every M.
    ///
    /// # Errors
    /// Unless 1 ≤ N < M ≤ [`Sparsity::LARGEST`].
    pub fn new(keep: usize, window: usize) -> Result<Self, TernaryError> {
        if (1..window).contains(&keep) && window <= Self::LARGEST {
            return Ok(Self { keep, window });
        }
        Err(TernaryError::Sparsity { found: format!("{keep}:{window}") })
    }

    /// N: how many are kept of every window.
    pub fn keep(self) -> usize {
        self.keep
    }

    /// M: consecutive inputs of a window.
    pub fn window(self) -> usize {
        self.window
    }

    /// Whether windows fit a matrix of so many columns and its groups.
    ///
    /// # Errors
    /// If M does not divide them.
    pub fn check(self, granularity: Granularity, cols: usize) -> Result<(), TernaryError> {
        let (what, width) = match granularity {
            Granularity::Group(size) if !size.is_multiple_of(self.window) => ("a group of", size),
            _ => ("a row of", cols),
        };
        if width.is_multiple_of(self.window) {
            return Ok(());
        }
        Err(TernaryError::Window { sparsity: self, what, width })
    }

    /// Whether weight `i` of a window is among those that are kept.
    pub(crate) fn keeps(self, window: &[f32], i: usize) -> bool {
        let own = window[i].abs();
        let (before, after) = window.split_at(i);
        let larger =
            before.iter().filter(|w| w.abs() >= own).count() + after.iter().filter(|w| w.abs() > own).count();
        larger < self.keep
    }

    /// Makes the codes 0 that are not kept, of whole windows of weights.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn mask(self, weights: &[f32], codes: &mut [i8]) {
        assert_eq!(weights.len(), codes.len(), "one code for every weight");
        match self.window {
            2 => self.mask_windows::<2>(weights, codes),
            4 => self.mask_windows::<4>(weights, codes),
            8 => self.mask_windows::<8>(weights, codes),
            16 => self.mask_windows::<16>(weights, codes),
            _ => {
                for (weights, codes) in weights.chunks(self.window).zip(codes.chunks_mut(self.window)) {
                    for (i, code) in codes.iter_mut().enumerate() {
                        if !self.keeps(weights, i) {
                            *code = 0;
                        }
                    }
                }
            }
        }
    }

    /// [`Sparsity::mask`] for windows of a length that the compiler knows: no branches, vectors of lanes.
    fn mask_windows<const M: usize>(self, weights: &[f32], codes: &mut [i8]) {
        let windows = weights.as_chunks::<M>().0.iter().zip(codes.as_chunks_mut::<M>().0);
        for (weights, codes) in windows {
            let magnitudes = weights.map(f32::abs);
            for (i, code) in codes.iter_mut().enumerate() {
                let larger = |j: usize| match j < i {
                    true => magnitudes[j] >= magnitudes[i],
                    false => magnitudes[j] > magnitudes[i],
                };
                let larger: usize = (0..M).map(|j| usize::from(larger(j))).sum();
                *code *= i8::from(larger < self.keep);
            }
        }
    }
}

/// As recipes write it: `2:4`.
impl fmt::Display for Sparsity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.keep, self.window)
    }
}

impl FromStr for Sparsity {
    type Err = TernaryError;

    fn from_str(text: &str) -> Result<Self, TernaryError> {
        let fault = || TernaryError::Sparsity { found: text.to_string() };
        let (keep, window) = text.split_once(':').ok_or_else(fault)?;
        let number = |digits: &str| digits.parse::<usize>().map_err(|_| fault());
        Self::new(number(keep)?, number(window)?).map_err(|_| fault())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_kept_and_the_earlier_of_equals() {
        let kept = |text: &str, weights: &[f32]| {
            let mut codes = vec![1i8; weights.len()];
            text.parse::<Sparsity>().unwrap().mask(weights, &mut codes);
            codes
        };
        assert_eq!(kept("2:4", &[0.1, -3.0, 2.0, 0.5, 9.0, 8.0, 7.0, -8.5]), [0, 1, 1, 0, 1, 0, 0, 1]);
        assert_eq!(kept("2:4", &[1.0, -1.0, 1.0, 1.0]), [1, 1, 0, 0]);
        assert_eq!(kept("3:4", &[0.0; 4]), [1, 1, 1, 0]);
        assert_eq!(kept("1:2", &[-2.0, 2.0, 1.0, -2.0]), [1, 0, 0, 1]);
    }

    #[test]
    fn every_window_keeps_exactly_n() {
        let weights: Vec<f32> = (0..960).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        for text in ["1:2", "2:4", "3:4", "4:8", "1:3", "7:10", "31:32"] {
            let sparsity: Sparsity = text.parse().unwrap();
            assert_eq!(sparsity.to_string(), text);
            let mut codes = vec![1i8; weights.len()];
            sparsity.mask(&weights, &mut codes);
            let windows = weights.chunks(sparsity.window()).zip(codes.chunks(sparsity.window()));
            for (weights, codes) in windows {
                assert_eq!(codes.iter().filter(|code| **code != 0).count(), sparsity.keep(), "{text}");
                let of = |wanted: i8| {
                    let chosen = weights.iter().zip(codes).filter(move |(_, code)| **code == wanted);
                    chosen.map(|(w, _)| w.abs())
                };
                let least_kept = of(1).fold(f32::MAX, f32::min);
                assert!(of(0).all(|dropped| dropped <= least_kept), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_sparsity_or_does_not_divide_is_refused() {
        for text in ["4:2", "0:4", "4:4", "2:64", "2", "a:b", "-1:4", ""] {
            let error = text.parse::<Sparsity>().unwrap_err().to_string();
            assert_eq!(error, format!("sparsity {text}: expected N:M with 1 ≤ N < M ≤ 32, such as 2:4"));
        }
        let of = |text: &str, granularity, cols| {
            text.parse::<Sparsity>().unwrap().check(granularity, cols).map_err(|e| e.to_string())
        };
        assert_eq!(of("2:4", Granularity::Row, 36), Ok(()));
        assert_eq!(
            of("2:3", Granularity::Group(32), 96).unwrap_err(),
            "windows of sparsity 2:3 do not divide a group of 32 weights"
        );
        assert_eq!(
            of("2:5", Granularity::Tensor, 36).unwrap_err(),
            "windows of sparsity 2:5 do not divide a row of 36 weights"
        );
    }
}
