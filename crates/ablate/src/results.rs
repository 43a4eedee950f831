//! From runs to what a report says: for each arm what its runs reached, how it compares with the baseline, what it costs.

use std::path::{Path, PathBuf};

use toml::{Table, Value};
use tritforge_report::{History, history};
use tritforge_train::document_losses;

use crate::experiment::Metric;
use crate::health::{Look, looks};
use crate::runner::Outcome;
use crate::stats::{
    Bootstrap, Difference, DocumentDifference, Summary, bootstrap, difference, holm, summary,
    unpaired_difference,
};
use crate::verdict::Verdict;
use crate::{AblateError, Pairing};

/// What is known of an arm before its runs are looked at.
#[derive(Debug, Clone)]
pub struct ArmRuns {
    /// Its name.
    pub name: String,
    /// Its resolved recipe.
    pub recipe: String,
    /// What was chosen for it, in words.
    pub tuned: Option<TunedText>,
    /// Its runs by seed.
    pub runs: Vec<SeedRun>,
    /// How they relate to the baseline's; none of the baseline.
    pub pairing: Option<Pairing>,
    /// Tokens a second of the engine.
    pub engine_speed: Option<f64>,
    /// Floating-point operations of a training step, where they are counted.
    pub flops_per_step: Option<f64>,
}

/// What tuning chose.
#[derive(Debug, Clone, PartialEq)]
pub struct TunedText {
    /// The settings.
    pub chosen: String,
    /// Every point with the mean of the metric.
    pub tried: Vec<(String, Option<f64>)>,
    /// Settings at the edge of what was tried.
    pub at_edge: Vec<String>,
}

/// A run of an arm.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedRun {
    /// Its seed.
    pub seed: u64,
    /// Its directory.
    pub dir: PathBuf,
    /// What became of it.
    pub outcome: Outcome,
}

/// Everything that a report says of an arm.
#[derive(Debug, Clone)]
pub struct ArmResult {
    /// What was known before.
    pub arm: ArmRuns,
    /// What its finished runs reached.
    pub summary: Summary,
    /// Runs that diverged, and runs that failed.
    pub diverged: usize,
    /// Runs that failed.
    pub failed: usize,
    /// Against the baseline; none of the baseline itself.
    pub versus: Option<Versus>,
    /// Keys whose value is another than the baseline's: key, the baseline's, its own.
    pub changes: Vec<(String, String, String)>,
    /// The metric on the way.
    pub curve: Vec<CurvePoint>,
    /// How its ternary matrices fare: for each thing that is measured of them the looks at them, none where they are not
    /// ternary.
    pub health: Vec<Vec<Look>>,
    /// Costs, means over runs.
    pub costs: Costs,
}

/// An arm against the baseline.
#[derive(Debug, Clone)]
pub struct Versus {
    /// The difference.
    pub difference: Difference,
    /// Its p-value by Holm's correction over all arms that have one.
    pub adjusted_p: f64,
    /// How the mean difference would vary with other held-out documents.
    pub evaluation: Option<Bootstrap>,
    /// What can be said.
    pub verdict: Verdict,
}

/// The metric of an arm at a step, over its seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// Steps.
    pub step: f64,
    /// Target tokens.
    pub tokens: f64,
    /// Seconds in training steps.
    pub seconds: f64,
    /// Floating-point operations of all steps so far, where they are counted.
    pub flops: Option<f64>,
    /// Mean.
    pub mean: f64,
    /// Standard deviation; 0 of one run.
    pub sd: f64,
}

/// What an arm costs; means over its runs with a result.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Costs {
    /// Parameters.
    pub parameters: Option<f64>,
    /// Target tokens of a run.
    pub tokens: Option<f64>,
    /// Seconds in training steps.
    pub seconds: Option<f64>,
    /// Floating-point operations of all training steps, where they are counted.
    pub flops: Option<f64>,
    /// Bytes of the exported file.
    pub file_bytes: Option<f64>,
    /// Most bytes of memory in training.
    pub peak_memory: Option<f64>,
}

/// Compares all arms with the baseline.
///
/// # Errors
/// If the log of a run cannot be read.
pub(crate) fn results(
    arms: Vec<ArmRuns>,
    baseline: usize,
    metric: Metric,
    margin: Option<f64>,
) -> Result<Vec<ArmResult>, AblateError> {
    let base = arms[baseline].clone();
    let differences: Vec<Option<Difference>> = arms
        .iter()
        .enumerate()
        .map(|(i, arm)| (i != baseline).then(|| compare(arm, &base, metric)))
        .collect();
    // Arms without a p-value are not tested, so they are not corrected for.
    let tested: Vec<usize> =
        (0..arms.len()).filter(|i| differences[*i].is_some_and(|d| d.p.is_finite())).collect();
    let p: Vec<f64> = tested.iter().filter_map(|i| differences[*i].map(|d| d.p)).collect();
    let mut adjusted = vec![f64::NAN; arms.len()];
    tested.iter().zip(holm(&p)).for_each(|(i, p)| adjusted[*i] = p);
    let mut found = Vec::new();
    for (i, arm) in arms.into_iter().enumerate() {
        let values = values(&arm, metric);
        let diverged =
            arm.runs.iter().filter(|run| run.outcome.result().is_some_and(|r| r.diverged.is_some()));
        let (diverged, failed) =
            (diverged.count(), arm.runs.iter().filter(|run| run.outcome.result().is_none()).count());
        let versus = match differences[i] {
            None => None,
            Some(difference) => Some(Versus {
                difference,
                adjusted_p: adjusted[i],
                evaluation: evaluation(&arm, &base, metric)?,
                verdict: Verdict::of(&difference, adjusted[i], diverged, arm.runs.len(), margin),
            }),
        };
        let logs = arm.runs.iter().filter(|run| run.outcome.result().is_some_and(|r| r.diverged.is_none()));
        let logs = logs.map(|run| history(&run.dir)).collect::<Result<Vec<_>, _>>()?;
        found.push(ArmResult {
            summary: summary(&values),
            diverged,
            failed,
            versus,
            changes: changes(&base.recipe, &arm.recipe),
            curve: curve(&logs, metric, arm.flops_per_step),
            health: looks(&logs),
            costs: costs(&arm),
            arm,
        });
    }
    Ok(found)
}

fn values(arm: &ArmRuns, metric: Metric) -> Vec<f64> {
    arm.runs.iter().filter_map(|run| run.outcome.result()?.value(metric)).collect()
}

/// The runs of both that have a value with the same seed.
fn pairs<'a>(
    arm: &'a ArmRuns,
    base: &'a ArmRuns,
    metric: Metric,
) -> impl Iterator<Item = (&'a SeedRun, &'a SeedRun)> {
    let has = move |run: &&SeedRun| run.outcome.result().is_some_and(|r| r.value(metric).is_some());
    let own = arm.runs.iter().filter(has);
    own.filter_map(move |run| Some((run, base.runs.iter().filter(has).find(|other| other.seed == run.seed)?)))
}

fn compare(arm: &ArmRuns, base: &ArmRuns, metric: Metric) -> Difference {
    if arm.pairing.as_ref().is_some_and(|pairing| !pairing.is_paired()) {
        return unpaired_difference(&values(arm, metric), &values(base, metric));
    }
    let value = |run: &SeedRun| run.outcome.result().and_then(|r| r.value(metric)).unwrap_or(f64::NAN);
    difference(&pairs(arm, base, metric).map(|(arm, base)| (value(arm), value(base))).collect::<Vec<_>>())
}

/// The difference by documents, in the mean over seeds, where both arms are measured by the same documents.
fn evaluation(arm: &ArmRuns, base: &ArmRuns, metric: Metric) -> Result<Option<Bootstrap>, AblateError> {
    let mut sums: Vec<DocumentDifference> = Vec::new();
    let mut seeds = 0;
    for (run, other) in pairs(arm, base, metric) {
        let (Some(own), Some(theirs)) = (document_losses(&run.dir)?, document_losses(&other.dir)?) else {
            return Ok(None);
        };
        // Tokens may differ between tokenizers, the documents' bytes may not.
        if own.len() != theirs.len() || own.iter().zip(&theirs).any(|(a, b)| a.bytes != b.bytes) {
            return Ok(None);
        }
        sums.resize(own.len(), DocumentDifference { more: 0.0, units: 0.0 });
        for ((sum, a), b) in sums.iter_mut().zip(&own).zip(&theirs) {
            match metric {
                Metric::BitsPerByte => {
                    sum.more += (a.nats - b.nats) / std::f64::consts::LN_2;
                    sum.units = a.bytes as f64;
                }
                Metric::HeldOutLoss if a.targets != b.targets => return Ok(None),
                Metric::HeldOutLoss => {
                    sum.more += a.nats - b.nats;
                    sum.units = a.targets as f64;
                }
            }
        }
        seeds += 1;
    }
    sums.iter_mut().for_each(|sum| sum.more /= f64::from(seeds.max(1)));
    Ok(if seeds == 0 { None } else { bootstrap(&sums) })
}

/// The metric at every evaluation that all runs have.
fn curve(logs: &[History], metric: Metric, flops_per_step: Option<f64>) -> Vec<CurvePoint> {
    let Some(first) = logs.first() else { return Vec::new() };
    let at = |log: &History, step: u64| {
        let evaluation = log.evaluations.iter().rev().find(|e| e.step == step)?;
        let value = match metric {
            Metric::BitsPerByte => evaluation.bits_per_byte,
            Metric::HeldOutLoss => evaluation.loss,
        };
        let (mut before, mut seconds, mut tokens) = (0, 0.0, 0);
        for logged in log.train.iter().filter(|t| t.step <= step) {
            if logged.tokens_per_second > 0.0 {
                seconds += logged.tokens.saturating_sub(before) as f64 / logged.tokens_per_second;
            }
            (before, tokens) = (logged.tokens, logged.tokens);
        }
        Some((value, tokens as f64, seconds))
    };
    let point = |step: u64| {
        let found: Option<Vec<_>> = logs.iter().map(|log| at(log, step)).collect();
        let found = found?;
        let each = |of: fn(&(f64, f64, f64)) -> f64| found.iter().map(of).collect::<Vec<_>>();
        let value = summary(&each(|x| x.0));
        let (tokens, seconds) = (summary(&each(|x| x.1)).mean, summary(&each(|x| x.2)).mean);
        let sd = if value.n > 1 { value.sd } else { 0.0 };
        let flops = flops_per_step.map(|flops| flops * step as f64);
        Some(CurvePoint { step: step as f64, tokens, seconds, flops, mean: value.mean, sd })
    };
    let mut steps: Vec<u64> = first.evaluations.iter().map(|e| e.step).collect();
    steps.dedup();
    steps.into_iter().filter_map(point).collect()
}

fn costs(arm: &ArmRuns) -> Costs {
    let ended = || arm.runs.iter().filter_map(|run| run.outcome.result()).filter(|r| r.diverged.is_none());
    let mean = |values: Vec<f64>| (!values.is_empty()).then(|| summary(&values).mean);
    Costs {
        parameters: mean(ended().filter_map(|r| r.parameters.map(|n| n as f64)).collect()),
        tokens: mean(ended().map(|r| r.tokens as f64).collect()),
        seconds: mean(ended().map(|r| r.seconds).collect()),
        flops: mean(ended().filter_map(|r| Some(arm.flops_per_step? * r.steps as f64)).collect()),
        file_bytes: mean(ended().filter_map(|r| r.file_bytes.map(|n| n as f64)).collect()),
        peak_memory: mean(ended().filter_map(|r| r.peak_memory.map(|n| n as f64)).collect()),
    }
}

/// Keys that have another value, in the order of the alphabet, without those of names, places and seeds.
pub(crate) fn changes(base: &str, own: &str) -> Vec<(String, String, String)> {
    let [base, own] = [base, own].map(flat);
    let absent = || "–".to_string();
    let mut keys: Vec<&String> = base.iter().chain(&own).map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    let value = |of: &[(String, String)], key: &str| {
        of.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone())
    };
    let pair = |key: &String| {
        let (before, now) = (value(&base, key), value(&own, key));
        (before != now).then(|| (key.clone(), before.unwrap_or_else(absent), now.unwrap_or_else(absent)))
    };
    keys.into_iter().filter_map(pair).collect()
}

/// Keys that say nothing about what a run does, or only which of its arm's runs it is.
pub(crate) const NAMES: [&str; 7] =
    ["run.name", "run.out", "run.seed", "data.order_seed", "version", "log.mlflow", "log.mlflow_experiment"];

fn flat(recipe: &str) -> Vec<(String, String)> {
    let table: Table = recipe.parse().unwrap_or_default();
    let mut keys = Vec::new();
    for (section, value) in table {
        match value {
            Value::Table(section_keys) => {
                keys.extend(
                    section_keys.into_iter().map(|(key, v)| (format!("{section}.{key}"), v.to_string())),
                );
            }
            value => keys.push((section, value.to_string())),
        }
    }
    keys.retain(|(key, _)| !NAMES.contains(&key.as_str()));
    keys
}

/// The name of a run's directory.
pub(crate) fn dir_name(dir: &Path) -> String {
    dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned()
}
