//! Causal grouped-query attention that keeps one number a row and head, not a T × T tensor.
//!
//! The backward recomputes the probabilities from the log-sum-exp of each row (FlashAttention, arXiv
//! 2205.14135).

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use tritforge_kernels::{AttentionShape, attention_varlen as forward, attention_varlen_backward as backward};

use super::composed;
use super::values::{argument, on_kernels, rows_cols, values};

struct Attention {
    shape: AttentionShape,
    /// Tokens of each segment.
    lengths: Vec<usize>,
    /// log Σ exp of the scores, for every segment [heads, length].
    lse: Mutex<Vec<f32>>,
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (tokens, width) = rows_cols(lq)?;
        let kv = (tokens, self.shape.kv_heads * self.shape.head_dim);
        let fits = width == self.shape.heads * self.shape.head_dim
            && rows_cols(lk)? == kv
            && rows_cols(lv)? == kv
            && self.lengths.iter().sum::<usize>() == tokens
            && !self.lengths.contains(&0);
        if !fits {
            bail!(
                "attention: q {:?}, k {:?}, v {:?} do not fit {:?} and segments of {:?} tokens",
                lq.shape(),
                lk.shape(),
                lv.shape(),
                self.shape,
                self.lengths
            );
        }
        let mut out = vec![0f32; tokens * width];
        let mut lse = vec![0f32; tokens * self.shape.heads];
        forward(
            self.shape,
            &self.lengths,
            argument(q, lq)?,
            argument(k, lk)?,
            argument(v, lv)?,
            &mut out,
            &mut lse,
        );
        *self.lse.lock().unwrap_or_else(PoisonError::into_inner) = lse;
        Ok((CpuStorage::F32(out), lq.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut dq = vec![0f32; q.elem_count()];
        let mut dk = vec![0f32; k.elem_count()];
        let mut dv = vec![0f32; v.elem_count()];
        backward(
            self.shape,
            &self.lengths,
            &values(q)?,
            &values(k)?,
            &values(v)?,
            &values(out)?,
            &self.lse.lock().unwrap_or_else(PoisonError::into_inner),
            &values(&grad.contiguous()?)?,
            &mut dq,
            &mut dk,
            &mut dv,
        );
        Ok((
            Some(Tensor::from_vec(dq, q.shape(), q.device())?),
            Some(Tensor::from_vec(dk, k.shape(), k.device())?),
            Some(Tensor::from_vec(dv, v.shape(), v.device())?),
        ))
    }
}

/// Causal attention within each segment, of `lengths` tokens each: q [tokens, heads · head_dim], k and v
/// [tokens, kv_heads · head_dim], where tokens are those of the segments one after the other.
///
/// # Errors
/// If the shapes do not fit.
pub fn attention(
    shape: AttentionShape,
    lengths: &[usize],
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<Tensor> {
    if on_kernels(&[q, k, v]) {
        let op = Attention { shape, lengths: lengths.to_vec(), lse: Mutex::new(Vec::new()) };
        return q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op);
    }
    composed::attention(shape, lengths, q, k, v)
}
