//! What can be found, and what was.

use std::fmt;

use serde::Serialize;

/// What is wrong with an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A file that cannot be read, or not to its end.
    Unreadable,
    /// The record is no record, lacks a column, or a column is of another type.
    Malformed,
    /// The chat template or the tokenizer refuses it.
    Refused,
    /// Nothing of it is in the loss.
    NothingToLearn,
    /// An answer is empty.
    EmptyAnswer,
    /// An answer repeats its question.
    AnswerIsQuestion,
    /// Both answers of a preference pair are the same.
    SameAnswers,
    /// The same answer to the same prompt, judged good and judged bad.
    ContradictoryLabels,
    /// Roles do not follow each other as in a conversation.
    RoleOrder,
    /// A conversation in which no user says anything.
    NoUserTurn,
    /// A call of a tool that the record does not declare.
    UndeclaredTool,
    /// An answer breaks off.
    Truncated,
    /// More tokens than a sample may have.
    TooLong,
    /// The token that ends an answer is not learned.
    NoEnd,
    /// The same as an example before it.
    Duplicate,
    /// Nearly the same as an example before it.
    NearDuplicate,
    /// A held-out example that is a training example, too.
    HeldOutDuplicate,
    /// A held-out example that is nearly a training example.
    HeldOutNearDuplicate,
    /// A training example that has words of an evaluation set.
    Leak,
    /// U+FFFD: a character was lost when the text was decoded.
    ReplacementCharacter,
    /// UTF-8 that was decoded as Windows-1252 or Latin-1.
    Mojibake,
    /// Control characters other than tabs and line ends.
    ControlCharacter,
    /// U+0000.
    Nul,
}

impl FindingKind {
    /// All kinds, in the order of reports.
    pub const ALL: [Self; 23] = [
        Self::Unreadable,
        Self::Malformed,
        Self::Refused,
        Self::NothingToLearn,
        Self::EmptyAnswer,
        Self::AnswerIsQuestion,
        Self::SameAnswers,
        Self::ContradictoryLabels,
        Self::RoleOrder,
        Self::NoUserTurn,
        Self::UndeclaredTool,
        Self::Truncated,
        Self::TooLong,
        Self::NoEnd,
        Self::Duplicate,
        Self::NearDuplicate,
        Self::HeldOutDuplicate,
        Self::HeldOutNearDuplicate,
        Self::Leak,
        Self::ReplacementCharacter,
        Self::Mojibake,
        Self::ControlCharacter,
        Self::Nul,
    ];

    /// What it means, in a few words.
    pub fn about(self) -> &'static str {
        self.texts().1
    }

    /// The name in JSON, and what it means.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Unreadable => ("unreadable", "files that cannot be read to their end"),
            Self::Malformed => ("malformed", "not a record of a known layout"),
            Self::Refused => ("refused", "the template or the tokenizer refuses it"),
            Self::NothingToLearn => ("nothing-to-learn", "nothing of it is in the loss"),
            Self::EmptyAnswer => ("empty-answer", "an answer of white space"),
            Self::AnswerIsQuestion => ("answer-is-question", "an answer that repeats its question"),
            Self::SameAnswers => ("same-answers", "chosen and rejected are the same"),
            Self::ContradictoryLabels => {
                ("contradictory-labels", "the same answer judged good and judged bad")
            }
            Self::RoleOrder => ("role-order", "roles that do not follow each other"),
            Self::NoUserTurn => ("no-user-turn", "nobody asks"),
            Self::UndeclaredTool => ("undeclared-tool", "a call of a tool that the record does not declare"),
            Self::Truncated => ("truncated", "an answer that seems to break off"),
            Self::TooLong => ("too-long", "more tokens than data.seq_len allows"),
            Self::NoEnd => ("no-end", "the end of the answer is not learned"),
            Self::Duplicate => ("duplicate", "the same as an earlier example"),
            Self::NearDuplicate => ("near-duplicate", "nearly the same as an earlier example"),
            Self::HeldOutDuplicate => ("held-out-duplicate", "held out, and a training example"),
            Self::HeldOutNearDuplicate => {
                ("held-out-near-duplicate", "held out, and nearly a training example")
            }
            Self::Leak => ("leak", "training examples with words of an evaluation set"),
            Self::ReplacementCharacter => ("replacement-character", "U+FFFD: a character was lost"),
            Self::Mojibake => ("mojibake", "UTF-8 that was read as Windows-1252"),
            Self::ControlCharacter => ("control-character", "other than tabs and line ends"),
            Self::Nul => ("nul", "U+0000"),
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.texts().0)
    }
}

/// A fault of an example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Where the example stands, `data.jsonl: line 3`.
    pub source: String,
    /// In particular.
    pub detail: String,
    /// The other example, of duplicates and leaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Lint {
    /// Files that were read.
    pub files: usize,
    /// Records that were read.
    pub records: usize,
    /// Training examples that were checked.
    pub training: usize,
    /// Held-out examples that were checked.
    pub held_out: usize,
    /// Findings, sorted by kind.
    pub findings: Vec<Finding>,
    /// What could not be checked, and what else should be known.
    pub notes: Vec<String>,
}

impl Lint {
    /// Findings of a kind.
    pub fn of(&self, kind: FindingKind) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.kind == kind)
    }
}
