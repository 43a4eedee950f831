//! Q8_0 rows rearranged for decoding: four rows unit by unit, so that one stream from memory feeds four
//! chains of sums.
//!
//! The sums of a row are one chain of dependent additions ([`crate::lanes::dot`] fixes their order), which
//! alone is slower than memory; rows one after the other in a file would be four streams, which the
//! prefetcher follows badly. A group is [`GROUP`] rows; for every block of 32 columns it holds the rows' f16
//! scales, then their codes: the bytes of the file in another order.

use std::mem::MaybeUninit;

use super::{Q8_0_BLOCK, Q8_0_BYTES};
use crate::{huge_pages, pool};

/// Rows of a group.
pub(super) const GROUP: usize = 4;
/// Bytes of a group for one block of columns.
pub(super) const UNIT_BYTES: usize = GROUP * Q8_0_BYTES;
/// Bytes of a group's scales at the beginning of a unit.
pub(super) const SCALE_BYTES: usize = GROUP * 2;
/// Groups that a parallel task writes.
const GROUPS_A_TASK: usize = 64;

/// The rows of a Q8_0 matrix as groups, the last one filled up with zeros.
pub(super) fn interleave(bytes: &[u8], row_bytes: usize) -> Vec<u8> {
    let group_bytes = GROUP * row_bytes;
    let len = bytes.len().div_ceil(group_bytes) * group_bytes;
    let mut out: Vec<u8> = Vec::with_capacity(len);
    huge_pages::advise_huge_pages(out.spare_capacity_mut());
    let spare = &mut out.spare_capacity_mut()[..len];
    let tasks = bytes.chunks(GROUPS_A_TASK * group_bytes).zip(spare.chunks_mut(GROUPS_A_TASK * group_bytes));
    pool::for_each(tasks, |(rows, out): (&[u8], &mut [MaybeUninit<u8>])| {
        for (rows, out) in rows.chunks(group_bytes).zip(out.chunks_exact_mut(group_bytes)) {
            for (unit, out) in out.chunks_exact_mut(UNIT_BYTES).enumerate() {
                let (scales, codes) = out.split_at_mut(SCALE_BYTES);
                for (r, (scale, codes)) in
                    scales.chunks_exact_mut(2).zip(codes.chunks_exact_mut(Q8_0_BLOCK)).enumerate()
                {
                    let block = rows.get(r * row_bytes + unit * Q8_0_BYTES..).and_then(<[u8]>::first_chunk);
                    let [low, high, values @ ..]: &[u8; Q8_0_BYTES] = block.unwrap_or(&[0; Q8_0_BYTES]);
                    scale[0].write(*low);
                    scale[1].write(*high);
                    codes.write_copy_of_slice(values);
                }
            }
        }
    });
    // SAFETY: the capacity was asked for above; the tasks cover all groups, and each group's scales and codes
    // are written.
    unsafe { out.set_len(len) };
    out
}

/// Row `i` as the file has it.
pub(super) fn row(groups: &[u8], row_bytes: usize, i: usize, out: &mut Vec<u8>) {
    let group = &groups[i / GROUP * GROUP * row_bytes..][..GROUP * row_bytes];
    let r = i % GROUP;
    out.clear();
    for unit in group.chunks_exact(UNIT_BYTES) {
        out.extend_from_slice(&unit[2 * r..2 * r + 2]);
        out.extend_from_slice(&unit[SCALE_BYTES + r * Q8_0_BLOCK..][..Q8_0_BLOCK]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        for (rows, blocks) in [(1, 1), (4, 3), (7, 2), (300, 1)] {
            let row_bytes = blocks * Q8_0_BYTES;
            let bytes: Vec<u8> = (0..rows * row_bytes).map(|i| ((i * 31) >> 2) as u8).collect();
            let groups = interleave(&bytes, row_bytes);
            let mut found = Vec::new();
            for (i, expected) in bytes.chunks_exact(row_bytes).enumerate() {
                row(&groups, row_bytes, i, &mut found);
                assert!(found == expected, "row {i} of [{rows}, {blocks} blocks]");
            }
        }
    }
}
