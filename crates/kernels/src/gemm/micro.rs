//! The innermost loops: one tile of C in registers, compiled for each instruction set.
//!
//! A tile's sums begin at 0, take one fused multiply-add a term in ascending order, and then go to C in one
//! addition.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::Backend;

/// Elements of the largest tile.
pub(super) const MOST: usize = 12 * 32;

/// A backend's tile.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    pub(super) backend: Backend,
    /// Rows of the tile: the width of a panel of A.
    pub(super) rows: usize,
    /// Columns of the tile: the width of a panel of B.
    pub(super) columns: usize,
}

impl Kernel {
    /// The backend's tile; the caller has checked that the processor supports it.
    pub(super) fn of(backend: Backend) -> Self {
        let (rows, columns) = match backend {
            Backend::Avx512Vnni => (12, 32),
            _ => (6, 16),
        };
        Self { backend, rows, columns }
    }

    /// `C = A · B` or `C += A · B` of one tile: a [terms, rows], b [terms, columns], rows of C `stride`
    /// apart.
    ///
    /// # Safety
    /// `c` must be valid for a tile of `self.rows` rows, `stride` apart, of `self.columns` numbers, which
    /// nobody else uses meanwhile; the processor must support the backend.
    #[inline]
    pub(super) unsafe fn run(self, a: &[f32], b: &[f32], c: *mut f32, stride: usize, add: bool) {
        debug_assert_eq!(a.len() / self.rows, b.len() / self.columns);
        match self.backend {
            // SAFETY: the contract of the tile is the caller's.
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512Vnni => unsafe { avx512(a, b, c, stride, add) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 | Backend::AvxVnni => unsafe { avx2(a, b, c, stride, add) },
            // SAFETY: as above.
            _ => unsafe { portable(a, b, c, stride, add) },
        }
    }
}

/// 12 × 32: 24 sums, two columns' vectors; the rows are broadcast from memory.
///
/// # Safety
/// As [`Kernel::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(a: &[f32], b: &[f32], c: *mut f32, stride: usize, add: bool) {
    for r in 0..12 {
        // The tile is fetched while its sums are computed. SAFETY: a prefetch reads nothing; the rows lie in
        // C.
        unsafe {
            let c = c.add(r * stride).cast::<i8>();
            _mm_prefetch::<_MM_HINT_T0>(c);
            _mm_prefetch::<_MM_HINT_T0>(c.add(64));
        }
    }
    let mut acc = [[_mm512_setzero_ps(); 2]; 12];
    for (a, b) in a.as_chunks::<12>().0.iter().zip(b.as_chunks::<32>().0) {
        // SAFETY: b is 32 floats; the loads may be unaligned.
        let b = unsafe { [_mm512_loadu_ps(b.as_ptr()), _mm512_loadu_ps(b.as_ptr().add(16))] };
        for (acc, a) in acc.iter_mut().zip(a) {
            let a = _mm512_set1_ps(*a);
            acc[0] = _mm512_fmadd_ps(a, b[0], acc[0]);
            acc[1] = _mm512_fmadd_ps(a, b[1], acc[1]);
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (v, acc) in acc.iter().enumerate() {
            // SAFETY: row r, columns 16 v.. of the tile, which the caller vouches for.
            unsafe {
                let c = c.add(r * stride + 16 * v);
                let sum = if add { _mm512_add_ps(_mm512_loadu_ps(c), *acc) } else { *acc };
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}

/// 6 × 16: 12 sums, two columns' vectors.
///
/// # Safety
/// As [`Kernel::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(a: &[f32], b: &[f32], c: *mut f32, stride: usize, add: bool) {
    let mut acc = [[_mm256_setzero_ps(); 2]; 6];
    for (a, b) in a.as_chunks::<6>().0.iter().zip(b.as_chunks::<16>().0) {
        // SAFETY: b is 16 floats; the loads may be unaligned.
        let b = unsafe { [_mm256_loadu_ps(b.as_ptr()), _mm256_loadu_ps(b.as_ptr().add(8))] };
        for (acc, a) in acc.iter_mut().zip(a) {
            let a = _mm256_set1_ps(*a);
            acc[0] = _mm256_fmadd_ps(a, b[0], acc[0]);
            acc[1] = _mm256_fmadd_ps(a, b[1], acc[1]);
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        for (v, acc) in acc.iter().enumerate() {
            // SAFETY: row r, columns 8 v.. of the tile, which the caller vouches for.
            unsafe {
                let c = c.add(r * stride + 8 * v);
                let sum = if add { _mm256_add_ps(_mm256_loadu_ps(c), *acc) } else { *acc };
                _mm256_storeu_ps(c, sum);
            }
        }
    }
}

/// 6 × 16 in portable Rust.
///
/// # Safety
/// As [`Kernel::run`].
unsafe fn portable(a: &[f32], b: &[f32], c: *mut f32, stride: usize, add: bool) {
    let mut acc = [[0f32; 16]; 6];
    for (a, b) in a.as_chunks::<6>().0.iter().zip(b.as_chunks::<16>().0) {
        for (acc, a) in acc.iter_mut().zip(a) {
            for (acc, b) in acc.iter_mut().zip(b) {
                *acc = a.mul_add(*b, *acc);
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        // SAFETY: row r of the tile, which the caller vouches for.
        let c = unsafe { std::slice::from_raw_parts_mut(c.add(r * stride), 16) };
        for (c, acc) in c.iter_mut().zip(acc) {
            *c = if add { *c + acc } else { *acc };
        }
    }
}
