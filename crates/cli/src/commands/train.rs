//! `tritforge train`: a recipe to a checkpoint.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tritforge_support::counted;
use tritforge_train::recipe::Recipe;
use tritforge_train::{
    RunOptions, RunOutcome, Silent, Sink, Summary, TrainError, check_resume, dry_run, prepare_in, train,
};

use crate::sinks::{Preparation, Training};

/// Exit status of a run whose loss, gradient or weights are no numbers any more, or that stopped at a spike.
const DIVERGED: u8 = 3;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge train recipes/shakespeare-char.toml --dry-run\n  \
    tritforge train recipes/shakespeare-char.toml --set optim.lr=2e-3 --set train.steps=500\n  \
    tritforge train recipes/shakespeare-char.toml --resume\n\n\
    Ctrl-C or SIGTERM writes a checkpoint and stops; a second one stops immediately. docs/recipes.md lists \
    every key.\n\nExit codes: 0 success, 1 error, 2 usage error, 3 training diverged")]
pub(crate) struct Args {
    /// Recipe (TOML file).
    recipe: PathBuf,
    /// Override a recipe key, e.g. `optim.lr=2e-3`; can be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Resume from the run's latest complete checkpoint.
    #[arg(long)]
    resume: bool,
    /// Delete the checkpoints of an earlier run in the same directory and start over.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Print the resolved recipe, parameter counts, memory and time, measured by running a few steps on
    /// random tokens; do not train.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: print the figures as JSON.
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Directory for tokenizer and tokens, which runs may share; by default `data` in the run's directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// At the end, write the held-out loss of every document to documents.csv in the run's directory.
    #[arg(long)]
    document_losses: bool,
    /// Write a checkpoint after this step and keep it beside the last ones.
    #[arg(long, value_name = "STEP")]
    keep_step: Option<u64>,
    /// A tag of the run on the server that [log] names, e.g. `team=kernels`; `mlflow.runName` is its name there. Can be
    /// repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = tag)]
    tag: Vec<(String, String)>,
    /// Stop, as on SIGTERM, when standard input ends: for programs that start runs and may be killed.
    #[arg(long)]
    stop_on_eof: bool,
    /// Do not print progress or samples.
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let recipe = Recipe::load(&args.recipe, &args.set)?;
    if !args.tag.is_empty() && recipe.log.is_none() {
        bail!(
            "{}: --tag needs a server that the run is logged to, log.mlflow in the recipe: found none",
            args.recipe.display()
        );
    }
    let preparation = Preparation::new(|message| println!("{message}"));
    let training = Training::new(recipe.train.steps);
    let sinks: [&dyn Sink; 2] =
        if args.quiet || args.json { [&Silent, &Silent] } else { [&preparation, &training] };
    if args.dry_run {
        let plan = dry_run(&recipe, sinks[0])?;
        match args.json {
            true => println!("{}", super::dry_run::json(&plan, recipe.train.gradient_checkpointing)),
            false => super::dry_run::print(&plan, recipe.train.gradient_checkpointing),
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.resume {
        // Before the data is prepared, which may take long.
        check_resume(&recipe)?;
    }
    let data_dir = args.data_dir.clone().unwrap_or_else(|| recipe.run.out.join("data"));
    let prepared = prepare_in(&recipe, &data_dir, sinks[0])?;
    // Not before: preparing leaves nothing half done, it may be ended at once.
    let stop = stop_flag().context("cannot listen for signals")?;
    if args.stop_on_eof {
        stop_at_end_of_input(Arc::clone(&stop));
    }
    let options = RunOptions {
        resume: args.resume,
        overwrite: args.overwrite,
        sink: sinks[1],
        stop: Some(stop),
        document_losses: args.document_losses,
        keep_step: args.keep_step,
        tags: args.tag.clone(),
    };
    let summary = match train(&recipe, &prepared, &options) {
        Ok(summary) => summary,
        Err(error @ (TrainError::NotFinite { .. } | TrainError::Spike { .. })) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(DIVERGED));
        }
        Err(error) => return Err(error.into()),
    };
    training.finish();
    print_summary(&summary);
    Ok(ExitCode::SUCCESS)
}

/// Key and value of a tag.
fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_string(), value.trim().to_string()))
        }
        _ => Err("expected KEY=VALUE".to_string()),
    }
}

/// A flag that the first SIGINT or SIGTERM sets. The second ends the process, with the status of one that a
/// signal ended.
pub(crate) fn stop_flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first of the two asks whether the flag is set already.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Sets the flag when standard input ends.
fn stop_at_end_of_input(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        // An input that cannot be read has ended as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        stop.store(true, Ordering::Relaxed);
    });
}

/// One line about the end of a run, one about its checkpoint.
pub(crate) fn print_summary(summary: &Summary) {
    let Summary { steps, tokens, tokens_per_second: speed, seconds, .. } = summary;
    let result = match summary.ended {
        RunOutcome::Stopped => "stopped; continue with --resume".to_string(),
        RunOutcome::Finished | RunOutcome::OutOfPatience => {
            format!("held-out loss {:.4}, {:.4} bits/byte", summary.held_out_loss, summary.bits_per_byte)
        }
    };
    println!(
        "trained {steps}, {tokens}; {result}; {speed:.0} tokens/s over {seconds:.0} s",
        tokens = counted(*tokens, "token"),
        steps = counted(*steps, "step")
    );
    if summary.skipped > 0 {
        println!("{} skipped", counted(summary.skipped, "step"));
    }
    if summary.ended == RunOutcome::OutOfPatience
        && let Some((step, loss)) = summary.best
    {
        println!("stopped early: no evaluation improved on step {step}, held-out loss {loss:.4}");
    }
    println!("checkpoint: {}", summary.checkpoint.display());
}
