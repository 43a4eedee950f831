//! What is wrong with a recipe's data: the checks of [`tritforge_data::lint`], and what only template and tokenizer
//! can tell.

use std::path::Path;

use tritforge_data::{
    Against, Body, Corpus, Document, Example, Examples, Finding, FindingKind, Format, Lint, LintOptions,
    RustSources, TextSource, lint, read_leniently, rust_sources, split, split_examples,
};
use tritforge_report::{Progress, Sink};
use tritforge_support::counted;

use crate::TrainError;
use crate::prepare::{elsewhere, lint_samples, split_of};
use crate::recipe::{DataSource, Recipe};

/// Looks at a recipe's training and held-out data. Nothing is left on the disk where nothing was. `sink` hears how
/// far it is.
///
/// Beyond [`lint()`], every example of a recipe with `data.records` is rendered and encoded as in training: what the
/// template refuses, what is longer than `data.seq_len` allows, what has nothing in the loss, and answers whose end
/// is not learned. Where template or tokenizer cannot be had, a note says so.
///
/// # Errors
/// If the files cannot be read or the text cannot be split.
pub fn lint_recipe(
    recipe: &Recipe,
    against: &Against,
    options: LintOptions,
    sink: &dyn Sink,
) -> Result<Lint, TrainError> {
    let progress = |task: &str, done, total| sink.progress(&Progress { task, done, total });
    if recipe.data.samples.records.is_none() {
        return lint_text(recipe, against, options, &progress);
    }
    let (Examples { examples, report }, mut findings) =
        read_leniently(&sources(recipe), &crate::prepare::read_options(recipe))?;
    let mut notes = Vec::new();
    if report.limited {
        notes.push("the rest was not read (data.max_samples)".to_string());
    }
    let (train, held_out) = match examples.len() {
        0 | 1 => {
            notes.push(format!("nothing is held out of {}", counted(examples.len(), "example")));
            (examples, Vec::new())
        }
        _ => split_examples(examples, split_of(recipe))?,
    };
    let mut found = lint(&train, &held_out, against, options, &progress);
    let (elsewhere, _removed) = elsewhere(recipe)?;
    let dir = elsewhere.run.out.join("data");
    let sides = (&train[..], &held_out[..]);
    match lint_samples(&elsewhere, &dir, sides, sink) {
        Ok(more) => findings.extend(more),
        Err(error) => notes.push(format!("lengths, loss and ends of answers were not checked: {error}")),
    }
    findings.append(&mut found.findings);
    findings.sort_by_key(|finding| finding.kind);
    notes.append(&mut found.notes);
    Ok(Lint { files: report.files, records: report.records, findings, notes, ..found })
}

/// The sources of a recipe with `data.records`.
fn sources(recipe: &Recipe) -> Vec<TextSource> {
    let source = |path: &Path, format| TextSource { format, ..TextSource::new(path) };
    let listed = recipe.data.train.iter().map(|path| source(path, Format::Auto));
    listed.chain(recipe.data.sources.iter().map(|s| source(&s.path, s.format))).collect()
}

/// A recipe that learns texts whole.
fn lint_text(
    recipe: &Recipe,
    against: &Against,
    options: LintOptions,
    progress: &dyn Fn(&str, u64, u64),
) -> Result<Lint, TrainError> {
    let data = &recipe.data;
    let mut texts: Vec<Vec<Document>> = Vec::new();
    let (mut files, mut records, mut findings) = (0, 0, Vec::new());
    if data.source == DataSource::RustSources {
        let (documents, report) = rust_sources(&RustSources::default())?;
        (files, records) = (report.files, documents.len());
        texts.push(documents);
    }
    let plain = data.train.iter().map(|path| TextSource {
        path: path.clone(),
        format: Format::Auto,
        column: data.column.clone(),
    });
    let listed = data.sources.iter().map(|source| TextSource {
        path: source.path.clone(),
        format: source.format,
        column: source.column.clone(),
    });
    let weighted = data.sources.iter().any(|source| source.weight.is_some());
    let sources: Vec<TextSource> = plain.chain(listed).collect();
    // As in training: sources with weights are texts of their own, others one text.
    for group in sources.chunks(if weighted { 1 } else { sources.len().max(1) }) {
        let corpus = Corpus::read_sources(group)?;
        (files, records) = (files + corpus.files, records + corpus.documents.len() + corpus.dropped);
        let names: Vec<String> = group.iter().map(|source| source.path.display().to_string()).collect();
        if corpus.dropped > 0 {
            findings.push(Finding {
                kind: FindingKind::NothingToLearn,
                source: names.join(", "),
                detail: format!("{} without text", counted(corpus.dropped, "record")),
                other: None,
            });
        }
        findings.extend(corpus.skipped.iter().map(|skipped| Finding {
            kind: FindingKind::Unreadable,
            source: skipped.path.display().to_string(),
            detail: format!("not UTF-8, or NUL, at byte {}: training skips the file", skipped.offset),
            other: None,
        }));
        texts.push(corpus.documents);
    }
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    let example = |document: Document| Example::new(document.source, Body::Text(document.text));
    for documents in texts {
        let (more, more_held_out) = split(documents, split_of(recipe))?;
        train.extend(more.into_iter().map(example));
        held_out.extend(more_held_out.into_iter().map(example));
    }
    let mut found = lint(&train, &held_out, against, options, progress);
    findings.append(&mut found.findings);
    findings.sort_by_key(|finding| finding.kind);
    Ok(Lint { files, records, findings, ..found })
}
