//! Scales of a packed tensor: what its bytes say, and which weights share one.

use super::layout::TAIL;
use super::{PackedRows, ScalePlace};
use crate::tensor::check_scale;
use crate::{EPS, Granularity, Scales, TernaryError};

/// A scale that a layout stores, with what it multiplies.
struct Part {
    scale: f32,
    /// Whether it stands for any scale: that of codes that are all 0, in a block only if it is 0 too, which is what
    /// llama.cpp's quantizer writes for them.
    any: bool,
}

impl<'a> PackedRows<'a> {
    /// The scales of what [`super::Packing::scales`] says, in order, each with the bytes of its codes.
    fn scaled(&self) -> Vec<(f32, &'a [u8])> {
        let layout = self.packing.layout();
        let scale = |bytes: &[u8]| match *bytes {
            [a, b] => half::f16::from_le_bytes([a, b]).to_f32(),
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            _ => f32::NAN,
        };
        let (at, width) = (layout.scale_at, layout.scale_bytes);
        match layout.scales {
            ScalePlace::Block => {
                let blocks = self.bytes.chunks_exact(layout.bytes);
                blocks.map(|block| (scale(&block[at..at + width]), block)).collect()
            }
            ScalePlace::Row => {
                let rows = self.bytes.chunks_exact(self.row_bytes());
                rows.map(|row| (scale(&row[..width]), &row[width..])).collect()
            }
            ScalePlace::Tensor => {
                let (codes, tail) = self.bytes.split_at(self.bytes.len() - TAIL);
                vec![(scale(&tail[..width]), codes)]
            }
        }
    }

    fn parts(&self) -> Vec<Part> {
        let layout = self.packing.layout();
        let mut zeros = Vec::with_capacity(layout.bytes);
        (layout.pack)(&vec![0; layout.block], [0, 0], &mut zeros);
        let any = |scale: f32, codes: &[u8]| match layout.scales {
            // Blocks are many: only those with the scale 0 are looked at.
            ScalePlace::Block => scale == 0.0 && codes == zeros,
            ScalePlace::Row => codes.chunks_exact(layout.bytes).all(|block| block == zeros),
            ScalePlace::Tensor => false,
        };
        self.scaled().into_iter().map(|(scale, codes)| Part { scale, any: any(scale, codes) }).collect()
    }

    /// Scale of every block or row in order, or of the tensor (exactly one), as it is stored.
    pub fn stored_scales(&self) -> Vec<f32> {
        self.scaled().into_iter().map(|(scale, _)| scale).collect()
    }

    /// The scales that multiply the codes: those of blocks or rows, times `beside`, which stands beside the tensor in
    /// some files. `granularity` says which weights share a scale, if the file says it; else it is the coarsest one that
    /// holds all scales exactly. Codes that are all 0 may have the scale 0: theirs is that of the weights with which
    /// they share it, or [`EPS`], rounded to f16 for a row or a group.
    ///
    /// # Errors
    /// If a scale is NaN, infinite or negative, or 0 where codes are not; if weights that share a scale have different
    /// ones; if a group does not fit the columns, or a scale of one, times `beside`, is no f16 number.
    pub fn scales(
        &self,
        beside: Option<f32>,
        granularity: Option<Granularity>,
    ) -> Result<Scales, TernaryError> {
        let parts = self.parts();
        for (i, Part { scale, any }) in parts.iter().enumerate() {
            let tensor_of_zeros = || self.packing.scales() == ScalePlace::Tensor && self.is_all_zeros();
            let zero = *scale == 0.0 && (*any || tensor_of_zeros());
            if !zero {
                check_scale(*scale, || self.place(i))?;
            }
        }
        let shape = [self.rows, self.cols];
        let found = match granularity {
            Some(granularity) => {
                granularity.check(self.cols)?;
                self.shared(&parts, granularity.on(self.cols))
            }
            None => self.candidates().find_map(|granularity| self.shared(&parts, granularity)),
        };
        let (granularity, values) = found.ok_or_else(|| match granularity {
            Some(granularity) if granularity != Granularity::Tensor => TernaryError::Mixed { granularity },
            _ => TernaryError::Scales,
        })?;
        let own = |value: Option<f32>| match (value, granularity) {
            (Some(scale), _) => scale * beside.unwrap_or(1.0),
            (None, Granularity::Tensor) => EPS,
            (None, _) => half::f16::from_f32(EPS).to_f32(),
        };
        Scales::new(granularity, shape, values.into_iter().map(own).collect())
    }

    /// The one scale of the tensor, as [`PackedRows::scales`] has it.
    ///
    /// # Errors
    /// As there, and if blocks or rows have different scales.
    pub fn tensor_scale(&self, beside: Option<f32>) -> Result<f32, TernaryError> {
        let scales = self.scales(beside, Some(Granularity::Tensor))?;
        scales.of_tensor().ok_or(TernaryError::Scales)
    }

    /// The one scale of the tensor, if all stored scales are the same bits but for those that stand for any; 0 if all
    /// do.
    pub fn uniform_scale(&self) -> Option<f32> {
        let (_, values) = self.shared(&self.parts(), Granularity::Tensor)?;
        Some(values[0].unwrap_or_default())
    }

    /// Where the scale of a part stands, for messages.
    fn place(&self, part: usize) -> String {
        let blocks = self.cols / self.packing.block();
        match self.packing.scales() {
            ScalePlace::Block => format!(" of row {}, block {}", part / blocks, part % blocks),
            ScalePlace::Row => format!(" of row {part}"),
            ScalePlace::Tensor => String::new(),
        }
    }

    /// The granularities that the layout has room for, coarsest first.
    fn candidates(&self) -> impl Iterator<Item = Granularity> {
        let groups = Granularity::GROUPS.into_iter().rev().map(Granularity::Group);
        let (packing, cols) = (self.packing, self.cols);
        [Granularity::Tensor, Granularity::Row]
            .into_iter()
            .chain(groups)
            .filter(move |granularity| packing.holds(*granularity) && granularity.check(cols).is_ok())
    }

    /// The scales in a granularity, if all parts that share one have the same bits: none for parts that may have any.
    fn shared(&self, parts: &[Part], granularity: Granularity) -> Option<(Granularity, Vec<Option<f32>>)> {
        let (rows, cols) = (self.rows, self.cols);
        let width = match self.packing.scales() {
            ScalePlace::Block => self.packing.block(),
            ScalePlace::Row => cols,
            ScalePlace::Tensor => rows * cols,
        };
        // Parts that share a scale, or scales that share a part.
        let wide = granularity.width(rows, cols);
        let (together, repeats) = ((wide / width.max(1)).max(1), (width / wide.max(1)).max(1));
        let mut values = Vec::with_capacity(granularity.count(rows, cols));
        for parts in parts.chunks(together) {
            let mut scales = parts.iter().filter(|part| !part.any);
            let stored = |part: &Part| (part.scale != 0.0).then_some(part.scale);
            // Zeros alone keep the scale that is stored, if there is one.
            let value = match scales.next() {
                Some(first) if scales.any(|part| part.scale.to_bits() != first.scale.to_bits()) => {
                    return None;
                }
                Some(first) => stored(first),
                None => parts.first().and_then(stored),
            };
            values.extend(std::iter::repeat_n(value, repeats));
        }
        if values.is_empty() && granularity == Granularity::Tensor {
            values.push(None);
        }
        Some((granularity, values))
    }

    /// Whether all codes are 0.
    fn is_all_zeros(&self) -> bool {
        let mut codes = vec![0; self.cols];
        (0..self.rows).all(|row| self.unpack(row, &mut codes).is_ok() && codes.iter().all(|code| *code == 0))
    }
}
