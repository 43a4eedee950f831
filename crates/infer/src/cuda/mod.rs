//! A model on a GPU: its weights there, and a pass over them.
//!
//! The forward of a block is the CPU's ([`tritforge_model::BlockForward`]), and so are the bits of the
//! logits. One pass runs at a time: it has the model's buffers.

mod adapters;
mod products;

use std::sync::{Mutex, PoisonError};

use tritforge_config::{ActivationQuant, HiddenAct, Rotation};
use tritforge_kernels::Observer;
use tritforge_kernels_cuda::{
    Buffer, CacheShape, Cuda, CudaError, Dense, Gpu, NewTokens, Place, RopeTables, Ternary,
};
use tritforge_model::{Activations, BlockForward, BlockShape, Norms, Passing, Tensor};

use self::adapters::Adapters;
use self::products::{Caches, Products};
use crate::products::StateCapture;
use crate::step::{SequenceInput, adapted_rows, split, wanted_rows};
use crate::weights::{self, Weight};
use crate::{Device, InferError, Model};

/// The weight of a projection.
#[derive(Debug)]
enum OnDevice {
    Ternary(Ternary),
    Dense(Dense),
}

/// A projection.
#[derive(Debug)]
struct Projected {
    weight: OnDevice,
    bias: Option<Buffer<f32>>,
}

/// A block.
#[derive(Debug)]
struct Block {
    norms: Norms<Buffer<f32>>,
    /// In the order of [`tritforge_config::Projection::ALL`].
    projections: Vec<Projected>,
}

/// A model on a GPU.
#[derive(Debug)]
pub(crate) struct CudaModel {
    ordinal: usize,
    cuda: Cuda,
    blocks: Vec<Block>,
    embedding: Dense,
    head: Option<Dense>,
    norm: Buffer<f32>,
    rope: RopeTables,
    buffers: Mutex<Buffers>,
}

/// Everything that a pass computes and nobody keeps.
#[derive(Debug, Default)]
struct Buffers {
    ids: Buffer<u32>,
    positions: Buffer<u32>,
    place: Place,
    /// The residual stream, and a block's output.
    x: Buffer<f32>,
    next: Buffer<f32>,
    block: Activations<Cuda>,
    passing: Passing<Cuda>,
    wanted: Buffer<u32>,
    rows: Buffer<f32>,
    normed: Buffer<f32>,
    logits: Buffer<f32>,
    adapters: Adapters,
}

/// An error of GPU `ordinal`.
fn fault(ordinal: usize) -> impl Fn(CudaError) -> InferError {
    move |error| InferError::Device { device: Device::Cuda(ordinal), message: error.to_string() }
}

impl CudaModel {
    /// Copies a model's weights to GPU `ordinal`.
    pub(crate) fn new(model: &Model, ordinal: usize) -> Result<Self, InferError> {
        let refuse = |message| Err(InferError::Device { device: Device::Cuda(ordinal), message });
        if let Some(message) = refused(model) {
            return refuse(message);
        }
        let tables = (model.embedding.dense(), model.head.as_ref().map(weights::Weight::dense));
        let (Some(embedding), head @ (None | Some(Some(_)))) = tables else {
            return refuse("there are no kernels for a ternary embedding or head on a GPU".to_string());
        };
        Self::upload(model, (embedding, head.flatten()), ordinal).map_err(fault(ordinal))
    }

    fn upload(
        model: &Model,
        (embedding, head): (&weights::Dense, Option<&weights::Dense>),
        ordinal: usize,
    ) -> Result<Self, CudaError> {
        let gpu = Gpu::open(ordinal)?;
        let dense = |dense: &weights::Dense| {
            Dense::new(&gpu, dense.ty, dense.content(&model.gguf), dense.rows, dense.cols)
        };
        let projected = |projected: &weights::Projected| {
            let weight = match &projected.weight {
                Weight::Ternary(weights, _) => OnDevice::Ternary(Ternary::new(&gpu, weights)?),
                Weight::Dense(weights) => OnDevice::Dense(dense(weights)?),
            };
            let bias = projected.bias.as_ref().map(|bias| gpu.upload(bias)).transpose()?;
            Ok(Projected { weight, bias })
        };
        let block = |block: &weights::Block| {
            let projections = block.projections.iter().map(projected).collect::<Result<_, CudaError>>()?;
            Ok(Block { norms: norms(&gpu, &block.norms)?, projections })
        };
        let [cos, sin] = model.rope.cos_sin().map(|numbers| gpu.upload(numbers));
        Ok(Self {
            ordinal,
            blocks: model.blocks.iter().map(block).collect::<Result<_, CudaError>>()?,
            embedding: dense(embedding)?,
            head: head.map(dense).transpose()?,
            norm: gpu.upload(&model.norm)?,
            rope: RopeTables { cos: cos?, sin: sin?, half: model.config().head_dim / 2 },
            buffers: Mutex::default(),
            cuda: Cuda::new(gpu),
        })
    }

    /// The GPU's name.
    pub(crate) fn name(&self) -> String {
        self.cuda.gpu.name().to_string()
    }

    /// Computes the new tokens' keys and values into the sessions' pages, and the wanted logits. What is
    /// checked of tokens and sessions has been checked.
    pub(crate) fn pass(
        &self,
        model: &Model,
        parts: &mut [SequenceInput<'_>],
        observer: Option<&mut Observer<'_>>,
        capture: Option<&mut StateCapture>,
    ) -> Result<Vec<Vec<f32>>, InferError> {
        let kv = parts[0].session.kv_type();
        if parts.iter().any(|part| part.session.kv_type() != kv) {
            return Err(InferError::Option {
                option: "kv",
                found: "f16 and f32 in one pass on a GPU".to_string(),
                expected: "one type of cache for all sequences",
            });
        }
        let config = model.config();
        let shape = CacheShape {
            ty: kv,
            attention: BlockShape::new(config, 0).attention,
            layers: config.num_hidden_layers,
        };
        let fault = fault(self.ordinal);
        for SequenceInput { session, ids, .. } in parts.iter_mut() {
            let start = session.len();
            session.pages.reserve(&self.cuda.gpu, shape, start, start + ids.len()).map_err(&fault)?;
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let adapted = buffers.adapters.of_pass(&self.cuda.gpu, &adapted_rows(parts)).map_err(&fault)?;
        let products = Products {
            cuda: &self.cuda,
            block: &self.blocks[0],
            layer: 0,
            adapted: &adapted,
            scratch: Default::default(),
            observer,
            capture,
        };
        let logits = self.compute(model, parts, shape, &mut buffers, products);
        // What was queued failed first.
        self.cuda.check().and(logits).map_err(fault)
    }

    fn compute<'p>(
        &'p self,
        model: &Model,
        parts: &[SequenceInput<'_>],
        shape: CacheShape,
        buffers: &mut Buffers,
        mut products: Products<'p, '_, '_>,
    ) -> Result<Vec<Vec<f32>>, CudaError> {
        let (gpu, config) = (&self.cuda.gpu, model.config());
        let Buffers {
            ids,
            positions,
            place,
            x,
            next,
            block: kept,
            passing,
            wanted,
            rows,
            normed,
            logits,
            ..
        } = buffers;
        let all: Vec<u32> = parts.iter().flat_map(|part| part.ids).copied().collect();
        gpu.write(ids, &all)?;
        let stands = parts.iter().flat_map(|part| {
            let start = part.session.len() as u32;
            start..start + part.ids.len() as u32
        });
        gpu.write(positions, &stands.collect::<Vec<_>>())?;
        let new: Vec<_> = parts
            .iter()
            .map(|part| {
                let (pages, start) = (&part.session.pages, part.session.len());
                NewTokens { pages, start, count: part.ids.len() }
            })
            .collect();
        place.set(gpu, &new)?;
        gpu.embed(&self.embedding, ids, x)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let forward = BlockForward {
                device: &self.cuda,
                shape: BlockShape::new(config, layer),
                norms: block.norms.each(|norm| norm),
                rope: &self.rope,
                positions,
            };
            (products.block, products.layer) = (block, layer);
            let mut caches = Caches { cuda: &self.cuda, shape, place };
            forward.run(x, &mut products, &mut caches, kept, passing, next)?;
            std::mem::swap(x, next);
        }
        let ranges = wanted_rows(parts);
        let numbers: Vec<u32> = ranges.iter().cloned().flatten().map(|row| row as u32).collect();
        if numbers.is_empty() {
            return Ok(vec![Vec::new(); parts.len()]);
        }
        gpu.write(wanted, &numbers)?;
        gpu.gather(x, config.hidden_size, wanted, rows)?;
        let norm = Some((&self.norm, config.rms_norm_eps));
        gpu.rows(rows, None, config.hidden_size, norm, (None, Some(normed)))?;
        gpu.dense_matmul(normed, self.head.as_ref().unwrap_or(&self.embedding), logits)?;
        Ok(split(&ranges, logits.download()?, config.vocab_size))
    }
}

/// Why there are no kernels for a model, if there are none.
fn refused(model: &Model) -> Option<String> {
    let config = model.config();
    let has = [
        (config.ternary_embedding.is_some() || config.ternary_head.is_some(), "a ternary embedding or head"),
        (config.activations == ActivationQuant::Int4, "activations of 4 bits"),
        (config.rotation != Rotation::None, "rotated inputs"),
        (config.activation_top_k.is_some(), "activations of which only the largest are kept (top-k)"),
        (config.projection_norms, "norms before all projections"),
        (
            !matches!(config.hidden_act, HiddenAct::Silu | HiddenAct::Relu2),
            "a gate other than SiLU and ReLU²",
        ),
    ];
    let (_, what) = has.into_iter().find(|(has, _)| *has)?;
    Some(format!("the model has {what}, for which there are no kernels on a GPU: run it on the CPU"))
}

/// A block's norms.
fn norms(gpu: &Gpu, norms: &Norms<Tensor>) -> Result<Norms<Buffer<f32>>, CudaError> {
    let upload = |norm: &Tensor| gpu.upload(&norm.read());
    let optional = |norm: &Option<Tensor>| norm.as_ref().map(upload).transpose();
    Ok(Norms {
        input_layernorm: upload(&norms.input_layernorm)?,
        // Refused before.
        projections: None,
        qk_norm: match &norms.qk_norm {
            Some([q, k]) => Some([upload(q)?, upload(k)?]),
            None => None,
        },
        attn_sub_norm: optional(&norms.attn_sub_norm)?,
        post_attention_layernorm: upload(&norms.post_attention_layernorm)?,
        ffn_sub_norm: optional(&norms.ffn_sub_norm)?,
    })
}
