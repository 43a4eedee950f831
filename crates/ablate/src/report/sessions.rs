//! The runs of a report for TensorBoard's HParams plugin: a session a run, with what distinguishes its arm from the others.
//! The runs of an arm are a group: they have the same hyperparameters, and seeds of their own in their names.

use std::collections::BTreeSet;
use std::path::Path;

use tritforge_report::{Hparam, Hparams, Session, history, hparams_of, write_sessions};

use super::Report;
use crate::results::ArmResult;
use crate::{AblateError, RunResult, SeedRun};

/// Their directory beside the report.
pub(super) const DIR: &str = "tensorboard";

/// Writes the event files of all runs into a directory.
pub(super) fn write(report: &Report, dir: &Path) -> Result<(), AblateError> {
    // What all arms have in common tells none from another.
    let changed: BTreeSet<&str> =
        report.arms.iter().flat_map(|arm| &arm.changes).map(|(key, _, _)| key.as_str()).collect();
    let mut sessions = Vec::new();
    for (i, arm) in report.arms.iter().enumerate() {
        let mut hparams = hparams_of(&arm.arm.recipe);
        hparams.retain(|key, _| {
            // Changes name the keys of a section, which may hold tables.
            changed.iter().any(|own| key == own || key.strip_prefix(own).is_some_and(|k| k.starts_with('.')))
        });
        hparams.insert("arm".to_string(), Hparam::Text(arm.arm.name.clone()));
        for run in &arm.arm.runs {
            sessions.push(session(report, i, arm, run, &hparams)?);
        }
    }
    Ok(write_sessions(dir, &report.question, &sessions)?)
}

fn session(
    report: &Report,
    index: usize,
    arm: &ArmResult,
    run: &SeedRun,
    hparams: &Hparams,
) -> Result<Session, AblateError> {
    let result = run.outcome.result();
    let mut numbers = Vec::new();
    if let Some(result) = result {
        for evaluation in &history(&run.dir)?.evaluations {
            let named =
                [("loss/bits_per_byte", evaluation.bits_per_byte), ("loss/held_out", evaluation.loss)];
            numbers.push((evaluation.step, named.map(|(name, x)| (name.to_string(), x)).into()));
        }
        let costs = costs(result, arm.arm.flops_per_step);
        numbers.push((result.steps, costs));
    }
    Ok(Session {
        name: format!("{}/seed-{}", directory(report, index), run.seed),
        group: arm.arm.name.clone(),
        hparams: hparams.clone(),
        model: run.dir.display().to_string(),
        numbers,
        failed: result.is_none_or(|result| result.diverged.is_some()),
    })
}

/// What a run cost, as far as it is known.
fn costs(result: &RunResult, flops_per_step: Option<f64>) -> Vec<(String, f64)> {
    let each = [
        ("cost/seconds", Some(result.seconds)),
        ("cost/parameters", result.parameters.map(|n| n as f64)),
        ("cost/peak_memory", result.peak_memory.map(|n| n as f64)),
        ("cost/file_bytes", result.file_bytes.map(|n| n as f64)),
        ("cost/flops", flops_per_step.map(|flops| flops * result.steps as f64)),
    ];
    each.into_iter().filter_map(|(name, x)| Some((name.to_string(), x?))).collect()
}

/// The directory of an arm: its name in letters that every file system takes, and its number where two would have the same.
fn directory(report: &Report, index: usize) -> String {
    let plain = |arm: &ArmResult| {
        let plain = |c: char| if c.is_alphanumeric() || " .,=+-_()".contains(c) { c } else { '-' };
        let name: String = arm.arm.name.chars().map(plain).collect();
        // No file system takes more than 255 bytes, and names of dots are directories of another kind.
        let name = name.trim_matches(['.', ' ']);
        name.chars().take(60).collect::<String>()
    };
    let own = plain(&report.arms[index]);
    let alone = report.arms.iter().filter(|arm| plain(arm) == own).count() == 1;
    if alone && !own.is_empty() { own } else { format!("{own}-{}", index + 1) }
}
