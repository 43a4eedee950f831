//! How a product is cut: tokens into tiles, tiles and blocks of weights into tasks.

use std::ops::Range;

use crate::pool;
use crate::ternary_weights::{BLOCK_ROWS, STEP_COLS};

/// Multiplications below which a product runs on the calling thread alone.
const PARALLEL_PRODUCTS: usize = 1 << 20;

/// Multiplications that one task holds at least.
const TASK_PRODUCTS: usize = 1 << 18;

/// Bytes of activations that one task keeps in its L2 cache while it streams weights.
const GROUP_BYTES: usize = 256 << 10;

/// Tasks a thread: enough to even out threads of different speed.
const TASKS_A_THREAD: usize = 12;

/// A cut of tokens into tiles of nearly the same size. A token is one row of activations, or the rows of
/// digits of a gradient, which stay together.
pub(super) struct Tiling {
    tokens: usize,
    digits: usize,
    tiles: usize,
}

impl Tiling {
    /// Tiles of at most `most` rows, at least `digits`, which divide `rows`.
    pub(super) fn new(rows: usize, digits: usize, most: usize) -> Self {
        let tokens = rows / digits;
        Self { tokens, digits, tiles: tokens.div_ceil((most / digits).max(1)) }
    }

    /// Number of tiles.
    pub(super) fn tiles(&self) -> usize {
        self.tiles
    }

    /// The first row of a tile; for `tiles()` the number of rows.
    pub(super) fn first(&self, tile: usize) -> usize {
        (tile * (self.tokens / self.tiles) + tile.min(self.tokens % self.tiles)) * self.digits
    }
}

/// Groups of token tiles × parts of the weight blocks; each pair is a task.
pub(super) struct Grid {
    /// The tiles.
    pub(super) tiling: Tiling,
    tiles_a_group: usize,
    blocks: usize,
    blocks_a_part: usize,
    threads: usize,
}

impl Grid {
    /// Cuts a product of `rows` (at least 1, `digits` a token), in tiles of at most `tile_rows`, with
    /// `blocks` blocks of `steps` steps for the threads that compute now.
    pub(super) fn new(rows: usize, digits: usize, tile_rows: usize, blocks: usize, steps: usize) -> Self {
        let products = rows * blocks * BLOCK_ROWS * steps * STEP_COLS;
        let threads = if products < PARALLEL_PRODUCTS { 1 } else { pool::threads() };
        let tiling = Tiling::new(rows, digits, tile_rows);
        let tile_bytes = tile_rows * steps * STEP_COLS;
        let groups = tiling.tiles().div_ceil((GROUP_BYTES / tile_bytes).max(1));
        let mut parts = 1;
        if threads > 1 {
            let most = (products / TASK_PRODUCTS / groups).clamp(1, blocks);
            parts = (threads * TASKS_A_THREAD).div_ceil(groups).min(most);
        }
        Self {
            tiles_a_group: tiling.tiles().div_ceil(groups),
            tiling,
            blocks,
            blocks_a_part: blocks.div_ceil(parts),
            threads,
        }
    }

    /// Whether several threads share the product.
    pub(super) fn is_parallel(&self) -> bool {
        self.threads > 1
    }

    /// Calls `task` once with every (range of tiles, range of blocks) of the grid; these are disjoint.
    pub(super) fn run(&self, task: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let tiles = self.tiling.tiles();
        let groups = tiles.div_ceil(self.tiles_a_group);
        let parts = self.blocks.div_ceil(self.blocks_a_part);
        let cell = |i: usize| {
            let range = |part: usize, size: usize, end: usize| part * size..((part + 1) * size).min(end);
            task(
                range(i / parts, self.tiles_a_group, tiles),
                range(i % parts, self.blocks_a_part, self.blocks),
            );
        };
        if self.is_parallel() {
            pool::run(groups * parts, cell);
        } else {
            (0..groups * parts).for_each(cell);
        }
    }
}
