//! Any runs compared, whoever made them: those whose recipes differ in nothing but names and seeds are one arm.

use std::path::{Path, PathBuf};

use tritforge_checkpoint::{Checkpoint, latest};
use tritforge_report::history;
use tritforge_train::flops_per_step;
use tritforge_train::recipe::Recipe;

use crate::experiment::Metric;
use crate::report::{Context, Kind, Report};
use crate::results::{ArmRuns, SeedRun, changes, dir_name, results};
use crate::runner::Outcome;
use crate::store::{self, RunResult};
use crate::verdict::answer;
use crate::{AblateError, Pairing, machine};

/// Compares runs, each the directory of one, by the last evaluation of each. The arm of the run `baseline` is the one that
/// the others are compared with; by default it is that of the first run. Runs with the same seed are pairs if their recipes
/// have the same data, the same batches and the same seeds of order and split; whether their initial weights are the same
/// is not known.
///
/// # Errors
/// If a run has no log, no evaluation or no recipe in its log, or the baseline is none of the runs.
pub fn compare(
    runs: &[PathBuf],
    baseline: Option<&Path>,
    metric: Metric,
    command: &str,
) -> Result<Report, AblateError> {
    let mut arms: Vec<ArmRuns> = Vec::new();
    let mut place = Vec::new();
    for dir in runs {
        let (recipe, seed, result) = read(dir)?;
        let run = SeedRun { seed, dir: dir.clone(), outcome: Outcome::Ran(Box::new(result)) };
        let same = arms.iter().position(|arm| changes(&arm.recipe, &recipe).is_empty());
        let index = match same {
            Some(index) => index,
            None => {
                let (name, flops) = (dir_name(dir), flops(dir, &recipe));
                arms.push(ArmRuns {
                    name,
                    recipe,
                    tuned: None,
                    runs: Vec::new(),
                    pairing: None,
                    engine_speed: None,
                    flops_per_step: flops,
                });
                arms.len() - 1
            }
        };
        if let Some(twice) = arms[index].runs.iter().find(|other| other.seed == seed) {
            return Err(AblateError::Request(format!(
                "{} and {}: the same recipe with the same seed {seed}: give one of them",
                twice.dir.display(),
                dir.display()
            )));
        }
        arms[index].runs.push(run);
        place.push(index);
    }
    let base = match baseline {
        None => 0,
        Some(wanted) => runs.iter().position(|dir| dir == wanted).map(|i| place[i]).ok_or_else(|| {
            AblateError::Request(format!("--baseline {}: expected one of the runs", wanted.display()))
        })?,
    };
    if arms.len() < 2 {
        let n = tritforge_support::counted(runs.len(), "run");
        let message = format!("{n} of one recipe: nothing to compare; give runs of at least two recipes");
        return Err(AblateError::Request(message));
    }
    name_by_changes(&mut arms, base);
    let recipe = arms[base].recipe.clone();
    for (_, arm) in arms.iter_mut().enumerate().filter(|(i, _)| *i != base) {
        arm.pairing = Some(pairing(&recipe, &arm.recipe));
    }
    let mut seeds: Vec<u64> = arms.iter().flat_map(|arm| arm.runs.iter().map(|run| run.seed)).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let arms = results(arms, base, metric, None)?;
    Ok(Report {
        kind: Kind::Ablation,
        question: format!("How do {} compare?", tritforge_support::counted(runs.len(), "run")),
        answer: answer(&arms, base, metric),
        metric,
        baseline: base,
        asked_seeds: seeds.len(),
        seeds,
        margin: None,
        rungs: Vec::new(),
        arms,
        context: Context {
            time: machine::now(),
            command: command.to_string(),
            program: env!("CARGO_PKG_VERSION").to_string(),
            machine: machine::describe(),
            threads: "as each run's own log says".to_string(),
        },
    })
}

/// The recipe, the seed and the result of a run.
fn read(dir: &Path) -> Result<(String, u64, RunResult), AblateError> {
    let log = history(dir)?;
    let fault = |message: &str| AblateError::Request(format!("{}: {message}", dir.display()));
    let table: toml::Table =
        log.recipe.parse().map_err(|_| fault("its log has no recipe: it is of an earlier version"))?;
    let seed =
        table.get("run").and_then(|run| run.get("seed")?.as_integer()).and_then(|s| u64::try_from(s).ok());
    let seed = seed.ok_or_else(|| fault("the recipe in its log has no run.seed"))?;
    if let Some(result) = store::result(dir)? {
        return Ok((log.recipe, seed, result));
    }
    let Some(end) = log.evaluations.last() else { return Err(fault("no evaluation in its log yet")) };
    let last = log.train.last();
    let result = RunResult {
        id: dir.display().to_string(),
        diverged: None,
        bits_per_byte: Some(end.bits_per_byte),
        held_out_loss: Some(end.loss),
        parameters: log.parameters,
        steps: end.step,
        tokens: last.map_or(0, |t| t.tokens),
        seconds: crate::finish::seconds(&log.train),
        peak_memory: log.train.iter().filter_map(|t| t.peak_rss).max(),
        file_bytes: None,
        not_exported: None,
        documents: None,
    };
    Ok((log.recipe, seed, result))
}

/// Operations of a training step, by the configuration of a run's last checkpoint; none if it has no checkpoint any more.
fn flops(dir: &Path, recipe: &str) -> Option<f64> {
    let config = Checkpoint::open(&latest(dir).ok()??).ok()?.config().ok()?;
    flops_per_step(&Recipe::from_toml(dir, recipe, &[]).ok()?, &config)
}

/// Names arms by what they change, where that is short; the first run's directory otherwise.
fn name_by_changes(arms: &mut [ArmRuns], base: usize) {
    let recipe = arms[base].recipe.clone();
    for (_, arm) in arms.iter_mut().enumerate().filter(|(i, _)| *i != base) {
        let changed = changes(&recipe, &arm.recipe);
        let short = changed.iter().map(|(key, _, now)| {
            let key = key.split_once('.').map_or(key.as_str(), |(_, key)| key);
            format!("{key}={}", now.trim_matches('"'))
        });
        let name = short.collect::<Vec<_>>().join(", ");
        if !name.is_empty() && name.chars().count() <= 48 {
            arm.name = name;
        }
    }
    for i in 0..arms.len() {
        if arms[..i].iter().any(|other| other.name == arms[i].name) {
            let dir = arms[i].runs.first().map(|run| dir_name(&run.dir)).unwrap_or_default();
            arms[i].name += &format!(" ({dir})");
        }
    }
}

/// Whether recipes with the same seed see the same samples, as far as their keys tell.
fn pairing(base: &str, own: &str) -> Pairing {
    let differs = changes(base, own).into_iter().map(|(key, _, _)| key);
    let data: Vec<String> =
        differs.filter(|key| key.starts_with("data.") || key.starts_with("tokenizer.")).collect();
    match data.is_empty() {
        true => Pairing::Data("whether initial weights are the same is not recorded".to_string()),
        false => Pairing::Unpaired(format!("{} differ", data.join(", "))),
    }
}
