//! Log-probabilities of tokens, from the model's own distribution: before temperature, penalties and cuts.

use std::cmp::Ordering;

/// A generated token with its log-probability and the most probable tokens in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub id: u32,
    /// ln of its probability.
    pub logprob: f32,
    /// The most probable tokens with the logarithms of their probabilities, most probable first; of equals
    /// the lowest id.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    /// Of token `id` in the softmax of `logits` `[vocab_size]`, with the `top` most probable tokens.
    pub fn of(logits: &[f32], id: u32, top: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let logprob = |logit: f32| (f64::from(logit - largest) - sum.ln()) as f32;
        let order = |a: &(u32, f32), b: &(u32, f32)| {
            b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
        };
        let mut all: Vec<(u32, f32)> =
            if top == 0 { Vec::new() } else { (0u32..).zip(logits.iter().copied()).collect() };
        if top < all.len() {
            all.select_nth_unstable_by(top, order);
            all.truncate(top);
        }
        all.sort_unstable_by(order);
        Self {
            id,
            logprob: logits.get(id as usize).map_or(f32::NEG_INFINITY, |logit| logprob(*logit)),
            top: all.into_iter().map(|(id, logit)| (id, logprob(logit))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_logarithms_of_the_softmax() {
        // Probabilities 1/8, 4/8, 1/8, 2/8, whatever is added to all logits.
        let logits = [1f32, 4.0, 1.0, 2.0].map(|p| p.ln() + 7.0);
        let of = TokenLogprobs::of(&logits, 2, 3);
        assert!((of.logprob - 0.125f32.ln()).abs() < 1e-6);
        let ids: Vec<u32> = of.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 3, 0]);
        for ((_, found), p) in of.top.iter().zip([0.5f32, 0.25, 0.125]) {
            assert!((found - p.ln()).abs() < 1e-6);
        }
        assert_eq!(TokenLogprobs::of(&logits, 2, 0).top, []);
        assert_eq!(TokenLogprobs::of(&logits, 2, 9).top.len(), 4);
    }
}
