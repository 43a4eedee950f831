//! A model on a GPU: its weights there. [`pass`] runs them.
//!
//! The forward of a block is the CPU's ([`tritforge_model::BlockForward`]), and so are the bits of the
//! logits.

mod adapters;
mod choice;
mod graphs;
mod pass;
mod products;

use std::sync::Mutex;

use tritforge_kernels_cuda::{Buffer, Cuda, CudaError, Dense, Gpu, RopeTables, Ternary};
use tritforge_model::{Norms, Tensor};

pub(crate) use self::choice::Choice;
use self::pass::Buffers;
use crate::weights::{self, Weight};
use crate::{Device, InferError, Model};

/// The weight of a projection, the embedding or the head.
#[derive(Debug)]
enum OnDevice {
    Ternary(Ternary),
    Dense(Dense),
}

impl OnDevice {
    fn new(gpu: &Gpu, model: &Model, weight: &Weight) -> Result<Self, CudaError> {
        Ok(match weight {
            Weight::Ternary(weights, _) => Self::Ternary(Ternary::new(gpu, weights)?),
            Weight::Dense(weights) => {
                let bytes = weights.content(&model.gguf);
                Self::Dense(Dense::new(gpu, weights.ty, bytes, weights.rows, weights.cols)?)
            }
        })
    }
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
    embedding: OnDevice,
    head: Option<OnDevice>,
    norm: Buffer<f32>,
    rope: RopeTables,
    buffers: Mutex<Buffers>,
}

/// An error of GPU `ordinal`.
fn fault(ordinal: usize) -> impl Fn(CudaError) -> InferError {
    move |error| InferError::Device { device: Device::Cuda(ordinal), message: error.to_string() }
}

impl CudaModel {
    /// Copies a model's weights to GPU `ordinal`.
    pub(crate) fn new(model: &Model, ordinal: usize) -> Result<Self, InferError> {
        Self::upload(model, ordinal).map_err(fault(ordinal))
    }

    fn upload(model: &Model, ordinal: usize) -> Result<Self, CudaError> {
        let gpu = Gpu::open(ordinal)?;
        let weight = |weight: &Weight| OnDevice::new(&gpu, model, weight);
        let projected = |projected: &weights::Projected| {
            let bias = projected.bias.as_ref().map(|bias| gpu.upload(bias)).transpose()?;
            Ok(Projected { weight: weight(&projected.weight)?, bias })
        };
        let block = |block: &weights::Block| {
            let projections = block.projections.iter().map(projected).collect::<Result<_, CudaError>>()?;
            Ok(Block { norms: norms(&gpu, &block.norms)?, projections })
        };
        let [cos, sin] = model.rope.cos_sin().map(|numbers| gpu.upload(numbers));
        Ok(Self {
            ordinal,
            blocks: model.blocks.iter().map(block).collect::<Result<_, CudaError>>()?,
            embedding: weight(&model.embedding)?,
            head: model.head.as_ref().map(weight).transpose()?,
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
}

/// A block's norms.
fn norms(gpu: &Gpu, norms: &Norms<Tensor>) -> Result<Norms<Buffer<f32>>, CudaError> {
    let upload = |norm: &Tensor| gpu.upload(&norm.read());
    let optional = |norm: &Option<Tensor>| norm.as_ref().map(upload).transpose();
    Ok(Norms {
        input_layernorm: upload(&norms.input_layernorm)?,
        projections: match &norms.projections {
            Some(own) => {
                let [q, k, v, gate, up] = own.each_ref().map(upload);
                Some([q?, k?, v?, gate?, up?])
            }
            None => None,
        },
        qk_norm: match &norms.qk_norm {
            Some([q, k]) => Some([upload(q)?, upload(k)?]),
            None => None,
        },
        attn_sub_norm: optional(&norms.attn_sub_norm)?,
        post_attention_layernorm: upload(&norms.post_attention_layernorm)?,
        ffn_sub_norm: optional(&norms.ffn_sub_norm)?,
    })
}
