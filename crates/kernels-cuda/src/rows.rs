//! What stands between products: norms, gates, rotation, quantization, RoPE, additions.

use tritforge_kernels::{ActivationWidth, Gate, QuantizedRows, hadamard_block};
use tritforge_ternary::TopK;

use crate::arguments::{Addition, Rope, Rows, Scaling};
use crate::driver::{Buffer, CudaError};
use crate::kernels::{Gpu, int};
use crate::ternary::TILE_COLS;

/// Threads of a block.
const THREADS: usize = 256;
/// Numbers in shared memory besides a row: 64 partial sums and two a warp.
const BESIDE_ROW: usize = 64 + 2 * THREADS / 32;
/// Blocks of an addition, at most.
const ADD_BLOCKS: usize = 4096;

/// Quantized activations: `tritforge_kernels::QuantizedRows` with rows padded to whole tiles of weights.
#[derive(Debug, Default)]
pub struct Codes {
    pub(crate) codes: Buffer<i8>,
    pub(crate) scales: Buffer<f32>,
    pub(crate) sums: Buffer<i32>,
    rows: usize,
    width: usize,
    rounding: Rounding,
    /// Rows that are too wide for shared memory.
    wide: Buffer<f32>,
}

impl Codes {
    /// Tokens.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Features of a token.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Copies activations back.
    ///
    /// # Errors
    /// If the work that they come from failed.
    pub fn download(&self) -> Result<QuantizedRows, CudaError> {
        let stride = self.width.next_multiple_of(TILE_COLS);
        let padded = self.codes.download()?;
        let codes = padded.chunks_exact(stride).flat_map(|row| &row[..self.width]).copied().collect();
        Ok(QuantizedRows {
            cols: self.width,
            codes,
            scales: self.scales.download()?,
            sums: self.sums.download()?,
            width: self.rounding.width,
            top_k: self.rounding.top_k,
        })
    }
}

/// RMSNorm: its weight and its epsilon.
pub type Norm<'a> = (&'a Buffer<f32>, f32);

/// How rows are rounded to codes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rounding {
    /// Whether they are rotated before (`tritforge_kernels::hadamard_in_place`), where they are not rounded too.
    pub rotated: bool,
    /// The integers to which they are rounded.
    pub width: ActivationWidth,
    /// Which part of a token's codes is kept; all of them if none is given.
    pub top_k: Option<TopK>,
}

/// A gate by its number in `kernels/gates.cuh`.
fn number(act: Gate) -> i32 {
    match act {
        Gate::Silu => 0,
        Gate::Relu2 => 1,
        Gate::Relu => 2,
        Gate::Gelu => 3,
        Gate::GeluTanh => 4,
    }
}

/// The cosines and sines of RoPE, [positions, head_dim / 2] each.
#[derive(Debug)]
pub struct RopeTables {
    /// Cosines.
    pub cos: Buffer<f32>,
    /// Sines.
    pub sin: Buffer<f32>,
    /// Half the width of a head.
    pub half: usize,
}

impl Gpu {
    /// Rows of `width` numbers: x, or `act(x) · up` where there is a gate; normed where there is a norm; rotated if that
    /// is wanted; then quantized, or as they are, or both, to where they are wanted. `tritforge_kernels::{glu, rms_norm,
    /// hadamard_in_place, quantize_rows}` one after the other.
    ///
    /// # Errors
    /// If the work cannot be queued.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn rows(
        &self,
        x: &Buffer<f32>,
        gated: Option<(Gate, &Buffer<f32>)>,
        width: usize,
        norm: Option<Norm<'_>>,
        rounding: Rounding,
        (codes, plain): (Option<&mut Codes>, Option<&mut Buffer<f32>>),
    ) -> Result<(), CudaError> {
        assert!(gated.is_none_or(|(_, up)| up.len() == x.len()), "gate and up have the same length");
        assert!(width > 0 && x.len().is_multiple_of(width), "x is rows of {width}");
        assert!(norm.is_none_or(|(weight, _)| weight.len() == width), "a norm's weight is as wide as a row");
        let (rows, stride) = (x.len() / width, width.next_multiple_of(TILE_COLS));
        let mut shared = (BESIDE_ROW + width) * 4;
        let mut argument = Rows {
            x: x.address(),
            up: gated.map_or(0, |(_, up)| up.address()),
            weight: norm.map_or(0, |(weight, _)| weight.address()),
            eps: norm.map_or(0.0, |(_, eps)| eps),
            width: int(width),
            stride: int(stride),
            act: gated.map_or(0, |(act, _)| number(act)),
            rotated: if rounding.rotated { int(hadamard_block(width)) } else { 1 },
            largest: rounding.width.largest(),
            kept: rounding.top_k.map_or(0, |top_k| int(top_k.count(width))),
            ..Rows::default()
        };
        let too_wide = shared > self.context.shared_bytes;
        if let Some(plain) = plain {
            plain.resize(&self.context, x.len())?;
            argument.values = plain.address();
        }
        if let Some(codes) = codes {
            codes.codes.resize(&self.context, rows * stride)?;
            codes.scales.resize(&self.context, rows)?;
            codes.sums.resize(&self.context, rows)?;
            (codes.rows, codes.width, codes.rounding) = (rows, width, rounding);
            (argument.codes, argument.scales, argument.sums) =
                (codes.codes.address(), codes.scales.address(), codes.sums.address());
            if too_wide && argument.values == 0 {
                codes.wide.resize(&self.context, x.len())?;
                argument.values = codes.wide.address();
            }
        }
        if argument.values != 0 {
            shared = BESIDE_ROW * 4;
        }
        let kernel = if gated.is_some() { &self.gate_norm_quantize } else { &self.norm_quantize };
        kernel.launch([rows, 1, 1], THREADS as u32, shared, &argument)
    }

    /// `tritforge_kernels::rope_in_place`, forward: rows of `heads` heads, a position each.
    ///
    /// # Errors
    /// If the work cannot be queued.
    ///
    /// # Panics
    /// If x is not [positions, heads · head_dim].
    pub fn rope(
        &self,
        tables: &RopeTables,
        x: &mut Buffer<f32>,
        heads: usize,
        positions: &Buffer<u32>,
    ) -> Result<(), CudaError> {
        assert_eq!(
            x.len(),
            positions.len() * heads * tables.half * 2,
            "x has a row of heads for each position"
        );
        let argument = Rope {
            x: x.address(),
            cos: tables.cos.address(),
            sin: tables.sin.address(),
            positions: positions.address(),
            heads: int(heads),
            half: int(tables.half),
        };
        self.rope.launch([positions.len(), 1, 1], THREADS as u32, 0, &argument)
    }

    /// `out = a + b`.
    ///
    /// # Errors
    /// If the work cannot be queued.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, a: &Buffer<f32>, b: &Buffer<f32>, out: &mut Buffer<f32>) -> Result<(), CudaError> {
        assert_eq!(a.len(), b.len(), "a and b have the same length");
        out.resize(&self.context, a.len())?;
        self.addition(a.len(), [a.address(), b.address(), out.address()], 0)
    }

    /// Adds a bias to every row of x.
    ///
    /// # Errors
    /// If the work cannot be queued.
    ///
    /// # Panics
    /// If x is no rows as long as the bias.
    pub fn add_bias(&self, x: &mut Buffer<f32>, bias: &Buffer<f32>) -> Result<(), CudaError> {
        assert!(x.len().is_multiple_of(bias.len()), "x is rows of {}", bias.len());
        self.addition(x.len(), [x.address(), bias.address(), x.address()], bias.len())
    }

    /// `x *= factor`.
    pub(crate) fn scale(&self, x: &mut Buffer<f32>, factor: f32) -> Result<(), CudaError> {
        let argument = Scaling { x: x.address(), count: x.len() as u64, factor };
        let blocks = x.len().div_ceil(THREADS).min(ADD_BLOCKS);
        self.scale.launch([blocks, 1, 1], THREADS as u32, 0, &argument)
    }

    pub(crate) fn addition(
        &self,
        count: usize,
        [a, b, out]: [u64; 3],
        width: usize,
    ) -> Result<(), CudaError> {
        let argument = Addition { a, b, out, count: count as u64, width: int(width) };
        self.add.launch([count.div_ceil(THREADS).min(ADD_BLOCKS), 1, 1], THREADS as u32, 0, &argument)
    }
}
