//! The products of a block on a GPU, and attention over the sessions' pages.

use tritforge_config::Projection;
use tritforge_kernels::{ActivationWidth, Observer, Step};
use tritforge_kernels_cuda::{Buffer, CacheShape, Cuda, CudaError, Input, Place};
use tritforge_model::{Attend, InputForm, Projections};

use super::adapters::OfPass;
use super::{Block, OnDevice};
use crate::products::StateCapture;

/// The products of one block.
pub(super) struct Products<'p, 'a, 'o> {
    pub(super) cuda: &'p Cuda,
    pub(super) block: &'p Block,
    pub(super) layer: usize,
    pub(super) adapted: &'p OfPass,
    /// What is between the products of an adapter.
    pub(super) scratch: [Buffer<f32>; 2],
    /// Sees every product of integers.
    pub(super) observer: Option<&'a mut Observer<'o>>,
    pub(super) capture: Option<&'a mut StateCapture>,
}

impl Projections<Cuda> for Products<'_, '_, '_> {
    type Error = CudaError;

    fn form(&self, projections: &[Projection]) -> InputForm {
        let ternary =
            |p: &Projection| matches!(self.block.projections[*p as usize].weight, OnDevice::Ternary(_));
        let quantized = projections.iter().any(ternary).then_some(1.0);
        let plain = !projections.iter().all(ternary) || self.adapted.any(self.layer, projections);
        // Rotations and other widths are refused where a model is put on a GPU.
        InputForm { quantized, plain, width: ActivationWidth::Int8, top_k: None, rotated: false }
    }

    fn project<const N: usize>(
        &mut self,
        projections: [Projection; N],
        input: &Input,
        plain: &Buffer<f32>,
        results: [&mut Buffer<f32>; N],
    ) -> Result<(), CudaError> {
        let gpu = &self.cuda.gpu;
        let plain = input.plain(plain, self.form(&projections));
        for (projection, result) in projections.into_iter().zip(results) {
            let projected = &self.block.projections[projection as usize];
            match &projected.weight {
                OnDevice::Ternary(weights) => {
                    if let Some(observer) = self.observer.as_deref_mut() {
                        let (layer, projection) = (self.layer, projection.hf_name());
                        let sums = gpu.ternary_sums(&input.codes, weights)?;
                        observer(Step { layer, projection, input: &input.codes.download()?, sums: &sums });
                    }
                    gpu.ternary_matmul(&input.codes, weights, result)?;
                }
                OnDevice::Dense(weights) => gpu.dense_matmul(plain, weights, result)?,
            }
            let place = (self.layer, projection);
            self.adapted.add_products(gpu, place, plain, result, &mut self.scratch)?;
            if let Some(bias) = &projected.bias {
                gpu.add_bias(result, bias)?;
            }
        }
        Ok(())
    }

    fn states(&mut self, states: [&Buffer<f32>; 3]) {
        if let Some(capture) = self.capture.as_mut().filter(|capture| capture.layer == self.layer) {
            for (kept, state) in capture.states.iter_mut().zip(states) {
                self.cuda.keep(state.download().map(|state| kept.extend(state)));
            }
        }
    }
}

/// The pages of all sessions of a pass.
pub(super) struct Caches<'p> {
    pub(super) cuda: &'p Cuda,
    pub(super) shape: CacheShape,
    pub(super) place: &'p mut Place,
}

impl Attend<Cuda> for Caches<'_> {
    /// Appends keys and values to the pages. The log-sum-exp is not computed.
    fn attend(
        &mut self,
        layer: usize,
        [q, k, v]: [&Buffer<f32>; 3],
        out: &mut Buffer<f32>,
        _log_sum_exp: &mut Buffer<f32>,
    ) {
        let gpu = &self.cuda.gpu;
        self.cuda.keep(gpu.append(self.shape, layer, self.place, [k, v]));
        self.cuda.keep(gpu.attend(self.shape, layer, self.place, q, out));
    }
}
