//! The per-token absmax activation quantizer: one row of activations to int8 and one scale.

use crate::EPS;

/// Quantizes one token's activations: `a = max(absmax(x), 1e-5)`, `xq = clamp(round_half_even(x · (127/a)),
/// -128, 127)`.
///
/// Returns `s_x = a / 127`, so that `x ≈ xq · s_x`. A row that holds a NaN or an infinity has no such scale:
/// the codes are 0 and the scale is NaN, so that every output of the row is NaN and the fault is seen, not
/// hidden.
///
/// # Panics
/// If the slices differ in length.
pub fn absmax_quantize(row: &[f32], codes: &mut [i8]) -> f32 {
    quantize(127.0, row, codes)
}

/// [`absmax_quantize`] to 4 bits, with 7 in the place of 127: `xq = clamp(round_half_even(x · (7/a)), -8, 7)`, scale
/// `a / 7` (BitNet b1 and v2, arXiv 2310.11453 and 2504.18415, with 4 bits).
///
/// # Panics
/// If the slices differ in length.
pub fn absmax_quantize_int4(row: &[f32], codes: &mut [i8]) -> f32 {
    quantize(7.0, row, codes)
}

fn quantize(largest: f32, row: &[f32], codes: &mut [i8]) -> f32 {
    assert_eq!(row.len(), codes.len(), "one code for every activation");
    let absmax = row.iter().fold(0f32, |m, x| if x.abs() > m || x.is_nan() { x.abs() } else { m });
    if !absmax.is_finite() || row.iter().any(|x| x.is_nan()) {
        codes.fill(0);
        return f32::NAN;
    }
    let a = absmax.max(EPS);
    let inverse = largest / a;
    for (code, x) in codes.iter_mut().zip(row) {
        *code = (x * inverse).round_ties_even().clamp(-largest - 1.0, largest) as i8;
    }
    a / largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_magnitude_becomes_127() {
        let mut codes = [0i8; 4];
        let scale = absmax_quantize(&[0.5, -2.0, 1.0, 0.0], &mut codes);
        assert_eq!(codes, [32, -127, 64, 0]); // 31.75 → 32, 63.5 → 64 (tie to even)
        assert_eq!(scale, 2.0 / 127.0);
    }

    #[test]
    fn in_4_bits_the_largest_magnitude_becomes_7() {
        let mut codes = [0i8; 5];
        let scale = absmax_quantize_int4(&[0.5, -2.0, 1.0, 0.0, 2.0 / 14.0], &mut codes);
        assert_eq!(codes, [2, -7, 4, 0, 0]); // 1.75 → 2, 3.5 → 4 and 0.5 → 0 (ties to even)
        assert_eq!(scale, 2.0 / 7.0);
        assert!(absmax_quantize_int4(&[f32::NAN], &mut codes[..1]).is_nan());
    }

    #[test]
    fn tiny_rows_use_the_floor() {
        let mut codes = [1i8; 2];
        let scale = absmax_quantize(&[1e-9, -1e-9], &mut codes);
        assert_eq!(codes, [0, 0]);
        assert_eq!(scale, EPS / 127.0);
    }

    #[test]
    fn a_row_that_is_not_finite_has_a_nan_scale() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut codes = [7i8; 3];
            assert!(absmax_quantize(&[1.0, bad, 2.0], &mut codes).is_nan());
            assert_eq!(codes, [0, 0, 0]);
        }
    }
}
