//! Five ternary weights in a byte: 1.6 bits a weight, unpacked to 2-bit lines by one table look-up a byte.
//!
//! A group is [`GROUP_STEPS`] steps of a block. For each half of the rows, the group's five lines L0 … L4
//! become four: byte k of line i is `r + 81 · t`, where r = f0 + 3 f1 + 9 f2 + 27 f3 is the number whose
//! ternary digits are the four 2-bit fields of byte k of L_i, and t is field i of byte k of L4. Two
//! subtractions find r (0 to 80), which indexes a table of 2-bit bytes: `vpermi2b` holds 128 of them in two
//! registers. A block is all groups of rows 0 to 15, then all groups of rows 16 to 31: each half is one
//! stream, so that its accumulators fit the registers.

use crate::Backend;
use crate::ternary_weights::{Line, STEP_LINES};

/// Steps whose lines are packed together.
pub(crate) const GROUP_STEPS: usize = 5;

/// Lines of a packed group, both halves.
pub(crate) const PACKED_LINES: usize = STEP_LINES * HALF_LINES;

/// Lines of one half of a packed group.
pub(crate) const HALF_LINES: usize = 4;

/// What a digit t adds to a byte.
pub(crate) const RADIX: u8 = 81;

/// The 2-bit byte of every number below 81, then zeros.
pub(crate) static FIELDS: [u8; 128] = fields();

const fn fields() -> [u8; 128] {
    let mut table = [0; 128];
    let mut r = 0;
    while r < RADIX as usize {
        table[r] = ((r % 3) | ((r / 3 % 3) << 2) | ((r / 9 % 3) << 4) | ((r / 27) << 6)) as u8;
        r += 1;
    }
    table
}

/// Whether the backend unpacks by `vpermi2b` here.
pub(crate) fn is_fast(backend: Backend) -> bool {
    #[cfg(target_arch = "x86_64")]
    if backend == Backend::Avx512Vnni {
        return is_x86_feature_detected!("avx512vbmi");
    }
    let _ = backend;
    false
}

/// Packs the lines of a block.
pub(crate) fn pack(plain: &[Line], packed: &mut [Line]) {
    let half_lines = packed.len() / STEP_LINES;
    for (half, packed) in packed.chunks_exact_mut(half_lines).enumerate() {
        let groups = plain.chunks_exact(GROUP_STEPS * STEP_LINES);
        for (plain, packed) in groups.zip(packed.as_chunks_mut::<HALF_LINES>().0) {
            let last = &plain[(GROUP_STEPS - 1) * STEP_LINES + half];
            for i in 0..HALF_LINES {
                let line = &plain[i * STEP_LINES + half];
                let bytes = line.0.iter().zip(&last.0);
                let words = &mut packed[i].0;
                for (word, (fields, digits)) in words.iter_mut().zip(bytes) {
                    // Four bytes side by side: no sum of a byte exceeds 242, so nothing carries over.
                    let field = |n: usize| fields >> (2 * n) & 0x0303_0303;
                    let r = field(0) + 3 * field(1) + 9 * field(2) + 27 * field(3);
                    *word = r + u32::from(RADIX) * (digits >> (2 * i) & 0x0303_0303);
                }
            }
        }
    }
}

/// Unpacks the lines of a block.
pub(crate) fn unpack(packed: &[Line], plain: &mut [Line]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512vbmi") && is_x86_feature_detected!("avx512bw") {
        // SAFETY: the processor has the features.
        return unsafe { x86::unpack(packed, plain) };
    }
    unpack_portable(packed, plain);
}

fn unpack_portable(packed: &[Line], plain: &mut [Line]) {
    for (half, packed) in packed.chunks_exact(packed.len() / STEP_LINES).enumerate() {
        let groups = plain.chunks_exact_mut(GROUP_STEPS * STEP_LINES);
        for (packed, plain) in packed.as_chunks::<HALF_LINES>().0.iter().zip(groups) {
            let mut last = [0u32; 16];
            for i in 0..HALF_LINES {
                let words = &packed[i].0;
                for ((word, plain), last) in
                    words.iter().zip(&mut plain[i * STEP_LINES + half].0).zip(&mut last)
                {
                    let bytes = word.to_le_bytes();
                    *plain = u32::from_le_bytes(bytes.map(|b| FIELDS[usize::from(b % RADIX)]));
                    *last |= u32::from_le_bytes(bytes.map(|b| b / RADIX)) << (2 * i);
                }
            }
            plain[(GROUP_STEPS - 1) * STEP_LINES + half].0 = last;
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use std::arch::x86_64::*;

    use super::{FIELDS, GROUP_STEPS, HALF_LINES, RADIX};
    use crate::ternary_weights::{Line, STEP_LINES};

    /// The look-up table in registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub(crate) fn table() -> [__m512i; 2] {
        // SAFETY: the table is 128 bytes.
        unsafe {
            [_mm512_loadu_si512(FIELDS.as_ptr().cast()), _mm512_loadu_si512(FIELDS.as_ptr().add(64).cast())]
        }
    }

    /// One half of a group: its first four 2-bit lines, and for each of the four the digits of the fifth,
    /// times 81.
    ///
    /// `b - 81` wraps round to more than `b` exactly if b is below 81, so the lesser of the two is `b mod 81`
    /// after two rounds.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub(crate) fn unpack_half(
        table: &[__m512i; 2],
        packed: &[Line; HALF_LINES],
    ) -> ([__m512i; HALF_LINES], [__m512i; HALF_LINES]) {
        let radix = _mm512_set1_epi8(RADIX as i8);
        let zero = _mm512_setzero_si512();
        let (mut lines, mut digits) = ([zero; HALF_LINES], [zero; HALF_LINES]);
        for i in 0..HALF_LINES {
            // SAFETY: a line is 64 bytes, aligned to 64.
            let bytes = unsafe { _mm512_load_si512((&raw const packed[i]).cast()) };
            let r = _mm512_min_epu8(bytes, _mm512_sub_epi8(bytes, radix));
            let r = _mm512_min_epu8(r, _mm512_sub_epi8(r, radix));
            lines[i] = _mm512_permutex2var_epi8(table[0], r, table[1]);
            digits[i] = _mm512_sub_epi8(bytes, r);
        }
        (lines, digits)
    }

    /// Digits times 81, as fields of 2 bits: 81 and 162 end in 01 and 10.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn digit_fields(digits: __m512i) -> __m512i {
        _mm512_and_si512(digits, _mm512_set1_epi8(3))
    }

    /// Unpacks the lines of a block.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub(super) fn unpack(packed: &[Line], plain: &mut [Line]) {
        let table = table();
        for (half, packed) in packed.chunks_exact(packed.len() / STEP_LINES).enumerate() {
            let groups = plain.chunks_exact_mut(GROUP_STEPS * STEP_LINES);
            for (packed, plain) in packed.as_chunks::<HALF_LINES>().0.iter().zip(groups) {
                let (lines, digits) = unpack_half(&table, packed);
                let [d0, d1, d2, d3] = digits.map(|d| digit_fields(d));
                let low = _mm512_or_si512(d0, _mm512_slli_epi16::<2>(d1));
                let high = _mm512_or_si512(_mm512_slli_epi16::<4>(d2), _mm512_slli_epi16::<6>(d3));
                let last = _mm512_or_si512(low, high);
                for (step, line) in lines.into_iter().chain([last]).enumerate() {
                    // SAFETY: a line is 64 bytes, aligned to 64.
                    unsafe { _mm512_store_si512((&raw mut plain[step * STEP_LINES + half]).cast(), line) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of any ternary fields.
    fn plain(groups: usize) -> Vec<Line> {
        let mut state = 1u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            u32::from(FIELDS[(state >> 16) as usize % usize::from(RADIX)])
        };
        let mut word = || byte() | byte() << 8 | byte() << 16 | byte() << 24;
        (0..groups * GROUP_STEPS * STEP_LINES).map(|_| Line(std::array::from_fn(|_| word()))).collect()
    }

    #[test]
    fn lines_come_back() {
        for groups in [1, 2, 7] {
            let lines = plain(groups);
            let mut packed = vec![Line([0; 16]); groups * PACKED_LINES];
            pack(&lines, &mut packed);
            for unpack in [unpack, unpack_portable] {
                let mut back = vec![Line([u32::MAX; 16]); lines.len()];
                unpack(&packed, &mut back);
                assert!(back == lines, "{groups} groups");
            }
        }
    }

    #[test]
    fn every_byte_holds_its_five_digits() {
        for value in 0..243u32 {
            let digits: [u32; 5] = std::array::from_fn(|n| value / 3u32.pow(n as u32) % 3);
            let mut lines = vec![Line([0; 16]); GROUP_STEPS * STEP_LINES];
            lines[0].0[3] = (digits[0] | digits[1] << 2 | digits[2] << 4 | digits[3] << 6) << 8;
            lines[(GROUP_STEPS - 1) * STEP_LINES].0[3] = digits[4] << 8;
            let mut packed = vec![Line([0; 16]); PACKED_LINES];
            pack(&lines, &mut packed);
            assert_eq!(packed[0].0[3], value << 8);
        }
    }
}
