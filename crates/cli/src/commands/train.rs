//! `tritforge train`: a recipe to a checkpoint.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tritforge_support::counted;
use tritforge_train::recipe::Recipe;
use tritforge_train::{RunOptions, RunOutcome, Silent, Sink, Summary, check_resume, dry_run, prepare, train};

use crate::sinks::{Preparation, Training};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge train recipes/shakespeare-char.toml --dry-run\n  \
    tritforge train recipes/shakespeare-char.toml --set optim.lr=2e-3 --set train.steps=500\n  \
    tritforge train recipes/shakespeare-char.toml --resume\n\n\
    Ctrl-C or SIGTERM writes a checkpoint and stops; a second one stops immediately. docs/recipes.md lists \
    every key.")]
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
    /// Do not print progress or samples.
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let recipe = Recipe::load(&args.recipe, &args.set)?;
    let preparation = Preparation::new(|message| println!("{message}"));
    let training = Training::new(recipe.train.steps);
    let sinks: [&dyn Sink; 2] = if args.quiet { [&Silent, &Silent] } else { [&preparation, &training] };
    if args.dry_run {
        let plan = dry_run(&recipe, sinks[0])?;
        super::dry_run::print(&plan, recipe.train.gradient_checkpointing);
        return Ok(ExitCode::SUCCESS);
    }
    if args.resume {
        // Before the data is prepared, which may take long.
        check_resume(&recipe)?;
    }
    let prepared = prepare(&recipe, sinks[0])?;
    // Not before: preparing leaves nothing half done, it may be ended at once.
    let stop = Some(stop_flag().context("cannot listen for signals")?);
    let options = RunOptions { resume: args.resume, overwrite: args.overwrite, sink: sinks[1], stop };
    let summary = train(&recipe, &prepared, &options)?;
    training.finish();
    print_summary(&summary);
    Ok(ExitCode::SUCCESS)
}

/// A flag that the first SIGINT or SIGTERM sets. The second ends the process, with the status of one that a
/// signal ended.
fn stop_flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first of the two asks whether the flag is set already.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
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
