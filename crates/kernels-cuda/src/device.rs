//! A GPU as a device on which a block's forward runs ([`tritforge_model::Device`]).

use std::sync::{Mutex, PoisonError};

use tritforge_kernels::Gate;
use tritforge_model::{Device, InputForm};

use crate::driver::{Buffer, CudaError};
use crate::kernels::Gpu;
use crate::rows::{Codes, Norm, RopeTables, Rounding};

/// A GPU whose operations return nothing: the first error is kept until it is asked for, and what is computed
/// after it is worth nothing.
#[derive(Debug)]
pub struct Cuda {
    /// The GPU.
    pub gpu: Gpu,
    failed: Mutex<Option<CudaError>>,
}

/// The input of projections: codes where activations are quantized, else numbers.
#[derive(Debug, Default)]
pub struct Input {
    /// The codes; stale where the products multiply numbers.
    pub codes: Codes,
    /// The numbers; stale where the products multiply codes.
    pub values: Buffer<f32>,
}

impl Input {
    /// The numbers before they were rounded, given the buffer in which a pass keeps them.
    pub fn plain<'a>(&'a self, plain: &'a Buffer<f32>, form: InputForm) -> &'a Buffer<f32> {
        if form.quantized.is_none() { &self.values } else { plain }
    }
}

impl Cuda {
    /// A GPU as a device.
    pub fn new(gpu: Gpu) -> Self {
        Self { gpu, failed: Mutex::default() }
    }

    /// Keeps an error.
    pub fn keep(&self, result: Result<(), CudaError>) {
        if let Err(error) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// The first error since this was last called.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<(), CudaError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// Which of both an input is made of.
fn wanted<'a>(
    form: InputForm,
    out: &'a mut Input,
    plain: &'a mut Buffer<f32>,
) -> (Option<&'a mut Codes>, Option<&'a mut Buffer<f32>>) {
    // A part of the rounding is training's.
    assert!(matches!(form.quantized, None | Some(1.0)), "activations are rounded wholly or not at all");
    match (form.quantized, form.plain) {
        (None, _) => (None, Some(&mut out.values)),
        (Some(_), true) => (Some(&mut out.codes), Some(plain)),
        (Some(_), false) => (Some(&mut out.codes), None),
    }
}

fn rounding(form: InputForm) -> Rounding {
    Rounding { rotated: form.rotated, width: form.width, top_k: form.top_k }
}

impl Device for Cuda {
    type Rows = Buffer<f32>;
    type Input = Input;
    type Vector = Buffer<f32>;
    type Rope = RopeTables;
    type Positions = Buffer<u32>;

    fn rms_norm(&self, x: &Buffer<f32>, norm: Norm<'_>, out: &mut Buffer<f32>) {
        self.keep(self.gpu.rows(x, None, norm.0.len(), Some(norm), Rounding::default(), (None, Some(out))));
    }

    fn input(
        &self,
        x: &Buffer<f32>,
        width: usize,
        norm: Option<Norm<'_>>,
        form: InputForm,
        out: &mut Input,
        plain: &mut Buffer<f32>,
    ) {
        self.keep(self.gpu.rows(x, None, width, norm, rounding(form), wanted(form, out, plain)));
    }

    fn gated_input(
        &self,
        act: Gate,
        (gate, up): (&Buffer<f32>, &Buffer<f32>),
        width: usize,
        norm: Option<Norm<'_>>,
        form: InputForm,
        out: &mut Input,
        plain: &mut Buffer<f32>,
    ) {
        self.keep(self.gpu.rows(
            gate,
            Some((act, up)),
            width,
            norm,
            rounding(form),
            wanted(form, out, plain),
        ));
    }

    fn rope(&self, tables: &RopeTables, x: &mut Buffer<f32>, heads: usize, positions: &Buffer<u32>) {
        self.keep(self.gpu.rope(tables, x, heads, positions));
    }

    fn add(&self, a: &Buffer<f32>, b: &Buffer<f32>, out: &mut Buffer<f32>) {
        self.keep(self.gpu.add(a, b, out));
    }
}
