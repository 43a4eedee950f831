//! The scales of a matrix in the order in which products read them.

use half::f16;
use tritforge_ternary::{Granularity, Scales};

use super::{BLOCK_ROWS, STEP_COLS};

/// The scales of one group of columns of a block's rows.
pub(crate) type GroupScales = [f16; BLOCK_ROWS];

/// The groups of one block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockGroups<'a> {
    /// Steps of a group.
    pub(crate) steps: usize,
    /// The scales of each group, in the order of the columns.
    pub(crate) scales: &'a [GroupScales],
}

/// Scales as products read them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum LaneScales {
    /// Of sums over whole rows: one, or one a row.
    Whole(Scales),
    /// Of groups of `size` columns, `per_row` in a row: [blocks, groups], 32 rows side by side. Padding rows have 0.
    Group { size: usize, per_row: usize, lanes: Vec<GroupScales> },
}

impl LaneScales {
    /// # Panics
    /// If the scales are those of another shape.
    pub(super) fn new(scales: Scales, [rows, cols]: [usize; 2]) -> Self {
        let granularity = scales.granularity();
        assert_eq!(
            scales.values().len(),
            granularity.count(rows, cols),
            "scales of [{rows}, {cols}], granularity {granularity}"
        );
        let Granularity::Group(size) = granularity else { return Self::Whole(scales) };
        let groups = cols / size;
        let mut lanes = vec![[f16::ZERO; BLOCK_ROWS]; rows.div_ceil(BLOCK_ROWS) * groups];
        for (row, scales) in scales.values().chunks_exact(groups).enumerate() {
            let block = &mut lanes[row / BLOCK_ROWS * groups..][..groups];
            for (lanes, scale) in block.iter_mut().zip(scales) {
                lanes[row % BLOCK_ROWS] = f16::from_f32(*scale);
            }
        }
        Self::Group { size, per_row: groups, lanes }
    }

    /// Which weights share a scale.
    pub(super) fn granularity(&self) -> Granularity {
        match self {
            Self::Whole(scales) => scales.granularity(),
            Self::Group { size, .. } => Granularity::Group(*size),
        }
    }

    /// The scales of a matrix [rows, cols].
    pub(super) fn scales(&self, [rows, cols]: [usize; 2]) -> Scales {
        let (size, groups, lanes) = match self {
            Self::Whole(scales) => return scales.clone(),
            Self::Group { size, per_row, lanes } => (*size, *per_row, lanes),
        };
        let of_row = |row: usize| {
            let block = &lanes[row / BLOCK_ROWS * groups..][..groups];
            block.iter().map(move |lanes| lanes[row % BLOCK_ROWS].to_f32())
        };
        Scales::unchecked(Granularity::Group(size), [rows, cols], (0..rows).flat_map(of_row).collect())
            .expect("the scales of this shape")
    }

    /// The scale of the weight in a row and a column.
    pub(super) fn of(&self, row: usize, column: usize) -> f32 {
        match self {
            Self::Whole(scales) => scales.row(row)[0],
            Self::Group { size, per_row, lanes } => {
                lanes[row / BLOCK_ROWS * per_row + column / size][row % BLOCK_ROWS].to_f32()
            }
        }
    }

    /// The groups of a block, if groups have scales.
    pub(super) fn groups(&self, block: usize) -> Option<BlockGroups<'_>> {
        let Self::Group { size, per_row, lanes } = self else { return None };
        Some(BlockGroups { steps: size / STEP_COLS, scales: &lanes[block * per_row..][..*per_row] })
    }

    /// The scale of the tensor, or those of its rows.
    pub(super) fn whole(&self) -> &[f32] {
        match self {
            Self::Whole(scales) => scales.values(),
            Self::Group { .. } => &[],
        }
    }

    /// Bytes of the scales that a product reads, the one of a tensor aside.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Whole(scales) if scales.of_tensor().is_some() => 0,
            Self::Whole(scales) => std::mem::size_of_val(scales.values()),
            Self::Group { lanes, .. } => std::mem::size_of_val(lanes.as_slice()),
        }
    }
}
