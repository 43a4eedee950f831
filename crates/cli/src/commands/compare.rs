//! `tritforge compare`: any runs in one table, with error bars where there are several seeds.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use tritforge_ablate::{Metric, compare};

use super::ablate::{print_report, quoted};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge compare runs/ternary-* runs/full-*\n  \
    tritforge compare runs/a runs/b --metric held_out_loss --html compared.html\n  \
    tritforge compare runs/a runs/b --out compared && tensorboard --logdir compared/tensorboard\n\n\
    Runs whose recipes differ in names and seeds alone are one arm; runs with the same seed are pairs. Below three seeds \
    there is no verdict.")]
pub(crate) struct Args {
    /// Run directories.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The run whose arm the others are compared with; by default the first.
    #[arg(long, value_name = "RUN")]
    baseline: Option<PathBuf>,
    /// What is compared.
    #[arg(long, default_value = "bits_per_byte", value_parser = ["bits_per_byte", "held_out_loss"])]
    metric: String,
    /// Also write the report as a page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also write the whole report into a directory: page, Markdown, tables as CSV and Parquet, and `tensorboard/`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let metric = Metric::of(&args.metric).context("--metric: expected bits_per_byte or held_out_loss")?;
    let command = std::env::args().map(|arg| quoted(&arg)).collect::<Vec<_>>().join(" ");
    let report = compare(&args.runs, args.baseline.as_deref(), metric, &command)?;
    print_report(&report);
    if let Some(file) = &args.html {
        std::fs::write(file, report.html()).with_context(|| format!("{}: cannot write", file.display()))?;
        println!("\nreport: {}", file.display());
    }
    if let Some(dir) = &args.out {
        report.write(dir)?;
        println!("\nreport: {}", dir.join("report.html").display());
    }
    Ok(ExitCode::SUCCESS)
}
