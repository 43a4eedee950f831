//! An experiment from its plan to its report. [`prepare`] finds out what it takes, before anything is run; [`execute`]
//! runs what is missing and compares.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use crate::cost::{self, ArmCost, Count};
use crate::experiment::{Experiment, Setting};
use crate::finish::{MODEL, release};
use crate::journal::{Journal, Record};
use crate::plan::{Plan, digest, recipes};
use crate::report::{Context, Kind, Report};
use crate::results::{ArmRuns, SeedRun, TunedText, results};
use crate::rounds::{self, Rounds};
use crate::rungs::Rungs;
use crate::runner::{Outcome, Runner};
use crate::speed::engine_speed;
use crate::tune::{Tuned, tune};
use crate::verdict::answer;
use crate::{AblateError, Program, frozen, machine, store};

/// How an experiment is run.
pub struct Options<'a> {
    /// Runs at a time.
    pub jobs: usize,
    /// Threads of all of them together.
    pub threads: usize,
    /// What runs are made with.
    pub program: Program,
    /// The command line, for the report.
    pub command: String,
    /// Whether all arms are run to their end.
    pub search: Search,
    /// Once this is true, runs write a checkpoint and end.
    pub stop: &'a AtomicBool,
    /// Hears what goes on.
    pub say: &'a (dyn Fn(&str) + Sync),
}

/// Which arms are run to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// All of them.
    All,
    /// After each seed the better half goes on to the next.
    Seeds,
    /// The best go on to more steps.
    Steps(Rungs),
}

/// An experiment that can start.
pub struct Ready {
    /// Its runs.
    pub plan: Plan,
    /// The cost of a run of each arm.
    pub costs: Vec<ArmCost>,
    /// All runs, and those that are made already.
    pub count: Count,
    /// Missing runs of each arm.
    pub missing: Vec<usize>,
    /// Seconds that the missing runs take; none if that is not known.
    pub seconds: Option<f64>,
    /// Runs at a time, as far as memory goes.
    pub jobs: usize,
    /// Threads of each.
    pub threads: usize,
    /// Rungs with their steps and the arms that each begins with; none without.
    pub rungs: Vec<(u64, usize)>,
    journal: Journal,
}

/// Resolves and freezes all recipes, prepares their data, measures what a run of each arm costs, and cuts the seeds to
/// what the budget allows. What was found before is taken from the journal.
///
/// # Errors
/// If a recipe is wrong, data cannot be read, the budget does not allow for the experiment, or another process works on
/// it.
pub fn prepare(experiment: &Experiment, options: &Options<'_>) -> Result<Ready, AblateError> {
    let mut journal = Journal::open(&experiment.outputs.dir)?;
    journal.write(Record::Start {
        time: machine::now(),
        command: options.command.clone(),
        program: options.program.short(),
        machine: machine::describe(),
    })?;
    let say = |text: &str| (options.say)(text);
    let rungs = rungs_of(experiment, options.search)?;
    let lengths: Vec<u64> = rungs.iter().map(|(steps, _)| *steps).collect();
    let mut plan = Plan::new(experiment, &options.program, &lengths, &say)?;
    let file = experiment.outputs.dir.join(frozen::PLAN);
    store::replace(&file, frozen::text(experiment, &options.command))?;
    let threads_of = |jobs: usize| (options.threads / jobs).max(1);
    let asked = options.jobs.max(1);
    let costs = cost::measure(&plan, &options.program, threads_of(asked), &mut journal, &say)?;
    let jobs = cost::jobs_that_fit(&costs, asked, tritforge_machine::available_memory());
    // Once the seeds are cut they stay so: a restart has fewer runs to make, and would allow for more.
    let key = digest(&format!("{experiment:?} {}", options.program.identity));
    let known = journal.latest(|record| match record {
        Record::Seeds { experiment, seeds } if *experiment == key => Some(seeds.clone()),
        _ => None,
    });
    plan.seeds = match known {
        Some(seeds) => seeds,
        None => {
            let seeds = cost::within_budget(experiment, &plan, &costs, jobs)?;
            journal.write(Record::Seeds { experiment: key, seeds: seeds.clone() })?;
            seeds
        }
    };
    let (count, missing, seconds) = match rungs.is_empty() {
        true => {
            let (count, missing) = cost::count(experiment, &plan, &plan.seeds)?;
            let seconds = cost::seconds(&costs, &missing, jobs);
            (count, missing, seconds)
        }
        false => cost::of_rungs(&plan, &rungs, &costs, jobs)?,
    };
    Ok(Ready { plan, costs, count, missing, seconds, jobs, threads: threads_of(jobs), rungs, journal })
}

/// The rungs that a search asks for, each with its steps and the arms that it begins with.
fn rungs_of(experiment: &Experiment, search: Search) -> Result<Vec<(u64, usize)>, AblateError> {
    let Search::Steps(rungs) = search else { return Ok(Vec::new()) };
    let refused = |what: &str| Err(AblateError::Request(format!("--min-steps: {what}")));
    if experiment.tune.is_some() {
        return refused(
            "an experiment with [tune] is not halved: leave [tune] out, or ask `tritforge ablate`",
        );
    }
    if experiment.budget.is_some() {
        return refused("a budget cuts seeds, which are few here: leave the budget out, or --min-steps");
    }
    let all = recipes(experiment)?;
    let steps: Vec<u64> = all.iter().map(|points| points[0].1.train.steps).collect();
    match steps.iter().all(|own| *own == steps[0]) {
        true => rungs.of(steps[0], experiment.arms.len()),
        false => refused("all arms must have the same train.steps, which the last rung has"),
    }
}

/// Runs what is missing, first of all what is tuned, then seed by seed, so that an end at any time leaves whole pairs;
/// and compares.
///
/// # Errors
/// If it was asked to stop, no point of an arm can be chosen, or a file cannot be read or written. Runs that fail are
/// part of the result.
pub fn execute(
    experiment: &Experiment,
    kind: Kind,
    ready: Ready,
    options: &Options<'_>,
) -> Result<Report, AblateError> {
    let Ready { plan, jobs, threads, journal, .. } = ready;
    let journal = Mutex::new(journal);
    let runner = Runner {
        plan: &plan,
        program: &options.program,
        outputs: &experiment.outputs,
        jobs,
        threads,
        journal: &journal,
        stop: options.stop,
        say: options.say,
    };
    let tuned = tune(experiment, &plan, &runner)?;
    let point = |arm: usize| tuned[arm].as_ref().map_or(0, |tuned| tuned.point);
    let Rounds { tasks, outcomes, rungs: found } =
        rounds::run(&plan, options.search, &runner, &point, experiment.metric)?;
    // No run goes on from these any more.
    for (rung, result) in found.iter().enumerate() {
        let own = result.arms.iter().flat_map(|(arm, _)| plan.seeds.iter().map(|seed| (*arm, *seed)));
        for (arm, seed) in own {
            let point = plan.point_of_rung(rung);
            release(&plan.run(arm, point, seed)?, plan.kept_step(arm, point)?, &experiment.outputs)?;
        }
    }
    let mut journal = journal.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut arms = Vec::new();
    for (i, planned) in plan.arms.iter().enumerate() {
        let mut runs = Vec::new();
        for (task, outcome) in tasks.iter().zip(&outcomes).filter(|(task, _)| task.arm == i) {
            let dir = plan.run(i, point(i), task.seed)?.dir;
            runs.push(SeedRun { seed: task.seed, dir, outcome: outcome.clone() });
        }
        let speed = if experiment.outputs.engine_speed { speed(&runs, &mut journal, options)? } else { None };
        let recipe = plan.recipe(i, point(i)).to_toml().map_err(|e| AblateError::Request(e.to_string()))?;
        arms.push(ArmRuns {
            name: planned.name.clone(),
            recipe,
            tuned: tuned[i].as_ref().map(|found| tuned_text(&experiment.points(i), found)),
            runs,
            pairing: None,
            engine_speed: speed,
            flops_per_step: plan.flops_per_step(i, point(i)),
        });
    }
    let metric = experiment.metric;
    let baseline = match kind {
        Kind::Ablation => experiment.baseline,
        Kind::Sweep => best(&arms, metric),
    };
    // Arms that were given up on a rung are not compared.
    for (i, arm) in arms.iter_mut().enumerate().filter(|(i, arm)| *i != baseline && !arm.runs.is_empty()) {
        arm.pairing = Some(plan.pairing((i, point(i)), (baseline, point(baseline))));
    }
    let arms = results(arms, baseline, metric, experiment.margin)?;
    let report = Report {
        kind,
        question: experiment.question.clone(),
        answer: answer(&arms, baseline, metric),
        metric,
        baseline,
        asked_seeds: experiment.seeds.len(),
        seeds: plan.seeds.clone(),
        margin: experiment.margin,
        rungs: found,
        arms,
        context: Context {
            time: machine::now(),
            command: options.command.clone(),
            program: options.program.short(),
            machine: machine::describe(),
            threads: format!("{jobs} at a time, {} each", tritforge_support::counted(threads, "thread")),
        },
    };
    report.write(&experiment.outputs.dir)?;
    journal.write(Record::Report { time: machine::now() })?;
    Ok(report)
}

/// The engine's speed with the model of an arm's first run that has one, measured once.
fn speed(runs: &[SeedRun], journal: &mut Journal, options: &Options<'_>) -> Result<Option<f64>, AblateError> {
    let exported = |run: &&SeedRun| run.outcome.result().is_some_and(|result| result.file_bytes.is_some());
    let Some((run, result)) = runs.iter().find(exported).and_then(|run| Some((run, run.outcome.result()?)))
    else {
        return Ok(None);
    };
    let known = journal.latest(|record| match record {
        Record::Speed { id, tokens_per_second } if *id == result.id => Some(*tokens_per_second),
        _ => None,
    });
    if known.is_some() {
        return Ok(known);
    }
    match engine_speed(&run.dir.join(MODEL)) {
        Ok(tokens_per_second) => {
            journal.write(Record::Speed { id: result.id.clone(), tokens_per_second })?;
            Ok(Some(tokens_per_second))
        }
        Err(message) => {
            (options.say)(&format!("{}: the engine's speed is not measured: {message}", run.dir.display()));
            Ok(None)
        }
    }
}

/// What was chosen, in words.
fn tuned_text(points: &[Vec<Setting>], tuned: &Tuned) -> TunedText {
    let text = |point: &Vec<Setting>| point.iter().map(Setting::short).collect::<Vec<_>>().join(", ");
    TunedText {
        chosen: points.get(tuned.point).map(text).unwrap_or_default(),
        tried: points.iter().map(text).zip(tuned.values.iter().copied()).collect(),
        at_edge: tuned.at_edge.clone(),
    }
}

/// The arm with the lowest mean, among those with the most seeds; the first one if none has any.
fn best(arms: &[ArmRuns], metric: crate::Metric) -> usize {
    let most = arms.iter().map(|arm| arm.runs.len()).max().unwrap_or(0);
    let mean = |arm: &ArmRuns| {
        let values: Vec<f64> =
            arm.runs.iter().filter_map(|run| run.outcome.result()?.value(metric)).collect();
        let whole = !values.is_empty() && arm.runs.len() == most;
        whole.then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let means = arms.iter().enumerate().filter_map(|(i, arm)| Some((i, mean(arm)?)));
    means.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i)
}

/// Runs of a report that failed: arm, seed and why.
pub fn failures(report: &Report) -> Vec<(String, u64, String)> {
    let of = |arm: &crate::ArmResult| {
        let name = arm.arm.name.clone();
        let failed = arm.arm.runs.iter().filter_map(|run| match &run.outcome {
            Outcome::Failed(message) => Some((run.seed, message.clone())),
            Outcome::Ran(_) => None,
        });
        failed.map(|(seed, message)| (name.clone(), seed, message)).collect::<Vec<_>>()
    };
    report.arms.iter().flat_map(of).collect()
}
