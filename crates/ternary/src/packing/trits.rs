//! Base-3 digits of TQ1_0 and PTQ1_0: a run of bytes, each with a digit of every `N`th weight.
//!
//! A byte is `ceil(q · 256 / 243)` of its number q, whose first digit is the most significant of five, so that a digit
//! comes out by multiplication alone: digit n is `((byte · 3ⁿ mod 256) · 3) >> 8`.

/// Appends a run of `N` bytes of `DIGITS` digits: byte m has those of weights m, N + m, 2·N + m and so on.
pub(super) fn pack_run<const N: usize, const DIGITS: usize>(codes: &[i8], out: &mut Vec<u8>) {
    out.extend((0..N).map(|m| {
        let digit = |n: usize| if n < DIGITS { (codes[N * n + m] + 1) as u16 } else { 0 };
        let q = (0..5).fold(0u16, |q, n| q * 3 + digit(n));
        (q * 256).div_ceil(243) as u8
    }));
}

/// The codes of a run.
#[inline]
pub(super) fn unpack_run<const N: usize, const DIGITS: u32>(bytes: &[u8], codes: &mut [i8]) {
    for (codes, n) in codes.as_chunks_mut::<N>().0.iter_mut().zip(0..DIGITS) {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            let shifted = u16::from(byte.wrapping_mul(3u8.pow(n)));
            *code = ((shifted * 3) >> 8) as i8 - 1;
        }
    }
}
