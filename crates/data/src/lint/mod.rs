//! What is wrong with examples before anything is trained on them: duplicates, damaged answers and characters,
//! conversations out of order, questions of evaluation sets.
//!
//! Every check is deterministic and does not depend on the number of threads. Beside the examples, which are in
//! memory anyway, duplicates take 288 bytes an example and leaks an index of the evaluation sets.

mod calls;
mod characters;
mod conversation;
mod duplicates;
mod finding;
mod labels;
mod minhash;
mod overlap;
mod read;
mod truncated;
mod words;

pub use finding::{Finding, FindingKind, Lint};
pub use overlap::{Against, AgainstItem};
pub use read::read_leniently;

use rayon::prelude::*;

use crate::examples::{Body, ChatTurn, Example};

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LintOptions {
    /// Words of a shingle, the unit in which texts are compared; by default 3.
    pub shingle: usize,
    /// Jaccard similarity of two sets of shingles from which on they are near duplicates, from 0.6 to 1; by
    /// default 0.8.
    pub near: f64,
    /// Words that a training example must share with an evaluation set in a row; by default 13 (GPT-3, Brown et
    /// al. 2020, appendix C).
    pub ngram: usize,
}

impl Default for LintOptions {
    fn default() -> Self {
        Self { shingle: 3, near: 0.8, ngram: 13 }
    }
}

/// Hears how far a task is: its name, bytes of text done, bytes in total.
pub type LintProgress<'a> = dyn Fn(&str, u64, u64) + 'a;

/// Examples that are worked on between two reports of progress.
const CHUNK: usize = 1024;

/// Looks at training and held-out examples, and for what they share with evaluation sets. Findings are sorted by
/// kind, then by the order of the examples; leaks by how much of a question leaks.
pub fn lint(
    train: &[Example],
    held_out: &[Example],
    against: &Against,
    options: LintOptions,
    progress: &LintProgress<'_>,
) -> Lint {
    let all: Vec<&Example> = train.iter().chain(held_out).collect();
    let mut found = Lint { training: train.len(), held_out: held_out.len(), ..Lint::default() };
    found.findings = each(&all, "checking examples", progress, |example| {
        let mut findings = Vec::new();
        let mut find = |kind, detail: String| {
            findings.push(Finding { kind, source: example.source.clone(), detail, other: None });
        };
        conversation::check(&example.body, &mut find);
        calls::check(example, &mut find);
        truncated::check(&example.body, &mut find);
        characters::check(&texts(&example.body), &mut find);
        findings
    });
    labels::find(&all, &mut found);
    duplicates::find(&all, train.len(), options, progress, &mut found);
    overlap::find(train, against, options, progress, &mut found);
    found.findings.sort_by_key(|finding| finding.kind);
    found
}

/// What a function finds in every example, in the order of the examples.
fn each<T: Send>(
    examples: &[&Example],
    task: &str,
    progress: &LintProgress<'_>,
    look: impl Fn(&Example) -> Vec<T> + Sync,
) -> Vec<T> {
    let size = |examples: &[&Example]| -> u64 {
        examples.iter().flat_map(|example| texts(&example.body)).map(|text| text.len() as u64).sum()
    };
    let (total, mut done, mut found) = (size(examples), 0, Vec::new());
    for chunk in examples.chunks(CHUNK) {
        found.extend(chunk.par_iter().map(|example| look(example)).collect::<Vec<_>>().into_iter().flatten());
        done += size(chunk);
        progress(task, done, total);
    }
    found
}

/// All that is said in an example.
fn texts(body: &Body) -> Vec<&str> {
    match body {
        Body::Text(text) => vec![text],
        _ => body.messages().into_iter().filter_map(ChatTurn::content).collect(),
    }
}

/// The beginning or the end of a text for a message, on one line.
fn quoted(text: &str, end: bool) -> String {
    const MOST: usize = 60;
    let count = text.chars().count();
    match (count > MOST, end) {
        (false, _) => format!("{text:?}"),
        (true, false) => format!("{:?}…", text.chars().take(MOST).collect::<String>()),
        (true, true) => format!("…{:?}", text.chars().skip(count - MOST).collect::<String>()),
    }
}

#[cfg(test)]
mod tests;
