//! Choosing the next token: bias, penalties, temperature, top-k, top-p, min-p, in llama.cpp's order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use tritforge_constrain::Allowed;

use crate::InferError;

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
    pub fn choose_among(
        &mut self,
        logits: &[f32],
        recent: &[u32],
        banned: &[u32],
        allowed: Option<&Allowed>,
    ) -> Result<u32, InferError> {
        if let Some(id) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(InferError::Logit { position: recent.len(), id, value: logits[id] });
        }
        let changed = self.changed(logits, recent);
        let id = if self.sampling.temperature == 0.0 {
            greedy(logits, &changed, |id| may_come(id, banned, allowed))
        } else {
            let mut candidates = std::mem::take(&mut self.candidates);
            candidates.clear();
            candidates.extend((0u32..).zip(logits.iter().copied()));
            for (id, logit) in &changed {
                candidates[*id as usize].1 = *logit;
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

    /// The tokens whose logits bias and penalties change, with their new logits.
    fn changed(&self, logits: &[f32], recent: &[u32]) -> BTreeMap<u32, f32> {
        let s = &self.sampling;
        let mut changed = BTreeMap::new();
        let mut change = |id: u32, new: &dyn Fn(f32) -> f32| {
            if let Some(logit) = logits.get(id as usize) {
                let logit = changed.entry(id).or_insert(*logit);
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
fn greedy(logits: &[f32], changed: &BTreeMap<u32, f32>, may_come: impl Fn(u32) -> bool) -> Option<u32> {
    let mut changed = changed.iter().peekable();
    let mut best: Option<(u32, f32)> = None;
    for (id, logit) in (0u32..).zip(logits) {
        let logit = changed.next_if(|(at, _)| **at == id).map_or(*logit, |(_, logit)| *logit);
        if best.is_none_or(|(_, largest)| logit > largest) && may_come(id) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampler.choose(logits, &[]).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_largest_and_of_equals_the_first() {
        let mut sampler = Sampler::new(Sampling::default()).unwrap();
        assert_eq!(sampler.choose(&[0.5, 2.0, 2.0, -1.0], &[]).unwrap(), 1);
    }

    #[test]
    fn temperature_one_draws_from_the_softmax() {
        // p = 0.7, 0.2, 0.1
        let logits = [0.7f32.ln(), 0.2f32.ln(), 0.1f32.ln()];
        let n = 20_000;
        let counts = counts(Sampling { temperature: 1.0, ..Sampling::default() }, &logits, n);
        for (count, p) in counts.iter().zip([0.7, 0.2, 0.1]) {
            let sigma = (p * (1.0 - p) / n as f64).sqrt();
            assert!((*count as f64 / n as f64 - p).abs() < 5.0 * sigma, "{counts:?}");
        }
    }

    #[test]
    fn cuts_keep_what_their_definitions_say() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.15f32.ln(), 0.05f32.ln()];
        let base = Sampling { temperature: 1.0, ..Sampling::default() };
        let seen = |s| counts(s, &logits, 3000).iter().filter(|c| **c > 0).count();
        assert_eq!(seen(base.clone()), 4);
        assert_eq!(seen(Sampling { top_k: 2, ..base.clone() }), 2);
        assert_eq!(seen(Sampling { top_p: 0.75, ..base.clone() }), 2);
        assert_eq!(seen(Sampling { min_p: 0.2, ..base }), 3);
    }

    #[test]
    fn the_penalty_lowers_recent_tokens_of_either_sign() {
        let s = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        let mut sampler = Sampler::new(s).unwrap();
        assert_eq!(sampler.choose(&[3.0, 2.0, -1.0], &[0]).unwrap(), 1);
        assert_eq!(sampler.choose(&[-1.0, -1.5, -9.0], &[0, 7]).unwrap(), 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let draw = |seed| {
            let mut s = Sampler::new(Sampling { temperature: 1.0, seed, ..Sampling::default() }).unwrap();
            (0..50).map(|_| s.choose(&[0.0; 100], &[]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn options_out_of_range_are_named() {
        let error = Sampler::new(Sampling { top_p: 1.5, ..Sampling::default() }).unwrap_err();
        assert!(error.to_string().starts_with("top_p = 1.5: expected 0 to 1"), "{error}");
        for (penalty, option) in [(2.5, "frequency_penalty"), (f32::NAN, "frequency_penalty")] {
            let s = Sampling { frequency_penalty: penalty, ..Sampling::default() };
            assert!(Sampler::new(s).unwrap_err().to_string().starts_with(option));
        }
        let bias = BTreeMap::from([(3, -100.5)]);
        let error = Sampler::new(Sampling { logit_bias: bias, ..Sampling::default() }).unwrap_err();
        assert!(error.to_string().starts_with("logit_bias = -100.5"), "{error}");
        assert!(Sampler::new(Sampling { temperature: f32::NAN, ..Sampling::default() }).is_err());
    }

    #[test]
    fn openais_penalties_count_what_was_generated_and_not_the_prompt() {
        let logits = [3.0, 2.5, 0.0];
        let choices = |s: Sampling| {
            let mut sampler = Sampler::new(s).unwrap();
            (0..5).map(|_| sampler.choose(&logits, &[0, 0, 0]).unwrap()).collect::<Vec<_>>()
        };
        // 3, then 2 against 2.5, then 2 against 1.5, 1 against 1.5, 1 against 0.5.
        let s = Sampling { frequency_penalty: 1.0, ..Sampling::default() };
        assert_eq!(choices(s), [0, 1, 0, 1, 0]);
        // 3, then 1 against 2.5, then 1 against 0.5: once is all that it counts.
        let s = Sampling { presence_penalty: 2.0, ..Sampling::default() };
        assert_eq!(choices(s), [0, 1, 0, 0, 0]);
    }

    #[test]
    fn a_bias_is_added_and_ids_beyond_the_logits_change_nothing() {
        let s = Sampling { logit_bias: BTreeMap::from([(2, 1.5), (9, 100.0)]), ..Sampling::default() };
        assert_eq!(Sampler::new(s).unwrap().choose(&[1.0, 0.0, 0.0], &[]).unwrap(), 2);
        let s = Sampling {
            temperature: 1.0,
            logit_bias: BTreeMap::from([(0, -100.0), (1, -100.0)]),
            ..Sampling::default()
        };
        assert_eq!(counts(s, &[0.0; 3], 200), [0, 0, 200]);
    }

    #[test]
    fn barred_tokens_are_never_chosen() {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(Sampling { temperature, ..Sampling::default() }).unwrap();
            for _ in 0..50 {
                assert_eq!(sampler.choose_among(&[9.0, 1.0, 9.0], &[], &[0, 2], None).unwrap(), 1);
            }
            assert!(sampler.choose_among(&[9.0], &[], &[0], None).is_err());
        }
    }

    #[test]
    fn logits_that_are_no_numbers_choose_nothing() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for temperature in [0.0, 1.0] {
                let mut sampler = Sampler::new(Sampling { temperature, ..Sampling::default() }).unwrap();
                let error = sampler.choose(&[0.0, 1.0, bad], &[4, 5]).unwrap_err().to_string();
                assert!(error.contains("position 2") && error.contains("token 2"), "{error}");
            }
        }
    }

    #[test]
    fn top_p_of_0_keeps_the_most_probable_token_and_equal_zeros_are_equal() {
        let s = Sampling { temperature: 1.0, top_p: 0.0, ..Sampling::default() };
        assert_eq!(counts(s, &[0.1, 0.2, 0.2], 100), [0, 100, 0]);
        assert_eq!(Sampler::new(Sampling::default()).unwrap().choose(&[-0.0, 0.0], &[]).unwrap(), 0);
    }

    #[test]
    fn a_tiny_or_huge_penalty_still_chooses_by_numbers() {
        for repetition_penalty in [1e-38, 1e38] {
            for temperature in [0.0, 1.0] {
                let s = Sampling { repetition_penalty, temperature, ..Sampling::default() };
                let id = Sampler::new(s).unwrap().choose(&[5.0, 5.0, 1.0], &[0, 1]).unwrap();
                assert_eq!(id == 2, repetition_penalty > 1.0, "{repetition_penalty} {temperature}");
            }
        }
    }
}
