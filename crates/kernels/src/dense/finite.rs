//! Whether a stored matrix has NaN or infinity: a search at the speed of memory, by all threads.

use tritforge_ternary::{FloatType, NotFinite, check_finite, check_finite_bytes};

use super::{DenseMatrix, DenseType, Q8_0_BYTES};
use crate::{Backend, pool, q6_k};

/// Bytes that a thread looks at in one go, about.
const PIECE: usize = 1 << 20;
/// Where in a Q8_0 block its scale stands.
const Q8_0_SCALE: usize = 0;
/// Where in a Q6_K block its scale stands.
const Q6_K_SCALE: usize = 208;

impl DenseMatrix<'_> {
    /// Looks for NaN and infinity. Of block formats the scales are looked at: finite ones make finite
    /// numbers.
    ///
    /// # Errors
    /// The first number that is NaN or infinite.
    pub fn check_finite(&self) -> Result<(), NotFinite> {
        let width = self.ty.row_bytes(self.cols);
        if self.interleaved || width == 0 {
            // What was rearranged was looked at before.
            return Ok(());
        }
        let rows = (PIECE / width).max(1);
        let mut found: Vec<Option<usize>> = vec![None; self.rows.div_ceil(rows)];
        let pieces = found.iter_mut().zip(self.bytes.chunks(rows * width)).enumerate();
        pool::for_each(pieces, |(piece, (found, bytes))| {
            if !self.all_finite(bytes) {
                *found = Some(piece * rows);
            }
        });
        let Some(first) = found.into_iter().flatten().next() else { return Ok(()) };
        let mut row = vec![0f32; self.cols];
        for i in first..self.rows {
            self.decode_row(Backend::active(), i, &mut Vec::new(), &mut row);
            check_finite(&row, self.cols).map_err(|NotFinite { column, value, .. }| NotFinite {
                row: (self.rows > 1).then_some(i),
                column,
                value,
            })?;
        }
        Ok(())
    }

    /// Whether whole rows have neither.
    fn all_finite(&self, bytes: &[u8]) -> bool {
        let floats = |ty| check_finite_bytes(ty, bytes, self.cols).is_ok();
        match self.ty {
            DenseType::F32 => floats(FloatType::F32),
            DenseType::F16 => floats(FloatType::F16),
            DenseType::Bf16 => floats(FloatType::Bf16),
            DenseType::Q8_0 => scales_finite(bytes, Q8_0_BYTES, Q8_0_SCALE),
            DenseType::Q6K => scales_finite(bytes, q6_k::row_bytes(q6_k::BLOCK), Q6_K_SCALE),
        }
    }
}

/// Whether the f16 at `at` in each block of `block` bytes is finite.
fn scales_finite(bytes: &[u8], block: usize, at: usize) -> bool {
    let bad = |block: &[u8]| u16::from_le_bytes([block[at], block[at + 1]]) & 0x7c00 == 0x7c00;
    !bytes.chunks_exact(block).fold(false, |seen, block| seen | bad(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_found_in_every_type() {
        let (rows, cols) = (2000, 512);
        let values: Vec<f32> = (0..rows * cols).map(|i| (i % 251) as f32 - 125.0).collect();
        for ty in DenseType::ALL {
            let mut bytes = ty.encode(&values);
            let check = |bytes: &[u8]| DenseMatrix::from_bytes(ty, bytes, rows, cols).check_finite();
            assert_eq!(check(&bytes), Ok(()), "{ty:?}");
            // Row 1777, column 256: the beginning of a block of every type.
            let width = ty.row_bytes(cols);
            let (at, word): (usize, &[u8]) = match ty {
                DenseType::F32 => (256 * 4, &[0, 0, 0xc0, 0x7f]),
                DenseType::F16 => (256 * 2, &[0, 0x7e]),
                DenseType::Bf16 => (256 * 2, &[0xc0, 0x7f]),
                DenseType::Q8_0 => (8 * 34, &[0, 0x7e]),
                DenseType::Q6K => (210 + 208, &[0, 0x7e]),
            };
            bytes[1777 * width + at..][..word.len()].copy_from_slice(word);
            let expected = NotFinite { row: Some(1777), column: 256, value: "NaN".to_string() };
            assert_eq!(check(&bytes), Err(expected), "{ty:?}");
        }
    }
}
