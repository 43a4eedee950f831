//! `tritforge merge`: an adapter and its base to one checkpoint.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;
use tritforge_eval::{Scoring, Subject, perplexity};
use tritforge_train::{MergeReport, MergedProjection, merge};

use crate::table;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  tritforge merge runs/qat-lora -o models/merged\n  \
    tritforge merge runs/lora -o models/lossy --requantize --text held_out.txt\n\n\
    An adapter of mode qat_lora or lota merges exactly: the codes and scales are those that it was trained with (lota: a packed \
    checkpoint). One of mode adapter stands \
    beside its base: `tritforge export` makes a GGUF adapter of it. --requantize merges it all the same, and says what was lost.")]
pub(crate) struct Args {
    /// The checkpoint of a run with a `lora` section, or the directory of the run.
    adapter: PathBuf,
    /// The checkpoint to write.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Merge an adapter that stands beside ternary weights: lossy.
    #[arg(long)]
    requantize: bool,
    /// A text on which base with adapter and merged model are compared.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Predict at most this many tokens of it.
    #[arg(long, default_value_t = 16384, value_parser = super::ranges::count(1..=super::ranges::MOST_TOKENS))]
    tokens: usize,
    /// Show every projection.
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let adapter = super::checkpoint_dir(&args.adapter)?;
    let report = merge(&adapter, &args.output, args.requantize)?;
    println!("{}", args.output.display());
    print_report(&report, args.verbose);
    if let Some(path) = &args.text {
        let text = super::read_text(path)?;
        let measure = |path| -> Result<f64> {
            let subject = Subject::open(path)?;
            let window = subject.config().max_position_embeddings.min(512);
            Ok(perplexity(&subject, &text, Scoring::All { window }, Some(args.tokens), |_, _| Ok(()))?
                .perplexity)
        };
        let (before, after) = (measure(&adapter)?, measure(&args.output)?);
        println!(
            "  perplexity {before:.4} with the adapter, {after:.4} merged: {:+.2} %",
            100.0 * (after / before - 1.0)
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn print_report(report: &MergeReport, verbose: bool) {
    let (flipped, weights) =
        report.projections.iter().fold((0, 0), |(f, w), p| (f + p.flipped, w + p.weights));
    let percent =
        |flipped: usize, weights: usize| format!("{:.3} %", 100.0 * flipped as f64 / weights.max(1) as f64);
    let kind =
        if report.exact { "exact" } else { "LOSSY: the merged model is another than base and adapter" };
    println!("  {} adapted projections, {kind}", report.projections.len());
    let scales = report.projections.iter().map(|p| p.scale_ratio);
    let (least, most) = scales.fold((f64::MAX, f64::MIN), |(a, b), r| (a.min(r), b.max(r)));
    println!(
        "  {} of {weights} codes are others than the base's, scales {least:.4} to {most:.4} times the base's",
        percent(flipped, weights)
    );
    if verbose {
        let row = |p: &MergedProjection| {
            vec![p.name.clone(), percent(p.flipped, p.weights), format!("{:.5}", p.scale_ratio)]
        };
        table::print(
            &["weight", "codes flipped", "scale ratio"],
            &report.projections.iter().map(row).collect::<Vec<_>>(),
        );
    }
}
