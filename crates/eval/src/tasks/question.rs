//! A multiple-choice question as log-likelihoods see it.
//!
//! The pairs of context and continuation, their tokens, and the two accuracies are those of
//! lm-evaluation-harness 0.4.

use tritforge_text::{EncodeOptions, Tokenizer};

use super::Example;
use crate::EvalError;
use crate::score::ScoredSequence;

/// What stands between a question and its answer, in a prompt of plain text.
pub(super) const TARGET_DELIMITER: &str = " ";

/// A question with its choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked and how it can go on.
    pub form: Form,
    /// Which choice is right.
    pub gold: usize,
}

/// Where the choices stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// After the question: each is a continuation of one context.
    Continuations {
        /// The prompt.
        context: String,
        /// The texts of the choices.
        choices: Vec<String>,
    },
    /// In the question: one continuation is scored after each of several contexts (partial evaluation, Trinh
    /// and Le 2018).
    Contexts {
        /// The prompts, each with its choice.
        contexts: Vec<String>,
        /// How all of them go on.
        continuation: String,
    },
}

impl Question {
    /// A question with its choices behind it.
    pub fn new(context: String, choices: Vec<String>, gold: usize) -> Self {
        Self { form: Form::Continuations { context, choices }, gold }
    }

    /// The contexts and their continuations, without what stands between them.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        match &self.form {
            Form::Continuations { context, choices } => {
                choices.iter().map(|choice| (context.as_str(), choice.as_str())).collect()
            }
            Form::Contexts { contexts, continuation } => {
                contexts.iter().map(|context| (context.as_str(), continuation.as_str())).collect()
            }
        }
    }

    /// The choices, whose lengths `acc_norm` divides by.
    pub fn choices(&self) -> &[String] {
        match &self.form {
            Form::Continuations { choices, .. } => choices,
            Form::Contexts { contexts, .. } => contexts,
        }
    }

    /// The question with its right answer, as a few-shot example.
    pub fn example(&self) -> Example {
        let pairs = self.pairs();
        let (question, answer) = pairs.get(self.gold).copied().unwrap_or_default();
        Example { question: question.to_string(), answer: answer.to_string() }
    }

    /// Which choice the model prefers by the log-likelihood of each, by each of three measures.
    pub fn preferred(&self, nats: &[f64]) -> Preferred {
        let by = |length: &dyn Fn(&str) -> f64| {
            let values = nats.iter().zip(self.choices()).map(|(nats, choice)| nats / length(choice));
            first_largest(values)
        };
        Preferred {
            summed: by(&|_| 1.0),
            per_character: by(&|choice| choice.chars().count() as f64),
            per_byte: by(&|choice| choice.len() as f64),
        }
    }
}

/// Which choice is the most probable one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preferred {
    /// By the log-likelihood: `acc`.
    pub summed: usize,
    /// By the log-likelihood over the choice's characters (Unicode code points, without the delimiter):
    /// `acc_norm`.
    pub per_character: usize,
    /// By the log-likelihood over the choice's bytes in UTF-8: `acc_bytes`; the same in ASCII.
    pub per_byte: usize,
}

/// The first of the largest.
fn first_largest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, value) in values.enumerate() {
        if value > best.1 {
            best = (i, value);
        }
    }
    best.0
}

/// The tokens of a context and its continuation, and whether some had no room. White space at the end of the
/// context goes to the continuation; the two are read as one text, and the tokens beyond those of the context
/// alone are the continuation's.
///
/// If they are more than `longest`, the first ones are dropped. A continuation that is that long itself, at
/// which the harness stops, is scored in pieces: each token once, with about half of `longest` or more before
/// it.
///
/// # Errors
/// If the tokenizer fails, or there is nothing to score.
pub(crate) fn encode_pair(
    tokenizer: &Tokenizer,
    context: &str,
    continuation: &str,
    parse_special: bool,
    longest: usize,
) -> Result<(Vec<ScoredSequence>, bool), EvalError> {
    let options = EncodeOptions { add_bos: tokenizer.adds_bos(), parse_special };
    let cut = context.trim_end();
    let continuation = format!("{}{continuation}", &context[cut.len()..]);
    let (mut ids, rest) = if cut.is_empty() {
        // Nothing precedes: the beginning of a text does.
        let Some(begin) = tokenizer.bos().or(tokenizer.eos()) else {
            let message = "the context is empty, and the tokenizer has no BOS or EOS token to begin with";
            return Err(EvalError::Input(message.to_string()));
        };
        let plain = EncodeOptions { add_bos: false, ..options };
        (vec![begin], tokenizer.encode_with(&continuation, plain)?)
    } else {
        let ids = tokenizer.encode_with(cut, options)?;
        let mut whole = tokenizer.encode_with(&format!("{cut}{continuation}"), options)?;
        let rest = whole.split_off(ids.len().min(whole.len()));
        (ids, rest)
    };
    if rest.is_empty() {
        return Err(EvalError::Input(format!("the continuation {continuation:?} adds no tokens")));
    }
    let first = ids.len();
    ids.extend(rest);
    let end = ids.len();
    let truncated = end > longest;
    let piece = if end - first < longest { end - first } else { longest / 2 };
    let pieces = (first..end).step_by(piece.max(1)).map(|from| {
        let to = end.min(from + piece);
        let begin = to.saturating_sub(longest);
        ScoredSequence { ids: ids[begin..to].to_vec(), context: from - begin }
    });
    Ok((pieces.collect(), truncated))
}

#[cfg(test)]
mod tests {
    use tritforge_text::SpecialTokens;

    use super::*;

    #[test]
    fn the_measures_divide_by_nothing_characters_and_bytes() {
        let question = |choices: [&str; 3]| Question::new("q".into(), choices.map(String::from).to_vec(), 0);
        // −6, −8, −9 in all; over 2, 4, 3 characters −3, −2, −3.
        let found = question(["ab", "abcd", "abc"]).preferred(&[-6.0, -8.0, -9.0]);
        assert_eq!(found, Preferred { summed: 0, per_character: 1, per_byte: 1 });
        // ä is one character and two bytes: −3, −2.5, −9 a character, −1.5, −2.5, −9 a byte.
        let found = question(["ää", "ab", "a"]).preferred(&[-6.0, -5.0, -9.0]);
        assert_eq!(found, Preferred { summed: 1, per_character: 1, per_byte: 0 });
        // Of equals the first; an empty choice is never preferred for its length.
        let found = question(["", "ab", "ba"]).preferred(&[-4.0, -4.0, -4.0]);
        assert_eq!(found, Preferred { summed: 0, per_character: 1, per_byte: 1 });
    }

    #[test]
    fn pairs_split_where_the_context_ends_and_keep_the_end() {
        let tokenizer = Tokenizer::characters(["abc de"], &SpecialTokens::default()).unwrap();
        let ids = |text: &str| tokenizer.encode(text, false).unwrap();
        let bos = usize::from(tokenizer.adds_bos());
        let pieces = |context: &str, continuation: &str, longest: usize| {
            let (pieces, cut) = encode_pair(&tokenizer, context, continuation, false, longest).unwrap();
            (pieces.into_iter().map(|piece| (piece.ids, piece.context)).collect::<Vec<_>>(), cut)
        };
        let (found, cut) = pieces("ab c  ", "de", 100);
        assert_eq!(
            (&found[0].0[bos..], found[0].1, found.len(), cut),
            (&ids("ab c  de")[..], bos + 4, 1, false)
        );
        assert_eq!(pieces("ab c", " de", 5), (vec![(ids(" c de"), 2)], true));
        // Longer than the model's context: two tokens at a time behind as many as there is room for.
        let expected = [("aaabc", 3), ("abcde", 3), ("cdeab", 3)].map(|(text, context)| (ids(text), context));
        assert_eq!(pieces("aaaa", "bcdeab", 5), (expected.to_vec(), true));
        assert!(encode_pair(&tokenizer, "a", "", false, 9).unwrap_err().to_string().contains("no tokens"));
    }
}
