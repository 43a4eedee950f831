//! `tritforge data lint`: what is wrong with training data, found before it is trained on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use serde_json::{Map, Value, json};
use tritforge_data::{
    Against, Columns, Finding, FindingKind, Lint, LintOptions, ReadOptions, RecordKind, TextSource, lint,
    read_leniently,
};
use tritforge_report::{Progress, Sink as _};
use tritforge_support::counted;
use tritforge_train::lint_recipe;
use tritforge_train::recipe::Recipe;

use crate::commands::ranges::count;
use crate::sinks::Preparation;
use crate::table;

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// A recipe (`.toml`), whose training and held-out data is checked with its template and tokenizer; or files,
    /// directories, patterns and `hf://datasets/…` addresses.
    #[arg(required = true, value_name = "RECIPE|FILE")]
    paths: Vec<PathBuf>,
    /// Evaluation sets to look for among the training data, in any record format or as text; can be repeated.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    against: Vec<PathBuf>,
    /// Held-out data of FILE, which must not be among it; a recipe says itself what is held out.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    held_out: Vec<PathBuf>,
    /// Layout of the records of FILE: auto, alpaca, input-output, messages, sharegpt, prompt-completion,
    /// preference or text.
    #[arg(long, value_name = "NAME", value_parser = kind)]
    records: Option<RecordKind>,
    /// What a column is called in FILE, as in `instruction=question`; can be repeated.
    #[arg(long, value_name = "NAME=COLUMN", value_parser = column)]
    column: Vec<(String, String)>,
    /// Override a recipe key, e.g. `data.template=alpaca`; can be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Words in a row that make a leaked question.
    #[arg(long, value_name = "N", default_value_t = 13, value_parser = count(2..=100))]
    ngram: usize,
    /// Jaccard similarity from which on two examples are near duplicates.
    #[arg(long, value_name = "SHARE", default_value_t = 0.8, value_parser = similarity)]
    near: f64,
    /// Words of a shingle, the unit in which near duplicates are compared.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count(1..=100))]
    shingle: usize,
    /// Number of examples to show for each kind of finding.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count(0..=1_000_000))]
    examples: usize,
    /// Print all findings as JSON.
    #[arg(long)]
    json: bool,
    /// Exit with 1 if there is a finding.
    #[arg(long)]
    strict: bool,
}

fn similarity(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.6..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0.6 to 1".to_string()),
    }
}

fn kind(text: &str) -> Result<RecordKind, String> {
    let known = RecordKind::ALL.iter().find(|(name, _)| *name == text);
    known.map(|(_, kind)| *kind).ok_or_else(|| {
        let names: Vec<&str> = RecordKind::ALL.iter().map(|(name, _)| *name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn column(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, column)) if Columns::NAMES.contains(&name) && !column.is_empty() => {
            Ok((name.to_string(), column.to_string()))
        }
        _ => Err(format!("expected NAME=COLUMN, NAME one of {}", Columns::NAMES.join(", "))),
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let options = LintOptions { shingle: args.shingle, near: args.near, ngram: args.ngram };
    let is_recipe = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let sink = Preparation::new(|message| eprintln!("{message}"));
    let found = if args.paths.iter().any(is_recipe) {
        let [path] = &args.paths[..] else {
            bail!("give one recipe, or files without a recipe: found {}", counted(args.paths.len(), "path"));
        };
        let given = [("--held-out", args.held_out.is_empty()), ("--column", args.column.is_empty())];
        let given =
            given.into_iter().chain([("--records", args.records.is_none())]).find(|(_, absent)| !absent);
        if let Some((option, _)) = given {
            bail!("{option}: has no effect with a recipe, whose [data] says it; use --set");
        }
        let recipe = Recipe::load(path, &args.set)?;
        let against = Against::read(&args.against)?;
        lint_recipe(&recipe, &against, options, &sink)?
    } else {
        if !args.set.is_empty() {
            bail!("--set: needs a recipe (a .toml file)");
        }
        lint_files(args, options, &sink)?
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&to_json(&found))?);
    } else {
        print(&found, args.examples);
    }
    let failed = args.strict && !found.findings.is_empty();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn lint_files(args: &Args, options: LintOptions, sink: &Preparation) -> Result<Lint> {
    let read_options = ReadOptions {
        kind: args.records.unwrap_or_default(),
        columns: Columns(args.column.iter().cloned().collect::<BTreeMap<_, _>>()),
        keep_empty: true,
        ..ReadOptions::default()
    };
    let read = |paths: &[PathBuf]| {
        let sources: Vec<TextSource> = paths.iter().map(|path| TextSource::new(Path::new(path))).collect();
        read_leniently(&sources, &read_options)
    };
    let (train, mut findings) = read(&args.paths)?;
    let (held_out, more) = read(&args.held_out)?;
    findings.extend(more);
    let against = Against::read(&args.against)?;
    let progress = |task: &str, done, total| sink.progress(&Progress { task, done, total });
    let mut found = lint(&train.examples, &held_out.examples, &against, options, &progress);
    findings.append(&mut found.findings);
    findings.sort_by_key(|finding| finding.kind);
    let files = train.report.files + held_out.report.files;
    let records = train.report.records + held_out.report.records;
    if records == 0 && findings.is_empty() {
        found.notes.push("there are no records in these files".to_string());
    }
    Ok(Lint { files, records, findings, ..found })
}

/// The kinds that were found, each with its findings.
fn kinds(found: &Lint) -> impl Iterator<Item = (FindingKind, Vec<&Finding>)> {
    let of = |kind: FindingKind| (kind, found.of(kind).collect::<Vec<_>>());
    FindingKind::ALL.into_iter().map(of).filter(|(_, findings)| !findings.is_empty())
}

/// Records that have a finding of a kind: one may have several.
fn records(findings: &[&Finding]) -> usize {
    let mut sources: Vec<&str> = findings.iter().map(|finding| finding.source.as_str()).collect();
    sources.sort_unstable();
    sources.dedup();
    sources.len()
}

/// Share of the records.
fn share(found: &Lint, count: usize) -> f64 {
    count as f64 / found.records.max(1) as f64
}

fn to_json(found: &Lint) -> Value {
    let counts: Map<String, Value> = kinds(found)
        .map(|(kind, findings)| {
            let records = records(&findings);
            (kind.to_string(), json!({"count": records, "share": share(found, records)}))
        })
        .collect();
    json!({
        "files": found.files,
        "records": found.records,
        "training": found.training,
        "held_out": found.held_out,
        "counts": counts,
        "findings": found.findings,
        "notes": found.notes,
    })
}

fn print(found: &Lint, examples: usize) {
    println!(
        "{} from {}: {} for training and {} held out were checked\n",
        counted(found.records, "record"),
        counted(found.files, "file"),
        found.training,
        found.held_out
    );
    let mut rows = Vec::new();
    for (kind, findings) in kinds(found) {
        let records = records(&findings);
        let share = format!("{:.2} %", 100.0 * share(found, records));
        rows.push(vec![kind.to_string(), records.to_string(), share, kind.about().to_string()]);
    }
    if rows.is_empty() {
        println!("nothing found");
    } else {
        table::print(&["finding", "records", "share", ""], &rows);
    }
    for (kind, findings) in kinds(found).filter(|_| examples > 0) {
        println!("\n{kind}");
        for Finding { source, detail, other, .. } in findings.iter().take(examples) {
            let other = other.iter().map(|other| format!("as {other}"));
            let told: Vec<String> = other.chain((!detail.is_empty()).then(|| detail.clone())).collect();
            println!("  {source}: {}", told.join("; "));
        }
        if findings.len() > examples {
            println!("  … and {} more (--examples, --json)", findings.len() - examples);
        }
    }
    if !found.notes.is_empty() {
        println!();
        found.notes.iter().for_each(|note| println!("note: {note}"));
    }
}
