//! Choosing the next token: bias, penalties, temperature, top-k, top-p, min-p, in llama.cpp's order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use tritforge_constrain::Allowed;

use crate::InferError;
use crate::logits::{Among, NeededLogits};

/// How to choose.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the largest logit (greedy).
    pub temperature: f32,
    /// Keep the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most probable tokens until their probabilities sum to this; 1 keeps all, 0 the most probable
    /// one.
    pub top_p: f32,
    /// Drop tokens less probable than this share of the most probable; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens (CTRL, arXiv 1909.05858); 1 changes
    /// nothing.
    pub repetition_penalty: f32,
    /// How many recent tokens the repetition penalty sees.
    pub repeat_last_n: usize,
    /// Subtracted from the logit of a token for each time that it has been generated (OpenAI's definition);
    /// -2 to 2.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of every token that has been generated (OpenAI's definition); -2 to 2.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens; -100 to 100.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Seed of the choice.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repeat_last_n: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first option out of range.
    pub fn validate(&self) -> Result<(), InferError> {
        let fault = |option, found: f32, expected| {
            Err(InferError::Option { option, found: found.to_string(), expected })
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return fault("temperature", self.temperature, "0 (greedy) or more");
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return fault("top_p", self.top_p, "0 to 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return fault("min_p", self.min_p, "0 to 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return fault("repetition_penalty", self.repetition_penalty, "more than 0; 1 changes nothing");
        }
        if !(-2.0..=2.0).contains(&self.frequency_penalty) {
            return fault("frequency_penalty", self.frequency_penalty, "-2 to 2");
        }
        if !(-2.0..=2.0).contains(&self.presence_penalty) {
            return fault("presence_penalty", self.presence_penalty, "-2 to 2");
        }
        if let Some((_, bias)) = self.logit_bias.iter().find(|(_, bias)| !(-100.0..=100.0).contains(*bias)) {
            return fault("logit_bias", *bias, "-100 to 100");
        }
        Ok(())
    }
}

/// A chooser with its random state, for one sequence.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha20Rng,
    /// How often each token has been chosen, where a penalty asks for it.
    counts: BTreeMap<u32, u32>,
    /// The memory of the tokens to draw from, kept for the next choice; a greedy one needs none.
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// A chooser that starts at the seed.
    ///
    /// # Errors
    /// If an option is out of range.
    pub fn new(sampling: Sampling) -> Result<Self, InferError> {
        sampling.validate()?;
        let rng = ChaCha20Rng::seed_from_u64(sampling.seed);
        Ok(Self { sampling, rng, counts: BTreeMap::new(), candidates: Vec::new() })
    }

    /// One that goes on from here by itself, with memory of its own.
    pub(crate) fn fork(&self) -> Self {
        let (sampling, rng, counts) = (self.sampling.clone(), self.rng.clone(), self.counts.clone());
        Self { sampling, rng, counts, candidates: Vec::new() }
    }

    /// Chooses a token from its logits `[vocab_size]`; `recent` are the tokens before it, newest last. Of
    /// equal logits the lowest id counts as the larger one.
    ///
    /// # Errors
    /// If a logit is NaN or infinite: no choice means anything then.
    pub fn choose(&mut self, logits: &[f32], recent: &[u32]) -> Result<u32, InferError> {
        self.choose_among(logits, recent, &[], None)
    }

    /// As [`Sampler::choose`], but none of the tokens in `banned`, and only one of those that are `allowed`.
    ///
    /// # Errors
    /// As [`Sampler::choose`], and if no token is left.
    pub(crate) fn choose_among(
        &mut self,
        logits: &[f32],
        recent: &[u32],
        banned: &[u32],
        allowed: Option<&Allowed>,
    ) -> Result<u32, InferError> {
        self.choose_of(Among::All(logits), recent, banned, allowed)
    }

    /// As [`Sampler::choose_among`], of the logits that [`Sampler::needed`] asks for, or all.
    pub(crate) fn choose_of(
        &mut self,
        logits: Among<'_>,
        recent: &[u32],
        banned: &[u32],
        allowed: Option<&Allowed>,
    ) -> Result<u32, InferError> {
        if let Some((id, value)) = logits.not_finite() {
            return Err(InferError::Logit { position: recent.len(), id, value });
        }
        let changed = self.changed(logits, recent);
        let id = if self.sampling.temperature == 0.0 {
            let may_come = |id| may_come(id, banned, allowed);
            match logits {
                Among::All(logits) => greedy((0u32..).zip(logits.iter().copied()), &changed, may_come),
                Among::Needed(pairs) => greedy(pairs.iter().copied(), &changed, may_come),
            }
        } else {
            let mut candidates = std::mem::take(&mut self.candidates);
            candidates.clear();
            logits.extend(&mut candidates);
            for (id, logit) in &changed {
                if let Some(at) = logits.position(*id) {
                    candidates[at].1 = *logit;
                }
            }
            if !banned.is_empty() || allowed.is_some() {
                candidates.retain(|(id, _)| may_come(*id, banned, allowed));
            }
            let id = self.draw(&mut candidates);
            self.candidates = candidates;
            id
        };
        let id = id.ok_or(InferError::NothingToChoose)?;
        if self.sampling.frequency_penalty != 0.0 || self.sampling.presence_penalty != 0.0 {
            *self.counts.entry(id).or_default() += 1;
        }
        Ok(id)
    }

    /// The logits that the next choice looks at, of a vocabulary of so many tokens: none if it may look at all. The choice
    /// among them is that among all.
    pub(crate) fn needed(&self, recent: &[u32], banned: &[u32], vocab_size: usize) -> Option<NeededLogits> {
        let s = &self.sampling;
        let kept = if s.temperature == 0.0 { 1 } else { s.top_k };
        if kept == 0 {
            return None;
        }
        let mut ids: Vec<u32> = s.logit_bias.keys().chain(self.counts.keys()).copied().collect();
        if s.repetition_penalty != 1.0 {
            ids.extend_from_slice(&recent[recent.len().saturating_sub(s.repeat_last_n)..]);
        }
        ids.retain(|id| (*id as usize) < vocab_size);
        ids.sort_unstable();
        ids.dedup();
        // As many of the largest can be barred or become smaller.
        Some(NeededLogits { largest: kept.saturating_add(ids.len() + banned.len()), ids })
    }

    /// The tokens whose logits bias and penalties change, with their new logits.
    fn changed(&self, logits: Among<'_>, recent: &[u32]) -> BTreeMap<u32, f32> {
        let s = &self.sampling;
        let mut changed = BTreeMap::new();
        let mut change = |id: u32, new: &dyn Fn(f32) -> f32| {
            if let Some(logit) = logits.get(id) {
                let logit = changed.entry(id).or_insert(logit);
                // The largest number instead of infinity: two of these have no difference.
                *logit = new(*logit).clamp(f32::MIN, f32::MAX);
            }
        };
        for (id, bias) in &s.logit_bias {
            change(*id, &|logit| logit + bias);
        }
        if s.repetition_penalty != 1.0 {
            let mut seen = recent[recent.len().saturating_sub(s.repeat_last_n)..].to_vec();
            seen.sort_unstable();
            seen.dedup();
            let penalty = s.repetition_penalty;
            for id in seen {
                change(id, &|logit| if logit > 0.0 { logit / penalty } else { logit * penalty });
            }
        }
        for (id, count) in &self.counts {
            change(*id, &|logit| logit - *count as f32 * s.frequency_penalty - s.presence_penalty);
        }
        changed
    }

    /// Draws one of the candidates; none if there is none.
    fn draw(&mut self, candidates: &mut Vec<(u32, f32)>) -> Option<u32> {
        let s = &self.sampling;
        let order = |a: &(u32, f32), b: &(u32, f32)| {
            b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
        };
        if s.top_k > 0 && s.top_k < candidates.len() {
            candidates.select_nth_unstable_by(s.top_k - 1, order);
            candidates.truncate(s.top_k);
        }
        candidates.sort_unstable_by(order);
        let largest = candidates.first().map_or(0.0, |(_, logit)| *logit);
        let weights = |temperature: f32| move |logit: f32| f64::from((logit - largest) / temperature).exp();
        if s.top_p < 1.0 {
            let weight = weights(1.0);
            let total: f64 = candidates.iter().map(|(_, logit)| weight(*logit)).sum();
            let mut sum = 0.0;
            let keep = candidates.iter().position(|(_, logit)| {
                sum += weight(*logit);
                sum >= f64::from(s.top_p) * total
            });
            candidates.truncate(keep.map_or(candidates.len(), |last| last + 1));
        }
        if s.min_p > 0.0 {
            let weight = weights(1.0);
            candidates.retain(|(_, logit)| weight(*logit) >= f64::from(s.min_p));
        }
        let weight = weights(s.temperature);
        let total: f64 = candidates.iter().map(|(_, logit)| weight(*logit)).sum();
        let mut left = self.rng.random::<f64>() * total;
        for (id, logit) in &*candidates {
            left -= weight(*logit);
            if left < 0.0 {
                return Some(*id);
            }
        }
        candidates.last().map(|(id, _)| *id)
    }
}

/// Whether a token may be chosen.
fn may_come(id: u32, banned: &[u32], allowed: Option<&Allowed>) -> bool {
    !banned.contains(&id) && allowed.is_none_or(|allowed| allowed.contains(id))
}

/// The token with the largest logit, of equals the one with the lowest id; none if all are barred.
fn greedy(
    logits: impl Iterator<Item = (u32, f32)>,
    changed: &BTreeMap<u32, f32>,
    may_come: impl Fn(u32) -> bool,
) -> Option<u32> {
    let mut changed = changed.iter().peekable();
    let mut best: Option<(u32, f32)> = None;
    for (id, logit) in logits {
        let logit = changed.next_if(|(at, _)| **at == id).map_or(logit, |(_, logit)| *logit);
        if best.is_none_or(|(_, largest)| logit > largest) && may_come(id) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id)
}

#[cfg(test)]
mod tests;
