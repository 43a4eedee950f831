//! What an experiment costs: the time and memory of a run of each arm, measured by a dry run, times the runs that are
//! missing; and how many seeds a budget allows.

use std::collections::BTreeSet;

use tritforge_support::duration;

use crate::child;
use crate::experiment::Experiment;
use crate::journal::{Journal, Record};
use crate::plan::{Plan, digest};
use crate::stats::LEAST_SEEDS;
use crate::{AblateError, Program, store};

/// The cost of a run of an arm; none for what could not be measured.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmCost {
    /// Seconds, on as many threads as it will have.
    pub seconds: Option<f64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Why something could not be measured.
    pub unknown: Option<String>,
}

/// The runs of an experiment, those that have a result apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// All of them.
    pub all: usize,
    /// Those that are made already.
    pub known: usize,
}

/// Measures each arm, or takes what the journal has from before.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn measure(
    plan: &Plan,
    program: &Program,
    threads: usize,
    journal: &mut Journal,
    say: &dyn Fn(&str),
) -> Result<Vec<ArmCost>, AblateError> {
    let mut costs = Vec::new();
    for (i, arm) in plan.arms.iter().enumerate() {
        let id = format!("{} {threads}", plan.run(i, 0, plan.seeds[0])?.id);
        let known = journal.latest(|record| match record {
            Record::Probe { id: of, seconds, memory } if *of == id => Some((*seconds, *memory)),
            _ => None,
        });
        if let Some((seconds, memory)) = known {
            costs.push(ArmCost { seconds, memory, unknown: None });
            continue;
        }
        say(&format!("measuring a run of {}", arm.name));
        let (recipe, home) = plan.probe(i);
        let path = home.join(format!("probe-{}.toml", &digest(&id)[..12]));
        let text = recipe.to_toml().map_err(|e| AblateError::Request(e.to_string()))?;
        store::replace(&path, &text)?;
        let cost = match child::dry_run(program, &path, threads) {
            Ok(found) => {
                let unknown =
                    found.total_seconds.is_none().then(|| "a step does not fit into memory".to_string());
                ArmCost { seconds: found.total_seconds, memory: found.peak_memory, unknown }
            }
            Err(message) => ArmCost { seconds: None, memory: None, unknown: Some(message) },
        };
        let (seconds, memory) = (cost.seconds, cost.memory);
        journal.write(Record::Probe { id, seconds, memory })?;
        costs.push(cost);
    }
    Ok(costs)
}

/// How many runs there are for these seeds, with those of tuning, and how many of them are made already. What tuning
/// will choose is not known before: of an arm's points the first stands for it.
///
/// # Errors
/// If a result cannot be read.
pub(crate) fn count(
    experiment: &Experiment,
    plan: &Plan,
    seeds: &[u64],
) -> Result<(Count, Vec<usize>), AblateError> {
    let mut count = Count::default();
    let mut missing = vec![0; plan.arms.len()];
    let mut seen = BTreeSet::new();
    for (i, arm) in plan.arms.iter().enumerate() {
        let tuned = experiment.tune.iter().flat_map(|tune| &tune.seeds);
        let tuned = tuned.flat_map(|seed| (0..arm.points.len()).map(move |point| (point, *seed)));
        for (point, seed) in tuned.chain(seeds.iter().map(|seed| (0, *seed))) {
            let run = plan.run(i, point, seed)?;
            if !seen.insert(run.id.clone()) {
                continue;
            }
            count.all += 1;
            match store::result(&run.dir)? {
                Some(_) => count.known += 1,
                None => missing[i] += 1,
            }
        }
    }
    Ok((count, missing))
}

/// Seconds that the missing runs take, `jobs` at a time; none if an arm could not be measured.
pub(crate) fn seconds(costs: &[ArmCost], missing: &[usize], jobs: usize) -> Option<f64> {
    let each = costs.iter().zip(missing).filter(|(_, missing)| **missing > 0);
    let all: Option<f64> = each.map(|(cost, missing)| Some(cost.seconds? * *missing as f64)).sum();
    all.map(|all| all / jobs as f64)
}

/// The same for rungs, each with its steps and the arms that it begins with: how many runs there are, those of the first
/// rung that are missing of each arm, and the seconds of what is missing. Which arms will go on is not known before: runs
/// of later rungs take the mean time of all arms, less the steps that they have in common with the rung before.
///
/// # Errors
/// If a result cannot be read.
pub(crate) fn of_rungs(
    plan: &Plan,
    rungs: &[(u64, usize)],
    costs: &[ArmCost],
    jobs: usize,
) -> Result<(Count, Vec<usize>, Option<f64>), AblateError> {
    let (mut count, mut first_missing) = (Count::default(), vec![0; plan.arms.len()]);
    let each: Option<Vec<f64>> = costs.iter().map(|cost| cost.seconds).collect();
    let mean = each.map(|each| each.iter().sum::<f64>() / each.len() as f64);
    let (mut steps_missing, mut shared) = (0.0, 0);
    for (rung, (steps, arms)) in rungs.iter().enumerate() {
        let point = plan.point_of_rung(rung);
        let mut known = 0;
        for arm in 0..plan.arms.len() {
            for seed in &plan.seeds {
                match store::result(&plan.run(arm, point, *seed)?.dir)? {
                    Some(_) => known += 1,
                    None if rung == 0 => first_missing[arm] += 1,
                    None => {}
                }
            }
        }
        let all = arms * plan.seeds.len();
        count.all += all;
        count.known += known.min(all);
        steps_missing += (all - known.min(all)) as f64 * (steps - shared) as f64;
        shared = plan.kept_step(0, point)?.unwrap_or(0);
    }
    let whole = rungs.last().map_or(1, |(steps, _)| *steps) as f64;
    Ok((count, first_missing, mean.map(|mean| mean * steps_missing / whole / jobs as f64)))
}

/// As many runs at a time as were asked for and fit into the memory that is left.
pub(crate) fn jobs_that_fit(costs: &[ArmCost], asked: usize, available: Option<u64>) -> usize {
    let largest = costs.iter().filter_map(|cost| cost.memory).max();
    match (largest, available) {
        (Some(largest), Some(available)) if largest > 0 => asked.min((available / largest) as usize).max(1),
        _ => asked,
    }
}

/// The first of the seeds that the budget allows; all of them without a budget.
///
/// # Errors
/// If not even three of them are allowed, or as many as there are if there are fewer; if an arm could not be measured.
pub(crate) fn within_budget(
    experiment: &Experiment,
    plan: &Plan,
    costs: &[ArmCost],
    jobs: usize,
) -> Result<Vec<u64>, AblateError> {
    let seeds = &experiment.seeds;
    let Some(budget) = experiment.budget else { return Ok(seeds.clone()) };
    let takes = |n: usize| -> Result<f64, AblateError> {
        let (_, missing) = count(experiment, plan, &seeds[..n])?;
        seconds(costs, &missing, jobs).ok_or_else(|| {
            let why = costs.iter().find_map(|cost| cost.unknown.clone()).unwrap_or_default();
            AblateError::Budget(format!(
                "budget: the time of a run cannot be measured: {why}; leave the budget out"
            ))
        })
    };
    let least = seeds.len().min(LEAST_SEEDS);
    let needed = takes(least)?;
    if needed > budget {
        return Err(AblateError::Budget(format!(
            "budget = {}: {least} seeds of {} arms take about {}, measured on this machine; raise the budget, lower \
             train.steps, or leave arms or values of [tune] out",
            duration(budget),
            plan.arms.len(),
            duration(needed)
        )));
    }
    let mut n = seeds.len();
    while takes(n)? > budget {
        n -= 1;
    }
    Ok(seeds[..n].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(seconds: Option<f64>, memory: Option<u64>) -> ArmCost {
        ArmCost { seconds, memory, unknown: None }
    }

    #[test]
    fn time_is_that_of_the_missing_runs_and_memory_that_of_the_largest() {
        let costs = [cost(Some(10.0), Some(300)), cost(Some(20.0), Some(500)), cost(None, None)];
        assert_eq!(seconds(&costs, &[2, 1, 0], 1), Some(40.0));
        assert_eq!(seconds(&costs, &[2, 1, 0], 2), Some(20.0));
        assert_eq!(seconds(&costs, &[2, 1, 1], 2), None);
        assert_eq!(jobs_that_fit(&costs, 4, Some(1600)), 3);
        assert_eq!(jobs_that_fit(&costs, 2, Some(1600)), 2);
        assert_eq!(jobs_that_fit(&costs, 2, Some(100)), 1);
        assert_eq!(jobs_that_fit(&costs, 2, None), 2);
        assert_eq!(jobs_that_fit(&[cost(None, None)], 2, Some(1)), 2);
    }
}
