//! What can be wrong with a ternary tensor or its packed bytes.

use crate::{Granularity, NotFinite, QUANTIZERS, Sparsity, quantizer_names};

/// An error of this crate: it names what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TernaryError {
    /// The number of elements or bytes does not fit the shape.
    #[error("{what}: found {found}, expected {expected} for shape [{rows}, {cols}]")]
    Length {
        /// What was counted, e.g. `codes` or `TQ2_0 bytes`.
        what: &'static str,
        /// The shape's rows.
        rows: usize,
        /// The shape's columns.
        cols: usize,
        /// The count found.
        found: usize,
        /// The count that the shape asks for.
        expected: usize,
    },
    /// A packing's blocks do not divide the columns.
    #[error(
        "{packing} packs blocks of {block} weights along a row, but {cols} columns are not a multiple of \
         {block}: choose another width or packing"
    )]
    Columns {
        /// Name of the packing.
        packing: &'static str,
        /// Weights in a block.
        block: usize,
        /// The columns found.
        cols: usize,
    },
    /// Rows that do not divide into those that stand together.
    #[error("{packing} packs {together} rows together, found {rows} rows: expected a multiple of {together}")]
    Rows {
        /// Name of the type.
        packing: &'static str,
        /// Rows that stand together.
        together: usize,
        /// The rows found.
        rows: usize,
    },
    /// A weight is NaN or infinite.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// A scale is not a positive number.
    #[error("the scale{of} is {scale}: expected a positive number")]
    Scale {
        /// Nothing, or the block or row whose scale it is.
        of: String,
        /// The scale.
        scale: String,
    },
    /// A group of weights that no matrix of so many columns has.
    #[error("a group of {size} weights does not divide {cols} columns: expected {}", fitting(*cols))]
    Group {
        /// The size of the group.
        size: usize,
        /// The columns.
        cols: usize,
    },
    /// Scales of a shape that belongs to no granularity.
    #[error(
        "scales of shape {found:?} for weights [{rows}, {cols}]: expected [1], [{rows}], or [{rows}, groups]"
    )]
    ScaleShape {
        /// The shape found.
        found: Vec<usize>,
        /// The weights' rows.
        rows: usize,
        /// The weights' columns.
        cols: usize,
    },
    /// A granularity that does not exist.
    #[error("granularity {found}: expected tensor, row, or a group of 32, 64, 128 or 256")]
    Granularity {
        /// What was found.
        found: String,
    },
    /// Scales that are finer than they are to be.
    #[error("scales of granularity {found} cannot be those of granularity {wanted}, which is coarser")]
    Coarser {
        /// The granularity of the scales.
        found: Granularity,
        /// The one asked for.
        wanted: Granularity,
    },
    /// An estimator that does not exist.
    #[error("straight-through estimator {found}: expected identity, clip, trust or damp")]
    Ste {
        /// What was found.
        found: String,
    },
    /// A quantizer that does not exist.
    #[error("quantizer {found}: expected one of {}", QUANTIZERS.map(|q| q.name()).join(", "))]
    Quantizer {
        /// What was found.
        found: String,
    },
    /// A sparsity that does not exist.
    #[error("sparsity {found}: expected N:M with 1 ≤ N < M ≤ 32, such as 2:4")]
    Sparsity {
        /// What was found.
        found: String,
    },
    /// The windows of a sparsity do not divide a row or a group.
    #[error("windows of sparsity {sparsity} do not divide {what} {width} weights")]
    Window {
        /// The sparsity.
        sparsity: Sparsity,
        /// `a row of` or `a group of`.
        what: &'static str,
        /// Weights of the row or the group.
        width: usize,
    },
    /// A quantizer's scales are trained parameters, which are not at hand.
    #[error("the scales of quantizer {quantizer} are trained parameters: expected them beside the weights")]
    LearnedScales {
        /// Name of the quantizer.
        quantizer: &'static str,
    },
    /// Learned scales are given to a quantizer that has none.
    #[error(
        "quantizer {quantizer} has no learned scales: expected {}",
        quantizer_names(|quantizer| quantizer.learned().is_some()).collect::<Vec<_>>().join(" or ")
    )]
    NotLearned {
        /// Name of the quantizer.
        quantizer: &'static str,
    },
    /// The scale of a group is no f16 number.
    #[error("the scale{of} is {scale}, which f16 does not hold: scales of groups are f16 numbers")]
    NotF16 {
        /// The group whose scale it is.
        of: String,
        /// The scale.
        scale: String,
    },
    /// Blocks or rows have different scales.
    #[error("its blocks or rows have different scales, where one of the tensor is expected")]
    Scales,
    /// Weights that share a scale by what the file says have different ones.
    #[error(
        "its scales are not those of granularity {granularity}: blocks that share a scale have different ones"
    )]
    Mixed {
        /// The granularity that the file names.
        granularity: Granularity,
    },
    /// A packing has no place for scales of this granularity.
    #[error("{packing} has no room for scales of granularity {granularity}: {}", alternatives(holding))]
    NoRoom {
        /// Name of the packing.
        packing: &'static str,
        /// The granularity of the scales.
        granularity: Granularity,
        /// The packings that have room for them.
        holding: Vec<&'static str>,
    },
    /// A packing stores scales of rows or groups as f16, which does not hold one.
    #[error(
        "{packing} stores the scale{of}, {scale}, as f16, which rounds it to {stored}: scales of rows that are no f16 \
         numbers can be held by IQ2_BN"
    )]
    Rounded {
        /// Name of the packing.
        packing: &'static str,
        /// Whose scale it is.
        of: String,
        /// The scale.
        scale: String,
        /// What f16 makes of it.
        stored: String,
    },
    /// A scale is stored as f16, which does not hold it.
    #[error(
        "{packing} stores the scale {scale} as f16, which rounds it to {stored}: choose I2_S or IQ2_BN, \
         which store it as f32"
    )]
    ScaleRange {
        /// Name of the packing.
        packing: &'static str,
        /// The scale.
        scale: String,
        /// What f16 makes of it: 0 or infinity.
        stored: String,
    },
    /// Weights that should be ternary as they stand are not.
    #[error(
        "weight {index} is {value}, but another has magnitude {scale}: weights stored as ternary must be \
         -{scale}, 0 or {scale}. If these are latent weights, use weights = absmean"
    )]
    NotTernary {
        /// Position in row-major order.
        index: usize,
        /// The weight.
        value: String,
        /// The magnitude of the tensor's first weight that is not 0.
        scale: String,
    },
    /// A code is not -1, 0 or +1.
    #[error("code {index} is {found}: expected -1, 0 or +1")]
    Code {
        /// Position in row-major order.
        index: usize,
        /// The value found.
        found: i32,
    },
    /// The shape overflows the address space.
    #[error("shape [{rows}, {cols}] has more elements than this machine can address")]
    TooLarge {
        /// The shape's rows.
        rows: usize,
        /// The shape's columns.
        cols: usize,
    },
}

/// The granularities that a matrix of so many columns can have.
fn fitting(cols: usize) -> String {
    let groups = Granularity::GROUPS.into_iter().filter(|size| cols.is_multiple_of(*size));
    let sizes: String = groups.map(|size| format!("{size}, ")).collect();
    format!("{sizes}row or tensor")
}

/// The packings that have room for scales.
fn alternatives(holding: &[&str]) -> String {
    match holding {
        [] => "no packing has; choose row, tensor, or a group of 64, 128 or 256".to_string(),
        _ => format!("choose {}", holding.join(", ")),
    }
}
