//! A tensor's content on its way from one file to another: numbers, or ternary codes with their scale, never
//! both.

use std::borrow::Cow;

use tritforge_checkpoint::Tensors;
use tritforge_config::{Granularity, ModelConfig, WeightQuant};
use tritforge_ternary::{TernaryTensor, check_finite, fold_bias};

use crate::ExportError;
use crate::plan::{DeadZone, TensorPlan};

/// What a tensor holds.
#[derive(Debug, Clone)]
pub(crate) enum TensorData<'a> {
    /// Numbers, row-major.
    Dense(Cow<'a, [f32]>),
    /// Codes and scale.
    Ternary(TernaryTensor),
}

/// The ternary form of a projection of a checkpoint: its latent weights quantized once, or what is stored as
/// ternary, untouched.
///
/// # Errors
/// If the tensor is missing, has another shape, or cannot be made ternary.
pub fn ternary_tensor(
    tensors: &Tensors,
    config: &ModelConfig,
    name: &str,
    shape: [usize; 2],
) -> Result<TernaryTensor, ExportError> {
    ternary_matrix(tensors, config, config.granularity, name, shape)
}

/// The same of any matrix, whose weights share scales in a granularity.
fn ternary_matrix(
    tensors: &Tensors,
    config: &ModelConfig,
    granularity: Granularity,
    name: &str,
    [rows, cols]: [usize; 2],
) -> Result<TernaryTensor, ExportError> {
    if let Some(stored) = tensors.ternary(name, [rows, cols])? {
        return Ok(stored);
    }
    let values = tensors.f32(name, &[rows, cols])?;
    let tensor = match config.weights {
        WeightQuant::Ternary => TernaryTensor::from_values(&values, rows, cols, granularity),
        WeightQuant::Absmean | WeightQuant::None => {
            let scales = learned_scales(tensors, config, name, [rows, cols])?;
            return quantize(config, granularity, scales.as_deref(), name, &values, [rows, cols]);
        }
    };
    tensor.map_err(|source| ExportError::Ternary { tensor: name.to_string(), source })
}

/// The learned scales beside a weight [rows, cols] of a checkpoint; none if the model has none.
pub(crate) fn learned_scales<'a>(
    tensors: &'a Tensors,
    config: &ModelConfig,
    weight: &str,
    shape: [usize; 2],
) -> Result<Option<Cow<'a, [f32]>>, ExportError> {
    let name = format!("{weight}_clip_val");
    if config.learned_scales(&name).is_none() {
        return Ok(None);
    }
    let scales = tensors.f32(&name, &config.granularity.scale_shape(shape))?;
    check(&name, &scales, 1)?;
    Ok(Some(scales))
}

/// Latent weights quantized as training does, by their learned scales if there are any.
pub(crate) fn quantize(
    config: &ModelConfig,
    granularity: Granularity,
    scales: Option<&[f32]>,
    name: &str,
    values: &[f32],
    shape: [usize; 2],
) -> Result<TernaryTensor, ExportError> {
    let quantizer = config.quantizer;
    let tensor = match scales {
        None => TernaryTensor::quantize_by(quantizer, granularity, values, shape),
        Some(scales) => TernaryTensor::quantize_learned(quantizer, granularity, scales, values, shape),
    };
    tensor.map_err(|source| ExportError::Ternary { tensor: name.to_string(), source })
}

/// A tensor of a checkpoint in the form in which it is exported.
pub(crate) fn of_checkpoint<'a>(
    tensors: &'a Tensors,
    config: &ModelConfig,
    item: &TensorPlan,
) -> Result<TensorData<'a>, ExportError> {
    if let Some(granularity) = item.ternary {
        let tensor = ternary_matrix(tensors, config, granularity, &item.source, item.matrix())?;
        return Ok(TensorData::Ternary(tensor));
    }
    Ok(TensorData::Dense(numbers(tensors, config, item)?))
}

/// A tensor of a checkpoint as numbers: what is stored, latent weights as they are, or a bias with that of its dead zone.
pub(crate) fn numbers<'a>(
    tensors: &'a Tensors,
    config: &ModelConfig,
    item: &TensorPlan,
) -> Result<Cow<'a, [f32]>, ExportError> {
    let Some(DeadZone { weight, shape, lambda, own }) = &item.dead_zone else {
        return Ok(tensors.f32(&item.source, &item.shape)?);
    };
    let latent = tensors.f32(weight, shape)?;
    check(weight, &latent, shape[1])?;
    let fault = |source| ExportError::Ternary { tensor: weight.clone(), source };
    let fitted = match learned_scales(tensors, config, weight, *shape)? {
        None => config.quantizer.fit(config.granularity, &latent, *shape),
        Some(scales) => config.quantizer.fit_learned(config.granularity, &scales, &latent, *shape),
    };
    let dead = fitted.map_err(fault)?.dead_zone_bias(*lambda, &latent, shape[1]);
    let own = own.then(|| tensors.f32(&item.source, &item.shape)).transpose()?;
    Ok(Cow::Owned(fold_bias(own.as_deref(), &dead, 1.0)))
}

/// Refuses a tensor with NaN or infinity, by the name that it has where it is read.
pub(crate) fn check(tensor: &str, values: &[f32], cols: usize) -> Result<(), ExportError> {
    check_finite(values, cols)
        .map_err(|e| ExportError::Tensor { tensor: tensor.to_string(), message: e.to_string() })
}

/// Refuses a tensor of which a number, finite as it was, is not as it is stored; `stored` are the numbers
/// read back.
pub(crate) fn check_stored(
    tensor: &str,
    exact: &[f32],
    stored: impl IntoIterator<Item = f32>,
    cols: usize,
    ty: &str,
) -> Result<(), ExportError> {
    let Some(index) = stored.into_iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let (row, column) = (index / cols.max(1), index % cols.max(1));
    let value = exact[index];
    let message = format!("row {row}, column {column} is {value:e}, which overflows {ty}: use bf16 or f32");
    Err(ExportError::Tensor { tensor: tensor.to_string(), message })
}

/// Numbers as files hold them, little endian; where that is the machine's order they are not copied.
pub(crate) fn f32_bytes(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(bytemuck::cast_slice(values));
    }
    Cow::Owned(values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// Numbers rounded to bf16, as files hold them.
pub(crate) fn bf16_bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * values.len());
    for value in values {
        bytes.extend_from_slice(&half::bf16::from_f32(*value).to_le_bytes());
    }
    bytes
}

/// Rows in another order: row i of the result is row `order(i)`.
pub(crate) fn reorder<T: Copy>(values: &[T], cols: usize, order: impl Fn(usize) -> usize) -> Vec<T> {
    (0..values.len() / cols).flat_map(|row| &values[order(row) * cols..][..cols]).copied().collect()
}
