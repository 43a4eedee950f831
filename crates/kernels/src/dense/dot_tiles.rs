//! Dots of a few rows with a few tokens side by side: as many sums at once as there are registers.
//!
//! A dot is sixteen sums, lane by lane ([`crate::lanes::dot`]). Lanes do not meet before the end, so that a register
//! of fewer lanes takes its part of them over all columns, then the next part: four rows and three tokens then have
//! their sums in twelve registers of eight lanes, where whole lanes would need twenty-four.

use super::TILE;
use crate::lanes::{LANES, Lanes};

/// The sums of some tokens with the rows of a tile, which wait in the L1 cache while other columns or tokens have the
/// registers.
pub(super) type Sums = [[Lanes; TILE]];

/// A register of f32 numbers that divides the sixteen lanes.
///
/// # Safety
/// Every function needs the instructions of its implementor: it is to be inlined into a function that enables
/// them.
pub(super) trait Part: Copy {
    /// Numbers.
    const WIDTH: usize;
    /// Tokens for whose sums with a tile's rows there are registers, at most four.
    const TOKENS: usize;
    /// Numbers from memory, of any alignment.
    unsafe fn load(at: *const f32) -> Self;
    /// Into memory, of any alignment.
    unsafe fn store(self, at: *mut f32);
    /// `self · other + sum`, rounded once.
    unsafe fn mul_add(self, other: Self, sum: Self) -> Self;
}

impl Part for [f32; 4] {
    const WIDTH: usize = 4;
    const TOKENS: usize = 4;

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller promises four numbers.
        unsafe { at.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller promises room for four numbers.
        unsafe { at.cast::<Self>().write_unaligned(self) };
    }

    #[inline(always)]
    unsafe fn mul_add(self, other: Self, mut sum: Self) -> Self {
        for i in 0..4 {
            sum[i] = self[i].mul_add(other[i], sum[i]);
        }
        sum
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Part;

    macro_rules! part {
        ($register:ty, $width:literal, $tokens:literal, $load:ident, $store:ident, $fma:ident) => {
            impl Part for $register {
                const WIDTH: usize = $width;
                const TOKENS: usize = $tokens;

                #[inline(always)]
                unsafe fn load(at: *const f32) -> Self {
                    // SAFETY: the caller has the instructions, and promises as many numbers.
                    unsafe { $load(at) }
                }

                #[inline(always)]
                unsafe fn store(self, at: *mut f32) {
                    // SAFETY: the caller has the instructions, and promises room for as many numbers.
                    unsafe { $store(at, self) };
                }

                #[inline(always)]
                unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
                    // SAFETY: the caller has the instructions.
                    unsafe { $fma(self, other, sum) }
                }
            }
        };
    }
    part!(__m512, 16, 4, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps);
    part!(__m256, 8, 3, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps);
}

/// Numbers of some rows or tokens: those of the next one begin `step` later.
#[derive(Clone, Copy)]
pub(super) struct Strided<'a> {
    /// From the first number of the first one on.
    pub numbers: &'a [f32],
    /// From one to the next.
    pub step: usize,
}

/// Adds the products of `count` rows (at most [`TILE`]) and as many tokens as there are sums, over `cols` columns, a
/// multiple of 16.
///
/// # Panics
/// If rows or tokens are shorter.
///
/// # Safety
/// The caller has the instructions of `P`.
#[inline(always)]
pub(super) unsafe fn add_products<P: Part>(
    rows: Strided<'_>,
    count: usize,
    x: Strided<'_>,
    cols: usize,
    sums: &mut Sums,
) {
    assert!(cols.is_multiple_of(LANES) && (1..=TILE).contains(&count) && !sums.is_empty());
    let long_enough = |of: Strided<'_>, count: usize| of.numbers.len() >= (count - 1) * of.step + cols;
    assert!(long_enough(rows, count) && long_enough(x, sums.len()), "{count} rows of {cols} columns");
    let (rows, row_step) = (rows.numbers.as_ptr(), rows.step);
    let (mut x, x_step) = (x.numbers.as_ptr(), x.step);
    let mut left = sums;
    while !left.is_empty() {
        let (now, later) = left.split_at_mut(left.len().min(P::TOKENS));
        left = later;
        // SAFETY: the caller's promise; the assertion says that rows and tokens have the columns.
        unsafe {
            match now.len() {
                1 => tile::<P, 1>(rows, row_step, count, x, x_step, cols, now),
                2 => tile::<P, 2>(rows, row_step, count, x, x_step, cols, now),
                3 => tile::<P, 3>(rows, row_step, count, x, x_step, cols, now),
                _ => tile::<P, 4>(rows, row_step, count, x, x_step, cols, now),
            }
        }
        x = x.wrapping_add(now.len() * x_step);
    }
}

/// T tokens with `count` rows.
///
/// # Safety
/// As [`sums_of`].
#[inline(always)]
unsafe fn tile<P: Part, const T: usize>(
    rows: *const f32,
    row_step: usize,
    count: usize,
    x: *const f32,
    x_step: usize,
    cols: usize,
    sums: &mut Sums,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if count == TILE {
            return sums_of::<P, TILE, T>(rows, row_step, x, x_step, cols, sums, 0);
        }
        for r in 0..count {
            sums_of::<P, 1, T>(rows.add(r * row_step), row_step, x, x_step, cols, sums, r);
        }
    }
}

/// R rows, whose sums begin at `first`, and T tokens.
///
/// # Safety
/// The caller has the instructions of `P`; there are `cols` numbers at `rows` and at each of the R − 1 places that are
/// `row_step` further, and so at `x` for T tokens.
#[inline(always)]
unsafe fn sums_of<P: Part, const R: usize, const T: usize>(
    rows: *const f32,
    row_step: usize,
    x: *const f32,
    x_step: usize,
    cols: usize,
    sums: &mut Sums,
    first: usize,
) {
    assert!(sums.len() >= T && first + R <= TILE);
    for part in (0..LANES).step_by(P::WIDTH) {
        // SAFETY: the caller's promise; a part and those before it are at most sixteen numbers, which divide `cols`.
        unsafe {
            // Plain loops: closures are not always inlined, and sums would then live in memory.
            let mut now = [[P::load(sums[0][first].as_ptr().add(part)); R]; T];
            for t in 0..T {
                for r in 0..R {
                    now[t][r] = P::load(sums[t][first + r].as_ptr().add(part));
                }
            }
            for at in (part..cols).step_by(LANES) {
                let mut tokens = [P::load(x.add(at)); T];
                for t in 1..T {
                    tokens[t] = P::load(x.add(t * x_step + at));
                }
                for r in 0..R {
                    let w = P::load(rows.add(r * row_step + at));
                    for t in 0..T {
                        now[t][r] = w.mul_add(tokens[t], now[t][r]);
                    }
                }
            }
            for t in 0..T {
                for r in 0..R {
                    now[t][r].store(sums[t][first + r].as_mut_ptr().add(part));
                }
            }
        }
    }
}
