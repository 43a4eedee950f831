//! Full-precision matrices (embedding, head) in the formats that GGUF files store them in.

use std::borrow::Cow;

use tritforge_gguf::GgmlType;
use tritforge_kernels::{DenseMatrix, DenseType};

use crate::ExportError;
use crate::tensor_data::{check, check_stored, f32_bytes};

/// The type in the file.
pub(crate) fn ggml_type(ty: DenseType) -> GgmlType {
    match ty {
        DenseType::F32 => GgmlType::F32,
        DenseType::F16 => GgmlType::F16,
        DenseType::Bf16 => GgmlType::BF16,
        DenseType::Q8_0 => GgmlType::Q8_0,
        DenseType::Q6K => GgmlType::Q6_K,
    }
}

/// The bytes of a matrix, and the largest difference that storing it so makes.
pub(crate) fn encode<'a>(
    ty: DenseType,
    tensor: &str,
    values: &'a [f32],
    cols: usize,
) -> Result<(Cow<'a, [u8]>, f32), ExportError> {
    let fault = |message| ExportError::Tensor { tensor: tensor.to_string(), message };
    if !cols.is_multiple_of(ty.block()) {
        let (name, block) = (ty.name(), ty.block());
        return Err(fault(format!(
            "{name} stores blocks of {block} values, but a row has {cols}: use f16 or f32"
        )));
    }
    let bytes = match ty {
        DenseType::F32 => f32_bytes(values),
        _ => ty.encode(values).into(),
    };
    check(tensor, values, cols)?;
    let stored = DenseMatrix::from_bytes(ty, &bytes, values.len() / cols, cols);
    let mut row = vec![0f32; cols];
    let mut largest = 0f32;
    for (i, exact) in values.chunks_exact(cols).enumerate() {
        stored.row(i, &mut row);
        if row.iter().fold(false, |seen, value| seen | !value.is_finite()) {
            let all = values[..i * cols].iter().copied().chain(row.iter().copied());
            check_stored(tensor, values, all, cols, ty.name())?;
        }
        // Both are finite: no NaN that `max` would drop.
        largest = exact.iter().zip(&row).fold(largest, |m, (a, b)| m.max((a - b).abs()));
    }
    Ok((bytes, largest))
}
