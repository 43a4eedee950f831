//! Embedding: rows of a table by id; backward adds each token's gradient to its row.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::composed;
use super::values::{argument, on_kernels, rows_cols, values};

struct Embedding {
    ids: Vec<u32>,
}

impl CustomOp1 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = rows_cols(layout)?;
        let table = argument(storage, layout)?;
        let mut out = Vec::with_capacity(self.ids.len() * width);
        for &id in &self.ids {
            let id = id as usize;
            if id >= rows {
                bail!("token id {id} is outside the vocabulary of {rows}");
            }
            out.extend_from_slice(&table[id * width..(id + 1) * width]);
        }
        Ok((CpuStorage::F32(out), (self.ids.len(), width).into()))
    }

    fn bwd(&self, table: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (rows, width) = table.dims2()?;
        let mut dtable = vec![0f32; rows * width];
        for (&id, dy) in self.ids.iter().zip(values(&grad.contiguous()?)?.chunks_exact(width)) {
            let row = &mut dtable[id as usize * width..][..width];
            row.iter_mut().zip(dy).for_each(|(d, g)| *d += g);
        }
        Ok(Some(Tensor::from_vec(dtable, (rows, width), table.device())?))
    }
}

/// Rows of `table` [vocab, width] by id: [ids, width].
///
/// # Errors
/// If an id is outside the vocabulary.
pub fn embedding(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    if on_kernels(&[table]) {
        return table.contiguous()?.apply_op1(Embedding { ids: ids.to_vec() });
    }
    composed::embedding(table, ids)
}
