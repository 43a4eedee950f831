//! Values of one block of positions, weighted and summed.

use super::{Unit, tile_size};
use crate::kv_cache::{BLOCK, COLUMNS, Element, Stored};
use crate::lanes::LANES;
use crate::vector::{Vector, prefetch};

/// Positions ahead of the loads that memory is asked for; hardware stops at every page.
const VALUES_AHEAD: usize = 128;

/// A piece of the columns of one block's values.
pub(super) struct Values<'a, T> {
    /// [BLOCK, COLUMNS], with the scales of [BLOCK] positions.
    pub(super) columns: Stored<'a, T>,
    /// The same columns of the block that is read after this one.
    pub(super) next: &'a [T],
    /// Whether the second sixteen columns count.
    pub(super) both: bool,
}

/// Adds the products of one block of positions to the sums of a piece of columns.
///
/// # Safety
/// The caller has the instructions of `V`.
#[inline(always)]
pub(super) unsafe fn sums_of_block<V: Vector, T: Element>(
    unit: &Unit<'_>,
    block: usize,
    values: &Values<'_, T>,
    p: &[f32],
    sums: &mut [f32],
) {
    let queries = unit.queries;
    assert!(sums.len() == queries * COLUMNS && p.len() == queries * BLOCK);
    let mut scales = [0f32; BLOCK];
    if T::SCALED {
        assert_eq!(values.columns.scales.len(), BLOCK, "a scale a position");
        for at in (0..BLOCK).step_by(LANES) {
            // SAFETY: the caller's promise; both have BLOCK numbers, a multiple of sixteen.
            unsafe { V::load_f16(values.columns.scales.as_ptr().add(at)).store(scales.as_mut_ptr().add(at)) };
        }
    }
    let mut i = 0;
    while i < queries {
        let size = tile_size(queries - i, V::MANY);
        // SAFETY: the caller's promise; the slices are as long as `sums_of_tile` asks, for every size of a
        // tile.
        unsafe {
            match size {
                8 => sums_of_tile::<V, T, 8>(unit, block, i, (values, &scales), p, sums),
                4 => sums_of_tile::<V, T, 4>(unit, block, i, (values, &scales), p, sums),
                2 => sums_of_tile::<V, T, 2>(unit, block, i, (values, &scales), p, sums),
                _ => sums_of_tile::<V, T, 1>(unit, block, i, (values, &scales), p, sums),
            }
        }
        i += size;
    }
}

/// R queries from query `i` on: the first sixteen columns of a piece or both halves, together where there are
/// registers enough.
///
/// # Safety
/// The caller has the instructions of `V`; `p` is [queries, BLOCK], `sums` [queries, COLUMNS], `values`
/// [BLOCK, COLUMNS], and queries i..i + R exist.
#[inline(always)]
unsafe fn sums_of_tile<V: Vector, T: Element, const R: usize>(
    unit: &Unit<'_>,
    block: usize,
    i: usize,
    (values, scales): (&Values<'_, T>, &[f32; BLOCK]),
    p: &[f32],
    sums: &mut [f32],
) {
    let visible: [usize; R] = std::array::from_fn(|r| unit.visible_in(i + r, block));
    let p = &p[i * BLOCK..];
    let sums = &mut sums[i * COLUMNS..];
    // SAFETY: the caller's promises; the second half begins sixteen columns after the first.
    unsafe {
        let (columns, next, both) = (values.columns.numbers.as_ptr(), values.next.as_ptr(), values.both);
        let sums = sums.as_mut_ptr();
        if both && (V::MANY || R <= 2) {
            add_products::<V, T, R, 2>(&visible, (columns, scales), next, p.as_ptr(), sums);
        } else {
            add_products::<V, T, R, 1>(&visible, (columns, scales), next, p.as_ptr(), sums);
            if both {
                add_products::<V, T, R, 1>(
                    &visible,
                    (columns.add(LANES), scales),
                    next,
                    p.as_ptr(),
                    sums.add(LANES),
                );
            }
        }
    }
}

/// `sums[r][c] += Σ_j p[r][j] · values[j][c]` over positions j < `visible[r]` in their order, for 16 B
/// columns.
///
/// # Safety
/// The caller has the instructions of `V`; `values` are [BLOCK, COLUMNS], `p` is [R, BLOCK], `sums` [R,
/// COLUMNS], of whose columns 16 B are used; `visible` ascends and is at most BLOCK.
#[inline(always)]
unsafe fn add_products<V: Vector, T: Element, const R: usize, const B: usize>(
    visible: &[usize; R],
    (values, scales): (*const T, &[f32; BLOCK]),
    next: *const T,
    p: *const f32,
    sums: *mut f32,
) {
    // SAFETY: the caller's promises: j < BLOCK, r < R, b < B throughout.
    unsafe {
        let mut acc = [[V::zero(); B]; R];
        for j in 0..visible[0] {
            let ahead = if j < BLOCK - VALUES_AHEAD {
                values.wrapping_add((j + VALUES_AHEAD) * COLUMNS)
            } else {
                next.wrapping_add((j + VALUES_AHEAD - BLOCK) * COLUMNS)
            };
            prefetch(ahead);
            if size_of::<T>() == 4 {
                prefetch(ahead.wrapping_add(LANES));
            }
            let mut x = [V::zero(); B];
            for b in 0..B {
                x[b] = load::<V, T>(values.add(j * COLUMNS + b * LANES), scales, j);
            }
            for r in 0..R {
                let p = *p.add(r * BLOCK + j);
                for b in 0..B {
                    acc[r][b] = x[b].fma(p, acc[r][b]);
                }
            }
        }
        // The positions that only the later rows see.
        for r in 1..R {
            for j in visible[0]..visible[r] {
                let p = *p.add(r * BLOCK + j);
                for b in 0..B {
                    let x = load::<V, T>(values.add(j * COLUMNS + b * LANES), scales, j);
                    acc[r][b] = x.fma(p, acc[r][b]);
                }
            }
        }
        for r in 0..R {
            for b in 0..B {
                let sum = sums.add(r * COLUMNS + b * LANES);
                V::load(sum).add(acc[r][b]).store(sum);
            }
        }
    }
}

/// Sixteen numbers of position `j`.
///
/// # Safety
/// The caller has the instructions of `V`, the numbers lie in memory at `at`, and j < BLOCK.
#[inline(always)]
unsafe fn load<V: Vector, T: Element>(at: *const T, scales: &[f32; BLOCK], j: usize) -> V {
    // SAFETY: the caller's promises.
    unsafe {
        let numbers = T::load::<V>(at);
        if T::SCALED { numbers.scale(*scales.get_unchecked(j)) } else { numbers }
    }
}
