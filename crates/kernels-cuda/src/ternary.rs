//! Ternary weights on a GPU and their products.

use half::f16;
use tritforge_kernels::TernaryWeights;
use tritforge_ternary::Granularity;

use crate::arguments::Product;
use crate::driver::{Buffer, CudaError};
use crate::kernels::{Gpu, int};
use crate::rows::Codes;

/// Rows and columns of a tile; see `kernels/ternary.cu`.
const TILE_ROWS: usize = 32;
pub(crate) const TILE_COLS: usize = 64;
/// 32-bit words of a tile.
const TILE_WORDS: usize = TILE_ROWS * TILE_COLS / 16;
/// Warps of a block.
const WARPS: usize = 8;
/// Columns whose sums of groups are in shared memory at once.
const GROUPED_COLS: usize = 2048;

/// A matrix of ternary weights [rows, cols], 2 bits a weight.
#[derive(Debug)]
pub struct Ternary {
    tiles: Buffer<u32>,
    row_scales: Buffer<f32>,
    group_scales: Buffer<u16>,
    rows: usize,
    cols: usize,
    granularity: Granularity,
}

impl Ternary {
    /// Copies weights, in any layout, to the GPU.
    ///
    /// # Errors
    /// If it has no room for them.
    pub fn new(gpu: &Gpu, weights: &TernaryWeights) -> Result<Self, CudaError> {
        let (rows, cols, scales) = (weights.rows(), weights.cols(), weights.scales());
        let granularity = weights.granularity();
        let (mut of_rows, mut of_groups) = (Vec::new(), Vec::new());
        if let Granularity::Group(size) = granularity {
            let groups = cols / size;
            of_groups.resize(rows.div_ceil(TILE_ROWS) * groups * TILE_ROWS, 0);
            for (i, scale) in scales.values().iter().enumerate() {
                let (row, group) = (i / groups, i % groups);
                let at = (row / TILE_ROWS * groups + group) * TILE_ROWS + row % TILE_ROWS;
                of_groups[at] = f16::from_f32(*scale).to_bits();
            }
        } else {
            of_rows.extend_from_slice(scales.values());
        }
        let tiles = gpu.upload(&tiles(&weights.codes(), rows, cols))?;
        let (row_scales, group_scales) = (gpu.upload(&of_rows)?, gpu.upload(&of_groups)?);
        Ok(Self { tiles, row_scales, group_scales, rows, cols, granularity })
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of weights and scales on the GPU.
    pub fn bytes(&self) -> usize {
        4 * (self.tiles.len() + self.row_scales.len()) + 2 * self.group_scales.len()
    }
}

/// Codes [rows, cols] in tiles, padded with zeros.
fn tiles(codes: &[i8], rows: usize, cols: usize) -> Vec<u32> {
    let column_tiles = cols.div_ceil(TILE_COLS);
    // Fields of 1 are codes of 0.
    let mut words = vec![0x5555_5555u32; rows.div_ceil(TILE_ROWS) * column_tiles * TILE_WORDS];
    for (r, row) in codes.chunks_exact(cols).enumerate() {
        let (word, group) = (r % TILE_ROWS / 8, r % 8);
        for (tile, codes) in row.chunks(TILE_COLS).enumerate() {
            let tile = &mut words[(r / TILE_ROWS * column_tiles + tile) * TILE_WORDS..][..TILE_WORDS];
            for (lane, codes) in codes.chunks(16).enumerate() {
                let place = &mut tile[(4 * group + lane) * 4 + word];
                for (c, code) in codes.iter().enumerate() {
                    let shift = 8 * (c % 4) + 2 * (c / 4);
                    *place = *place & !(3 << shift) | ((code + 1) as u32) << shift;
                }
            }
        }
    }
    words
}

impl Gpu {
    /// `tritforge_kernels::ternary_matmul`: y [tokens, rows] = x · Wᵀ with the scales of both.
    ///
    /// # Errors
    /// If the work cannot be queued.
    ///
    /// # Panics
    /// If x has other columns than w.
    pub fn ternary_matmul(&self, x: &Codes, w: &Ternary, y: &mut Buffer<f32>) -> Result<(), CudaError> {
        self.product(x, w, w.granularity, [&x.scales, &w.row_scales], y)
    }

    /// `tritforge_kernels::ternary_matmul_i32`: the exact sums [tokens, rows] over whole rows, without any
    /// scale.
    ///
    /// # Errors
    /// If the work cannot be done.
    ///
    /// # Panics
    /// If x has other columns than w.
    pub fn ternary_sums(&self, x: &Codes, w: &Ternary) -> Result<Vec<i32>, CudaError> {
        let (ones, one) = (self.upload(&vec![1f32; x.rows()])?, self.upload(&[1f32])?);
        let mut y = Buffer::default();
        self.product(x, w, Granularity::Tensor, [&ones, &one], &mut y)?;
        // At most 128 a column: exact in f32 up to 131072 columns.
        assert!(w.cols <= 1 << 17, "{} columns", w.cols);
        Ok(y.download()?.into_iter().map(|sum| sum as i32).collect())
    }

    fn product(
        &self,
        x: &Codes,
        w: &Ternary,
        granularity: Granularity,
        [scales, row_scales]: [&Buffer<f32>; 2],
        y: &mut Buffer<f32>,
    ) -> Result<(), CudaError> {
        assert_eq!(x.width(), w.cols, "the activations' columns are the weights'");
        let tokens = x.rows();
        y.resize(&self.context, tokens * w.rows)?;
        let (kernels, group) = match granularity {
            Granularity::Group(size) => (&self.grouped, size),
            _ => (&self.ternary, 0),
        };
        let column_tiles = w.cols.div_ceil(TILE_COLS);
        let argument = Product {
            weights: w.tiles.address(),
            codes: x.codes.address(),
            scales: scales.address(),
            sums: x.sums.address(),
            row_scales: row_scales.address(),
            group_scales: w.group_scales.address(),
            y: y.address(),
            tokens: int(tokens),
            rows: int(w.rows),
            stride: int(column_tiles * TILE_COLS),
            column_tiles: int(column_tiles),
            per_row: i32::from(granularity == Granularity::Row),
            group: int(group),
            groups: int(w.cols.checked_div(group).unwrap_or(0)),
        };
        if let Some((most, kernel)) = kernels.few.iter().find(|(most, _)| tokens <= *most) {
            let sums = GROUPED_COLS.checked_div(group).unwrap_or(WARPS);
            let shared = sums * most * TILE_ROWS * 4;
            let blocks = if tokens == 0 { 0 } else { w.rows.div_ceil(TILE_ROWS) };
            return kernel.launch([blocks, 1, 1], 256, shared, &argument);
        }
        // Four stages of the block's tokens, 64 bytes each.
        let block_tokens = if group == 0 { 128 } else { 64 };
        let grid = [w.rows.div_ceil(4 * TILE_ROWS), tokens.div_ceil(block_tokens), 1];
        kernels.many.launch(grid, 256, 4 * block_tokens * TILE_COLS, &argument)
    }
}
