//! The innermost loops: one tile of dW as integer sums in registers, compiled for each instruction set, then
//! scaled.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::marker::PhantomData;

use crate::Backend;

/// A backend's tile.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    pub(super) backend: Backend,
    /// Rows of the tile: the width of a panel of the gradient.
    pub(super) rows: usize,
    /// Columns of the tile: the width of a panel of activations.
    pub(super) columns: usize,
    /// Tokens of a word.
    pub(super) terms: usize,
}

/// dW [outputs, inputs], shared by the tasks that write it, and the rows of it that a tile has.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    out: *mut f32,
    outputs: usize,
    inputs: usize,
    /// The tile's first row of dW.
    row: usize,
    /// Rows of dW that a tile has; its own rows are these for each digit.
    rows: usize,
    /// Whether results are added to what is there.
    add: bool,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: threads write through `out` only, each to the tiles of its own task, while `new` borrows the slice.
unsafe impl Sync for Target<'_> {}

impl<'a> Target<'a> {
    pub(super) fn new(out: &'a mut [f32], inputs: usize, rows: usize, add: bool) -> Self {
        let outputs = out.len() / inputs;
        Self { out: out.as_mut_ptr(), outputs, inputs, row: 0, rows, add, borrow: PhantomData }
    }

    /// The same with the rows of a row of tiles.
    pub(super) fn of_tile(&self, index: usize) -> Self {
        Self { row: index * self.rows, ..*self }
    }

    /// Scales the sums of a row of a tile and writes those that lie in dW; later digits are added to the
    /// first.
    ///
    /// # Safety
    /// No other thread may use this part of the tile's rows meanwhile.
    #[inline(always)]
    unsafe fn put<const N: usize>(&self, row: usize, column: usize, sums: &[i32; N], scale: f32) {
        let add = self.add || row >= self.rows;
        let row = self.row + row % self.rows;
        if row >= self.outputs {
            return;
        }
        assert!(column < self.inputs, "a tile begins in dW");
        let count = N.min(self.inputs - column);
        // SAFETY: row < outputs and column + count <= inputs, so the numbers lie in the slice of outputs ·
        // inputs that `new` borrowed; the caller keeps others away.
        let out = unsafe { std::slice::from_raw_parts_mut(self.out.add(row * self.inputs + column), count) };
        if let Some(out) = out.as_mut_array::<N>() {
            scale_into(out, sums, scale, add);
        } else {
            scale_into(out, sums, scale, add);
        }
    }
}

#[inline(always)]
fn scale_into(out: &mut [f32], sums: &[i32], scale: f32, add: bool) {
    for (out, sum) in out.iter_mut().zip(sums) {
        let value = *sum as f32 * scale;
        *out = if add { *out + value } else { value };
    }
}

impl Kernel {
    /// The backend's tile; the caller has checked that the processor supports it.
    pub(super) fn of(backend: Backend) -> Self {
        let (rows, columns, terms) = match backend {
            Backend::Avx512Vnni => (12, 32, 4),
            _ => (6, 16, 2),
        };
        Self { backend, rows, columns, terms }
    }

    /// One tile: panels `a` [words, rows] and `b` [words, columns], the sum of codes and the scale of each of
    /// its rows, its rows of dW and its first column there.
    ///
    /// # Safety
    /// The processor must support the backend, and no other thread may use the tile's part of the target
    /// meanwhile.
    #[inline]
    pub(super) unsafe fn run(
        self,
        a: &[i32],
        b: &[i32],
        sums: &[i32],
        scales: &[f32],
        target: &Target<'_>,
        column: usize,
    ) {
        debug_assert_eq!(a.len() / self.rows, b.len() / self.columns);
        match self.backend {
            // SAFETY: both are the caller's.
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512Vnni => unsafe { avx512(a, b, sums, scales, target, column) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 | Backend::AvxVnni => unsafe { avx2(a, b, scales, target, column) },
            // SAFETY: as above.
            _ => unsafe { portable(a, b, scales, target, column) },
        }
    }
}

/// 12 × 32: `vpdpbusd` multiplies bytes without sign, x + 128, by those with sign. Since `Σ (x + 128) · g = Σ
/// x · g + 128 · Σ g`, a row begins at minus 128 times its sum of codes; what overflows on the way wraps and
/// comes back.
///
/// # Safety
/// As [`Kernel::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn avx512(a: &[i32], b: &[i32], sums: &[i32], scales: &[f32], target: &Target<'_>, column: usize) {
    let mut acc = [[_mm512_setzero_si512(); 2]; 12];
    for (acc, sum) in acc.iter_mut().zip(sums) {
        *acc = [_mm512_set1_epi32(-128 * sum); 2];
    }
    for (a, b) in a.as_chunks::<12>().0.iter().zip(b.as_chunks::<32>().0) {
        // SAFETY: b is 32 i32; the loads may be unaligned.
        let b =
            unsafe { [_mm512_loadu_si512(b.as_ptr().cast()), _mm512_loadu_si512(b.as_ptr().add(16).cast())] };
        for (acc, a) in acc.iter_mut().zip(a) {
            let a = _mm512_set1_epi32(*a);
            acc[0] = _mm512_dpbusd_epi32(acc[0], b[0], a);
            acc[1] = _mm512_dpbusd_epi32(acc[1], b[1], a);
        }
    }
    for (r, (acc, scale)) in acc.iter().zip(scales).enumerate() {
        // SAFETY: two vectors of 16 i32 are 32 i32, and every bit pattern is one.
        let sums = unsafe { &*(&raw const *acc).cast::<[i32; 32]>() };
        // SAFETY: the tile is the caller's.
        unsafe { target.put(r, column, sums, *scale) };
    }
}

/// 6 × 16: `vpmaddwd` adds the products of two int16 exactly.
///
/// # Safety
/// As [`Kernel::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2(a: &[i32], b: &[i32], scales: &[f32], target: &Target<'_>, column: usize) {
    let mut acc = [[_mm256_setzero_si256(); 2]; 6];
    for (a, b) in a.as_chunks::<6>().0.iter().zip(b.as_chunks::<16>().0) {
        // SAFETY: b is 16 i32; the loads may be unaligned.
        let b =
            unsafe { [_mm256_loadu_si256(b.as_ptr().cast()), _mm256_loadu_si256(b.as_ptr().add(8).cast())] };
        for (acc, a) in acc.iter_mut().zip(a) {
            let a = _mm256_set1_epi32(*a);
            acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(a, b[0]));
            acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(a, b[1]));
        }
    }
    for (r, (acc, scale)) in acc.iter().zip(scales).enumerate() {
        // SAFETY: two vectors of 8 i32 are 16 i32, and every bit pattern is one.
        let sums = unsafe { &*(&raw const *acc).cast::<[i32; 16]>() };
        // SAFETY: the tile is the caller's.
        unsafe { target.put(r, column, sums, *scale) };
    }
}

/// 6 × 16 in portable Rust.
///
/// # Safety
/// As [`Kernel::run`].
unsafe fn portable(a: &[i32], b: &[i32], scales: &[f32], target: &Target<'_>, column: usize) {
    /// The two int16 of a word.
    #[inline(always)]
    fn halves(word: i32) -> (i32, i32) {
        (i32::from(word as i16), word >> 16)
    }
    let mut acc = [[0i32; 16]; 6];
    for (a, b) in a.as_chunks::<6>().0.iter().zip(b.as_chunks::<16>().0) {
        for (acc, a) in acc.iter_mut().zip(a) {
            let (a0, a1) = halves(*a);
            for (acc, b) in acc.iter_mut().zip(b) {
                let (b0, b1) = halves(*b);
                *acc += a0 * b0 + a1 * b1;
            }
        }
    }
    for (r, (acc, scale)) in acc.iter().zip(scales).enumerate() {
        // SAFETY: the tile is the caller's.
        unsafe { target.put(r, column, acc, *scale) };
    }
}
