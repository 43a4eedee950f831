//! Queries times the keys of one block of positions.

use half::f16;

use super::{Unit, tile_size};
use crate::kv_cache::{BLOCK, COLUMNS, Element, RESIDUES, Stored};
use crate::lanes::LANES;
use crate::vector::{Vector, prefetch};

/// Positions ahead of the loads that memory is asked for; hardware stops at every page.
const KEYS_AHEAD: usize = 2 * LANES;

/// The scores of a block's keys, [queries, BLOCK]; `next` are the keys of the block that is read after this one.
///
/// # Safety
/// The caller has the instructions of `V`.
#[inline(always)]
pub(super) unsafe fn scores_of_block<V: Vector, T: Element>(
    unit: &Unit<'_>,
    block: usize,
    keys: Stored<'_, T>,
    next: &[T],
    scores: &mut [f32],
) {
    let (queries, hd) = (unit.queries, unit.layout.head_dim);
    let panels = unit.visible_in(queries - 1, block).div_ceil(LANES);
    assert!(scores.len() == queries * BLOCK && unit.tiles.len() == queries * hd && panels * LANES <= BLOCK);
    let (ahead, after) = (KEYS_AHEAD * hd, (BLOCK - KEYS_AHEAD) * hd);
    let scales = if T::SCALED { unit.layout.column_pieces() * LANES } else { 0 };
    for (p, numbers) in keys.numbers.chunks_exact(hd * LANES).take(panels).enumerate() {
        let at = p * LANES * hd;
        let ahead = if at < after { &keys.numbers[at + ahead..] } else { &next[at - after..] };
        let panel = Stored { numbers, scales: &keys.scales[p * scales..][..scales] };
        let mut i = 0;
        while i < queries {
            let size = tile_size(queries - i, V::MANY);
            let tile = &unit.tiles[i * hd..][..size * hd];
            // SAFETY: the caller's promise. Query i + r < queries, and panel p ends within BLOCK: sixteen
            // scores from (i + r) · BLOCK + 16 p lie in `scores`.
            unsafe {
                let at = scores.as_mut_ptr().add(i * BLOCK + p * LANES);
                match size {
                    8 => scores_of_panel::<V, T, 8>(tile, panel, ahead.as_ptr(), unit.scale, at),
                    4 => scores_of_panel::<V, T, 4>(tile, panel, ahead.as_ptr(), unit.scale, at),
                    2 => scores_of_panel::<V, T, 2>(tile, panel, ahead.as_ptr(), unit.scale, at),
                    _ => scores_of_panel::<V, T, 1>(tile, panel, ahead.as_ptr(), unit.scale, at),
                }
            }
            i += size;
        }
    }
}

/// R queries against 16 positions; scores go to rows of BLOCK numbers.
///
/// # Safety
/// The caller has the instructions of `V`, and R rows of 16 scores may be written.
#[inline(always)]
unsafe fn scores_of_panel<V: Vector, T: Element, const R: usize>(
    tile: &[f32],
    panel: Stored<'_, T>,
    ahead: *const T,
    scale: f32,
    scores: *mut f32,
) {
    let (columns, queries) = (panel.numbers.as_chunks::<LANES>().0, tile.as_chunks::<R>().0);
    assert_eq!(columns.len(), queries.len(), "a query is as wide as a key");
    let scales = panel.scales.as_chunks::<LANES>().0;
    assert!(!T::SCALED || scales.len() == columns.len().div_ceil(COLUMNS), "a scale for each 32 columns");
    let keys = Columns { columns, scales, ahead };
    // SAFETY: the caller's promises.
    unsafe {
        // Slots of the even columns come first.
        let odd = columns.len().div_ceil(2);
        let even = half::<V, T, R>(&keys, queries, 0);
        let odd = half::<V, T, R>(&keys, queries, odd);
        let sums = add(even, odd);
        for r in 0..R {
            sums[r].scale(scale).store(scores.add(r * BLOCK));
        }
    }
}

/// A panel of keys by columns.
struct Columns<'a, T> {
    columns: &'a [[T; LANES]],
    /// For each 32 columns; empty if numbers have no scales.
    scales: &'a [[f16; LANES]],
    /// What is read after the panel, to be asked for in time.
    ahead: *const T,
}

/// Half of the tree of `lanes::sum`, here with a position in each lane: the even columns from slot 0 on, or
/// the odd ones, which begin at slot `slot`.
///
/// # Safety
/// As [`residue`]. Closures would not take on the features of their caller.
#[inline(always)]
unsafe fn half<V: Vector, T: Element, const R: usize>(
    keys: &Columns<'_, T>,
    queries: &[[f32; R]],
    mut slot: usize,
) -> [V; R] {
    let first = if slot == 0 { 0 } else { LANES / 2 };
    // SAFETY: the caller's promises.
    unsafe {
        let mut parts = [[V::zero(); R]; LANES / 2];
        for i in 0..LANES / 2 {
            // Columns of one residue mod 16, which stand next to each other.
            let count = (keys.columns.len() + LANES - 1 - RESIDUES[first + i]) / LANES;
            parts[i] = residue::<V, T, R>(keys, queries, slot, count);
            slot += count;
        }
        let [a, b, c, d, e, f, g, h] = parts;
        add(add(add(a, b), add(c, d)), add(add(e, f), add(g, h)))
    }
}

/// The products of `count` columns from `slot` on, summed in their order: those of one residue mod 16, two of which
/// share a scale.
///
/// # Safety
/// The caller has the instructions of `V`, and the columns exist: the counts of the sixteen residues add up
/// to their number. Column k of a residue is column 16 k + i of the key, i < 16, so its scale, k / 2, exists too.
#[inline(always)]
unsafe fn residue<V: Vector, T: Element, const R: usize>(
    keys: &Columns<'_, T>,
    queries: &[[f32; R]],
    slot: usize,
    count: usize,
) -> [V; R] {
    // SAFETY: the caller's promises.
    unsafe {
        let mut acc = [V::zero(); R];
        for d in slot..slot + count {
            prefetch(keys.ahead.wrapping_add(d * LANES));
            let mut key = T::load::<V>(keys.columns.get_unchecked(d).as_ptr());
            if T::SCALED {
                let scales = keys.scales.get_unchecked((d - slot) / (COLUMNS / LANES));
                key = key.mul(V::load_f16(scales.as_ptr()));
            }
            let query = queries.get_unchecked(d);
            for r in 0..R {
                acc[r] = key.fma(query[r], acc[r]);
            }
        }
        acc
    }
}

/// # Safety
/// The caller has the instructions of `V`.
#[inline(always)]
unsafe fn add<V: Vector, const R: usize>(mut a: [V; R], b: [V; R]) -> [V; R] {
    for r in 0..R {
        // SAFETY: the caller's promise.
        a[r] = unsafe { a[r].add(b[r]) };
    }
    a
}
