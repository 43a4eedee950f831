//! Adapters on a GPU.

use std::ops::Range;
use std::sync::{Arc, Weak};

use tritforge_config::Projection;
use tritforge_kernels_cuda::{Buffer, CudaError, Dense, Gpu};

use crate::Adapter;
use crate::adapter::{Pair, Rows};

/// The matrices of one projection, and what their product is multiplied by.
#[derive(Debug)]
struct OnDevice {
    a: Dense,
    b: Dense,
    scaling: f32,
}

/// An adapter's matrices: the seven projections of the first block, then those of the next.
type Pairs = Arc<[Option<OnDevice>]>;

/// The adapters that are on the GPU, as long as somebody has them.
#[derive(Debug, Default)]
pub(super) struct Adapters(Vec<(Weak<Adapter>, Pairs)>);

/// An adapter of some rows of a pass.
#[derive(Debug)]
struct Applied {
    rows: Range<usize>,
    pairs: Pairs,
    scale: f32,
}

/// The adapters of a pass, in the order in which they are added.
#[derive(Debug)]
pub(super) struct OfPass(Vec<Applied>);

impl Adapters {
    /// Those of a pass, copied to the GPU at their first.
    pub(super) fn of_pass(&mut self, gpu: &Gpu, rows: &Rows) -> Result<OfPass, CudaError> {
        self.0.retain(|(adapter, _)| adapter.strong_count() > 0);
        let mut applied = Vec::new();
        for (rows, scaled) in rows {
            for one in scaled.iter() {
                let pairs = self.pairs(gpu, &one.adapter)?;
                applied.push(Applied { rows: rows.clone(), pairs, scale: one.scale });
            }
        }
        Ok(OfPass(applied))
    }

    fn pairs(&mut self, gpu: &Gpu, adapter: &Arc<Adapter>) -> Result<Pairs, CudaError> {
        if let Some((_, pairs)) = self.0.iter().find(|(of, _)| of.as_ptr() == Arc::as_ptr(adapter)) {
            return Ok(Arc::clone(pairs));
        }
        let upload = |pair: &Pair| {
            let a = Dense::new(gpu, pair.ty[0], &pair.a, pair.rank, pair.cols)?;
            let b = Dense::new(gpu, pair.ty[1], &pair.b, pair.rows, pair.rank)?;
            Ok(OnDevice { a, b, scaling: pair.scaling })
        };
        let pairs = adapter.pairs.iter().map(|pair| pair.as_ref().map(upload).transpose());
        let pairs: Pairs = pairs.collect::<Result<Vec<_>, CudaError>>()?.into();
        self.0.push((Arc::downgrade(adapter), Arc::clone(&pairs)));
        Ok(pairs)
    }
}

impl OfPass {
    fn pair(applied: &Applied, layer: usize, projection: Projection) -> Option<&OnDevice> {
        applied.pairs.get(layer * Projection::ALL.len() + projection as usize)?.as_ref()
    }

    /// Whether any row has an adapter on one of these projections.
    pub(super) fn any(&self, layer: usize, projections: &[Projection]) -> bool {
        projections.iter().any(|p| self.0.iter().any(|applied| Self::pair(applied, layer, *p).is_some()))
    }

    /// Adds the products of the adapters to a projection's output y [rows, out], given its input x [rows,
    /// in].
    pub(super) fn add_products(
        &self,
        gpu: &Gpu,
        (layer, projection): (usize, Projection),
        x: &Buffer<f32>,
        y: &mut Buffer<f32>,
        scratch: &mut [Buffer<f32>; 2],
    ) -> Result<(), CudaError> {
        for applied in &self.0 {
            let Some(pair) = Self::pair(applied, layer, projection) else { continue };
            let (rows, factor) = (applied.rows.clone(), pair.scaling * applied.scale);
            gpu.add_low_rank((x, &mut *y), rows, [&pair.a, &pair.b], factor, scratch)?;
        }
        Ok(())
    }
}
