//! Reading a tensor's numbers in place: the bridge between candle's storages and the kernels' slices.

use std::ops::Deref;

use candle_core::{CpuStorage, D, DType, Layout, Result, Storage, StorageRef, Tensor, bail};

/// The numbers of a contiguous f32 tensor on the CPU, borrowed for as long as this lives.
pub struct Values<'a> {
    storage: StorageRef<'a>,
    start: usize,
    len: usize,
}

/// Borrows the numbers of a contiguous f32 tensor on the CPU.
///
/// # Errors
/// If the tensor is of another kind.
pub fn values(tensor: &Tensor) -> Result<Values<'_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a tensor of shape {:?} is not contiguous", layout.shape());
    };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(Values { storage, start, len: end - start }),
        _ => bail!("expected an f32 tensor on the CPU, found {:?} on {:?}", tensor.dtype(), tensor.device()),
    }
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(numbers)) => &numbers[self.start..self.start + self.len],
            // `values` makes no other kind.
            _ => &[],
        }
    }
}

/// The numbers of an op's argument.
pub(crate) fn argument<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("an argument of shape {:?} is not contiguous", layout.shape());
    };
    match storage {
        CpuStorage::F32(numbers) => Ok(&numbers[start..end]),
        _ => bail!("expected f32 numbers, found another type"),
    }
}

/// (rows, columns) of an op's argument.
pub(crate) fn rows_cols(layout: &Layout) -> Result<(usize, usize)> {
    layout.shape().dims2()
}

/// Whether the kernels take these tensors: f32 on the CPU.
pub(crate) fn on_kernels(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.device().is_cpu() && tensor.dtype() == DType::F32)
}

/// A tensor [.., width] as contiguous rows [tokens, width].
pub(crate) fn rows(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if width == 0 {
        bail!("a tensor of shape {:?} has rows without elements", x.shape());
    }
    x.reshape(((), width))?.contiguous()
}
