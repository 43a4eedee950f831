//! The kernels' arguments: the structs of `kernels/*.cu`, field by field. Addresses are those of device
//! memory.

/// An argument of a kernel.
///
/// # Safety
/// The type has the size and the layout of the struct of the same name in the kernels' source.
pub(crate) unsafe trait Argument: Copy {}

macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($field:ident: $ty:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $ty),* }

        // The kernels' source asserts the same sizes.
        const _: () = assert!(size_of::<$name>() == $size);

        // SAFETY: the fields are those of the kernels' struct in its order, and so is the size.
        unsafe impl Argument for $name {}
    )* };
}

arguments! {
    /// A matrix of a product.
    Part, 48 {
        weights: u64, row_scales: u64, group_scales: u64, y: u64, rows: i32, per_row: i32, first: i32,
    }
    /// Products of ternary weights with the same activations.
    Products, 192 {
        codes: u64, scales: u64, sums: u64, parts: [Part; 3],
        tokens: i32, stride: i32, column_tiles: i32, group: i32, groups: i32,
    }
    /// Rows of a ternary embedding.
    Lookup, 64 {
        weights: u64, row_scales: u64, group_scales: u64, ids: u64, y: u64,
        cols: i32, column_tiles: i32, per_row: i32, group: i32, groups: i32,
    }
    /// Rows that are made, normed, rotated and quantized.
    Rows, 88 {
        x: u64, up: u64, weight: u64, values: u64, codes: u64, scales: u64, sums: u64,
        eps: f32, width: i32, stride: i32, act: i32, rotated: i32, largest: f32,
        kept: i32,
    }
    /// Heads that are rotated.
    Rope, 40 { x: u64, cos: u64, sin: u64, positions: u64, heads: i32, half: i32 }
    /// A sum of two buffers.
    Addition, 40 { a: u64, b: u64, out: u64, count: u64, width: i32 }
    /// A buffer that is multiplied by a number.
    Scaling, 24 { x: u64, count: u64, factor: f32 }
    /// Where keys and values are.
    Pages, 32 { pages: u64, layer_offset: u64, max_pages: i32, kv_heads: i32, dim: i32 }
    /// New keys and values.
    Append, 64 { cache: Pages, k: u64, v: u64, sequences: u64, positions: u64 }
    /// Attention over a cache.
    Attention, 112 {
        cache: Pages, q: u64, sequences: u64, positions: u64, out: u64,
        scores: u64, largest: u64, sums: u64, weighted: u64,
        scale: f32, tokens: i32, heads: i32, segments: i32,
    }
    /// Rows whose largest numbers are sought.
    Largest, 48 { numbers: u64, keys: u64, out: u64, chosen: u64, width: i32, count: i32, most: i32 }
    /// A dense matrix.
    Matrix, 72 { planes: [u64; 4], x: u64, ids: u64, y: u64, tokens: i32, rows: i32, cols: i32 }
}
