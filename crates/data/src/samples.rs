//! Examples as token ids with a mask over what is to be learned, none longer than a row of a batch.

use std::fmt::Display;

use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tritforge_support::counted;

use crate::examples::{Body, ChatTurn, Example, OnBadSample, Reason, Report, Supplied};
use crate::{DataError, Fingerprint};

/// A sequence to train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its ids, at least two.
    pub ids: Vec<u32>,
    /// Whether each id is a target; the first, which nothing precedes, never is.
    pub mask: Vec<bool>,
    /// Where the example stands.
    pub source: String,
    /// Bytes of the text that the targets spell, special tokens apart: for bits per byte.
    pub bytes: usize,
}

impl Sample {
    /// Number of targets.
    pub fn targets(&self) -> usize {
        self.mask.iter().filter(|target| **target).count()
    }

    /// Inputs that it takes of a row: the last id is only a target.
    pub fn inputs(&self) -> usize {
        self.ids.len() - 1
    }

    /// The ids before the first target, and those from it on: a prompt and its answer.
    pub fn prompt_and_answer(&self) -> (&[u32], &[u32]) {
        self.ids.split_at(self.mask.iter().position(|target| *target).unwrap_or(self.ids.len()))
    }
}

/// What happens to an example that is longer than a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncation {
    /// An error that names it.
    #[default]
    Error,
    /// It is left out.
    Drop,
    /// Its end is cut off.
    Right,
    /// Its beginning is cut off.
    Left,
}

/// How examples become samples.
#[derive(Debug, Clone, Copy)]
pub struct SampleOptions<'a> {
    /// Inputs of a row; a sample has at most one id more.
    pub seq_len: usize,
    /// What happens to longer ones.
    pub truncation: Truncation,
    /// What happens to those that cannot be encoded.
    pub on_bad: OnBadSample,
    /// Bytes that each id adds to a text, 0 for special tokens.
    pub token_bytes: &'a [u32],
}

/// Two answers to a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    /// Prompt and better answer; the targets are the answer's tokens.
    pub chosen: Sample,
    /// Prompt and worse answer.
    pub rejected: Sample,
}

impl Preference {
    /// The ids before the first target, as far as they are the same for both answers.
    pub fn prompt(&self) -> &[u32] {
        let (a, b) = (&self.chosen, &self.rejected);
        let both = a.ids.iter().zip(&b.ids).zip(a.mask.iter().zip(&b.mask));
        let common = both.take_while(|((a, b), (x, y))| a == b && !**x && !**y).count();
        &a.ids[..common]
    }
}

/// What [`samples`] is given an example's ids and mask by: `Err` says why it has none.
pub(crate) type Encoding<E> = Result<(Vec<u32>, Vec<bool>), E>;

/// Encodes examples, on all threads and in order. `encode` gives the ids of an example, of which it is handed
/// the body and what the template is given beside, and which of them are to be learned. What is left out or cut is noted in `report`.
///
/// # Errors
/// If an example cannot be encoded or is too long, where that is an error; a preference is none of a single
/// sequence.
pub fn samples<E: Display + Send>(
    examples: &[Example],
    options: SampleOptions<'_>,
    encode: impl Fn(&Body, &Supplied) -> Encoding<E> + Sync,
    report: &mut Report,
) -> Result<Vec<Sample>, DataError> {
    let kept = numbered(examples, options, encode, report)?;
    Ok(kept.into_iter().map(|(_, sample)| sample).collect())
}

/// As [`samples`], each with the number of its example.
pub(crate) fn numbered<E: Display + Send>(
    examples: &[Example],
    options: SampleOptions<'_>,
    encode: impl Fn(&Body, &Supplied) -> Encoding<E> + Sync,
    report: &mut Report,
) -> Result<Vec<(usize, Sample)>, DataError> {
    let encoded: Vec<_> =
        examples.par_iter().map(|example| encode_one(example, &example.body, &encode)).collect();
    let mut samples = Vec::new();
    let mut long = TooLong::default();
    for (number, (example, encoded)) in examples.iter().zip(encoded).enumerate() {
        let Some(mut sample) = take(example, encoded, options, report)? else { continue };
        match fit(&mut sample, options, &mut long) {
            Fit::Whole => samples.push((number, sample)),
            Fit::Cut(tokens) => {
                report.cut.push((example.source.clone(), tokens));
                samples.push((number, sample));
            }
            Fit::No(reason, message) => report.drop(example.source.clone(), reason, message),
        }
    }
    long.check(options)?;
    Ok(samples)
}

/// As [`samples`], for pairs of answers; a pair stays only if both its sequences do.
///
/// # Errors
/// As [`samples`]; if an example is no pair.
pub fn preferences<E: Display + Send>(
    examples: &[Example],
    options: SampleOptions<'_>,
    encode: impl Fn(&Body, &Supplied) -> Encoding<E> + Sync,
    report: &mut Report,
) -> Result<Vec<Preference>, DataError> {
    let both = |example: &Example| {
        let Body::Preference { prompt, chosen, rejected } = &example.body else {
            return Err("not a pair of answers: expected prompt, chosen and rejected".to_string());
        };
        let whole = |answer: &[ChatTurn]| {
            let turns = prompt.iter().chain(answer).cloned().collect();
            encode_one(example, &Body::Turns(turns), &encode)
        };
        Ok((whole(chosen)?, whole(rejected)?))
    };
    let encoded: Vec<_> = examples.par_iter().map(both).collect();
    let mut pairs = Vec::new();
    let mut long = TooLong::default();
    for (example, encoded) in examples.iter().zip(encoded) {
        let (chosen, rejected) = match encoded {
            Ok((chosen, rejected)) => (Ok(chosen), Ok(rejected)),
            Err(message) => (Err(message), Err(String::new())),
        };
        let Some(mut chosen) = take(example, chosen, options, report)? else { continue };
        let Some(mut rejected) = take(example, rejected, options, report)? else { continue };
        let fits = [fit(&mut chosen, options, &mut long), fit(&mut rejected, options, &mut long)];
        let cut =
            fits.iter().filter_map(|fit| if let Fit::Cut(tokens) = fit { Some(*tokens) } else { None }).max();
        let no = fits.into_iter().find_map(|fit| match fit {
            Fit::No(reason, message) => Some((reason, message)),
            _ => None,
        });
        match no {
            Some((reason, message)) => report.drop(example.source.clone(), reason, message),
            None => {
                report.cut.extend(cut.map(|tokens| (example.source.clone(), tokens)));
                pairs.push(Preference { chosen, rejected });
            }
        }
    }
    long.check(options)?;
    Ok(pairs)
}

/// A fingerprint of samples: ids, masks and boundaries.
pub fn sample_fingerprint<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Fingerprint {
    let mut hash = Sha256::new();
    for sample in samples {
        hash.update((sample.ids.len() as u64).to_le_bytes());
        sample.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        sample.mask.iter().for_each(|target| hash.update([u8::from(*target)]));
    }
    Fingerprint(hash.finalize().into())
}

fn encode_one<E: Display>(
    example: &Example,
    body: &Body,
    encode: &(impl Fn(&Body, &Supplied) -> Encoding<E> + Sync),
) -> Result<Sample, String> {
    let (ids, mut mask) = encode(body, &example.supplied).map_err(|e| e.to_string())?;
    if ids.len() != mask.len() {
        return Err(format!("{} with a mask of {}", counted(ids.len(), "id"), mask.len()));
    }
    if let Some(first) = mask.first_mut() {
        *first = false;
    }
    Ok(Sample { ids, mask, source: example.source.clone(), bytes: 0 })
}

/// The sample, or nothing if it is left out: noted in the report.
fn take(
    example: &Example,
    encoded: Result<Sample, String>,
    options: SampleOptions<'_>,
    report: &mut Report,
) -> Result<Option<Sample>, DataError> {
    let source = example.source.clone();
    match encoded {
        Ok(sample) if sample.mask.contains(&true) => Ok(Some(sample)),
        Ok(_) => {
            report.drop(source, Reason::NothingToLearn, "no token is in the loss".to_string());
            Ok(None)
        }
        Err(message) if options.on_bad == OnBadSample::Error => {
            Err(DataError::Example { source_of: source, message })
        }
        Err(message) => {
            report.drop(source, Reason::Template, message);
            Ok(None)
        }
    }
}

enum Fit {
    Whole,
    /// It had so many tokens.
    Cut(usize),
    No(Reason, String),
}

/// Cuts a sample to a row, and counts its bytes.
fn fit(sample: &mut Sample, options: SampleOptions<'_>, long: &mut TooLong) -> Fit {
    let (tokens, most) = (sample.ids.len(), options.seq_len + 1);
    if tokens > most {
        long.note(sample);
        match options.truncation {
            Truncation::Error | Truncation::Drop => {
                return Fit::No(Reason::TooLong, counted(tokens, "token").to_string());
            }
            Truncation::Right => {
                sample.ids.truncate(most);
                sample.mask.truncate(most);
            }
            Truncation::Left => {
                sample.ids.drain(..tokens - most);
                sample.mask.drain(..tokens - most);
                sample.mask[0] = false;
            }
        }
        if !sample.mask.contains(&true) {
            return Fit::No(Reason::CutAway, counted(tokens, "token").to_string());
        }
    }
    let bytes = |id: &u32| options.token_bytes.get(*id as usize).map_or(0, |bytes| *bytes as usize);
    sample.bytes =
        sample.ids.iter().zip(&sample.mask).filter(|(_, target)| **target).map(|(id, _)| bytes(id)).sum();
    if tokens > most { Fit::Cut(tokens) } else { Fit::Whole }
}

/// The samples that are too long: all are counted before that is an error.
#[derive(Default)]
struct TooLong {
    count: usize,
    first: Option<(String, usize)>,
    longest: usize,
}

impl TooLong {
    fn note(&mut self, sample: &Sample) {
        self.count += 1;
        self.first.get_or_insert_with(|| (sample.source.clone(), sample.ids.len()));
        self.longest = self.longest.max(sample.ids.len());
    }

    fn check(self, options: SampleOptions<'_>) -> Result<(), DataError> {
        let Some((source_of, tokens)) = self.first.filter(|_| options.truncation == Truncation::Error) else {
            return Ok(());
        };
        let (count, longest, most) = (self.count, self.longest, options.seq_len + 1);
        let message = format!(
            "{tokens}, but data.seq_len = {} allows {most}; {count} too long, the longest with \
             {longest}: raise data.seq_len, or set data.truncation = \"drop\", \"right\" or \"left\"",
            options.seq_len,
            count = counted(count, "sample"),
            tokens = counted(tokens, "token")
        );
        Err(DataError::Example { source_of, message })
    }
}
