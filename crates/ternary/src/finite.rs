//! Numbers that are NaN or infinite, and where in a tensor they stand.
//!
//! No tensor with such a number is read, written or run. The search goes at the speed of memory: it looks at
//! the exponents alone, which are all ones in NaN and infinity, a block at a time; only a block that has one
//! is searched for its place.

use std::fmt;

/// Numbers that are looked at together.
const BLOCK: usize = 4096;

/// A number of a tensor that is NaN or infinite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NotFinite {
    /// Its row and column, from 0; of a vector the column alone.
    pub row: Option<usize>,
    /// Its column.
    pub column: usize,
    /// `NaN`, `inf` or `-inf`.
    pub value: String,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, column, value } = self;
        match row {
            Some(row) => write!(f, "row {row}, column {column} is {value}: expected finite numbers"),
            None => write!(f, "element {column} is {value}: expected finite numbers"),
        }
    }
}

impl NotFinite {
    /// Element `index` of a tensor with `len` numbers in rows of `cols`.
    pub fn at(index: usize, len: usize, cols: usize, value: f32) -> Self {
        let cols = cols.max(1);
        let row = (len > cols).then_some(index / cols);
        Self { row, column: if row.is_some() { index % cols } else { index }, value: value.to_string() }
    }
}

/// How floating-point numbers are stored, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatType {
    /// 4 bytes.
    F32,
    /// 2 bytes, IEEE 754 binary16.
    F16,
    /// 2 bytes, the upper half of an f32.
    Bf16,
}

/// Looks for NaN and infinity among the numbers of a tensor with rows of `cols`.
///
/// # Errors
/// The first such number.
pub fn check_finite(values: &[f32], cols: usize) -> Result<(), NotFinite> {
    let place = first(values, |value| value.to_bits() & 0x7f80_0000 == 0x7f80_0000);
    place.map_or(Ok(()), |index| Err(NotFinite::at(index, values.len(), cols, values[index])))
}

/// [`check_finite`] of numbers as they are stored.
///
/// # Errors
/// The first number that is NaN or infinite.
pub fn check_finite_bytes(ty: FloatType, bytes: &[u8], cols: usize) -> Result<(), NotFinite> {
    let half = |mask: u16| {
        let words = bytes.as_chunks::<2>().0;
        first(words, |word| u16::from_le_bytes(*word) & mask == mask)
            .map(|index| (index, words.len(), words[index]))
    };
    let found = match ty {
        FloatType::F32 => {
            let words = bytes.as_chunks::<4>().0;
            let place = first(words, |word| u32::from_le_bytes(*word) & 0x7f80_0000 == 0x7f80_0000);
            place.map(|index| (index, words.len(), f32::from_le_bytes(words[index])))
        }
        FloatType::F16 => {
            half(0x7c00).map(|(index, len, w)| (index, len, half::f16::from_le_bytes(w).to_f32()))
        }
        FloatType::Bf16 => {
            half(0x7f80).map(|(index, len, w)| (index, len, half::bf16::from_le_bytes(w).to_f32()))
        }
    };
    found.map_or(Ok(()), |(index, len, value)| Err(NotFinite::at(index, len, cols, value)))
}

/// The place of the first number that `is` true of.
fn first<T>(numbers: &[T], is: impl Fn(&T) -> bool + Copy) -> Option<usize> {
    // No early end within a block: the fold is what vectorizes.
    let any = |block: &[T]| block.iter().fold(false, |seen, number| seen | is(number));
    let block = numbers.chunks(BLOCK).position(any)?;
    let start = block * BLOCK;
    numbers[start..].iter().position(is).map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn every_place_and_every_kind_is_found() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001)] {
            for at in [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7] {
                let mut values = vec![f32::MAX; 2 * BLOCK + 8];
                values[at] = bad;
                let expected = Err(NotFinite { row: Some(at / 8), column: at % 8, value: bad.to_string() });
                assert_eq!(check_finite(&values, 8), expected);
                let bytes =
                    |f: &dyn Fn(f32) -> Vec<u8>| values.iter().flat_map(|v| f(*v)).collect::<Vec<_>>();
                let f32s = bytes(&|v| v.to_le_bytes().to_vec());
                assert_eq!(check_finite_bytes(FloatType::F32, &f32s, 8), expected);
                // Of a number that these types do not hold, one that they do.
                let small = |v: f32| if v == f32::MAX { 1.0 } else { v };
                let f16s = bytes(&|v| f16::from_f32(small(v)).to_le_bytes().to_vec());
                assert_eq!(check_finite_bytes(FloatType::F16, &f16s, 8), expected);
                let bf16s = bytes(&|v| bf16::from_f32(small(v)).to_le_bytes().to_vec());
                assert_eq!(check_finite_bytes(FloatType::Bf16, &bf16s, 8), expected);
            }
        }
    }

    #[test]
    fn the_largest_numbers_are_finite() {
        let edge = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0, f32::from_bits(1)];
        assert_eq!(check_finite(&edge, 5), Ok(()));
        assert_eq!(check_finite(&[], 0), Ok(()));
        let f16s: Vec<u8> = [f16::MAX, f16::MIN].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(check_finite_bytes(FloatType::F16, &f16s, 2), Ok(()));
        let bf16s: Vec<u8> = [bf16::MAX, bf16::MIN].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(check_finite_bytes(FloatType::Bf16, &bf16s, 2), Ok(()));
    }

    #[test]
    fn the_message_says_where() {
        let matrix = check_finite(&[0.0, 1.0, 2.0, f32::NAN], 2).unwrap_err().to_string();
        assert_eq!(matrix, "row 1, column 1 is NaN: expected finite numbers");
        let vector = check_finite(&[0.0, f32::NEG_INFINITY], 2).unwrap_err().to_string();
        assert_eq!(vector, "element 1 is -inf: expected finite numbers");
    }
}
