//! What was read, left out and cut, and why.

use std::fmt;

use serde::Serialize;
use tritforge_support::counted;

/// Why an example is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The record is no record, lacks a column, or a column is of another type.
    Malformed,
    /// The chat template refuses it, or the vocabulary lacks a character.
    Template,
    /// An answer is empty.
    EmptyAnswer,
    /// No answer is to be learned.
    NothingToLearn,
    /// It is the same as an example before it.
    Duplicate,
    /// It is longer than a sample may be.
    TooLong,
    /// What was to be learned of it lay where it was cut off.
    CutAway,
}

impl Reason {
    /// All reasons, in the order in which examples meet them.
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::NothingToLearn,
        Self::EmptyAnswer,
        Self::Duplicate,
        Self::Template,
        Self::TooLong,
        Self::CutAway,
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::Template => "rejected by the template or the tokenizer",
            Self::EmptyAnswer => "empty answer",
            Self::NothingToLearn => "nothing in the loss",
            Self::Duplicate => "duplicate",
            Self::TooLong => "too long",
            Self::CutAway => "answer truncated away",
        })
    }
}

/// An example that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Where it stands.
    pub source: String,
    /// Why.
    pub reason: Reason,
    /// In particular.
    pub message: String,
}

/// Counts of what was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Files.
    pub files: usize,
    /// Records that were looked at.
    pub records: usize,
    /// Whether reading ended at the number of examples asked for.
    pub limited: bool,
    /// What was left out.
    pub dropped: Vec<Dropped>,
    /// Examples that were cut to the length of a sample: where they stand, and their tokens before.
    pub cut: Vec<(String, usize)>,
}

impl Report {
    /// Notes that an example is left out.
    pub fn drop(&mut self, source: String, reason: Reason, message: String) {
        self.dropped.push(Dropped { source, reason, message });
    }

    /// How many were left out for each reason, with the first of them.
    pub fn counts(&self) -> Vec<(Reason, usize, &Dropped)> {
        let of = |reason: Reason| {
            let mut found = self.dropped.iter().filter(|dropped| dropped.reason == reason);
            let first = found.next()?;
            Some((reason, 1 + found.count(), first))
        };
        Reason::ALL.into_iter().filter_map(of).collect()
    }

    /// One line: records, and what was left out of them.
    pub fn summary(&self) -> String {
        let mut text = format!("{} from {}", counted(self.records, "record"), counted(self.files, "file"));
        for (reason, count, first) in self.counts() {
            text += &format!("; dropped {count}: {reason} (first: {}: {})", first.source, first.message);
        }
        if let Some((source, tokens)) = self.cut.first() {
            text += &format!(
                "; truncated {} (first: {source}, {tokens})",
                self.cut.len(),
                tokens = counted(*tokens, "token")
            );
        }
        if self.limited {
            text += "; the rest was not read (max_samples)";
        }
        text
    }
}
