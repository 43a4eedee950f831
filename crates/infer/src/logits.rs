//! The logits of a token, as far as the choice of the next one looks at them.

/// Which logits a choice looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededLogits {
    /// So many of the largest, of equals those of the lowest ids.
    pub largest: usize,
    /// Beside them those of these tokens, ascending.
    pub ids: Vec<u32>,
}

/// The logits of one token.
#[derive(Debug, Clone, PartialEq)]
pub enum Logits {
    /// All, `[vocab_size]`.
    All(Vec<f32>),
    /// Those that a choice looks at ([`NeededLogits`]), with their tokens, ascending. If any logit is NaN or infinite, the
    /// first of those is among them.
    Needed(Vec<(u32, f32)>),
}

impl Logits {
    pub(crate) fn among(&self) -> Among<'_> {
        match self {
            Logits::All(logits) => Among::All(logits),
            Logits::Needed(pairs) => Among::Needed(pairs),
        }
    }
}

/// What a token is chosen among.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Among<'a> {
    /// The logits of all tokens.
    All(&'a [f32]),
    /// Those that the choice looks at, by ascending token.
    Needed(&'a [(u32, f32)]),
}

impl Among<'_> {
    /// Where a token stands.
    pub(crate) fn position(self, id: u32) -> Option<usize> {
        match self {
            Among::All(logits) => ((id as usize) < logits.len()).then_some(id as usize),
            Among::Needed(pairs) => pairs.binary_search_by_key(&id, |(id, _)| *id).ok(),
        }
    }

    /// The logit of a token.
    pub(crate) fn get(self, id: u32) -> Option<f32> {
        let at = self.position(id)?;
        Some(match self {
            Among::All(logits) => logits[at],
            Among::Needed(pairs) => pairs[at].1,
        })
    }

    /// The first token whose logit is NaN or infinite, and that.
    pub(crate) fn not_finite(self) -> Option<(usize, f32)> {
        match self {
            Among::All(logits) => {
                let id = logits.iter().position(|logit| !logit.is_finite())?;
                Some((id, logits[id]))
            }
            Among::Needed(pairs) => {
                pairs.iter().find(|(_, logit)| !logit.is_finite()).map(|(id, logit)| (*id as usize, *logit))
            }
        }
    }

    /// Tokens and their logits, by ascending token.
    pub(crate) fn extend(self, out: &mut Vec<(u32, f32)>) {
        match self {
            Among::All(logits) => out.extend((0u32..).zip(logits.iter().copied())),
            Among::Needed(pairs) => out.extend_from_slice(pairs),
        }
    }
}
