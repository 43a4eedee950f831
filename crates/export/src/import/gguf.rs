//! GGUF files as sources: block formats are decoded, ternary types keep their codes and scale, rows of
//! interleaved architectures are put back into their order.

use std::path::{Path, PathBuf};

use tritforge_config::{Architecture, ModelConfig, WeightQuant};
use tritforge_gguf::{GgmlType, Gguf, TensorInfo};
use tritforge_kernels::BlockFormat;
use tritforge_support::counted;
use tritforge_ternary::{
    FloatType, I2_S_ARM, I2_S_LAYOUT, PackedRows, Packing, Scales, TernaryError, TernaryTensor,
    check_finite_bytes,
};

use super::Stored;
use crate::plan::TensorPlan;
use crate::tensor_data::{check, reorder};
use crate::{ExportError, ImportOptions};

/// A GGUF file.
pub(crate) struct GgufSource {
    pub(super) gguf: Gguf,
    pub(super) config: ModelConfig,
    pub(super) description: String,
    interleaved: bool,
    /// What the file, or whoever imports it, says of the layout of I2_S.
    i2_s_layout: Option<String>,
}

impl GgufSource {
    pub(super) fn open(path: &Path, options: &ImportOptions) -> Result<Self, ExportError> {
        let fault = |message: String| ExportError::Import { path: PathBuf::from(path), message };
        let gguf = Gguf::open_with(path, &options.overrides)?;
        let mut config = ModelConfig::from_gguf_file(&gguf).map_err(|e| fault(e.to_string()))?;
        if config.weights == WeightQuant::Ternary {
            config.find_granularities(&gguf).map_err(|e| fault(e.to_string()))?;
        }
        let name = gguf.metadata().get_str("general.architecture").unwrap_or_default().to_string();
        let interleaved = Architecture::from_name(&name).is_some_and(Architecture::interleaves_rope);
        let files = match gguf.part_count() {
            1 => String::new(),
            count => format!(" in {count}", count = counted(count, "file")),
        };
        let description = format!("GGUF version {}{files}, {name}", gguf.version());
        let layout = gguf.metadata().get_str(I2_S_LAYOUT).ok();
        let i2_s_layout = layout.or(options.i2_s_arm.then_some(I2_S_ARM)).map(str::to_string);
        Ok(Self { gguf, config, description, interleaved, i2_s_layout })
    }

    fn fault(item: &TensorPlan, message: String) -> ExportError {
        ExportError::Tensor { tensor: item.target.clone(), message }
    }

    fn find(&self, item: &TensorPlan) -> Result<&TensorInfo, ExportError> {
        let info = self
            .gguf
            .tensor(&item.target)
            .ok_or_else(|| Self::fault(item, format!("missing; expected shape {:?}", item.shape)))?;
        let found: Vec<usize> = info.dims.iter().rev().map(|d| *d as usize).collect();
        if found != item.shape {
            return Err(Self::fault(item, format!("shape {found:?}, expected {:?}", item.shape)));
        }
        Ok(info)
    }

    pub(super) fn stored(&self, item: &TensorPlan) -> Result<Stored, ExportError> {
        let ty = self.find(item)?.ty;
        match ty {
            GgmlType::BF16 => Ok(Stored::Bf16),
            GgmlType::F32 | GgmlType::F16 => Ok(Stored::F32),
            // Ternary numbers among full-precision ones: no activations are quantized for them.
            ty if self.packing(ty).is_some() && item.ternary.is_none() => Ok(Stored::Decoded),
            ty if self.packing(ty).is_some() => Ok(Stored::Ternary),
            ty if BlockFormat::from_name(ty.name()).is_some() => Ok(Stored::Decoded),
            ty => {
                let known = BlockFormat::all().iter().map(|format| format.name);
                let mut known: Vec<&str> = known.chain(Packing::ALL.map(Packing::ggml_type)).collect();
                known.dedup();
                Err(Self::fault(item, format!("type {}, expected {}", ty.name(), known.join(", "))))
            }
        }
    }

    pub(super) fn storage(&self, item: &TensorPlan) -> Result<(String, u64), ExportError> {
        let info = self.find(item)?;
        Ok((info.ty.name().to_string(), info.nbytes))
    }

    /// The numbers of a tensor.
    ///
    /// # Errors
    /// If one is NaN or infinite; its row is that of the file.
    pub(super) fn dense(&self, item: &TensorPlan) -> Result<Vec<f32>, ExportError> {
        let values = self.decoded(item)?;
        check(&item.target, &values, item.matrix()[1])?;
        Ok(self.ordered(item, values))
    }

    /// The numbers as they are stored, NaN and infinity among them.
    pub(super) fn dense_as_stored(&self, item: &TensorPlan) -> Result<Vec<f32>, ExportError> {
        Ok(self.ordered(item, self.decoded(item)?))
    }

    /// The numbers in the order of the file.
    fn decoded(&self, item: &TensorPlan) -> Result<Vec<f32>, ExportError> {
        let info = self.find(item)?;
        let Some(format) = BlockFormat::from_name(info.ty.name()) else {
            let [rows, cols] = item.matrix();
            return self.with_packed(item, |packed| {
                let (mut codes, mut values) = (vec![0i8; rows * cols], vec![0f32; rows * cols]);
                packed.unpack(0, &mut codes)?;
                packed.scales(None, None)?.apply(&codes, cols, &mut values);
                Ok(values)
            });
        };
        let mut values = vec![0f32; item.shape.iter().product()];
        format.decode(self.gguf.data(info), &mut values);
        Ok(values)
    }

    /// Numbers of the file in the model's order of rows.
    fn ordered(&self, item: &TensorPlan, values: Vec<f32>) -> Vec<f32> {
        if !self.moved(item) {
            return values;
        }
        let cols = item.shape[1..].iter().product();
        reorder(&values, cols, |row| self.config.interleaved_row(row))
    }

    /// The bytes of a tensor of bf16, none of them NaN or infinity; none where its rows stand in another
    /// order.
    pub(super) fn bf16(&self, item: &TensorPlan) -> Result<Option<&[u8]>, ExportError> {
        let info = self.find(item)?;
        if info.ty != GgmlType::BF16 || self.moved(item) {
            return Ok(None);
        }
        let bytes = self.gguf.data(info);
        check_finite_bytes(FloatType::Bf16, bytes, item.matrix()[1])
            .map_err(|e| Self::fault(item, e.to_string()))?;
        Ok(Some(bytes))
    }

    /// Whether the file has the tensor's rows in another order.
    fn moved(&self, item: &TensorPlan) -> bool {
        item.rotated && self.interleaved
    }

    /// The packing of a ternary type.
    fn packing(&self, ty: GgmlType) -> Option<Packing> {
        Packing::in_file(ty.name(), self.i2_s_layout.as_deref())
    }

    /// Hands out the codes and scales of a ternary tensor.
    fn with_packed<R>(
        &self,
        item: &TensorPlan,
        read: impl FnOnce(PackedRows<'_>) -> Result<R, TernaryError>,
    ) -> Result<R, ExportError> {
        let info = self.find(item)?;
        let Some(packing) = self.packing(info.ty) else {
            return Err(Self::fault(item, format!("type {} is not ternary", info.ty.name())));
        };
        let [rows, cols] = item.matrix();
        Packing::bytes_in_file(info.ty.name(), self.gguf.data(info), rows, cols)
            .and_then(|bytes| read(PackedRows::new(packing, &bytes, rows, cols)?))
            .map_err(|source| ExportError::Ternary { tensor: item.target.clone(), source })
    }

    /// The scales of the tensor in the model's order of rows: those of its blocks or rows, times the one beside it
    /// where the architecture has such a tensor.
    pub(super) fn scales(&self, item: &TensorPlan) -> Result<Scales, ExportError> {
        let beside = match self.gguf.tensor(&item.scale_name()) {
            None => None,
            Some(info) if info.ty == GgmlType::F32 && info.elements() == 1 => {
                let bytes = self.gguf.data(info);
                Some(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            Some(_) => return Err(Self::fault(item, "its .scale is not a single F32 value".to_string())),
        };
        let scales = self.with_packed(item, |packed| packed.scales(beside, item.ternary))?;
        Ok(match self.moved(item) {
            true => scales.reordered(item.matrix()[0], |row| self.config.interleaved_row(row)),
            false => scales,
        })
    }

    pub(super) fn ternary(&self, item: &TensorPlan) -> Result<TernaryTensor, ExportError> {
        let fault = |source| ExportError::Ternary { tensor: item.target.clone(), source };
        let [rows, cols] = item.matrix();
        let mut codes = vec![0i8; rows * cols];
        self.with_packed(item, |packed| packed.unpack(0, &mut codes))?;
        if self.moved(item) {
            codes = reorder(&codes, cols, |row| self.config.interleaved_row(row));
        }
        TernaryTensor::from_codes(codes, rows, cols, self.scales(item)?).map_err(fault)
    }

    pub(super) fn release(&self, item: &TensorPlan) {
        if let Some(info) = self.gguf.tensor(&item.target) {
            self.gguf.release(info);
        }
    }
}
