//! Ternary weights on a GPU and their products.

use half::f16;
use tritforge_kernels::TernaryWeights;
use tritforge_ternary::Granularity;

use crate::arguments::{Lookup, Part, Products};
use crate::driver::{Buffer, CudaError};
use crate::kernels::{Gpu, int};
use crate::rows::Codes;

/// Rows and columns of a tile; see `kernels/ternary.cu`.
const TILE_ROWS: usize = 32;
pub(crate) const TILE_COLS: usize = 64;
/// 32-bit words of a tile.
const TILE_WORDS: usize = TILE_ROWS * TILE_COLS / 16;
/// Rows of a block for many tokens.
const MANY_ROWS: usize = 4 * TILE_ROWS;
/// Matrices of a launch, at most.
const PARTS: usize = 3;
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

    /// Columns that share a scale; 0 if whole rows do.
    fn group(&self) -> usize {
        match self.granularity {
            Granularity::Group(size) => size,
            Granularity::Tensor | Granularity::Row => 0,
        }
    }

    /// What a launch has of the matrix.
    fn part(&self, granularity: Granularity, row_scales: &Buffer<f32>, y: &mut Buffer<f32>) -> Part {
        Part {
            weights: self.tiles.address(),
            row_scales: row_scales.address(),
            group_scales: self.group_scales.address(),
            y: y.address(),
            rows: int(self.rows),
            per_row: i32::from(granularity == Granularity::Row),
            first: 0,
        }
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
        self.ternary_matmul_many(x, &mut [(w, y)])
    }

    /// The products of several matrices with the same x, in as few launches as can be: one for up to three matrices in a row
    /// with groups of one size, or with none.
    ///
    /// # Errors
    /// As [`Gpu::ternary_matmul`].
    ///
    /// # Panics
    /// As [`Gpu::ternary_matmul`].
    pub fn ternary_matmul_many(
        &self,
        x: &Codes,
        products: &mut [(&Ternary, &mut Buffer<f32>)],
    ) -> Result<(), CudaError> {
        for alike in products.chunk_by_mut(|(a, _), (b, _)| a.group() == b.group()) {
            for together in alike.chunks_mut(PARTS) {
                let mut parts = [Part::default(); PARTS];
                for (part, (w, y)) in parts.iter_mut().zip(together.iter_mut()) {
                    assert_eq!(x.width(), w.cols, "the activations' columns are the weights'");
                    y.resize(&self.context, x.rows() * w.rows)?;
                    *part = w.part(w.granularity, &w.row_scales, y);
                }
                self.product(x, together[0].0.group(), &x.scales, &mut parts[..together.len()])?;
            }
        }
        Ok(())
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
        assert_eq!(x.width(), w.cols, "the activations' columns are the weights'");
        let mut y = self.allocate(x.rows() * w.rows)?;
        self.product(x, 0, &ones, &mut [w.part(Granularity::Tensor, &one, &mut y)])?;
        // At most 128 a column: exact in f32 up to 131072 columns.
        assert!(w.cols <= 1 << 17, "{} columns", w.cols);
        Ok(y.download()?.into_iter().map(|sum| sum as i32).collect())
    }

    /// The rows of a ternary embedding, `tritforge_kernels::TernaryWeights::row`: out [ids, cols].
    ///
    /// # Errors
    /// If the work cannot be queued. The caller has checked the ids.
    pub fn embed_ternary(
        &self,
        w: &Ternary,
        ids: &Buffer<u32>,
        out: &mut Buffer<f32>,
    ) -> Result<(), CudaError> {
        out.resize(&self.context, ids.len() * w.cols)?;
        let group = w.group();
        let argument = Lookup {
            weights: w.tiles.address(),
            row_scales: w.row_scales.address(),
            group_scales: w.group_scales.address(),
            ids: ids.address(),
            y: out.address(),
            cols: int(w.cols),
            column_tiles: int(w.cols.div_ceil(TILE_COLS)),
            per_row: i32::from(w.granularity == Granularity::Row),
            group: int(group),
            groups: int(w.cols.checked_div(group).unwrap_or(0)),
        };
        self.embed_ternary.launch([ids.len(), 1, 1], 256, 0, &argument)
    }

    /// Up to three matrices, whose groups have `group` columns, or that have none.
    fn product(
        &self,
        x: &Codes,
        group: usize,
        scales: &Buffer<f32>,
        parts: &mut [Part],
    ) -> Result<(), CudaError> {
        let tokens = x.rows();
        if tokens == 0 {
            return Ok(());
        }
        let kernels = if group > 0 { &self.grouped } else { &self.ternary };
        let takes = |(most, _): &&(usize, _)| tokens <= *most;
        let few = kernels.few.iter().find(takes);
        let some = kernels.some.iter().find(takes);
        let block_rows = if few.or(some).is_some() { TILE_ROWS } else { MANY_ROWS };
        let mut blocks = 0;
        let mut all = [Part { first: i32::MAX, ..Part::default() }; PARTS];
        for (place, part) in all.iter_mut().zip(parts) {
            *place = Part { first: int(blocks), ..*part };
            blocks += (part.rows as usize).div_ceil(block_rows);
        }
        let column_tiles = x.width().div_ceil(TILE_COLS);
        let argument = Products {
            codes: x.codes.address(),
            scales: scales.address(),
            sums: x.sums.address(),
            parts: all,
            tokens: int(tokens),
            stride: int(column_tiles * TILE_COLS),
            column_tiles: int(column_tiles),
            group: int(group),
            groups: int(x.width().checked_div(group).unwrap_or(0)),
        };
        if let Some((most, kernel)) = few {
            let sums = GROUPED_COLS.checked_div(group).unwrap_or(WARPS);
            return kernel.launch([blocks, 1, 1], 256, sums * most * TILE_ROWS * 4, &argument);
        }
        if let Some((most, kernel)) = some {
            return kernel.launch([blocks, 1, 1], 256, WARPS * most * TILE_ROWS * 4, &argument);
        }
        // Four stages of the block's tokens, 64 bytes each.
        let block_tokens = if group == 0 { 128 } else { 64 };
        let grid = [blocks, tokens.div_ceil(block_tokens), 1];
        kernels.many.launch(grid, 256, 4 * block_tokens * TILE_COLS, &argument)
    }
}
