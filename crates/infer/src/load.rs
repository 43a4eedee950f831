//! From the tensors of a GGUF file to the kernels' layouts, every type and shape checked.

use std::path::Path;

use tritforge_config::{ModelConfig, Projection};
use tritforge_gguf::{GgmlType, Gguf, TensorInfo};
use tritforge_kernels::{DenseType, TernaryLayout, TernaryWeights};
use tritforge_ternary::{PackedRows, Packing};

use crate::InferError;
use crate::weights::{Block, Dense};

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
            .ok_or_else(|| self.fault(name, format!("missing; the model needs it with shape {shape:?}")))?;
        let found: Vec<usize> = info.dims.iter().rev().map(|d| *d as usize).collect();
        if found != shape {
            return Err(self.fault(name, format!("shape {found:?}, expected {shape:?}")));
        }
        Ok(info)
    }

    /// A vector of F32 numbers.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, InferError> {
        let info = self.tensor(name, &[len])?;
        if info.ty != GgmlType::F32 {
            return Err(self.fault(name, format!("type {}, expected F32", info.ty.name())));
        }
        Ok(self.gguf.data(info).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Where a full-precision matrix lies and how its rows are stored.
    pub(crate) fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<Dense, InferError> {
        let info = self.tensor(name, &[rows, cols])?;
        let ty = match info.ty {
            GgmlType::F32 => DenseType::F32,
            GgmlType::F16 => DenseType::F16,
            GgmlType::Q8_0 => DenseType::Q8_0,
            GgmlType::Q6_K => DenseType::Q6K,
            other => {
                return Err(
                    self.fault(name, format!("type {}, expected F32, F16, Q8_0 or Q6_K", other.name()))
                );
            }
        };
        Ok(Dense { name: name.to_string(), ty, rows, cols })
    }

    /// A ternary matrix in the kernels' layout.
    fn ternary(&self, name: &str, [rows, cols]: [usize; 2]) -> Result<(TernaryWeights, Packing), InferError> {
        let info = self.tensor(name, &[rows, cols])?;
        let packing = match info.ty {
            GgmlType::TQ1_0 => Packing::Tq1_0,
            GgmlType::TQ2_0 => Packing::Tq2_0,
            GgmlType::I2_S => Packing::I2S,
            other => {
                let message = format!("type {}, expected a ternary one: TQ1_0, TQ2_0 or I2_S", other.name());
                return Err(self.fault(name, message));
            }
        };
        let fault =
            |source| InferError::Ternary { path: self.path.to_path_buf(), tensor: name.to_string(), source };
        let packed = PackedRows::new(packing, self.gguf.data(info), rows, cols).map_err(fault)?;
        let block_scale = packed.uniform_scale().ok_or_else(|| {
            let message = "its blocks have different scales; this engine runs one scale a tensor (BitNet)";
            self.fault(name, message.to_string())
        })?;
        // llama.cpp's `bitnet`: the f32 scale of the tensor stands beside it.
        let scale_name = name.replace(".weight", ".scale");
        let scale = match self.gguf.tensor(&scale_name) {
            Some(_) => block_scale * self.vector(&scale_name, 1)?[0],
            None => block_scale,
        };
        if !scale.is_finite() {
            return Err(self.fault(name, format!("scale {scale} is not finite")));
        }
        let layout = TernaryLayout::for_decoding();
        let codes = |first: usize, codes: &mut [i8]| packed.unpack(first, codes);
        let weights = TernaryWeights::try_from_rows(rows, cols, scale, layout, codes).map_err(fault)?;
        // The file's pages are not needed again: let the system have them.
        self.gguf.release(info);
        Ok((weights, packing))
    }

    /// One block.
    fn block(&self, config: &ModelConfig, layer: usize) -> Result<Block, InferError> {
        let norm = |name: &str, len| self.vector(&format!("blk.{layer}.{name}.weight"), len);
        let loaded = Projection::ALL
            .iter()
            .map(|p| self.ternary(&p.gguf_weight(layer), config.projection_shape(*p)))
            .collect::<Result<Vec<_>, _>>()?;
        let (projections, packings): (Vec<_>, Vec<_>) = loaded.into_iter().unzip();
        Ok(Block {
            attn_norm: norm("attn_norm", config.hidden_size)?,
            attn_sub_norm: norm("attn_sub_norm", config.q_size())?,
            ffn_norm: norm("ffn_norm", config.hidden_size)?,
            ffn_sub_norm: norm("ffn_sub_norm", config.intermediate_size)?,
            projections,
            packings,
        })
    }

    /// All blocks, one after the other: each matrix is unpacked by all threads.
    pub(crate) fn blocks(&self, config: &ModelConfig) -> Result<Vec<Block>, InferError> {
        (0..config.num_hidden_layers).map(|layer| self.block(config, layer)).collect()
    }
}
