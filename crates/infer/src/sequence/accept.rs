//! What a sequence does with logits: it chooses a token, and further ones that were proposed.

use std::ops::ControlFlow;
use std::time::Instant;

use super::{Piece, Sequence};
use crate::logits::{Among, Logits, NeededLogits};
use crate::lookup::propose;
use crate::stop::StopMatch;
use crate::{Finish, GenerateOptions, InferError, Proposals, TokenLogprobs, Vocabulary};

impl Sequence<'_> {
    /// Takes note of `ran` tokens that the model has run, with the logits that [`Self::next_input`] asked for, and, if
    /// none is left, chooses the next one by those of the last, `[vocab_size]`; further ones as long as they are those
    /// that were proposed. `on_piece` gets the text that each completes, or none if it completes none, and may end the
    /// sequence. Returns why the sequence is at its end, if it is.
    ///
    /// # Errors
    /// If a logit is NaN or infinite, no token can be chosen, or the one chosen cannot be decoded.
    pub fn accept(
        &mut self,
        ran: usize,
        logits: &[f32],
        on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Finish>, InferError> {
        self.accept_among(ran, Among::All(logits), on_piece)
    }

    /// As [`Self::accept`], of logits as [`crate::step_needed`] gives them for what [`Self::needed`] asks for.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub(crate) fn accept_logits(
        &mut self,
        ran: usize,
        logits: &Logits,
        on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Finish>, InferError> {
        self.accept_among(ran, logits.among(), on_piece)
    }

    /// The logits that the next choice looks at, if it does not look at all.
    pub fn needed(&self) -> Option<NeededLogits> {
        let all = self.options.logprobs.is_some() || self.is_scored() || self.progress.is_some();
        if all || !self.proposed.is_empty() {
            return None;
        }
        self.sampler.needed(&self.ids, self.banned(), self.vocabulary.size)
    }

    /// The tokens that may not be chosen now.
    fn banned(&self) -> &[u32] {
        let early = self.generated() < self.options.min_tokens;
        if early { &self.too_early } else { &self.options.suppress_ids }
    }

    fn accept_among(
        &mut self,
        ran: usize,
        logits: Among<'_>,
        mut on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Finish>, InferError> {
        if let (true, Among::All(all)) = (self.is_scored(), logits) {
            self.score(all);
        }
        let proposed = std::mem::take(&mut self.proposed);
        let proposed = proposed.get(1..ran).unwrap_or_default();
        self.seen += ran - proposed.len();
        if self.seen < self.ids.len() {
            return Ok(None);
        }
        let rows: Vec<Among<'_>> = match logits {
            Among::All(all) if !all.is_empty() => {
                let size = self.vocabulary.size.max(1);
                let last = all.len().saturating_sub((1 + proposed.len()) * size);
                all[last..].chunks(size).map(Among::All).collect()
            }
            one => vec![one],
        };
        self.proposals().proposed += proposed.len();
        for (i, row) in rows.into_iter().enumerate() {
            let before = self.ids.len();
            let finish = self.choose(row, &mut on_piece)?;
            let came = self.ids.len() > before && self.ids.last() == proposed.get(i);
            self.proposals().accepted += usize::from(came);
            if finish.is_some() {
                return Ok(finish);
            }
            if !came {
                break;
            }
            self.seen += 1;
        }
        self.look_up();
        Ok(None)
    }

    /// The count of what was proposed last.
    fn proposals(&mut self) -> &mut Proposals {
        if self.drafted { &mut self.draft } else { &mut self.lookup }
    }

    /// How many of so many tokens there is use and room for behind the last one; 0 if some are proposed already.
    pub(crate) fn room_for_proposals(&self, most: usize) -> usize {
        let wanted = self.options.max_tokens.saturating_sub(self.generated() + 1);
        let room = self.room.saturating_sub(self.ids.len());
        if self.proposed.is_empty() { most.min(wanted).min(room) } else { 0 }
    }

    /// Proposes tokens to follow the last one, as many as there is use and room for.
    fn look_up(&mut self) {
        let most = self.room_for_proposals(self.options.prompt_lookup);
        if most == 0 {
            return;
        }
        let found = propose(&self.ids, most);
        if !found.is_empty() {
            self.proposed.extend(self.ids.last());
            self.proposed.extend(found);
            self.drafted = false;
        }
    }

    /// Chooses a token by its logits, and does what it brings.
    fn choose(
        &mut self,
        logits: Among<'_>,
        on_piece: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Finish>, InferError> {
        self.prefilled.get_or_insert_with(Instant::now);
        if self.generated() >= self.options.max_tokens {
            return Ok(Some(Finish::Length));
        }
        let early = self.generated() < self.options.min_tokens;
        let banned = if early { &self.too_early } else { &self.options.suppress_ids };
        let mut allowed = None;
        if let Some(progress) = &mut self.progress {
            if progress.is_complete() {
                return Ok(Some(Finish::Stop));
            }
            let allowed = allowed.insert(progress.allowed()?);
            if allowed.end() {
                ending(&self.vocabulary, &self.options).for_each(|id| allowed.allow(id));
            }
        }
        let id = self.sampler.choose_of(logits, &self.ids, banned, allowed.as_ref())?;
        if ending(&self.vocabulary, &self.options).any(|end| end == id) {
            return Ok(Some(Finish::Eos));
        }
        if let Some(progress) = &mut self.progress {
            progress.accept(id)?;
        }
        self.ids.push(id);
        if let (Some(top), Among::All(logits)) = (self.options.logprobs, logits) {
            self.tokens.push(TokenLogprobs::of(logits, id, top));
        }
        if self.options.skip_special_tokens && self.vocabulary.tokenizer.is_special(id) {
            let name = self.vocabulary.tokenizer.token(id).unwrap_or_default();
            if self.options.stop.contains(&name) {
                return Ok(Some(Finish::Stop));
            }
            return Ok(self.hand_out("", on_piece));
        }
        // The text is too short for a stop string as long as it is too short for an end.
        let early = self.generated() < self.options.min_tokens;
        let (text, stopped) = match self.stream.push(id)? {
            None => (String::new(), false),
            Some(piece) if early => (piece, false),
            Some(piece) => match self.filter.push(&piece) {
                StopMatch::Text(text) => (text, false),
                StopMatch::Stopped(text) => (text, true),
            },
        };
        if stopped {
            self.close(&text)?;
            let _ = on_piece(Piece { text: &text, tokens: &self.tokens });
            return Ok(Some(Finish::Stop));
        }
        Ok(self.hand_out(&text, on_piece))
    }

    /// Takes the log-probabilities of the prompt's tokens behind those that have been run.
    fn score(&mut self, logits: &[f32]) {
        let top = self.options.prompt_logprobs.unwrap_or_default();
        let next = self.ids[self.seen + 1..self.prompt_tokens].iter();
        let scored = logits.chunks_exact(self.vocabulary.size).zip(next);
        self.tokens.extend(scored.map(|(logits, id)| TokenLogprobs::of(logits, *id, top)));
        self.scored = self.tokens.len();
    }
}

/// The tokens that end a text.
pub(super) fn ending<'a>(
    vocabulary: &Vocabulary<'a>,
    options: &'a GenerateOptions,
) -> impl Iterator<Item = u32> {
    let GenerateOptions { stop_ids, end_ids, ignore_eos, .. } = options;
    let own = (!ignore_eos).then(|| vocabulary.end_ids.iter().chain(end_ids));
    stop_ids.iter().chain(own.into_iter().flatten()).copied()
}
