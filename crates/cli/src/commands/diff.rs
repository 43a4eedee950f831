//! `tritforge diff`: what two models have that is not the same.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;
use tritforge_export::{
    Compared, DiffReport, ImportOptions, LoadedModel, TensorDifference, TokenizerDifference, diff,
};
use tritforge_support::counted;

use super::import::Assume;
use crate::table;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  tritforge diff runs/demo demo.gguf\n  \
    tritforge diff runs/demo/step-000100 runs/demo/step-000200 --json\n\n\
    Exit codes: 0 the models are identical, 1 they differ, 2 one of them cannot be read.")]
pub(crate) struct Args {
    /// Checkpoint, run directory (its latest checkpoint is used), GGUF file, or Hugging Face directory.
    first: PathBuf,
    /// The other model, of any of these kinds.
    second: PathBuf,
    /// Largest difference that counts as equal, relative to the largest value in the tensor. Rounding to F16
    /// differs by 5e-4.
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = super::ranges::number(0.0..=f32::MAX))]
    tolerance: f32,
    /// Kind of weights of a Hugging Face checkpoint, if `config.json` does not say or is wrong.
    #[arg(long, value_enum)]
    assume: Option<Assume>,
    /// List every tensor, not only those that differ.
    #[arg(long)]
    tensors: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let options = ImportOptions { assume: args.assume.map(Assume::weights), ..ImportOptions::default() };
    let open = |path: &Path| LoadedModel::open(path, &options)?.bare();
    let [first, second] = [open(&args.first)?, open(&args.second)?];
    let shows = std::io::stderr().is_terminal();
    let report = diff([&first, &second], |tensor| {
        if shows {
            // A line that the next one replaces; whether it can be shown does not matter.
            eprint!("\r\x1b[K{tensor}");
        }
    })?;
    if shows {
        eprint!("\r\x1b[K");
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report, args);
    }
    Ok(if report.same(args.tolerance) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn print(report: &DiffReport, args: &Args) {
    if !report.config.is_empty() {
        let rows = report
            .config
            .iter()
            .map(|d| vec![d.key.clone(), d.values[0].to_string(), d.values[1].to_string()]);
        table::print(&["configuration", "first", "second"], &rows.collect::<Vec<_>>());
    }
    for (place, names) in [("first", &report.only_first), ("second", &report.only_second)] {
        if !names.is_empty() {
            println!("{} in the {place} model only: {}", counted(names.len(), "tensor"), listed(names));
        }
    }
    print_tensors(report, args);
    match &report.tokenizer {
        TokenizerDifference::Same => println!("tokenizer: identical"),
        TokenizerDifference::Absent => println!("tokenizer: neither model has one"),
        TokenizerDifference::OnlyOne => println!("tokenizer: only one model has one"),
        TokenizerDifference::Different(keys) => println!("tokenizer: differs in {}", keys.join(", ")),
    }
    println!("chat template: {}", if report.chat_template_same { "identical" } else { "differs" });
    println!(
        "{}",
        if report.same(args.tolerance) { "the models are identical" } else { "the models differ" }
    );
}

/// The first names of a list.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let first = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{first}, …") } else { first }
}

fn print_tensors(report: &DiffReport, args: &Args) {
    let shown = |t: &&TensorDifference| args.tensors || !t.within(args.tolerance);
    let (mut ternary, mut dense) = (Vec::new(), Vec::new());
    for tensor in report.tensors.iter().filter(shown) {
        let mut row = vec![tensor.name.clone(), tensor.types.join(" / ")];
        match &tensor.content {
            Compared::Shapes { shapes: [first, second] } => {
                println!("{}: shape {first:?} and {second:?}", tensor.name);
            }
            Compared::NotFinite { first: [first, second] } => {
                for (model, place) in [("first", first), ("second", second)] {
                    if let Some(place) = place {
                        println!("{}: {place} in the {model} model, which is broken", tensor.name);
                    }
                }
            }
            Compared::Ternary {
                weights, flipped, zero_fraction, scale_ratio, latent_max_difference, ..
            } => {
                row.extend([
                    flipped.to_string(),
                    format!("{:.4}", 100.0 * *flipped as f64 / *weights as f64),
                    zero_fraction.map(|z| format!("{:.2}", 100.0 * z)).join(" / "),
                    format!("{scale_ratio:.7}"),
                    latent_max_difference.map(|d| format!("{d:.3e}")).unwrap_or_default(),
                ]);
                ternary.push(row);
            }
            Compared::Numbers { different, max_difference, relative, .. } => {
                row.extend([
                    different.to_string(),
                    format!("{max_difference:.3e}"),
                    format!("{relative:.3e}"),
                ]);
                dense.push(row);
            }
        }
    }
    let header = ["tensor", "types", "codes flipped", "%", "% zero", "scale ratio", "latent weights"];
    if !ternary.is_empty() {
        table::print(&header, &ternary);
    }
    if !dense.is_empty() {
        table::print(&["tensor", "types", "values that differ", "largest", "relative"], &dense);
    }
    let same = report.tensors.iter().filter(|t| t.same).count();
    let close = report.tensors.iter().filter(|t| !t.same && t.within(args.tolerance)).count();
    let close = if close > 0 { format!(", {close} more within {:e}", args.tolerance) } else { String::new() };
    println!("{} in both: {same} identical{close}", counted(report.tensors.len(), "tensor"));
    if let Some(sum) = flipped(report) {
        println!("{sum}");
    }
}

/// Codes flipped in all ternary tensors.
fn flipped(report: &DiffReport) -> Option<String> {
    let (mut total, mut different) = (0, 0);
    for tensor in &report.tensors {
        if let Compared::Ternary { weights, flipped, .. } = tensor.content {
            (total, different) = (total + weights, different + flipped);
        }
    }
    (total > 0).then(|| {
        let share = 100.0 * different as f64 / total as f64;
        format!("{different} of {total} ternary codes flipped ({share:.4} %)")
    })
}
