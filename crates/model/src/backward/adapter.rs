//! Adapters of a block, forward and backward.
//!
//! Beside a projection, `y += s·B(A(x))` with the input x before it was quantized; inside its quantizer the
//! weight itself is `W + s·B·A`, and x is what the product multiplied. Through the straight-through estimator
//! both have the gradients `dB = dyᵀ·(s·x·Aᵀ)` and `dA = (s·dy·B)ᵀ·x`: products of the adapter's rank, never
//! of the weight's size. Nothing is kept from the forward: the input is computed again from what the block
//! keeps. A ternary adapter's sum moves codes only beyond a threshold and within the grid; threshold and clip
//! count as the identity for every element, also where no code moved, as in LoTA-QAF's own code: s is then
//! the scale of the codes.

use tritforge_config::{LoraMode, Projection};
use tritforge_kernels::{
    CounterRng, Matrix, WriteMode, gemm, glu, hadamard_in_place, parallel_for_each, rms_norm,
};

use super::workspace::{Activations, AdapterBuffers, input};
use crate::Gradients;
use crate::block::Block;
use crate::device::sized;
use crate::lora::Adapter;

/// Elements of a parallel piece.
const PIECE: usize = 1 << 14;

impl Block {
    /// The adapter that stands beside a projection.
    fn beside(&self, projection: Projection) -> Option<&Adapter> {
        self.linear(projection).adapter().filter(|adapter| adapter.mode == LoraMode::Adapter)
    }

    /// The input of a projection before it was quantized, [tokens, in], computed again; x is the block's.
    fn plain_input(&self, projection: Projection, x: &[f32], kept: &Activations, out: &mut Vec<f32>) {
        self.shared_input(projection, x, kept, out);
        if let (Some(norms), Some(index)) = (&self.norms.projections, projection.sharing()) {
            let shared = out.clone();
            rms_norm(&shared, &norms[index].weight.read(), self.shape.eps, out);
        }
        if self.rotation.rotates(projection) {
            let (_, cols) = self.linear(projection).dims();
            hadamard_in_place(out, cols);
        }
    }

    /// That input before a norm of the projection's own and before it was rotated.
    fn shared_input(&self, projection: Projection, x: &[f32], kept: &Activations, out: &mut Vec<f32>) {
        let (norms, eps) = (&self.norms, self.shape.eps);
        let (from, norm) = match projection {
            Projection::Q | Projection::K | Projection::V => (x, Some(&norms.input_layernorm)),
            Projection::O => (&kept.attention[..], norms.attn_sub_norm.as_ref()),
            Projection::Gate | Projection::Up => (&kept.middle[..], Some(&norms.post_attention_layernorm)),
            Projection::Down => {
                let product = sized(out, kept.gate.len());
                glu(self.shape.act, &kept.gate, &kept.up, product);
                if let Some(norm) = &norms.ffn_sub_norm {
                    let product = product.to_vec();
                    rms_norm(&product, &norm.weight.read(), eps, out);
                }
                return;
            }
        };
        let out = sized(out, from.len());
        match norm {
            Some(norm) => rms_norm(from, &norm.weight.read(), eps, out),
            None => out.copy_from_slice(from),
        }
    }

    /// Adds the product of the adapter beside a projection, if there is one, to its output y; x is the input
    /// before it was quantized.
    pub(super) fn adapter_forward(
        &self,
        projection: Projection,
        seed: u64,
        x: &[f32],
        AdapterBuffers { dropped, product, .. }: &mut AdapterBuffers,
        y: &mut [f32],
    ) {
        let Some(adapter) = self.beside(projection) else { return };
        let (rank, cols, rows) = adapter.dims();
        let x = drop_inputs(adapter, noise(seed, projection), x, dropped);
        let tokens = x.len() / cols;
        let (a, b) = (adapter.a.read(), adapter.b.read());
        inner(adapter, Matrix::f32(x, tokens, cols), Matrix::f32(&a, rank, cols), product);
        let product = Matrix::f32(product, tokens, rank);
        gemm(product, Matrix::f32(&b, rows, rank).transposed(), y, WriteMode::Accumulate);
    }

    /// Adds the gradients of a projection's adapter, and to dx what passes through an adapter beside it.
    pub(super) fn adapter_backward(
        &self,
        projection: Projection,
        x: &[f32],
        kept: &Activations,
        seed: u64,
        (buffers, plain): (&mut AdapterBuffers, &mut Vec<f32>),
        (dy, dx): (&[f32], &mut [f32]),
        gradients: &mut Gradients,
    ) {
        let Some(adapter) = self.linear(projection).adapter() else { return };
        let (rank, cols, rows) = adapter.dims();
        let tokens = dy.len() / rows;
        let beside = adapter.mode == LoraMode::Adapter;
        let noise = noise(seed, projection);
        if beside {
            self.plain_input(projection, x, kept, plain);
        }
        let AdapterBuffers { dropped, product, dproduct } = buffers;
        let input = match beside {
            true => Matrix::f32(drop_inputs(adapter, noise, plain, dropped), tokens, cols),
            false => input(kept, projection, self.norms.projections.is_some()).matrix(cols),
        };
        let (a, b) = (adapter.a.read(), adapter.b.read());
        let (a, b) = (Matrix::f32(&a, rank, cols), Matrix::f32(&b, rows, rank));
        let dy = Matrix::f32(dy, tokens, rows);
        if let Some((db, write)) = gradients.slot(adapter.index + 1) {
            inner(adapter, input, a, product);
            gemm(dy.transposed(), Matrix::f32(product, tokens, rank), db, write);
        }
        let dproduct = sized(dproduct, tokens * rank);
        gemm(dy, b, dproduct, WriteMode::Overwrite);
        dproduct.iter_mut().for_each(|d| *d *= adapter.scaling);
        let dproduct = Matrix::f32(dproduct, tokens, rank);
        if let Some((da, write)) = gradients.slot(adapter.index) {
            gemm(dproduct.transposed(), input, da, write);
        }
        match (beside, adapter.dropout > 0.0) {
            (false, _) => {}
            (true, false) => gemm(dproduct, a, dx, WriteMode::Accumulate),
            (true, true) => {
                let through = sized(plain, dx.len());
                gemm(dproduct, a, through, WriteMode::Overwrite);
                let through = drop_inputs(adapter, noise, through, dropped);
                dx.iter_mut().zip(through).for_each(|(dx, d)| *dx += d);
            }
        }
    }
}

/// `s · x · Aᵀ`, [tokens, rank].
fn inner(adapter: &Adapter, x: Matrix<'_>, a: Matrix<'_>, product: &mut Vec<f32>) {
    let product = sized(product, x.rows() * a.rows());
    gemm(x, a.transposed(), product, WriteMode::Overwrite);
    product.iter_mut().for_each(|h| *h *= adapter.scaling);
}

/// The bits that say what a projection's adapter drops; products of the gradients rounded to int8 take other
/// streams.
fn noise(seed: u64, projection: Projection) -> CounterRng {
    CounterRng::new(seed, 2, projection as usize)
}

/// The numbers with some of them 0 and the others larger by as much, in `dropped`; the numbers themselves
/// where none is dropped.
fn drop_inputs<'a>(
    adapter: &Adapter,
    noise: CounterRng,
    numbers: &'a [f32],
    dropped: &'a mut Vec<f32>,
) -> &'a [f32] {
    if adapter.dropout == 0.0 {
        return numbers;
    }
    let least = (f64::from(adapter.dropout) * 4_294_967_296.0) as u32;
    let factor = 1.0 / (1.0 - adapter.dropout);
    let out = sized(dropped, numbers.len());
    parallel_for_each(out.chunks_mut(PIECE).zip(numbers.chunks(PIECE)).enumerate(), |(piece, (out, x))| {
        for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
            let bits = noise.bits((piece * PIECE + i) as u32);
            *out = if bits < least { 0.0 } else { x * factor };
        }
    });
    dropped
}
