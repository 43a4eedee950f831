//! IQ2_BN of ik_llama.cpp: each row is its f32 scale, then blocks of 64 weights in 16 bytes. Read only.
//!
//! Weight `16·n + m` of a block is bits `2n..2n+1` of byte m, as code + 1 (`quantize_one_row_2bn` and `dequantize_row_iq2_bn` of
//! ik_llama.cpp). Its first versions had no scale; a file of theirs is shorter, and is refused where its rows seem to have different
//! scales.

use crate::tensor::check_length;
use crate::{TernaryError, TernaryTensor};

/// Weights in a block.
const BLOCK: usize = 64;

/// Bytes of a block.
const BYTES: usize = BLOCK / 4;

/// Bytes of the scale before a row.
const SCALE: usize = 4;

/// Codes and scale of IQ2_BN bytes [rows, cols] whose rows have the same scale; rows of zeros may have any.
///
/// # Errors
/// If 64 does not divide the columns, the byte count is wrong, a code is not ternary, or rows have different scales.
pub fn unpack_iq2_bn(bytes: &[u8], rows: usize, cols: usize) -> Result<TernaryTensor, TernaryError> {
    if !cols.is_multiple_of(BLOCK) {
        return Err(TernaryError::Columns { packing: "IQ2_BN", block: BLOCK, cols });
    }
    let row_bytes = SCALE + cols / 4;
    check_length("IQ2_BN bytes", bytes.len(), rows, row_bytes)?;
    let count = rows.checked_mul(cols).ok_or(TernaryError::TooLarge { rows, cols })?;
    let mut codes = vec![0i8; count];
    let mut common: Option<f32> = None;
    for (row, (bytes, codes)) in bytes.chunks_exact(row_bytes).zip(codes.chunks_exact_mut(cols)).enumerate() {
        let scale = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let blocks = bytes[SCALE..].as_chunks::<BYTES>().0;
        for (codes, block) in codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
            for (n, codes) in codes.as_chunks_mut::<BYTES>().0.iter_mut().enumerate() {
                for (code, byte) in codes.iter_mut().zip(block) {
                    *code = (byte >> (2 * n) & 3) as i8 - 1;
                }
            }
        }
        if codes.iter().all(|code| *code == 0) {
            continue;
        }
        match common {
            Some(common) if common.to_bits() != scale.to_bits() => {
                return Err(TernaryError::RowScales {
                    row,
                    scale: scale.to_string(),
                    first: common.to_string(),
                });
            }
            _ => common = Some(scale),
        }
    }
    TernaryTensor::from_codes(codes, rows, cols, common.unwrap_or(crate::EPS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_ik_llama() {
        // Written weight by weight, as its quantizer does.
        let code = |row: usize, i: usize| (row * 5 + i * i + i / 3) % 3;
        let mut bytes = Vec::new();
        for row in 0..3 {
            bytes.extend_from_slice(&0.25f32.to_le_bytes());
            for block in 0..2 {
                let at = |j: usize| code(row, 64 * block + j) as u8;
                bytes.extend((0..16).map(|j| at(j) | at(j + 16) << 2 | at(j + 32) << 4 | at(j + 48) << 6));
            }
        }
        let tensor = unpack_iq2_bn(&bytes, 3, 128).unwrap();
        assert_eq!(tensor.scale(), 0.25);
        for row in 0..3 {
            for i in 0..128 {
                assert_eq!(tensor.codes()[row * 128 + i], code(row, i) as i8 - 1, "[{row}, {i}]");
            }
        }
        bytes[36] ^= 1;
        assert!(unpack_iq2_bn(&bytes, 3, 128).unwrap_err().to_string().contains("row 1"));
        assert!(unpack_iq2_bn(&bytes[1..], 3, 128).is_err());
        bytes[36] ^= 1;
        bytes[4] |= 3;
        assert!(matches!(unpack_iq2_bn(&bytes, 3, 128).unwrap_err(), TernaryError::Code { index: 0, .. }));
    }
}
