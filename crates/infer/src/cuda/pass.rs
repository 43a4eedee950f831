//! A pass over a model on a GPU. One runs at a time: it has the model's buffers.
//!
//! Passes of one token of each sequence, which decoding is made of, are captured into graphs ([`super::graphs`]): what they read
//! that differs from one to the next is in the memory of the GPU.

use std::sync::PoisonError;

use tritforge_kernels::{LM_HEAD, Observer, Step};
use tritforge_kernels_cuda::{
    AttentionScratch, Buffer, CacheShape, Codes, Cuda, CudaError, Gpu, Largest, NewTokens, Place, Rounding,
};
use tritforge_model::{Activations, BlockForward, BlockShape, Passing};

use super::adapters::{Adapters, OfPass};
use super::choice::Choice;
use super::graphs::{Graphs, Kind};
use super::products::{Caches, Products};
use super::{CudaModel, OnDevice, fault};
use crate::products::StateCapture;
use crate::step::{SequenceInput, adapted_rows, all_rows, split, wanted_rows};
use crate::{InferError, Logits, LogitsRequest, Model};

/// Everything that a pass computes and nobody keeps.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    ids: Buffer<u32>,
    place: Place,
    scratch: AttentionScratch,
    /// The residual stream, and a block's output.
    x: Buffer<f32>,
    next: Buffer<f32>,
    block: Activations<Cuda>,
    passing: Passing<Cuda>,
    /// The rows whose logits are wanted, if they are not all.
    wanted: Buffer<u32>,
    rows: Buffer<f32>,
    normed: Buffer<f32>,
    /// The same for a ternary head.
    head_input: Codes,
    pub(super) logits: Buffer<f32>,
    pub(super) largest: Largest,
    /// Single logits that a choice looks at: where they stand, and they.
    pub(super) asked: Buffer<u32>,
    pub(super) beside: Buffer<f32>,
    adapters: Adapters,
    graphs: Graphs,
}

/// What is computed in a pass.
struct Work<'p> {
    model: &'p Model,
    shape: CacheShape,
    adapted: &'p OfPass,
    /// The rows whose logits are wanted; none if they are all.
    wanted: Option<usize>,
}

impl CudaModel {
    /// Computes the new tokens' keys and values into the sessions' pages, and the wanted logits. What is
    /// checked of tokens and sessions has been checked.
    pub(crate) fn pass(
        &self,
        model: &Model,
        parts: &mut [SequenceInput<'_>],
        observer: Option<&mut Observer<'_>>,
        capture: Option<&mut StateCapture>,
    ) -> Result<Vec<Vec<f32>>, InferError> {
        let rows = wanted_rows(parts);
        self.run(model, parts, (observer, capture), |_, buffers| {
            let any = rows.iter().any(|rows| !rows.is_empty());
            let logits = if any { buffers.logits.download()? } else { Vec::new() };
            Ok(split(&rows, logits, model.config().vocab_size))
        })
    }

    /// The same, of whose logits only those of a choice are copied.
    pub(crate) fn pass_of_choice(
        &self,
        model: &Model,
        parts: &mut [SequenceInput<'_>],
        choice: &Choice<'_>,
    ) -> Result<Vec<Logits>, InferError> {
        let vocab = model.config().vocab_size;
        self.run(model, parts, (None, None), |gpu, buffers| choice.read(gpu, buffers, vocab))
    }

    /// The states of all tokens behind the final norm, [tokens, hidden_size] of each part.
    pub(crate) fn hidden_states(
        &self,
        model: &Model,
        parts: &mut [SequenceInput<'_>],
    ) -> Result<Vec<Vec<f32>>, InferError> {
        // The last block's output is there whatever logits are wanted.
        parts.iter_mut().for_each(|part| part.request = LogitsRequest::None);
        let (rows, width, eps) = (all_rows(parts), model.config().hidden_size, model.config().rms_norm_eps);
        self.run(model, parts, (None, None), |gpu, Buffers { x, normed, .. }| {
            let out = (None, Some(&mut *normed));
            gpu.rows(x, None, width, Some((&self.norm, eps)), Rounding::default(), out)?;
            Ok(split(&rows, normed.download()?, width))
        })
    }

    fn run<T>(
        &self,
        model: &Model,
        parts: &mut [SequenceInput<'_>],
        (observer, capture): (Option<&mut Observer<'_>>, Option<&mut StateCapture>),
        read: impl FnOnce(&Gpu, &mut Buffers) -> Result<T, CudaError>,
    ) -> Result<T, InferError> {
        let kv = parts[0].session.kv_type();
        if parts.iter().any(|part| part.session.kv_type() != kv) {
            return Err(InferError::Option {
                option: "kv",
                found: "f16 and f32 in one pass on a GPU".to_string(),
                expected: "one type of cache for all sequences",
            });
        }
        let (gpu, config) = (&self.cuda.gpu, model.config());
        let shape = CacheShape {
            ty: kv,
            attention: BlockShape::new(config, 0).attention,
            layers: config.num_hidden_layers,
        };
        let fault = fault(self.ordinal);
        for SequenceInput { session, ids, .. } in parts.iter_mut() {
            let start = session.len();
            session.pages.reserve(gpu, shape, start, start + ids.len()).map_err(&fault)?;
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let buffers = &mut *buffers;
        let adapted_rows = adapted_rows(parts);
        let adapted = buffers.adapters.of_pass(gpu, &adapted_rows).map_err(&fault)?;
        let decodes = |part: &SequenceInput<'_>| part.ids.len() == 1 && part.request == LogitsRequest::Last;
        let is_plain = adapted_rows.is_empty() && observer.is_none() && capture.is_none();
        let single = is_plain && parts.iter().all(decodes);
        let queued = self.set(parts, buffers).and_then(|wanted| {
            let work = Work { model, shape, adapted: &adapted, wanted };
            if single {
                return self.decode(&work, buffers);
            }
            let before = gpu.allocations();
            self.queue(&work, buffers, (observer, capture))?;
            if gpu.allocations() != before {
                buffers.graphs.forget();
            }
            Ok(())
        });
        let result = queued.and_then(|()| read(gpu, buffers));
        // What was queued failed first.
        self.cuda.check().and(result).map_err(fault)
    }

    /// Copies what the pass is about to the GPU; returns how many rows have wanted logits, if not all.
    fn set(&self, parts: &[SequenceInput<'_>], buffers: &mut Buffers) -> Result<Option<usize>, CudaError> {
        let (gpu, before) = (&self.cuda.gpu, self.cuda.gpu.allocations());
        let ids: Vec<u32> = parts.iter().flat_map(|part| part.ids).copied().collect();
        gpu.write(&mut buffers.ids, &ids)?;
        let new: Vec<_> = parts
            .iter()
            .map(|part| {
                let (pages, start) = (&part.session.pages, part.session.len());
                NewTokens { pages, start, count: part.ids.len() }
            })
            .collect();
        buffers.place.set(gpu, &new)?;
        let rows: Vec<u32> = wanted_rows(parts).into_iter().flatten().map(|row| row as u32).collect();
        let all = rows.len() == ids.len();
        if !all {
            gpu.write(&mut buffers.wanted, &rows)?;
        }
        if gpu.allocations() != before {
            buffers.graphs.forget();
        }
        Ok((!all).then_some(rows.len()))
    }

    /// A pass of one token a sequence, all of whose logits are wanted: by its graph, which is captured at the second pass of its
    /// kind. The first one makes the buffers and has the driver load the kernels: neither can be done during a capture.
    fn decode(&self, work: &Work<'_>, buffers: &mut Buffers) -> Result<(), CudaError> {
        let gpu = &self.cuda.gpu;
        let kind = Kind { tokens: buffers.ids.len(), segments: buffers.place.segments(), kv: work.shape.ty };
        let mut graphs = std::mem::take(&mut buffers.graphs);
        let launched = graphs.launch(kind, || {
            let captured = gpu.capture(|| self.queue(work, buffers, (None, None)));
            // What could not be queued during the capture failed first.
            self.cuda.check().and(captured)
        });
        let result = match launched {
            Ok(true) => {
                let logits = kind.tokens * work.model.config().vocab_size;
                gpu.resize(&mut buffers.logits, logits)
            }
            Ok(false) => {
                let before = gpu.allocations();
                let queued = self.queue(work, buffers, (None, None));
                if gpu.allocations() != before {
                    graphs.forget();
                }
                if queued.is_ok() {
                    graphs.ran(kind);
                }
                queued
            }
            Err(error) => Err(error),
        };
        buffers.graphs = graphs;
        result
    }

    /// Queues the kernels of a pass.
    fn queue(
        &self,
        work: &Work<'_>,
        buffers: &mut Buffers,
        (observer, capture): (Option<&mut Observer<'_>>, Option<&mut StateCapture>),
    ) -> Result<(), CudaError> {
        let (gpu, config, shape) = (&self.cuda.gpu, work.model.config(), work.shape);
        let Buffers { ids, place, scratch, x, next, block: kept, passing, .. } = buffers;
        let mut products = Products {
            cuda: &self.cuda,
            config,
            block: &self.blocks[0],
            layer: 0,
            adapted: work.adapted,
            scratch: Default::default(),
            observer,
            capture,
        };
        match &self.embedding {
            OnDevice::Dense(table) => gpu.embed(table, ids, x)?,
            OnDevice::Ternary(table) => gpu.embed_ternary(table, ids, x)?,
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            let forward = BlockForward {
                device: &self.cuda,
                shape: BlockShape::new(config, layer),
                norms: block.norms.each(|norm| norm),
                rope: &self.rope,
                positions: place.positions(),
            };
            (products.block, products.layer) = (block, layer);
            let mut caches = Caches { cuda: &self.cuda, shape, place, scratch: &mut *scratch };
            forward.run(x, &mut products, &mut caches, kept, passing, next)?;
            std::mem::swap(x, next);
        }
        if work.wanted == Some(0) {
            return Ok(());
        }
        let observer = products.observer;
        self.logits(work, buffers, observer)
    }

    /// The head, of the rows whose logits are wanted.
    fn logits(
        &self,
        work: &Work<'_>,
        buffers: &mut Buffers,
        observer: Option<&mut Observer<'_>>,
    ) -> Result<(), CudaError> {
        let (gpu, config) = (&self.cuda.gpu, work.model.config());
        let Buffers { x, wanted, rows, normed, head_input, logits, .. } = buffers;
        let rows = if work.wanted.is_some() {
            gpu.gather(x, config.hidden_size, wanted, rows)?;
            &*rows
        } else {
            &*x
        };
        let norm = Some((&self.norm, config.rms_norm_eps));
        let normed_to = |out| gpu.rows(rows, None, config.hidden_size, norm, Rounding::default(), out);
        match self.head.as_ref().unwrap_or(&self.embedding) {
            OnDevice::Dense(head) => {
                normed_to((None, Some(&mut *normed)))?;
                gpu.dense_matmul(normed, head, logits)
            }
            OnDevice::Ternary(head) => {
                normed_to((Some(&mut *head_input), None))?;
                if let Some(observer) = observer {
                    let (input, sums) = (head_input.download()?, gpu.ternary_sums(head_input, head)?);
                    let layer = config.num_hidden_layers;
                    observer(Step { layer, projection: LM_HEAD, input: &input, sums: &sums });
                }
                gpu.ternary_matmul(head_input, head, logits)
            }
        }
    }
}
