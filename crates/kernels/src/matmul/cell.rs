//! A tile of tokens times a block of weights: over whole rows, or group by group where groups have scales.

/// Computes one cell with `$kernel::<tokens>(weights, tile) -> Sums` and gives it to the sink. `$weights` holds
/// `$unit` elements a step; values begin as `$vectors` vectors of `$zero`. The caller has `add_group`, `floats` and
/// `lanes` for its vectors, and keeps the contract of the sink's `put`: no other thread writes the same tokens and block.
macro_rules! multiply_cell {
    ($kernel:ident, $tokens:literal, $zero:ident, $vectors:expr; $weights:expr, $unit:expr, $groups:ident, $tile:ident, $sink:ident, $block:ident) => {
        if let Some(groups) = $groups {
            let mut values = [[$zero(); $vectors]; $tokens];
            let of_groups = $weights.chunks_exact(groups.steps * $unit).zip(groups.scales);
            for (g, (weights, scales)) in of_groups.enumerate() {
                let sums = $kernel::<$tokens>(weights, $tile.group(g, groups.steps));
                add_group(&mut values, &sums, scales);
            }
            for (t, values) in values.iter().enumerate() {
                // SAFETY: the contract of `put_groups` is the caller's.
                unsafe { $sink.put_groups($tile.first + t, $block, floats(values)) };
            }
        } else {
            let sums = $kernel::<$tokens>($weights, $tile);
            for (t, sums) in sums.iter().enumerate() {
                // SAFETY: the contract of `put` is the caller's.
                unsafe { $sink.put($tile.first + t, $block, lanes(sums)) };
            }
        }
    };
}
pub(super) use multiply_cell;
