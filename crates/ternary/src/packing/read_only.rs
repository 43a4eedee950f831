//! Ternary types of GGUF files that are read and not written: their bytes are brought into the order of a packing that holds
//! the same codes and scales.
//!
//! * Q1_0 of llama.cpp (`block_q1_0` of ggml): binary, blocks of 128 weights in 18 bytes, an f16 scale and a bit a weight, the
//!   lowest first; 1 stands for d, 0 for −d. It becomes PQ2_0, whose blocks have as many weights.
//! * IQ2_BN_R4 of ik_llama.cpp (`repack_iq2_bn`): IQ2_BN with four rows together: their four f32 scales, then for each 64
//!   columns 64 bytes, of which byte `16·l + 4·r + i` has columns `16·l + 4·j + i` of row r in its bits `2·j`. It becomes
//!   IQ2_BN.

use std::borrow::Cow;

use super::Packing;
use crate::TernaryError;

/// Weights and bytes of a block of Q1_0.
const BINARY: [usize; 2] = [128, 18];

/// Columns that stand together in IQ2_BN, and in IQ2_BN_R4 for four rows.
const COLUMNS: usize = 64;
/// Rows that stand together in IQ2_BN_R4.
const ROWS: usize = 4;

/// The types, with the packing that each becomes.
pub(super) const TYPES: [(&str, Packing); 2] = [("Q1_0", Packing::Pq2_0), ("IQ2_BN_R4", Packing::Iq2Bn)];

impl Packing {
    /// The bytes of a tensor [rows, cols] of a GGUF file in the layout that [`Packing::in_file`] names for its type: the
    /// bytes themselves, but for the types that have another one.
    ///
    /// # Errors
    /// If the type is another than its packing and blocks do not divide the columns, four do not divide the rows, or the
    /// byte count is wrong.
    pub fn bytes_in_file<'a>(
        ggml_type: &str,
        bytes: &'a [u8],
        rows: usize,
        cols: usize,
    ) -> Result<Cow<'a, [u8]>, TernaryError> {
        match ggml_type {
            "Q1_0" => Ok(Cow::Owned(from_q1_0(bytes, rows, cols)?)),
            "IQ2_BN_R4" => Ok(Cow::Owned(from_iq2_bn_r4(bytes, rows, cols)?)),
            _ => Ok(Cow::Borrowed(bytes)),
        }
    }
}

/// Q1_0 as PQ2_0: each bit becomes a code.
fn from_q1_0(bytes: &[u8], rows: usize, cols: usize) -> Result<Vec<u8>, TernaryError> {
    let [block, block_bytes] = BINARY;
    if !cols.is_multiple_of(block) {
        return Err(TernaryError::Columns { packing: "Q1_0", block, cols });
    }
    let expected = rows.checked_mul(cols / block).and_then(|n| n.checked_mul(block_bytes));
    check_length("Q1_0 bytes", bytes, rows, cols, expected)?;
    let mut out = Vec::with_capacity(Packing::Pq2_0.packed_len(rows, cols)?);
    for block in bytes.chunks_exact(block_bytes) {
        let (scale, bits) = block.split_at(2);
        out.extend_from_slice(scale);
        for byte in bits {
            // Code + 1: 2 for a bit that is set, else 0.
            let codes = |bits: u8| (0..4).fold(0u8, |codes, n| codes | (bits >> n & 1) << (2 * n + 1));
            out.extend([codes(*byte), codes(byte >> 4)]);
        }
    }
    Ok(out)
}

/// IQ2_BN_R4 as IQ2_BN: rows one after the other.
fn from_iq2_bn_r4(bytes: &[u8], rows: usize, cols: usize) -> Result<Vec<u8>, TernaryError> {
    let expected = Packing::Iq2Bn.packed_len(rows, cols);
    let expected = expected.map_err(|error| match error {
        TernaryError::Columns { block, cols, .. } => {
            TernaryError::Columns { packing: "IQ2_BN_R4", block, cols }
        }
        other => other,
    })?;
    if !rows.is_multiple_of(ROWS) {
        return Err(TernaryError::Rows { packing: "IQ2_BN_R4", together: ROWS, rows });
    }
    check_length("IQ2_BN_R4 bytes", bytes, rows, cols, Some(expected))?;
    let mut out = Vec::with_capacity(expected);
    let width = 4 + cols / 4;
    for four in bytes.chunks_exact((ROWS * width).max(1)) {
        let (scales, codes) = four.split_at(4 * ROWS);
        for (row, scale) in scales.chunks_exact(4).enumerate() {
            out.extend_from_slice(scale);
            for block in codes.chunks_exact(COLUMNS) {
                // Weight 16·l + w of the 64 goes to bits 2·l of byte w, here from bits 2·(w div 4) of byte w mod 4.
                out.extend((0..16).map(|w| {
                    let code = |l: usize| block[16 * l + 4 * row + w % 4] >> (2 * (w / 4)) & 3;
                    (0..4).fold(0u8, |byte, l| byte | code(l) << (2 * l))
                }));
            }
        }
    }
    Ok(out)
}

fn check_length(
    what: &'static str,
    bytes: &[u8],
    rows: usize,
    cols: usize,
    expected: Option<usize>,
) -> Result<(), TernaryError> {
    let expected = expected.ok_or(TernaryError::TooLarge { rows, cols })?;
    match bytes.len() {
        found if found == expected => Ok(()),
        found => Err(TernaryError::Length { what, rows, cols, found, expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Granularity, PackedRows};

    /// `tests/golden/read_only.json`, written by `make_read_only.py`.
    fn golden(ty: &str) -> (Vec<u8>, [usize; 2], Vec<f32>) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/read_only.json");
        let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let number = |value: &serde_json::Value| value.as_u64().unwrap();
        let list = |key: &str| json[ty][key].as_array().unwrap().iter().map(number).collect::<Vec<_>>();
        let shape = [number(&json[ty]["rows"]) as usize, number(&json[ty]["cols"]) as usize];
        let values = list("values").into_iter().map(|bits| f32::from_bits(bits as u32)).collect();
        (list("bytes").into_iter().map(|byte| byte as u8).collect(), shape, values)
    }

    #[test]
    fn the_numbers_are_those_of_the_format() {
        for (ty, packing) in TYPES {
            let (bytes, [rows, cols], expected) = golden(ty);
            assert_eq!(Packing::in_file(ty, None), Some(packing));
            let brought = Packing::bytes_in_file(ty, &bytes, rows, cols).unwrap();
            let packed = PackedRows::new(packing, &brought, rows, cols).unwrap();
            let mut codes = vec![0; rows * cols];
            packed.unpack(0, &mut codes).unwrap();
            let scales = packed.scales(None, None).unwrap();
            let mut values = vec![0.0; codes.len()];
            scales.apply(&codes, cols, &mut values);
            assert!(values == expected, "{ty}");
            let granularity = if ty == "Q1_0" { Granularity::Group(128) } else { Granularity::Row };
            assert_eq!(scales.granularity(), granularity);
        }
    }

    #[test]
    fn lengths_and_shapes_that_do_not_fit_are_refused() {
        for (ty, _) in TYPES {
            let (bytes, [rows, cols], _) = golden(ty);
            let refused = |bytes: &[u8], rows, cols| {
                Packing::bytes_in_file(ty, bytes, rows, cols).unwrap_err().to_string()
            };
            let short = refused(&bytes[..bytes.len() - 1], rows, cols);
            assert!(
                short.contains(&format!("{ty} bytes")) && short.contains(&bytes.len().to_string()),
                "{short}"
            );
            let odd = refused(&bytes, rows, cols + 32);
            assert!(odd.starts_with(ty) && odd.contains(&(cols + 32).to_string()), "{odd}");
            refused(&bytes, usize::MAX / 128 * 4, cols);
        }
        let (bytes, [rows, cols], _) = golden("IQ2_BN_R4");
        let error = Packing::bytes_in_file("IQ2_BN_R4", &bytes, rows - 1, cols).unwrap_err().to_string();
        assert!(error.contains("7 rows") && error.contains("multiple of 4"), "{error}");
        let other = Packing::bytes_in_file("TQ2_0", &bytes, rows, cols).unwrap();
        assert!(matches!(other, Cow::Borrowed(_)));
    }
}
