//! How many weights of a matrix share a scale.

use std::fmt;
use std::str::FromStr;

use crate::TernaryError;

/// Which weights of a matrix [rows, cols] share a scale: all of them, those of a row (an output feature), or
/// consecutive inputs of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// One scale (BitNet b1.58, arXiv 2402.17764).
    #[default]
    Tensor,
    /// One scale a row (ParetoQ, arXiv 2502.02631).
    Row,
    /// One scale for this many consecutive inputs of a row (Ternary Bonsai and CAT-Q, arXiv 2606.26650: 128).
    Group(usize),
}

impl Granularity {
    /// The sizes that groups may have: those of the blocks of GGUF types, and 32.
    pub const GROUPS: [usize; 4] = [32, 64, 128, 256];

    /// Weights that share a scale in a matrix [rows, cols]: consecutive ones in row-major order.
    pub fn width(self, rows: usize, cols: usize) -> usize {
        match self {
            Self::Tensor => rows * cols,
            Self::Row => cols,
            Self::Group(size) => size,
        }
    }

    /// Number of scales of a row; 1 for those that all rows share.
    pub fn per_row(self, cols: usize) -> usize {
        match self {
            Self::Tensor | Self::Row => 1,
            Self::Group(size) => cols / size,
        }
    }

    /// Number of scales of a matrix [rows, cols].
    pub fn count(self, rows: usize, cols: usize) -> usize {
        match self {
            Self::Tensor => 1,
            Self::Row | Self::Group(_) => rows * self.per_row(cols),
        }
    }

    /// The same where a group is a whole row of so many columns: the granularity of rows.
    #[must_use]
    pub fn on(self, cols: usize) -> Self {
        if self == Self::Group(cols) { Self::Row } else { self }
    }

    /// The finer of two: that of which more scales are needed.
    #[must_use]
    pub fn finer(self, other: Self) -> Self {
        let fineness = |granularity| match granularity {
            Self::Tensor => 0,
            Self::Row => 1,
            Self::Group(size) => usize::MAX / size.max(1),
        };
        if fineness(other) > fineness(self) { other } else { self }
    }

    /// The shape of the scales of a matrix [rows, cols] in checkpoints: `[1]`, `[rows]` or [rows, groups].
    pub fn scale_shape(self, [rows, cols]: [usize; 2]) -> Vec<usize> {
        match self.on(cols) {
            Self::Tensor => vec![1],
            Self::Row => vec![rows],
            Self::Group(size) => vec![rows, cols / size],
        }
    }

    /// The granularity of scales of a matrix [rows, cols] by their shape: `[]` or `[1]`, `[rows]` or [rows, 1],
    /// [rows, groups].
    ///
    /// # Errors
    /// If the shape is none of these, or the groups have a size that no group may have.
    pub fn of_shape(shape: &[usize], [rows, cols]: [usize; 2]) -> Result<Self, TernaryError> {
        match *shape {
            [] | [1] | [1, 1] => Ok(Self::Tensor),
            [found] | [found, 1] if found == rows => Ok(Self::Row),
            [found, groups] if found == rows && groups > 0 && cols.is_multiple_of(groups) => {
                let granularity = Self::Group(cols / groups);
                granularity.check(cols).map(|()| granularity)
            }
            _ => Err(TernaryError::ScaleShape { found: shape.to_vec(), rows, cols }),
        }
    }

    /// Whether a matrix of so many columns can have it.
    ///
    /// # Errors
    /// If a group is none of [`Granularity::GROUPS`] or does not divide the columns.
    pub fn check(self, cols: usize) -> Result<(), TernaryError> {
        match self {
            Self::Group(size) if !Self::GROUPS.contains(&size) || !cols.is_multiple_of(size) => {
                Err(TernaryError::Group { size, cols })
            }
            _ => Ok(()),
        }
    }
}

/// As recipes and messages write it: `tensor`, `row`, or the size of a group.
impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor => f.write_str("tensor"),
            Self::Row => f.write_str("row"),
            Self::Group(size) => write!(f, "{size}"),
        }
    }
}

impl FromStr for Granularity {
    type Err = TernaryError;

    fn from_str(text: &str) -> Result<Self, TernaryError> {
        match text {
            "tensor" => Ok(Self::Tensor),
            "row" => Ok(Self::Row),
            _ => match text.parse() {
                Ok(size) if Self::GROUPS.contains(&size) => Ok(Self::Group(size)),
                _ => Err(TernaryError::Granularity { found: text.to_string() }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for granularity in [Granularity::Tensor, Granularity::Row, Granularity::Group(64)] {
            assert_eq!(granularity.to_string().parse(), Ok(granularity));
        }
        let refused = |text: &str| text.parse::<Granularity>().unwrap_err().to_string();
        assert_eq!(refused("48"), "granularity 48: expected tensor, row, or a group of 32, 64, 128 or 256");
        assert!(refused("Row").contains("granularity Row"));
    }

    #[test]
    fn counts_and_widths() {
        let of = |granularity: Granularity| (granularity.width(6, 256), granularity.count(6, 256));
        assert_eq!(of(Granularity::Tensor), (6 * 256, 1));
        assert_eq!(of(Granularity::Row), (256, 6));
        assert_eq!(of(Granularity::Group(64)), (64, 24));
        for granularity in [Granularity::Tensor, Granularity::Row, Granularity::Group(64)] {
            let shape = granularity.scale_shape([6, 256]);
            assert_eq!(Granularity::of_shape(&shape, [6, 256]), Ok(granularity));
        }
        assert_eq!(Granularity::of_shape(&[6, 1], [6, 256]), Ok(Granularity::Row));
        assert_eq!(Granularity::Row.finer(Granularity::Group(256)), Granularity::Group(256));
        assert_eq!(Granularity::Group(64).finer(Granularity::Group(128)), Granularity::Group(64));
        assert_eq!(Granularity::Row.finer(Granularity::Tensor), Granularity::Row);
        let error = Granularity::of_shape(&[5], [6, 256]).unwrap_err().to_string();
        assert_eq!(error, "scales of shape [5] for weights [6, 256]: expected [1], [6], or [6, groups]");
        assert!(Granularity::of_shape(&[6, 2], [6, 192]).is_err());
        let error = Granularity::Group(128).check(192).unwrap_err().to_string();
        assert_eq!(
            error,
            "a group of 128 weights does not divide 192 columns: expected 32, 64, row or tensor"
        );
        assert!(Granularity::Group(128).check(384).is_ok());
    }
}
