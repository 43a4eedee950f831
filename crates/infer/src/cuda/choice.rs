//! The logits that choices look at, copied from a GPU.

use tritforge_kernels_cuda::{CudaError, Gpu, MOST_LARGEST};

use super::pass::Buffers;
use crate::step::SequenceInput;
use crate::{Logits, LogitsRequest, NeededLogits};

/// What the parts of a pass need of the logits of their last tokens; none for a part that wants none.
#[derive(Debug)]
pub(crate) struct Choice<'n> {
    needed: Vec<Option<&'n NeededLogits>>,
    /// Most that one of them needs of the largest.
    most: usize,
}

impl<'n> Choice<'n> {
    /// What these parts need; none if one needs more than can be chosen on a GPU.
    pub(crate) fn of(
        parts: &[SequenceInput<'_>],
        needed: &'n [Option<NeededLogits>],
        vocab_size: usize,
    ) -> Option<Self> {
        let mut choice = Self { needed: Vec::new(), most: 0 };
        for (part, needed) in parts.iter().zip(needed) {
            let needed = match part.request {
                LogitsRequest::None => None,
                LogitsRequest::Last => Some(needed.as_ref()?),
                LogitsRequest::All => return None,
            };
            choice.most = choice.most.max(needed.map_or(0, |needed| needed.largest.min(vocab_size)));
            choice.needed.push(needed);
        }
        (choice.most <= MOST_LARGEST && choice.needed.len() == parts.len()).then_some(choice)
    }

    /// Copies what is needed of the pass's logits, a row a part that wants them.
    pub(super) fn read(
        &self,
        gpu: &Gpu,
        buffers: &mut Buffers,
        vocab_size: usize,
    ) -> Result<Vec<Logits>, CudaError> {
        let Buffers { logits, largest, asked, beside, .. } = buffers;
        if self.most == 0 {
            return Ok(self.needed.iter().map(|_| Logits::Needed(Vec::new())).collect());
        }
        let rows = self.needed.iter().flatten().enumerate();
        let places: Vec<u32> = rows
            .flat_map(|(row, needed)| needed.ids.iter().map(move |id| (row * vocab_size) as u32 + id))
            .collect();
        if !places.is_empty() {
            gpu.write(asked, &places)?;
            gpu.gather(logits, 1, asked, beside)?;
        }
        let found = gpu.largest(logits, vocab_size, self.most, largest)?;
        let mut beside = if places.is_empty() { Vec::new() } else { beside.download()? }.into_iter();
        let mut found = found.chunks_exact(self.most);
        let mut row = |needed: &NeededLogits| {
            let mut pairs = found.next().expect("a row for each part that wants logits").to_vec();
            pairs.extend(needed.ids.iter().copied().zip(beside.by_ref()));
            pairs.sort_unstable_by_key(|(id, _)| *id);
            pairs.dedup_by_key(|(id, _)| *id);
            pairs
        };
        Ok(self
            .needed
            .iter()
            .map(|needed| Logits::Needed(needed.map(&mut row).unwrap_or_default()))
            .collect())
    }
}
