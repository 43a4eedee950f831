//! Choosing the next token: repetition penalty, temperature, top-k, top-p, min-p, in llama.cpp's order.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use crate::InferError;

/// How to choose.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the largest logit (greedy).
    pub temperature: f32,
    /// Keep the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most probable tokens until their probabilities sum to this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less probable than this share of the most probable; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens (CTRL, arXiv 1909.05858); 1 changes nothing.
    pub repetition_penalty: f32,
    /// How many recent tokens the penalty sees.
    pub repeat_last_n: usize,
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
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return fault("top_p", self.top_p, "more than 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return fault("min_p", self.min_p, "0 to 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return fault("repetition_penalty", self.repetition_penalty, "more than 0; 1 changes nothing");
        }
        Ok(())
    }
}

/// A chooser with its random state.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha20Rng,
}

impl Sampler {
    /// A chooser that starts at the seed.
    ///
    /// # Errors
    /// If an option is out of range.
    pub fn new(sampling: Sampling) -> Result<Self, InferError> {
        sampling.validate()?;
        let rng = ChaCha20Rng::seed_from_u64(sampling.seed);
        Ok(Self { sampling, rng })
    }

    /// Chooses a token from its logits `[vocab_size]`; `recent` are the tokens before it, newest last. Of equal logits
    /// the lowest id counts as the larger one.
    pub fn choose(&mut self, logits: &[f32], recent: &[u32]) -> u32 {
        let s = &self.sampling;
        let mut candidates: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
        if s.repetition_penalty != 1.0 {
            let mut seen = recent[recent.len().saturating_sub(s.repeat_last_n)..].to_vec();
            seen.sort_unstable();
            seen.dedup();
            for id in seen {
                if let Some((_, logit)) = candidates.get_mut(id as usize) {
                    *logit = if *logit > 0.0 {
                        *logit / s.repetition_penalty
                    } else {
                        *logit * s.repetition_penalty
                    };
                }
            }
        }
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if s.temperature == 0.0 {
            return candidates.into_iter().min_by(order).map_or(0, |(id, _)| id);
        }
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
        for (id, logit) in &candidates {
            left -= weight(*logit);
            if left < 0.0 {
                return *id;
            }
        }
        candidates.last().map_or(0, |(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampler.choose(logits, &[]) as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_largest_and_of_equals_the_first() {
        let mut sampler = Sampler::new(Sampling::default()).unwrap();
        assert_eq!(sampler.choose(&[0.5, 2.0, 2.0, -1.0], &[]), 1);
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
        assert_eq!(sampler.choose(&[3.0, 2.0, -1.0], &[0]), 1);
        assert_eq!(sampler.choose(&[-1.0, -1.5, -9.0], &[0, 7]), 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens() {
        let draw = |seed| {
            let mut s = Sampler::new(Sampling { temperature: 1.0, seed, ..Sampling::default() }).unwrap();
            (0..50).map(|_| s.choose(&[0.0; 100], &[])).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn options_out_of_range_are_named() {
        let error = Sampler::new(Sampling { top_p: 0.0, ..Sampling::default() }).unwrap_err();
        assert!(error.to_string().starts_with("top_p = 0"), "{error}");
        assert!(Sampler::new(Sampling { temperature: f32::NAN, ..Sampling::default() }).is_err());
    }
}
