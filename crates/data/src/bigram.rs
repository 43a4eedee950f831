//! The bigram model: what any language model has to beat.
//!
//! `p(b | a) = λ₂ c(a,b)/c(a) + λ₁ c(b)/N + λ₀/V` (Jelinek and Mercer 1980). The λ are chosen by
//! expectation–maximization on the last tenth of the training tokens, with counts of the rest; the counts are
//! then taken from all of them. After a token that training never saw, the unigram takes the bigram's share.

use std::collections::HashMap;

use crate::{DataError, Document, Mixture, Shard};

/// Steps of expectation–maximization; it converges within a few.
const EM_STEPS: usize = 30;

/// Held-out bits per byte of two bigram models.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BigramBaseline {
    /// Of the model over the same tokens.
    pub token_bits_per_byte: f64,
    /// Of the model over bytes.
    pub byte_bits_per_byte: f64,
}

/// How a bigram model does on held-out text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BigramScore {
    /// Bits per byte of text.
    pub bits_per_byte: f64,
    /// λ₀, λ₁, λ₂: the shares of the uniform distribution, the unigram and the bigram.
    pub lambdas: [f64; 3],
}

/// Both baselines; the documents are those that the shards were made from.
///
/// # Errors
/// If there are too few tokens.
pub fn bigram_baseline(
    train: &Mixture,
    held_out: &Shard,
    train_documents: &[Document],
    held_out_documents: &[Document],
) -> Result<BigramBaseline, DataError> {
    Ok(BigramBaseline {
        token_bits_per_byte: token_bigram(train, held_out)?.bits_per_byte,
        byte_bits_per_byte: byte_bigram(train_documents, held_out_documents)?.bits_per_byte,
    })
}

/// The bigram model over tokens. Like a language model it is scored on every token but the first, so that
/// bits per byte are bits per target over [`Shard::bytes_per_token`].
///
/// # Errors
/// If a shard has too few tokens.
fn token_bigram(train: &Mixture, held_out: &Shard) -> Result<BigramScore, DataError> {
    let shards = train.parts().iter().flat_map(|part| &part.shards);
    let vocab_size = shards.map(Shard::vocab_size).fold(held_out.vocab_size(), usize::max);
    let train: Vec<u32> = train.iter().collect();
    let ids: Vec<u32> = held_out.iter().collect();
    score(&train, &ids, vocab_size, held_out.bytes_per_token())
}

/// The bigram model over the bytes of the texts, one after the other.
///
/// # Errors
/// If there are too few bytes.
fn byte_bigram(train: &[Document], held_out: &[Document]) -> Result<BigramScore, DataError> {
    let bytes = |documents: &[Document]| -> Vec<u32> {
        documents.iter().flat_map(|d| d.text.bytes()).map(u32::from).collect()
    };
    score(&bytes(train), &bytes(held_out), 256, 1.0)
}

fn score(
    train: &[u32],
    held_out: &[u32],
    vocab_size: usize,
    bytes_per_token: f64,
) -> Result<BigramScore, DataError> {
    let advice = "give more text";
    if train.len() < 20 {
        let purpose = "fitting a bigram model";
        return Err(DataError::TooShort { tokens: train.len(), needed: 20, purpose, advice });
    }
    if held_out.len() < 2 {
        let purpose = "scoring a bigram model";
        return Err(DataError::TooShort { tokens: held_out.len(), needed: 2, purpose, advice });
    }
    let (counted, kept_out) = train.split_at(train.len() - train.len() / 10);
    let mut counts = Counts::of(counted, vocab_size);
    let lambdas = counts.fit(kept_out);
    counts.add(kept_out);
    let bits = counts.bits(held_out, lambdas);
    Ok(BigramScore { bits_per_byte: bits / (held_out.len() - 1) as f64 / bytes_per_token, lambdas })
}

struct Counts {
    tokens: usize,
    /// How often each token occurs.
    unigrams: Vec<u32>,
    bigrams: HashMap<(u32, u32), u32>,
    /// The last token counted: the only one without a successor.
    last: Option<u32>,
}

impl Counts {
    fn of(tokens: &[u32], vocab_size: usize) -> Self {
        let mut counts =
            Self { tokens: 0, unigrams: vec![0; vocab_size], bigrams: HashMap::new(), last: None };
        counts.add(tokens);
        counts
    }

    /// Counts tokens that follow those already counted.
    fn add(&mut self, tokens: &[u32]) {
        for &token in tokens {
            self.unigrams[token as usize] += 1;
            if let Some(last) = self.last.replace(token) {
                *self.bigrams.entry((last, token)).or_insert(0) += 1;
            }
        }
        self.tokens += tokens.len();
    }

    /// The three probabilities of `b` after `a`: uniform, unigram, bigram.
    fn components(&self, a: u32, b: u32) -> [f64; 3] {
        let count = |token: u32| self.unigrams.get(token as usize).copied().unwrap_or(0);
        let unigram = f64::from(count(b)) / self.tokens as f64;
        let successors = count(a) - u32::from(self.last == Some(a));
        let bigram = match self.bigrams.get(&(a, b)) {
            Some(pairs) => f64::from(*pairs) / f64::from(successors),
            None if successors == 0 => unigram,
            None => 0.0,
        };
        [1.0 / self.unigrams.len() as f64, unigram, bigram]
    }

    /// The λ under which `tokens` are most probable.
    fn fit(&self, tokens: &[u32]) -> [f64; 3] {
        let components: Vec<_> = tokens.windows(2).map(|pair| self.components(pair[0], pair[1])).collect();
        let mut lambdas = [1.0 / 3.0; 3];
        for _ in 0..EM_STEPS {
            let mut shares = [0f64; 3];
            for p in &components {
                let total: f64 = p.iter().zip(lambdas).map(|(p, l)| p * l).sum();
                for i in 0..3 {
                    shares[i] += lambdas[i] * p[i] / total;
                }
            }
            // A floor keeps every token possible, even where the kept-out tokens held no surprise.
            shares = shares.map(|s| (s / components.len() as f64).max(1e-6));
            let sum: f64 = shares.iter().sum();
            lambdas = shares.map(|s| s / sum);
        }
        lambdas
    }

    /// −log₂ of the probability of every token but the first.
    fn bits(&self, tokens: &[u32], lambdas: [f64; 3]) -> f64 {
        let nats: f64 = tokens
            .windows(2)
            .map(|pair| {
                let p = self.components(pair[0], pair[1]);
                -p.iter().zip(lambdas).map(|(p, l)| p * l).sum::<f64>().ln()
            })
            .sum();
        nats / std::f64::consts::LN_2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_a_hand_computed_example() {
        // a b a b a c: unigrams 3 2 1 of 6; after a: b twice, c once; after b: a twice; after c nothing.
        let counts = Counts::of(&[0, 1, 0, 1, 0, 2], 4);
        assert_eq!(counts.components(0, 1), [0.25, 2.0 / 6.0, 2.0 / 3.0]);
        assert_eq!(counts.components(0, 0), [0.25, 0.5, 0.0]);
        assert_eq!(counts.components(2, 0), [0.25, 0.5, 0.5]);
        assert_eq!(counts.components(1, 3), [0.25, 0.0, 0.0]);
        // a b, b a, a d with λ = (0.2, 0.3, 0.5).
        let p = [
            0.2 * 0.25 + 0.3 / 3.0 + 0.5 * 2.0 / 3.0, // 0.48333
            0.2 * 0.25 + 0.3 * 0.5 + 0.5,             // 0.7
            0.2 * 0.25,                               // 0.05
        ];
        let expected: f64 = p.iter().map(|p: &f64| -p.log2()).sum();
        assert!((expected - 5.8854).abs() < 1e-4);
        assert!((counts.bits(&[0, 1, 0, 3], [0.2, 0.3, 0.5]) - expected).abs() < 1e-12);
    }

    #[test]
    fn every_context_has_a_distribution() {
        let counts = Counts::of(&[0, 1, 0, 1, 0, 2, 2, 1], 5);
        for a in 0..5 {
            for i in 0..3 {
                let sum: f64 = (0..5).map(|b| counts.components(a, b)[i]).sum();
                assert!((sum - 1.0).abs() < 1e-12, "{a} {i} {sum}");
            }
        }
    }

    #[test]
    fn the_lambdas_are_a_maximum() {
        let mut state = 1u32;
        let tokens: Vec<u32> = (0..5000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 16) & 0xff).trailing_zeros().min(7)
            })
            .collect();
        let counts = Counts::of(&tokens[..4000], 8);
        let best = counts.fit(&tokens[4000..]);
        assert!((best.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let bits = |lambdas| counts.bits(&tokens[4000..], lambdas);
        for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            let mut other = best;
            let step = 0.05f64.min(other[from]);
            other[from] -= step;
            other[to] += step;
            assert!(bits(other) >= bits(best) - 1e-3 * bits(best), "{best:?} {other:?}");
        }
    }

    #[test]
    fn a_periodic_text_is_free_and_a_random_one_is_not() {
        let periodic = [Document::new("p", "abcd".repeat(500))];
        let score = byte_bigram(&periodic, &[Document::new("h", "abcd".repeat(10))]).unwrap();
        assert!(score.bits_per_byte < 0.01, "{score:?}");
        let surprise = byte_bigram(&periodic, &[Document::new("h", "zyxw".repeat(10))]).unwrap();
        assert!(surprise.bits_per_byte > 8.0 && surprise.bits_per_byte.is_finite(), "{surprise:?}");
        assert!(byte_bigram(&periodic, &[Document::new("h", "a")]).is_err());
        assert!(byte_bigram(&[Document::new("t", "too short")], &periodic).is_err());
    }
}
