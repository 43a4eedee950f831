//! Hugging Face's packed layout: uint8 [⌈rows/4⌉, cols], whose bits 2i and 2i+1 hold code + 1 of row
//! `i·⌈rows/4⌉ + r`.
//!
//! The four codes of a byte are of four stripes of rows, not of neighbours (`pack_weights` in
//! `transformers/integrations/bitnet.py`). The scale stands in a tensor of its own, and which way it works is
//! not the layout's to say.

use crate::TernaryError;
use crate::tensor::check_length;

/// Packs codes [rows, cols].
///
/// # Errors
/// If the length does not fit the shape.
pub fn pack_stripes(codes: &[i8], rows: usize, cols: usize) -> Result<Vec<u8>, TernaryError> {
    check_length("codes", codes.len(), rows, cols)?;
    let stripe = rows.div_ceil(4) * cols;
    let mut bytes = vec![0u8; stripe];
    if stripe > 0 {
        for (i, codes) in codes.chunks(stripe).enumerate() {
            for (byte, code) in bytes.iter_mut().zip(codes) {
                *byte |= ((code + 1) as u8 & 3) << (2 * i);
            }
        }
    }
    Ok(bytes)
}

/// The codes of packed bytes, [rows, cols].
///
/// # Errors
/// If the length does not fit the shape, or a code is 3.
pub fn unpack_stripes(bytes: &[u8], rows: usize, cols: usize) -> Result<Vec<i8>, TernaryError> {
    check_length("packed bytes", bytes.len(), rows.div_ceil(4), cols)?;
    let count = rows.checked_mul(cols).ok_or(TernaryError::TooLarge { rows, cols })?;
    let mut codes = vec![0i8; count];
    if let Some(stripe) = codes.len().checked_sub(1).map(|_| bytes.len()) {
        for (i, codes) in codes.chunks_mut(stripe).enumerate() {
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code = (byte >> (2 * i) & 3) as i8 - 1;
            }
        }
    }
    match codes.iter().position(|code| *code > 1) {
        Some(index) => Err(TernaryError::Code { index, found: 2 }),
        None => Ok(codes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_transformers() {
        // From the documentation of `unpack_weights`.
        let packed = [0b1010_0001, 0b0001_1000, 0b1001_0000, 0b0000_1010];
        let codes = unpack_stripes(&packed, 8, 2).unwrap();
        assert_eq!(codes, [0, -1, -1, 1, -1, 1, -1, 1, 1, 0, 0, -1, 1, -1, 1, -1]);
        assert_eq!(pack_stripes(&codes, 8, 2).unwrap(), packed);
    }

    #[test]
    fn rows_need_not_divide_by_four_and_damage_is_found() {
        for rows in 1..10 {
            let codes: Vec<i8> = (0..rows * 3).map(|i| (i * 7 % 3) as i8 - 1).collect();
            let bytes = pack_stripes(&codes, rows, 3).unwrap();
            assert_eq!(unpack_stripes(&bytes, rows, 3).unwrap(), codes);
        }
        assert!(unpack_stripes(&[0; 5], 8, 3).is_err());
        assert!(unpack_stripes(&[0xff; 6], 8, 3).unwrap_err().to_string().contains('2'));
    }
}
