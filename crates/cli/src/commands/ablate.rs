//! `tritforge ablate` and `tritforge sweep`: experiments from their plan to their report.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use tritforge_ablate::{
    AblateError, Experiment, Kind, Metric, Options, Program, Ready, Report, Rungs, Search, Trials, execute,
    failures, of_recipe, parse_duration, prepare,
};
use tritforge_support::{counted, duration};

use super::ranges;
use super::train::stop_flag;
use crate::{interrupt, table};

/// Seconds above which an experiment wants to be confirmed.
const LONG: f64 = 3600.0;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge ablate ablations/sub-norm.toml --dry-run     the plan with its measured time; nothing is trained\n  \
    tritforge ablate ablations/sub-norm.toml --jobs 2      run what is missing, then write the report\n\n\
    Killed or stopped at any time, the same command goes on. Runs are shared between experiments: one that has been \
    made is not made again. docs/ablations.md describes the file.\n\n\
    Exit codes: 0 success, whatever the answer; 1 an error, or a run failed; 2 usage error; 130 interrupted")]
pub(crate) struct Args {
    /// Experiment (TOML file).
    file: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge sweep recipes/quickstart.toml optim.lr=1e-3,2e-3,4e-3 --seeds 2\n  \
    tritforge sweep recipes/quickstart.toml 'quant.weights,optim.lr=(absmean,4e-3),(none,3e-3)' --dry-run\n  \
    tritforge sweep recipes/quickstart.toml optim.lr=1e-3,2e-3,4e-3,8e-3 --seeds 3 --halving\n  \
    tritforge sweep recipes/quickstart.toml 'optim.lr=log_uniform(1e-4,1e-2)' model.hidden_act=silu,relu2 --trials 16\n  \
    tritforge sweep recipes/quickstart.toml 'optim.lr=log_uniform(1e-4,1e-2)' --trials 9 --min-steps 50 --eta 3\n\n\
    Runs every combination of the values and ranks them. Keys with commas between them go together. With --trials points \
    are drawn instead: from lists, uniform(low,high), log_uniform(low,high) and int_uniform(low,high). The best of several \
    looks better than it is: what it is worth says `tritforge ablate`, on other seeds.")]
pub(crate) struct SweepArgs {
    /// Recipe, or an experiment (TOML file).
    file: PathBuf,
    /// Keys of the recipe, each with the values that are tried.
    #[arg(value_name = "KEY=VALUE,VALUE")]
    axes: Vec<String>,
    /// Draw so many different points (random search) instead of running every combination.
    #[arg(long, value_name = "N", value_parser = ranges::count(2..=10_000))]
    trials: Option<usize>,
    /// Seed of the draws; the seeds of runs are others.
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "trials")]
    trials_seed: u64,
    /// Seeds of each combination: 1, 2, … With an experiment, those of its file.
    #[arg(long, value_name = "N", value_parser = ranges::count(1..=1000))]
    seeds: Option<usize>,
    /// After each seed only the better half of the combinations goes on to the next (successive halving over seeds).
    #[arg(long)]
    halving: bool,
    /// Train all combinations for few steps, at least so many, and the best 1/eta of them for eta times as many, until the
    /// last ones have train.steps (successive halving over steps).
    #[arg(long, value_name = "STEPS", conflicts_with_all = ["halving", "budget"])]
    min_steps: Option<u64>,
    /// With --min-steps: one of so many combinations goes on.
    #[arg(long, value_name = "N", default_value_t = 3, requires = "min_steps", value_parser = clap::value_parser!(u64).range(2..=1000))]
    eta: u64,
    /// What is compared.
    #[arg(long, value_parser = ["bits_per_byte", "held_out_loss"])]
    metric: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(ClapArgs)]
struct Common {
    /// Print the plan with its measured time; do not train.
    #[arg(long)]
    dry_run: bool,
    /// Runs at a time, which share the threads; fewer if memory does not suffice.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = ranges::count(1..=256))]
    jobs: usize,
    /// Directory for journal and report; by default what the experiment's outputs.dir says.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Directory of the runs, which experiments share; by default what outputs.runs says.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Time that it may take, as in `30 min`: fewer seeds are run if need be, but at least 3.
    #[arg(long, value_name = "TIME")]
    budget: Option<String>,
    /// Start even if it takes more than an hour.
    #[arg(short, long)]
    yes: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let experiment = Experiment::load(&args.file)?;
    go(experiment, Kind::Ablation, Search::All, &args.common)
}

pub(crate) fn sweep(args: &SweepArgs) -> Result<ExitCode> {
    let metric = args.metric.as_deref().and_then(Metric::of);
    let text = super::read_text(&args.file)?;
    // A recipe has nothing outside of its sections but its version.
    let is_experiment = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("base"));
    let experiment = match is_experiment {
        true => {
            if !args.axes.is_empty() || args.seeds.is_some() || args.trials.is_some() {
                bail!(
                    "{}: an experiment: its values and seeds are those of the file; give a recipe, or change the file",
                    args.file.display()
                );
            }
            let experiment = Experiment::from_toml(&args.file, &text)?;
            let metric = metric.unwrap_or(experiment.metric);
            Experiment { metric, ..experiment }
        }
        false => {
            let seeds = args.seeds.unwrap_or(1) as u64;
            let trials = args.trials.map(|count| Trials { count, seed: args.trials_seed });
            of_recipe(&args.file, &args.axes, trials, seeds, metric.unwrap_or(Metric::BitsPerByte))?
        }
    };
    let search = match args.min_steps {
        Some(min_steps) => Search::Steps(Rungs { min_steps, eta: args.eta }),
        None if args.halving => Search::Seeds,
        None => Search::All,
    };
    go(experiment, Kind::Sweep, search, &args.common)
}

/// Plans, shows the plan, runs and reports.
fn go(mut experiment: Experiment, kind: Kind, search: Search, common: &Common) -> Result<ExitCode> {
    if let Some(dir) = &common.out {
        experiment.outputs.dir.clone_from(dir);
    }
    if let Some(dir) = &common.runs {
        experiment.outputs.runs.clone_from(dir);
    }
    if let Some(text) = &common.budget {
        let seconds = parse_duration(text);
        experiment.budget =
            Some(seconds.with_context(|| format!("--budget {text}: expected a time, as in \"30 min\""))?);
    }
    let stop = stop_flag().context("cannot listen for signals")?;
    let options = Options {
        jobs: common.jobs,
        threads: tritforge_kernels::threads(),
        program: Program::running()?,
        command: std::env::args().map(|arg| quoted(&arg)).collect::<Vec<_>>().join(" "),
        search,
        stop: &stop,
        say: &|text| println!("{text}"),
    };
    println!("{}", experiment.question);
    let ready = prepare(&experiment, &options)?;
    print_plan(&experiment, &ready);
    if search == Search::Seeds {
        println!("at most: after each seed the better half goes on\n");
    }
    if common.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !common.yes && experiment.budget.is_none() {
        match ready.seconds {
            Some(seconds) if seconds > LONG => bail!(
                "this takes about {}: give --yes to start, or --budget \"60 min\" for fewer seeds",
                duration(seconds)
            ),
            _ => {}
        }
    }
    let report = match execute(&experiment, kind, ready, &options) {
        Ok(report) => report,
        Err(stopped @ AblateError::Stopped) => {
            eprintln!("{stopped}");
            return Ok(ExitCode::from(interrupt::EXIT_CODE));
        }
        Err(error) => return Err(error.into()),
    };
    print_report(&report);
    println!("\nreport: {}", experiment.outputs.dir.join("report.html").display());
    let failed = failures(&report);
    for (arm, seed, message) in &failed {
        eprintln!("error: {arm}, seed {seed}: {message}");
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The arms with the cost of a run, the product of everything, and its time.
fn print_plan(experiment: &Experiment, ready: &Ready) {
    println!();
    let unknown = || "unknown".to_string();
    let rows: Vec<Vec<String>> = experiment
        .arms
        .iter()
        .zip(&ready.costs)
        .zip(&ready.missing)
        .map(|((arm, cost), missing)| {
            // What all arms change is no part of the question.
            let own =
                arm.set.iter().filter(|setting| !experiment.arms.iter().all(|a| a.set.contains(setting)));
            let set: Vec<String> = own.map(tritforge_ablate::Setting::text).collect();
            vec![
                arm.name.clone(),
                set.join(" "),
                cost.seconds.map_or_else(unknown, duration),
                cost.memory.map_or_else(unknown, table::bytes),
                missing.to_string(),
            ]
        })
        .collect();
    table::print(&["arm", "changes", "time of a run", "memory", "runs to make"], &rows);
    for (arm, cost) in experiment.arms.iter().zip(&ready.costs) {
        if let Some(why) = &cost.unknown {
            println!("{}: not measured: {why}", arm.name);
        }
    }
    let (arms, seeds) = (counted(experiment.arms.len(), "arm"), ready.plan.seeds.len());
    let tuning = experiment.tune.as_ref().map_or(String::new(), |tune| {
        let most = (0..experiment.arms.len()).map(|arm| experiment.points(arm).len()).max().unwrap_or(0);
        format!(" and, for tuning, {} × {}", counted(most, "value"), counted(tune.seeds.len(), "seed"))
    });
    if !ready.rungs.is_empty() {
        let each =
            ready.rungs.iter().map(|(steps, arms)| format!("{} of {steps} steps", counted(*arms, "arm")));
        println!("\nrungs: {}", each.collect::<Vec<_>>().join(", then "));
    }
    println!(
        "\n{arms} × ({}{tuning}): {}, of which {} made already",
        counted(seeds, "seed"),
        counted(ready.count.all, "run"),
        ready.count.known
    );
    if seeds < experiment.seeds.len() {
        println!("{} of {} seeds: the budget allows for no more", seeds, experiment.seeds.len());
    }
    let at_a_time = format!("{} at a time, {} each", ready.jobs, counted(ready.threads, "thread"));
    match ready.seconds {
        Some(seconds) => println!("about {} ({at_a_time}; measured by dry runs)\n", duration(seconds)),
        None => println!("time unknown ({at_a_time})\n"),
    }
}

/// The answer and the table.
pub(crate) fn print_report(report: &Report) {
    println!("\n{}\n", report.answer);
    let (header, rows) = tritforge_ablate::table(report);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table::print(&header, &rows);
}

/// An argument as a shell takes it.
pub(crate) fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+%@".contains(c);
    match !argument.is_empty() && argument.chars().all(plain) {
        true => argument.to_string(),
        false => format!("'{}'", argument.replace('\'', "'\\''")),
    }
}
