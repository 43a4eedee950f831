//! `exp` in f32 from fused multiply-adds alone: the same bits on every backend.
//!
//! Cody–Waite reduction by ln 2 in two parts, a polynomial of degree 6 on [-ln2/2, ln2/2], and the power of
//! two put into the exponent in two halves, so that results below the normal range come out too.

/// e^x, within 2 ulp. exp(-∞) = 0, overflow gives ∞, NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 = HIGH + LOW; HIGH has few bits, so that n · HIGH is exact for every n that occurs.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 · 2²³ rounds half to even to an integer, which the low bits of the sum then hold: a
    // conversion by `as` would saturate, and compilers make scalar code of that.
    const ROUND: f32 = 12_582_912.0;
    // Beyond these the result is 0 or ∞ anyway. `clamp` keeps NaN.
    let clamped = x.clamp(-150.0, 150.0);
    let shifted = clamped * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_HIGH, clamped);
    let r = n.mul_add(-LN2_LOW, r);
    // Taylor coefficients 1/k!: the remainder at |r| ≤ 0.3466 is below 2^-27 of the result.
    let mut p = 1.0 / 5040.0;
    p = r.mul_add(p, 1.0 / 720.0);
    p = r.mul_add(p, 1.0 / 120.0);
    p = r.mul_add(p, 1.0 / 24.0);
    p = r.mul_add(p, 1.0 / 6.0);
    p = r.mul_add(p, 0.5);
    let p = (r * r).mul_add(p, r) + 1.0;
    // n is an integer in -217..=217. If x is NaN, it is anything, and the result is NaN because p is.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// 2^n for n in -126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn within_two_ulp_of_f64_everywhere() {
        let mut worst = 0f64;
        for i in 0..2_000_000 {
            let x = -104.0 + i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            if exact > f64::from(f32::MAX) {
                assert_eq!(exp(x), f32::INFINITY, "{x}");
                continue;
            }
            let ulp = f64::from((exact as f32).max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
            worst = worst.max((f64::from(exp(x)) - exact).abs() / ulp);
        }
        assert!(worst <= 2.0, "{worst} ulp");
    }

    #[test]
    fn the_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
