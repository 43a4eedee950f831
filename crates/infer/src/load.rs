//! From the tensors of a GGUF file to the kernels' layouts, every type and shape checked.

use std::path::Path;

use tritforge_config::{Architecture, Granularity, ModelConfig, Projection};
use tritforge_gguf::{GgmlType, Gguf, TensorInfo};
use tritforge_kernels::{BlockFormat, DenseMatrix, DenseType, TernaryLayout, TernaryWeights};
use tritforge_model::{Norms, Tensor};
use tritforge_ternary::{I2_S_LAYOUT, PackedRows, Packing, check_finite};

use crate::InferError;
use crate::weights::{Block, Dense, Projected, Source, Weight};

/// A file being loaded: where errors come from.
pub(crate) struct Loader<'a> {
    pub(crate) path: &'a Path,
    pub(crate) gguf: &'a Gguf,
}

impl Loader<'_> {
    fn fault(&self, tensor: &str, message: String) -> InferError {
        InferError::Tensor { path: self.path.to_path_buf(), tensor: tensor.to_string(), message }
    }

    /// A tensor of the given shape, outermost dimension first.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo, InferError> {
        let info = self
            .gguf
            .tensor(name)
            .ok_or_else(|| self.fault(name, format!("missing; expected shape {shape:?}")))?;
        let found: Vec<usize> = info.dims.iter().rev().map(|d| *d as usize).collect();
        if found != shape {
            return Err(self.fault(name, format!("shape {found:?}, expected {shape:?}")));
        }
        Ok(info)
    }

    /// Refuses a matrix with NaN or infinity that is multiplied where it lies in the file. Loading does not
    /// look at all of it, so that nothing is read of a large file before it is needed; what is copied or
    /// converted is looked at by the way.
    pub(crate) fn check_finite(&self, name: &str) -> Result<(), InferError> {
        let Some(info) = self.gguf.tensor(name) else { return Ok(()) };
        let (Some(ty), [cols, rows]) = (dense_type(info.ty), &info.dims[..]) else { return Ok(()) };
        DenseMatrix::from_bytes(ty, self.gguf.data(info), *rows as usize, *cols as usize)
            .check_finite()
            .map_err(|e| self.fault(name, e.to_string()))
    }

    /// A vector of F32 numbers.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, InferError> {
        let info = self.tensor(name, &[len])?;
        if info.ty != GgmlType::F32 {
            return Err(self.fault(name, format!("type {}, expected F32", info.ty.name())));
        }
        let values: Vec<f32> =
            self.gguf.data(info).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        check_finite(&values, len).map_err(|e| self.fault(name, e.to_string()))?;
        Ok(values)
    }

    /// A full-precision matrix: where it lies in the file, if the kernels multiply its type, else its numbers
    /// as F32.
    pub(crate) fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<Dense, InferError> {
        let info = self.tensor(name, &[rows, cols])?;
        if let Some(ty) = dense_type(info.ty) {
            return Ok(Dense { ty, rows, cols, source: Source::File(info.clone()) });
        }
        let mut numbers = vec![0f32; rows * cols];
        if let Some(format) = BlockFormat::from_name(info.ty.name()) {
            format.decode(self.gguf.data(info), &mut numbers);
        } else if let Some(packing) = self.packing(info.ty) {
            // Ternary numbers among full-precision ones: no activations are quantized for them.
            let weights = self.ternary(name, packing, [rows, cols], None, None)?;
            weights.scales().apply(&weights.codes(), cols, &mut numbers);
        } else {
            let known: Vec<&str> = BlockFormat::all().iter().map(|format| format.name).collect();
            let message = format!("type {}, expected {} or a ternary one", info.ty.name(), known.join(", "));
            return Err(self.fault(name, message));
        }
        self.gguf.release(info);
        check_finite(&numbers, cols).map_err(|e| self.fault(name, e.to_string()))?;
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Ok(Dense { ty: DenseType::F32, rows, cols, source: Source::Memory(bytes) })
    }

    /// The embedding or the head, [vocab_size, hidden_size]. Which weights of a ternary one share a scale is what the file
    /// says, or else what its blocks and rows have; `granularity` becomes that.
    pub(crate) fn table(
        &self,
        name: &str,
        [rows, cols]: [usize; 2],
        granularity: &mut Option<Granularity>,
    ) -> Result<Weight, InferError> {
        let packing = self.packing(self.tensor(name, &[rows, cols])?.ty);
        let (Some(packing), Some(granularity)) = (packing, granularity) else {
            return Ok(Weight::Dense(self.dense(name, rows, cols)?));
        };
        let said = ModelConfig::said_table_granularity(self.gguf.metadata(), name)
            .map_err(|source| InferError::Config { path: self.path.to_path_buf(), source })?;
        let weights = self.ternary(name, packing, [rows, cols], said, None)?;
        *granularity = weights.granularity();
        Ok(Weight::Ternary(weights, packing))
    }

    /// A full-precision matrix of a projection, its rows in the model's order.
    fn dense_rows(
        &self,
        name: &str,
        [rows, cols]: [usize; 2],
        order: Order<'_>,
    ) -> Result<Dense, InferError> {
        let dense = self.dense(name, rows, cols)?;
        let Some(order) = order else { return Ok(dense) };
        let bytes = match &dense.source {
            Source::File(info) => self.gguf.data(info),
            Source::Memory(bytes) => bytes,
        };
        let width = dense.ty.row_bytes(cols);
        let ordered = (0..rows).flat_map(|row| &bytes[order(row) * width..][..width]).copied().collect();
        Ok(Dense { source: Source::Memory(ordered), ..dense })
    }

    /// The packing of a ternary type.
    fn packing(&self, ty: GgmlType) -> Option<Packing> {
        Packing::in_file(ty.name(), self.gguf.metadata().get_str(I2_S_LAYOUT).ok())
    }

    /// A ternary matrix in the kernels' layout, its rows in the model's order.
    fn ternary(
        &self,
        name: &str,
        packing: Packing,
        [rows, cols]: [usize; 2],
        granularity: Option<Granularity>,
        order: Order<'_>,
    ) -> Result<TernaryWeights, InferError> {
        let info = self.tensor(name, &[rows, cols])?;
        let fault =
            |source| InferError::Ternary { path: self.path.to_path_buf(), tensor: name.to_string(), source };
        let bytes =
            Packing::bytes_in_file(info.ty.name(), self.gguf.data(info), rows, cols).map_err(fault)?;
        let packed = PackedRows::new(packing, &bytes, rows, cols).map_err(fault)?;
        // llama.cpp's `bitnet`: the f32 scale of the tensor stands beside it.
        let scale_name = name.replace(".weight", ".scale");
        let beside = match self.gguf.tensor(&scale_name) {
            Some(_) => Some(self.vector(&scale_name, 1)?[0]),
            None => None,
        };
        let scales = packed.scales(beside, granularity).map_err(fault)?;
        let scales = order.map_or(scales.clone(), |order| scales.reordered(rows, order));
        let layout = TernaryLayout::for_decoding();
        let codes = |first: usize, codes: &mut [i8]| match order {
            None => packed.unpack(first, codes),
            Some(order) => {
                let mut rows = codes.chunks_exact_mut(cols).enumerate();
                rows.try_for_each(|(i, codes)| packed.unpack(order(first + i), codes))
            }
        };
        let weights = TernaryWeights::try_from_rows(rows, cols, scales, layout, codes).map_err(fault)?;
        // The file's pages are not needed again: let the system have them.
        self.gguf.release(info);
        Ok(weights)
    }

    /// One projection. Rows of queries and keys may stand in another order in the file.
    fn projection(
        &self,
        config: &ModelConfig,
        layer: usize,
        p: Projection,
        granularity: Option<Granularity>,
        interleaved: bool,
    ) -> Result<Projected, InferError> {
        let (name, shape) = (p.gguf_weight(layer), config.projection_shape(p));
        let row = |row: usize| config.interleaved_row(row);
        let moved = interleaved && matches!(p, Projection::Q | Projection::K);
        let order: Order<'_> = if moved { Some(&row) } else { None };
        let weight = match self.packing(self.tensor(&name, &shape)?.ty) {
            Some(packing) => {
                let ternary = self.ternary(&name, packing, shape, granularity, order)?;
                Weight::Ternary(ternary, packing)
            }
            None => Weight::Dense(self.dense_rows(&name, shape, order)?),
        };
        let bias = if config.attention_bias.has(p) {
            let stored = self.vector(&p.gguf_bias(layer), shape[0])?;
            Some(match order {
                Some(order) => (0..stored.len()).map(|row| stored[order(row)]).collect(),
                None => stored,
            })
        } else {
            None
        };
        Ok(Projected { weight, bias })
    }

    /// One block.
    fn block(
        &self,
        config: &ModelConfig,
        layer: usize,
        granularity: Option<Granularity>,
        interleaved: bool,
    ) -> Result<Block, InferError> {
        let norm =
            |name: &str, len| self.vector(&format!("blk.{layer}.{name}.weight"), len).map(Tensor::vector);
        let sub_norm = |name: &str, len| config.use_sub_norm.then(|| norm(name, len)).transpose();
        let head = config.head_dim;
        let qk_norm = || Ok::<_, InferError>([norm("attn_q_norm", head)?, norm("attn_k_norm", head)?]);
        let own_norms = || {
            let own = |p: Projection| norm(&format!("{}.norm", p.gguf_name()), config.hidden_size);
            let [q, k, v, gate, up] = Projection::SHARING.map(own);
            Ok::<_, InferError>([q?, k?, v?, gate?, up?])
        };
        let projection = |p: &Projection| self.projection(config, layer, *p, granularity, interleaved);
        Ok(Block {
            norms: Norms {
                input_layernorm: norm("attn_norm", config.hidden_size)?,
                qk_norm: config.use_qk_norm.then(qk_norm).transpose()?,
                attn_sub_norm: sub_norm("attn_sub_norm", config.q_size())?,
                post_attention_layernorm: norm("ffn_norm", config.hidden_size)?,
                ffn_sub_norm: sub_norm("ffn_sub_norm", config.intermediate_size)?,
                projections: config.projection_norms.then(own_norms).transpose()?,
            },
            projections: Projection::ALL.iter().map(projection).collect::<Result<_, _>>()?,
        })
    }

    /// All blocks, one after the other: each matrix is unpacked by all threads. Which weights share a scale is what the
    /// file says, or else what its blocks and rows have; then it is the same for all matrices, the finest of theirs.
    pub(crate) fn blocks(&self, config: &mut ModelConfig) -> Result<Vec<Block>, InferError> {
        let architecture = self.gguf.metadata().get_str("general.architecture").ok();
        let interleaved =
            architecture.and_then(Architecture::from_name).is_some_and(Architecture::interleaves_rope);
        let said = ModelConfig::said_granularity(self.gguf.metadata())
            .map_err(|source| InferError::Config { path: self.path.to_path_buf(), source })?;
        let layers = 0..config.num_hidden_layers;
        let mut blocks: Vec<Block> =
            layers.map(|layer| self.block(config, layer, said, interleaved)).collect::<Result<_, _>>()?;
        if said.is_none() {
            let ternary =
                blocks.iter().flat_map(|block| &block.projections).filter_map(|p| p.weight.ternary());
            config.granularity =
                ternary.fold(Granularity::Tensor, |g, weights| g.finer(weights.granularity()));
            // Seldom any: neighbors of the matrix happen to have the same scale.
            for (layer, block) in blocks.iter_mut().enumerate() {
                for (p, projected) in Projection::ALL.into_iter().zip(&mut block.projections) {
                    let Some(weights) = projected.weight.ternary() else { continue };
                    if weights.granularity() != config.granularity.on(weights.cols()) {
                        *projected =
                            self.projection(config, layer, p, Some(config.granularity), interleaved)?;
                    }
                }
            }
        }
        Ok(blocks)
    }
}

/// In which row of the file a row of the model stands; none if they are the same.
type Order<'a> = Option<&'a (dyn Fn(usize) -> usize + Sync)>;

/// The type under which the kernels multiply a matrix in place.
pub(crate) fn dense_type(ty: GgmlType) -> Option<DenseType> {
    match ty {
        GgmlType::F32 => Some(DenseType::F32),
        GgmlType::F16 => Some(DenseType::F16),
        GgmlType::BF16 => Some(DenseType::Bf16),
        GgmlType::Q8_0 => Some(DenseType::Q8_0),
        GgmlType::Q6_K => Some(DenseType::Q6K),
        _ => None,
    }
}
