//! What a block computes with: the operations of a forward on one kind of device.
//!
//! A block's forward ([`crate::forward`]) is written once over these traits. [`Cpu`] is `tritforge-kernels`;
//! another device implements [`Device`] in a crate of its own and changes nothing here. Products and attention
//! are not the device's alone: they depend on who calls, so that [`Projections`] and [`Attend`] are given to a
//! pass beside the device.

use std::fmt::Debug;

use tritforge_config::{ActivationQuant, Projection};
use tritforge_kernels::{
    ActivationWidth, Direction, Gate, Matrix, QuantizedRows, RopeTable, glu, glu_norm_quantize,
    hadamard_in_place, parallel_for_each, quantize_rows_into, rms_norm, rms_norm_quantize, rope_in_place,
};
use tritforge_ternary::TopK;

use crate::Tensor;

/// How projections read their input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputForm {
    /// How much of the rounding to int8 the products see: 1 for all of it, so that they multiply codes; less
    /// of it, `x + λ(Q(x) − x)`; none where they read the numbers as they are.
    pub quantized: Option<f32>,
    /// Whether the numbers before rounding are needed too: for adapters, and for full-precision weights among
    /// ternary ones.
    pub plain: bool,
    /// The integers to which they are rounded.
    pub width: ActivationWidth,
    /// Which part of a token's codes is kept; all of them if none is given.
    pub top_k: Option<TopK>,
    /// Whether they are rotated before they are rounded ([`hadamard_in_place`]); what is plain is rotated too.
    pub rotated: bool,
}

impl InputForm {
    /// The numbers as they are.
    pub const PLAIN: InputForm = InputForm {
        quantized: None,
        plain: false,
        width: ActivationWidth::Int8,
        top_k: None,
        rotated: false,
    };

    /// Codes and nothing else of numbers as they are: norm and rounding are one pass then.
    fn is_one_pass(self) -> bool {
        self.quantized == Some(1.0) && !self.plain && !self.rotated
    }
}

/// The integers to which a model's activations are rounded, where they are.
pub fn activation_width(activations: ActivationQuant) -> ActivationWidth {
    match activations {
        ActivationQuant::Absmax | ActivationQuant::None => ActivationWidth::Int8,
        ActivationQuant::Int4 => ActivationWidth::Int4,
    }
}

/// A device: its buffers, and the operations between the products of a block. Rows are tokens; all buffers are
/// f32 but the codes of an input.
pub trait Device {
    /// Rows of numbers, [tokens, width]. An operation makes its output as long as it must be.
    type Rows: Debug + Default;
    /// The input of projections, [tokens, width], in the form that products multiply.
    type Input: Debug + Default;
    /// The weight of a norm, `[width]`.
    type Vector;
    /// The cosines and sines of RoPE.
    type Rope: ?Sized;
    /// The position of every token.
    type Positions: ?Sized;

    /// RMSNorm of rows as wide as the weight (arXiv 1910.07467): `x / √(mean x² + eps) · weight`.
    fn rms_norm(&self, x: &Self::Rows, norm: (&Self::Vector, f32), out: &mut Self::Rows);

    /// The input of projections: rows of `width` numbers, normed by a weight and its epsilon where there is a
    /// norm, in the form that is wanted. `plain` takes the numbers before rounding where the form wants both.
    fn input(
        &self,
        x: &Self::Rows,
        width: usize,
        norm: Option<(&Self::Vector, f32)>,
        form: InputForm,
        out: &mut Self::Input,
        plain: &mut Self::Rows,
    );

    /// `act(gate) · up`, then as [`Device::input`].
    fn gated_input(
        &self,
        act: Gate,
        gated: (&Self::Rows, &Self::Rows),
        width: usize,
        norm: Option<(&Self::Vector, f32)>,
        form: InputForm,
        out: &mut Self::Input,
        plain: &mut Self::Rows,
    );

    /// RoPE (arXiv 2104.09864) in place on rows of `heads` heads.
    fn rope(&self, table: &Self::Rope, x: &mut Self::Rows, heads: usize, positions: &Self::Positions);

    /// `out = a + b`.
    fn add(&self, a: &Self::Rows, b: &Self::Rows, out: &mut Self::Rows);
}

/// The products of a block's weights with their inputs, as training or a loaded model computes them.
pub trait Projections<D: Device + ?Sized> {
    /// What can go wrong in a product.
    type Error;

    /// How these projections, which share an input, read it.
    fn form(&self, projections: &[Projection]) -> InputForm;

    /// `y = x · Wᵀ` of projections that share their input, with their adapters and then their biases: one
    /// output [tokens, out] each. `plain` holds the input before it was rounded, where [`Self::form`] wanted it.
    ///
    /// # Errors
    /// As the implementation says.
    fn project<const N: usize>(
        &mut self,
        projections: [Projection; N],
        input: &D::Input,
        plain: &D::Rows,
        outputs: [&mut D::Rows; N],
    ) -> Result<(), Self::Error>;

    /// Sees queries, keys and values as their projections give them: before norms of heads and before RoPE.
    fn states(&mut self, _states: [&D::Rows; 3]) {}
}

/// The keys and values that queries attend to: those of a batch's segments, or those of a cache.
pub trait Attend<D: Device + ?Sized> {
    /// Causal softmax attention of a layer: `out` is [tokens, heads · head_dim]. Training also wants the
    /// log-sum-exp of every head's scores, [tokens, heads].
    fn attend(&mut self, layer: usize, states: [&D::Rows; 3], out: &mut D::Rows, log_sum_exp: &mut D::Rows);
}

/// This machine's CPU, by `tritforge-kernels`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu;

/// The input of projections on a [`Cpu`]: int8 codes where activations are quantized, a quarter of the bytes;
/// else numbers.
#[derive(Debug, Default)]
pub struct Input {
    /// The codes; stale where `values` is not empty.
    pub rows: QuantizedRows,
    /// Empty where the products multiply codes.
    pub values: Vec<f32>,
}

impl Input {
    /// The numbers that are multiplied, [tokens, cols].
    pub fn matrix(&self, cols: usize) -> Matrix<'_> {
        if self.values.is_empty() {
            Matrix::int8(&self.rows.codes, &self.rows.scales, cols)
        } else {
            Matrix::f32(&self.values, self.values.len() / cols, cols)
        }
    }

    /// The numbers before they were rounded, given the buffer in which a pass keeps them.
    pub fn plain<'a>(&'a self, plain: &'a [f32], form: InputForm) -> &'a [f32] {
        if form.quantized.is_none() { &self.values } else { plain }
    }

    pub(crate) fn bytes(&self) -> usize {
        let QuantizedRows { codes, scales, sums, .. } = &self.rows;
        codes.capacity() + 4 * (scales.capacity() + sums.capacity() + self.values.capacity())
    }

    /// Takes rows of `width` numbers, rounded to int8 as far as `quantized` says ([`InputForm::quantized`]); what they were before
    /// is not kept.
    pub(crate) fn take(&mut self, x: &[f32], width: usize, quantized: Option<f32>) {
        (self.rows.width, self.rows.top_k) = (ActivationWidth::Int8, None);
        if quantized == Some(1.0) {
            self.values.clear();
            return quantize_rows_into(x, width, &mut self.rows);
        }
        sized(&mut self.values, x.len()).copy_from_slice(x);
        let form = InputForm { quantized, ..InputForm::PLAIN };
        self.round(form, width, &mut Vec::new());
    }

    /// Takes `len` numbers, in rows of `width`, that `make` writes, and rounds them as the form says.
    fn fill(
        &mut self,
        form: InputForm,
        (len, width): (usize, usize),
        plain: &mut Vec<f32>,
        make: impl FnOnce(&mut [f32]),
    ) {
        let numbers = sized(if form.quantized == Some(1.0) { plain } else { &mut self.values }, len);
        make(numbers);
        if form.rotated {
            hadamard_in_place(numbers, width);
        }
        self.round(form, width, plain);
    }

    /// Rounds the numbers that are there, where the form says so.
    fn round(&mut self, form: InputForm, width: usize, plain: &mut Vec<f32>) {
        let Some(part) = form.quantized else { return };
        (self.rows.width, self.rows.top_k) = (form.width, form.top_k);
        if part == 1.0 {
            // The codes are all that is multiplied.
            quantize_rows_into(plain, width, &mut self.rows);
            self.values.clear();
            return;
        }
        if form.plain {
            sized(plain, self.values.len()).copy_from_slice(&self.values);
        }
        let Self { rows, values } = self;
        quantize_rows_into(values, width, rows);
        let codes = rows.codes.chunks_exact(width).zip(&rows.scales);
        for (row, (codes, scale)) in values.chunks_exact_mut(width).zip(codes) {
            for (x, code) in row.iter_mut().zip(codes) {
                *x += part * (f32::from(*code) * scale - *x);
            }
        }
    }
}

impl Device for Cpu {
    type Rows = Vec<f32>;
    type Input = Input;
    type Vector = Tensor;
    type Rope = RopeTable;
    type Positions = [u32];

    fn rms_norm(&self, x: &Vec<f32>, (weight, eps): (&Tensor, f32), out: &mut Vec<f32>) {
        rms_norm(x, &weight.read(), eps, sized(out, x.len()));
    }

    fn input(
        &self,
        x: &Vec<f32>,
        width: usize,
        norm: Option<(&Tensor, f32)>,
        form: InputForm,
        out: &mut Input,
        plain: &mut Vec<f32>,
    ) {
        if form.is_one_pass() {
            out.values.clear();
            (out.rows.width, out.rows.top_k) = (form.width, form.top_k);
            return match norm {
                Some((weight, eps)) => rms_norm_quantize(x, &weight.read(), eps, &mut out.rows),
                None => quantize_rows_into(x, width, &mut out.rows),
            };
        }
        out.fill(form, (x.len(), width), plain, |numbers| match norm {
            Some((weight, eps)) => rms_norm(x, &weight.read(), eps, numbers),
            None => numbers.copy_from_slice(x),
        });
    }

    fn gated_input(
        &self,
        act: Gate,
        (gate, up): (&Vec<f32>, &Vec<f32>),
        width: usize,
        norm: Option<(&Tensor, f32)>,
        form: InputForm,
        out: &mut Input,
        plain: &mut Vec<f32>,
    ) {
        if form.is_one_pass() {
            out.values.clear();
            (out.rows.width, out.rows.top_k) = (form.width, form.top_k);
            let weight = norm.map(|(weight, eps)| (weight.read(), eps));
            let norm = weight.as_ref().map(|(weight, eps)| (&weight[..], *eps));
            return glu_norm_quantize(act, gate, up, width, norm, &mut out.rows);
        }
        out.fill(form, (gate.len(), width), plain, |numbers| {
            glu(act, gate, up, numbers);
            if let Some((weight, eps)) = norm {
                let product = numbers.to_vec();
                rms_norm(&product, &weight.read(), eps, numbers);
            }
        });
    }

    fn rope(&self, table: &RopeTable, x: &mut Vec<f32>, heads: usize, positions: &[u32]) {
        rope_in_place(table, x, heads, positions, Direction::Forward);
    }

    fn add(&self, a: &Vec<f32>, b: &Vec<f32>, out: &mut Vec<f32>) {
        const PIECE: usize = 1 << 14;
        let sum = |out: &mut [f32], a: &[f32], b: &[f32]| {
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                *out = a + b;
            }
        };
        let out = sized(out, a.len());
        if out.len() <= PIECE {
            return sum(out, a, b);
        }
        let pieces = out.chunks_mut(PIECE).zip(a.chunks(PIECE).zip(b.chunks(PIECE)));
        parallel_for_each(pieces, |(out, (a, b))| sum(out, a, b));
    }
}

/// A buffer that grows when it must, as `len` numbers; what they hold is anything.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.reserve_exact(len - buffer.len());
    }
    buffer.resize(len, 0.0);
    buffer
}
