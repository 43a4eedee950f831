//! Answers that were judged, and answers to other prompts in their places.

use std::fmt::Display;

use crate::examples::{Body, ChatTurn, Example, Report, Supplied};
use crate::samples::{Encoding, numbered};
use crate::{DataError, Sample, SampleOptions};

/// An answer to a prompt, and what is thought of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledSample {
    /// Prompt and answer; the targets are the answer's tokens.
    pub sample: Sample,
    /// Whether the answer is a good one.
    pub desirable: bool,
}

/// As [`crate::samples`], for answers that were judged. A pair of answers becomes two: the chosen one is a good one, the rejected one
/// is not, and each stays or is left out by itself.
///
/// # Errors
/// As [`crate::samples`]; if an example is neither.
pub fn labelled_samples<E: Display + Send>(
    examples: &[Example],
    options: SampleOptions<'_>,
    encode: impl Fn(&Body, &Supplied) -> Encoding<E> + Sync,
    report: &mut Report,
) -> Result<Vec<LabelledSample>, DataError> {
    let (mut flat, mut labels) = (Vec::with_capacity(examples.len()), Vec::with_capacity(examples.len()));
    for example in examples {
        let mut add = |turns: Vec<ChatTurn>, desirable: bool, which: &str| {
            let source = format!("{}{which}", example.source);
            flat.push(Example { source, body: Body::Turns(turns), supplied: example.supplied.clone() });
            labels.push(desirable);
        };
        match &example.body {
            Body::Labelled { turns, desirable } => add(turns.clone(), *desirable, ""),
            Body::Preference { prompt, chosen, rejected } => {
                let whole = |answer: &[ChatTurn]| prompt.iter().chain(answer).cloned().collect();
                add(whole(chosen), true, ", chosen");
                add(whole(rejected), false, ", rejected");
            }
            Body::Turns(_) | Body::Text(_) => {
                let message = "found an answer without a label: expected prompt, completion and label, or prompt, chosen and \
                               rejected; a label of 1 or 0 is read with data.records = \"unpaired-preference\""
                    .to_string();
                return Err(DataError::Example { source_of: example.source.clone(), message });
            }
        }
    }
    let kept = numbered(&flat, options, encode, report)?;
    Ok(kept.into_iter().map(|(i, sample)| LabelledSample { sample, desirable: labels[i] }).collect())
}

/// Each sample's prompt with the answer to another one: what is added to a prompt is nearly all the same answers, but none to its own
/// prompt. Samples with the same prompt that follow each other are a group; the k-th of a group gets the k-th answer of
/// the group before it (counted anew where that has fewer), and the first group those of the last. So it is TRL's rotation by one where every prompt
/// stands once, and of pairs of answers good ones are exchanged for good ones.
///
/// What is longer than `seq_len` inputs loses its end; an answer keeps at least one token. Where all prompts are the same,
/// answers are exchanged among them.
pub fn mismatched(samples: &[LabelledSample], seq_len: usize) -> Vec<Sample> {
    let prompt = |i: usize| samples[i].sample.prompt_and_answer().0;
    let same = |a: &usize, b: &usize| prompt(*a) == prompt(*b);
    let numbers: Vec<usize> = (0..samples.len()).collect();
    let groups: Vec<&[usize]> = numbers.chunk_by(same).collect();
    let mut found = Vec::with_capacity(samples.len());
    for (g, group) in groups.iter().enumerate() {
        for (k, i) in group.iter().enumerate() {
            let other = match g.checked_sub(1) {
                Some(before) => groups[before][k % groups[before].len()],
                // Around the end the neighbour may have the same prompt, but not the one before it.
                None => match groups.iter().rev().find(|last| !same(&last[0], i)) {
                    Some(last) => last[k % last.len()],
                    None => (i + samples.len() - 1) % samples.len(),
                },
            };
            found.push(with_answer(&samples[*i].sample, &samples[other].sample, seq_len));
        }
    }
    found
}

/// A sample with the answer of another one.
fn with_answer(sample: &Sample, other: &Sample, seq_len: usize) -> Sample {
    let ((prompt, _), (other_prompt, answer)) = (sample.prompt_and_answer(), other.prompt_and_answer());
    let mut ids = [prompt, answer].concat();
    let mut mask = [&sample.mask[..prompt.len()], &other.mask[other_prompt.len()..]].concat();
    // A prompt leaves room for a token of its own answer, and so of any.
    ids.truncate(seq_len + 1);
    mask.truncate(seq_len + 1);
    Sample { ids, mask, source: format!("{} with the answer of {}", sample.source, other.source), bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample of characters, of which those behind `|` are its answer.
    fn sample(text: &str, desirable: bool) -> LabelledSample {
        let (prompt, answer) = text.split_once('|').unwrap();
        let ids = prompt.bytes().chain(answer.bytes()).map(u32::from).collect();
        let mask = [vec![false; prompt.len()], vec![true; answer.len()]].concat();
        LabelledSample { sample: Sample { ids, mask, source: text.to_string(), bytes: 0 }, desirable }
    }

    fn exchanged(texts: &[&str], seq_len: usize) -> Vec<String> {
        let samples: Vec<_> = texts.iter().map(|text| sample(text, true)).collect();
        let text = |found: &Sample| {
            let (prompt, answer) = found.prompt_and_answer();
            let of = |ids: &[u32]| ids.iter().map(|id| char::from_u32(*id).unwrap()).collect::<String>();
            assert_eq!(found.mask.len(), found.ids.len());
            format!("{}|{}", of(prompt), of(answer))
        };
        mismatched(&samples, seq_len).iter().map(text).collect()
    }

    #[test]
    fn answers_are_rotated_by_one_prompt() {
        assert_eq!(exchanged(&["a|1", "b|22", "c|3"], 8), ["a|3", "b|1", "c|22"]);
        // Of pairs, good ones come to good ones.
        let pairs = ["a|1", "a|-1", "b|2", "b|-2", "c|3"];
        assert_eq!(exchanged(&pairs, 8), ["a|3", "a|3", "b|1", "b|-1", "c|2"]);
        // The last prompt is the first one again.
        assert_eq!(exchanged(&["a|1", "b|2", "a|3"], 8), ["a|2", "b|1", "a|2"]);
        // No other prompt, no other answer.
        assert_eq!(exchanged(&["a|1", "a|2", "a|3"], 8), ["a|3", "a|1", "a|2"]);
        assert_eq!(exchanged(&["a|1"], 8), ["a|1"]);
        assert_eq!(exchanged(&[], 8), Vec::<String>::new());
    }

    #[test]
    fn what_is_too_long_loses_its_end_but_not_its_answer() {
        assert_eq!(exchanged(&["aaa|1", "b|2222"], 3), ["aaa|2", "b|1"]);
    }
}
