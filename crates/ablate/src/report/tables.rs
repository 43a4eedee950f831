//! The report as tables for programs. That of arms holds nothing that differs when the experiment is run again.

use super::Report;
use crate::results::ArmResult;
use crate::{RunResult, SeedRun};

/// A cell; an empty one has no text or no number. Numbers that are none (NaN, ∞) are no numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// A text.
    Text(String),
    /// A whole number.
    Whole(Option<u64>),
    /// A real number.
    Real(Option<f64>),
}

/// Columns, each with its name and as many cells as the others, all of one kind.
pub(super) type Table = Vec<(&'static str, Vec<Cell>)>;

/// A row for each arm, in the order of the file.
pub(super) fn arms(report: &Report) -> Table {
    let column = |name: &'static str, of: &dyn Fn(&ArmResult) -> Cell| {
        (name, report.arms.iter().map(of).collect::<Vec<_>>())
    };
    let whole = |n: usize| Cell::Whole(Some(n as u64));
    let difference = |of: fn(&crate::stats::Difference) -> f64| {
        move |arm: &ArmResult| real(arm.versus.as_ref().map(|versus| of(&versus.difference)))
    };
    vec![
        column("arm", &|arm| Cell::Text(arm.arm.name.clone())),
        column("settings", &|arm| {
            Cell::Text(arm.arm.tuned.as_ref().map_or(String::new(), |tuned| tuned.chosen.clone()))
        }),
        column("n", &|arm| whole(arm.summary.n)),
        column("diverged", &|arm| whole(arm.diverged)),
        column("failed", &|arm| whole(arm.failed)),
        column("mean", &|arm| real(Some(arm.summary.mean))),
        column("sd", &|arm| real(Some(arm.summary.sd))),
        column("half_width", &|arm| real(Some(arm.summary.half_width))),
        column("difference", &difference(|d| d.mean)),
        column("difference_sd", &difference(|d| d.sd)),
        column("difference_half_width", &difference(|d| d.half_width)),
        column("t", &difference(|d| d.t)),
        column("df", &difference(|d| d.df)),
        column("p", &difference(|d| d.p)),
        column("holm_p", &|arm| real(arm.versus.as_ref().map(|versus| versus.adjusted_p))),
        column("sign_flip_p", &difference(|d| d.sign_flip_p.unwrap_or(f64::NAN))),
        column("wins", &|arm| {
            Cell::Whole(arm.versus.as_ref().and_then(|versus| versus.difference.wins).map(|wins| wins as u64))
        }),
        column("smallest_shown", &difference(|d| d.smallest_shown)),
        column("evaluation_sd", &|arm| {
            real(arm.versus.as_ref().and_then(|versus| versus.evaluation).map(|noise| noise.sd))
        }),
        column("verdict", &|arm| {
            Cell::Text(arm.versus.as_ref().map_or(String::new(), |v| v.verdict.word().to_string()))
        }),
        column("pairing", &|arm| {
            Cell::Text(arm.arm.pairing.as_ref().map_or(String::new(), ToString::to_string))
        }),
        column("parameters", &|arm| real(arm.costs.parameters)),
        column("file_bytes", &|arm| real(arm.costs.file_bytes)),
        column("flops", &|arm| real(arm.costs.flops)),
    ]
}

/// A row for each run.
pub(super) fn runs(report: &Report) -> Table {
    let all: Vec<(&ArmResult, &SeedRun)> =
        report.arms.iter().flat_map(|arm| arm.arm.runs.iter().map(move |run| (arm, run))).collect();
    let column = |name: &'static str, of: &dyn Fn(&ArmResult, &SeedRun) -> Cell| {
        (name, all.iter().map(|(arm, run)| of(arm, run)).collect::<Vec<_>>())
    };
    let whole = |of: fn(&RunResult) -> Option<u64>| {
        move |_: &ArmResult, run: &SeedRun| Cell::Whole(run.outcome.result().and_then(of))
    };
    let number = |of: fn(&RunResult) -> Option<f64>| {
        move |_: &ArmResult, run: &SeedRun| real(run.outcome.result().and_then(of))
    };
    let outcome = |run: &SeedRun| match run.outcome.result() {
        None => "failed",
        Some(result) if result.diverged.is_some() => "diverged",
        Some(_) => "finished",
    };
    vec![
        column("arm", &|arm, _| Cell::Text(arm.arm.name.clone())),
        column("seed", &|_, run| Cell::Whole(Some(run.seed))),
        column("outcome", &|_, run| Cell::Text(outcome(run).to_string())),
        column("bits_per_byte", &number(|r| r.bits_per_byte)),
        column("held_out_loss", &number(|r| r.held_out_loss)),
        column("parameters", &whole(|r| r.parameters.map(|n| n as u64))),
        column("steps", &whole(|r| Some(r.steps))),
        column("tokens", &whole(|r| Some(r.tokens))),
        column("seconds", &number(|r| Some(r.seconds))),
        column("peak_memory", &whole(|r| r.peak_memory)),
        column("file_bytes", &whole(|r| r.file_bytes)),
        column("directory", &|_, run| Cell::Text(run.dir.display().to_string())),
    ]
}

fn real(x: Option<f64>) -> Cell {
    Cell::Real(x.filter(|x| x.is_finite()))
}

/// As CSV (RFC 4180): numbers to their last bit, nothing for what is none.
pub(super) fn csv(table: &Table) -> String {
    let header = table.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(",");
    let rows = table.first().map_or(0, |(_, cells)| cells.len());
    let row = |i: usize| table.iter().map(|(_, cells)| text(&cells[i])).collect::<Vec<_>>().join(",");
    std::iter::once(header).chain((0..rows).map(row)).map(|line| line + "\n").collect()
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) if text.contains([',', '"', '\n']) => format!("\"{}\"", text.replace('"', "\"\"")),
        Cell::Text(text) => text.clone(),
        Cell::Whole(n) => n.map_or(String::new(), |n| n.to_string()),
        Cell::Real(x) => x.map_or(String::new(), |x| x.to_string()),
    }
}
