//! The scales of a ternary matrix: of the tensor, of its rows, or of groups of a row's inputs.

use crate::tensor::check_scale;
use crate::{Granularity, TernaryError};

/// The scales of a matrix [rows, cols], in row-major order. Those of groups are f16 numbers, as all file
/// formats hold them; a group as wide as a row is a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Scales {
    granularity: Granularity,
    /// Scales of a row.
    per_row: usize,
    values: Vec<f32>,
}

impl Scales {
    /// One scale for all weights.
    pub fn tensor(scale: f32) -> Self {
        Self { granularity: Granularity::Tensor, per_row: 1, values: vec![scale] }
    }

    /// Scales of a matrix [rows, cols] in row-major order.
    ///
    /// # Errors
    /// If a group does not fit the columns, the number of scales is another, a scale is not a positive number, or
    /// that of a group is no f16 number.
    pub fn new(
        granularity: Granularity,
        [rows, cols]: [usize; 2],
        values: Vec<f32>,
    ) -> Result<Self, TernaryError> {
        let scales = Self::unchecked(granularity, [rows, cols], values)?;
        scales.check()?;
        Ok(scales)
    }

    /// As [`Scales::new`], whatever the numbers are: training meets NaN and infinity, and reports them itself.
    ///
    /// # Errors
    /// If a group does not fit the columns or the number of scales is another.
    pub fn unchecked(
        granularity: Granularity,
        [rows, cols]: [usize; 2],
        values: Vec<f32>,
    ) -> Result<Self, TernaryError> {
        granularity.check(cols)?;
        let granularity = granularity.on(cols);
        let expected = granularity.count(rows, cols);
        if values.len() != expected {
            return Err(TernaryError::Length { what: "scales", rows, cols, found: values.len(), expected });
        }
        Ok(Self { granularity, per_row: granularity.per_row(cols), values })
    }

    /// Whether all scales are positive numbers, and those of groups f16 numbers.
    ///
    /// # Errors
    /// With the first scale that is not.
    pub(crate) fn check(&self) -> Result<(), TernaryError> {
        for (i, scale) in self.values.iter().enumerate() {
            check_scale(*scale, || self.place(i))?;
            if matches!(self.granularity, Granularity::Group(_)) && !is_f16(*scale) {
                return Err(TernaryError::NotF16 { of: self.place(i), scale: scale.to_string() });
            }
        }
        Ok(())
    }

    /// Where scale `i` stands, for messages: nothing for that of the tensor.
    pub(crate) fn place(&self, i: usize) -> String {
        match self.granularity {
            Granularity::Tensor => String::new(),
            Granularity::Row => format!(" of row {i}"),
            Granularity::Group(_) => format!(" of row {}, group {}", i / self.per_row, i % self.per_row),
        }
    }

    /// Which weights share a scale.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// All scales, in row-major order: one, one a row, or [rows, groups of a row].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The scales of a row: one, or one a group.
    pub fn row(&self, row: usize) -> &[f32] {
        match self.granularity {
            Granularity::Tensor => &self.values,
            Granularity::Row | Granularity::Group(_) => &self.values[row * self.per_row..][..self.per_row],
        }
    }

    /// The scale of all weights, if they share one by definition.
    pub fn of_tensor(&self) -> Option<f32> {
        (self.granularity == Granularity::Tensor).then(|| self.values[0])
    }

    /// The same scales in a finer granularity of a matrix [rows, cols]: each repeated for all that share it.
    ///
    /// # Errors
    /// If the granularity is not finer, or a scale is no f16 number and groups would have it.
    pub fn refined(&self, granularity: Granularity, [rows, cols]: [usize; 2]) -> Result<Self, TernaryError> {
        let granularity = granularity.on(cols);
        granularity.check(cols)?;
        let fine = granularity.per_row(cols);
        let finer = fine.is_multiple_of(self.per_row)
            && (granularity != Granularity::Tensor || self.granularity == Granularity::Tensor);
        if !finer {
            return Err(TernaryError::Coarser { found: self.granularity, wanted: granularity });
        }
        if granularity == self.granularity {
            return Ok(self.clone());
        }
        let of_row = |row: usize| {
            let scales = self.row(row).iter();
            scales.flat_map(|scale| std::iter::repeat_n(*scale, fine / self.per_row))
        };
        Self::new(granularity, [rows, cols], (0..rows).flat_map(of_row).collect())
    }

    /// The mean of the scales.
    pub fn mean(&self) -> f64 {
        self.values.iter().map(|scale| f64::from(*scale)).sum::<f64>() / self.values.len().max(1) as f64
    }

    /// Multiplies codes [rows, cols], row-major, by their scales.
    ///
    /// # Panics
    /// If `codes` and `values` differ in length.
    pub fn apply(&self, codes: &[i8], cols: usize, values: &mut [f32]) {
        assert_eq!(codes.len(), values.len(), "one value for every code");
        let width = cols / self.per_row;
        let rows = codes.chunks_exact(cols).zip(values.chunks_exact_mut(cols));
        for (row, (codes, values)) in rows.enumerate() {
            let groups = codes.chunks_exact(width).zip(values.chunks_exact_mut(width));
            for ((codes, values), scale) in groups.zip(self.row(row)) {
                values.iter_mut().zip(codes).for_each(|(value, code)| *value = f32::from(*code) * scale);
            }
        }
    }

    /// The scales of rows in another order: row i of the result is row `order(i)`.
    #[must_use]
    pub fn reordered(&self, rows: usize, order: impl Fn(usize) -> usize) -> Self {
        let values = match self.granularity {
            Granularity::Tensor => self.values.clone(),
            _ => (0..rows).flat_map(|row| self.row(order(row))).copied().collect(),
        };
        Self { values, ..self.clone() }
    }
}

impl From<f32> for Scales {
    fn from(scale: f32) -> Self {
        Self::tensor(scale)
    }
}

/// Whether f16 holds a number exactly.
pub fn is_f16(number: f32) -> bool {
    half::f16::from_f32(number).to_f32().to_bits() == number.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_of_rows_and_groups() {
        assert_eq!(Scales::tensor(0.5).row(7), [0.5]);
        let rows = Scales::new(Granularity::Row, [3, 32], vec![0.1, 0.2, 0.3]).unwrap();
        assert_eq!((rows.row(1), rows.of_tensor()), (&[0.2f32][..], None));
        assert_eq!(rows.reordered(3, |row| 2 - row).values(), [0.3, 0.2, 0.1]);
        let groups = Scales::new(Granularity::Group(32), [2, 64], vec![0.5, 1.0, 2.0, 4.0]).unwrap();
        assert_eq!(groups.row(1), [2.0, 4.0]);
        let mut values = vec![0.0; 128];
        groups.apply(&[1; 128], 64, &mut values);
        assert_eq!([values[0], values[31], values[32], values[64], values[127]], [0.5, 0.5, 1.0, 2.0, 4.0]);
    }

    #[test]
    fn a_group_as_wide_as_a_row_is_a_row() {
        let scales = Scales::new(Granularity::Group(64), [2, 64], vec![0.1, 0.2]).unwrap();
        assert_eq!(scales.granularity(), Granularity::Row);
    }

    #[test]
    fn finer_scales_are_repeated() {
        let shape = [2, 128];
        let rows = Scales::new(Granularity::Row, shape, vec![0.5, 0.25]).unwrap();
        let groups = rows.refined(Granularity::Group(64), shape).unwrap();
        assert_eq!(groups.values(), [0.5, 0.5, 0.25, 0.25]);
        assert_eq!(groups.refined(Granularity::Group(32), shape).unwrap().row(1), [0.25; 4]);
        assert_eq!(Scales::tensor(2.0).refined(Granularity::Group(128), shape).unwrap().values(), [2.0, 2.0]);
        let error = groups.refined(Granularity::Row, shape).unwrap_err().to_string();
        assert_eq!(error, "scales of granularity 64 cannot be those of granularity row, which is coarser");
        assert!(rows.refined(Granularity::Tensor, shape).is_err());
        let odd = Scales::new(Granularity::Row, shape, vec![0.1, 0.2]).unwrap();
        assert!(odd.refined(Granularity::Group(32), shape).unwrap_err().to_string().contains("f16"));
    }

    #[test]
    fn scales_that_no_file_could_hold_are_refused() {
        let group = |values: Vec<f32>| Scales::new(Granularity::Group(32), [1, 64], values).map(|_| ());
        assert_eq!(
            group(vec![0.5, 0.1]).unwrap_err().to_string(),
            "the scale of row 0, group 1 is 0.1, which f16 does not hold: scales of groups are f16 numbers"
        );
        assert!(group(vec![0.5]).unwrap_err().to_string().contains("found 1, expected 2"));
        assert!(group(vec![0.5, f32::NAN]).unwrap_err().to_string().contains("of row 0, group 1 is NaN"));
        let row = Scales::new(Granularity::Row, [2, 8], vec![1.0, 0.0]).unwrap_err().to_string();
        assert_eq!(row, "the scale of row 1 is 0: expected a positive number");
    }
}
