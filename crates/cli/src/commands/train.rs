//! `tritforge train`: a recipe to a checkpoint.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;
use tritforge_train::recipe::Recipe;
use tritforge_train::{DryRun, PrepareOptions, RunOptions, Summary, dry_run, prepare_with, train};

use crate::table;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge train recipes/shakespeare-char.toml --dry-run\n  \
    tritforge train recipes/shakespeare-char.toml --set optim.lr=2e-3 --set train.steps=500\n  \
    tritforge train recipes/shakespeare-char.toml --resume")]
pub(crate) struct Args {
    /// A recipe in TOML.
    recipe: PathBuf,
    /// Override a key of the recipe, e.g. `optim.lr=2e-3`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on from the newest whole checkpoint of the run.
    #[arg(long)]
    resume: bool,
    /// Remove the checkpoints of an earlier run in the same directory.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Print the resolved recipe, the parameter count and a memory estimate, and train nothing.
    #[arg(long)]
    dry_run: bool,
    /// Show neither progress nor samples.
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let recipe = Recipe::load(&args.recipe, &args.set)?;
    if args.dry_run {
        print_dry_run(&dry_run(&recipe, recipe.expected_vocab_size())?);
        return Ok(ExitCode::SUCCESS);
    }
    let prepared = prepare_with(&recipe, PrepareOptions { progress: !args.quiet }, |message| {
        if !args.quiet {
            println!("{message}");
        }
    })?;
    let options = RunOptions { resume: args.resume, overwrite: args.overwrite, quiet: args.quiet };
    let summary = train(&recipe, &prepared, options)?;
    print_summary(&summary);
    Ok(ExitCode::SUCCESS)
}

/// One line about the end of a run, one about its checkpoint.
pub(crate) fn print_summary(summary: &Summary) {
    println!(
        "trained {} steps, {} tokens; held-out loss {:.4}, {:.4} bits/byte; {:.0} tokens/s over {:.0} s",
        summary.steps,
        summary.tokens,
        summary.held_out_loss,
        summary.bits_per_byte,
        summary.tokens_per_second,
        summary.seconds
    );
    println!("checkpoint: {}", summary.checkpoint.display());
}

fn print_dry_run(plan: &DryRun) {
    println!("{}", plan.recipe);
    let p = plan.parameters;
    let m = plan.memory;
    let row = |name: &str, count: usize| vec![name.to_string(), count.to_string()];
    table::print(
        &["parameters", "number"],
        &[
            row("embedding", p.embedding),
            row("head", p.head),
            row("projections", p.projections),
            row("norms", p.norms),
            row("total", p.total()),
        ],
    );
    println!();
    let row = |name: &str, bytes: u64| vec![name.to_string(), table::bytes(bytes)];
    table::print(
        &["memory", "estimate"],
        &[
            row("weights", m.weights),
            row("ternary weights", m.quantized),
            row("gradients", m.gradients),
            row("optimizer", m.optimizer),
            row("activations", m.activations),
            row("logits", m.logits),
            row("total", m.total()),
        ],
    );
    println!("\n{} tokens a step, {} in all, {:.2e} FLOPs", plan.tokens_per_step, plan.tokens, plan.flops);
}
