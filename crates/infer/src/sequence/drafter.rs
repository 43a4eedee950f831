//! What a draft chooses by: the choices of a sequence, a few tokens ahead.

use tritforge_constrain::Progress;

use super::Sequence;
use super::accept::ending;
use crate::logits::{Among, NeededLogits};
use crate::{Sampler, Vocabulary};

/// A sequence's way of choosing, in copy.
#[derive(Debug)]
pub(crate) struct Drafter {
    sampler: Sampler,
    progress: Option<Progress>,
    /// The sequence's tokens and those that were chosen here.
    ids: Vec<u32>,
    /// How many of them are the sequence's.
    given: usize,
    /// How many may be chosen.
    most: usize,
}

impl Drafter {
    /// The logits that the next choice looks at, if it does not look at all.
    pub(crate) fn needed(&self, sequence: &Sequence<'_>) -> Option<NeededLogits> {
        if self.progress.is_some() {
            return None;
        }
        self.sampler.needed(&self.ids, self.banned(sequence), sequence.vocabulary.size)
    }

    /// Chooses the token that the sequence would choose by these logits; none if the text would end there. What goes wrong is
    /// the sequence's to say, when it chooses itself.
    pub(crate) fn choose(&mut self, sequence: &Sequence<'_>, logits: Among<'_>) -> Option<u32> {
        let ends = || ending(&sequence.vocabulary, &sequence.options);
        let mut allowed = None;
        if let Some(progress) = &mut self.progress {
            if progress.is_complete() {
                return None;
            }
            let allowed = allowed.insert(progress.allowed().ok()?);
            if allowed.end() {
                ends().for_each(|id| allowed.allow(id));
            }
        }
        let banned = self.banned(sequence);
        let id = self.sampler.choose_of(logits, &self.ids, banned, allowed.as_ref()).ok()?;
        if ends().any(|end| end == id) {
            return None;
        }
        if let Some(progress) = &mut self.progress {
            progress.accept(id).ok()?;
        }
        self.ids.push(id);
        Some(id)
    }

    /// Whether it may choose another one.
    pub(crate) fn wants_more(&self) -> bool {
        self.chosen().len() < self.most
    }

    fn chosen(&self) -> &[u32] {
        &self.ids[self.given..]
    }

    /// The tokens that may not be chosen now.
    fn banned<'s>(&self, sequence: &'s Sequence<'_>) -> &'s [u32] {
        let early = self.ids.len() - sequence.prompt_tokens < sequence.options.min_tokens;
        if early { &sequence.too_early } else { &sequence.options.suppress_ids }
    }
}

impl<'m> Sequence<'m> {
    /// What chooses as this sequence does, up to `most` tokens ahead of it.
    pub(crate) fn drafter(&self, most: usize) -> Drafter {
        Drafter {
            sampler: self.sampler.fork(),
            progress: self.progress.as_ref().map(Progress::fork),
            ids: self.ids.clone(),
            given: self.ids.len(),
            most,
        }
    }

    /// Proposes what was chosen ahead.
    pub(crate) fn propose_drafted(&mut self, drafter: &Drafter) {
        if !drafter.chosen().is_empty() {
            self.proposed.extend(self.ids.last());
            self.proposed.extend(drafter.chosen());
            self.drafted = true;
        }
    }

    pub(crate) fn vocabulary(&self) -> Vocabulary<'m> {
        self.vocabulary
    }
}
