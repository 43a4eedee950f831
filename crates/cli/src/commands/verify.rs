//! `tritforge verify`: are two files the same model?

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use tritforge_config::ModelConfig;
use tritforge_eval::{Comparison, EvalModel, ProjectionReport, VerifyOptions, VerifyReport, verify};
use tritforge_export::ImportOptions;
use tritforge_infer::Device;
use tritforge_support::counted;

use super::device_args::DeviceArgs;
use super::import::Assume;
use super::ranges::{MOST_TOKENS, count, number};
use crate::table;

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  tritforge verify runs/quickstart runs/quickstart/model.gguf --text held_out.txt\n  \
    tritforge verify hub/bitnet-b1.58-2B-4T 2b4t.gguf --tokens 64\n\n\
    The exit code is 1 if a code, scale, activation, sum or greedy token differs, or a logit differs by more \
    than --bound."
)]
pub(crate) struct Args {
    /// Checkpoint, run directory (its latest checkpoint is used), Hugging Face directory, or GGUF file.
    first: PathBuf,
    /// The other model, of any of these kinds. GGUF files run in the inference engine, everything else in the
    /// training forward pass.
    second: PathBuf,
    /// Where the second model runs, if it is a GGUF file: cpu, an NVIDIA GPU by its number (cuda is cuda:0), or auto for the
    /// first GPU and the CPU if it cannot be used. The first model runs on the CPU.
    #[arg(long, value_name = "auto|cpu|cuda[:N]", default_value_t = Device::Cpu)]
    device: Device,
    /// Text to run through both models; default: tokens of the vocabulary in a fixed order.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Number of tokens to run through both models, at most the context length.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count(1..=MOST_TOKENS))]
    tokens: usize,
    /// Largest difference between logits that passes.
    #[arg(long, default_value_t = 1e-4, value_parser = number(0.0..=f32::MAX))]
    bound: f32,
    /// Number of tokens to generate greedily with both models.
    #[arg(long, default_value_t = 200, value_parser = count(0..=MOST_TOKENS))]
    greedy_tokens: usize,
    /// Kind of weights of a Hugging Face checkpoint, if `config.json` does not say or is wrong.
    #[arg(long, value_enum)]
    assume: Option<Assume>,
    /// List every projection, not only the blocks that differ.
    #[arg(long)]
    projections: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let options = ImportOptions { assume: args.assume.map(Assume::weights), ..ImportOptions::default() };
    let (first, mut second) = (
        EvalModel::open_with(&args.first, &options, &[])?,
        EvalModel::open_with(&args.second, &options, &[])?,
    );
    DeviceArgs { device: args.device }.place_any(&mut second, &args.second)?;
    let mut ids = match &args.text {
        Some(path) => {
            let tokenizer = first.tokenizer().or_else(|| second.tokenizer());
            let tokenizer = tokenizer.context("--text: neither model has a tokenizer")?;
            tokenizer.encode(&super::read_text(path)?, false)?
        }
        None => default_ids(second.config()),
    };
    ids.truncate(args.tokens);
    let options = VerifyOptions { ids, greedy_tokens: args.greedy_tokens, logit_bound: args.bound };
    let report = verify(first, second, &options)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        if args.projections {
            print_projections(report.projections.iter());
        }
        print_report(&report);
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tokens from all over the vocabulary: a multiplicative walk whose step is odd and coprime to most sizes.
fn default_ids(config: &ModelConfig) -> Vec<u32> {
    let vocab = config.vocab_size as u64;
    (0..config.max_position_embeddings as u64).map(|i| (i * 2_654_435_761 % vocab) as u32).collect()
}

/// Prints where the models part, block by block, or that they do not; then logits and greedy tokens.
pub(crate) fn print_report(report: &VerifyReport) {
    let weights: usize = report.projections.iter().map(|p| p.weights).sum();
    match &report.first_difference {
        None if report.projections.is_empty() => {
            println!("  full-precision projections, {}: compared by logits", counted(report.tokens, "token"));
        }
        None => println!(
            "  {} {}, {weights} weights, {}: codes, scales, int8 activations and int32 sums identical",
            report.projections.len(),
            if report.projections.iter().all(|p| p.layer.is_some()) {
                "projections"
            } else {
                "ternary matrices"
            },
            counted(report.tokens, "token")
        ),
        Some(first) => {
            println!(
                "  the models first differ at {}: {}",
                first.tensor,
                format!("{:?}", first.quantity).to_lowercase()
            );
            print_blocks(report);
        }
    }
    let logits = |name: &str, c: &Comparison| {
        println!(
            "  logits {name}: largest difference {:.3e}, top-1 agreement {:.2} %, mean KL {:.3e}",
            c.max_difference,
            100.0 * c.top1_agreement,
            c.mean_kl
        );
    };
    if report.embedding_rounding > 0.0 {
        println!(
            "  embedding stored as {}: largest rounding error {:.2e}",
            report.embedding_type, report.embedding_rounding
        );
        logits("of the models as stored", &report.as_trained);
        logits("with that embedding in both models", &report.with_stored_embeddings);
    } else {
        logits("of both models", &report.with_stored_embeddings);
    }
    println!("  greedy tokens: {} of {} identical", report.greedy_agreeing, report.greedy_tokens);
    println!("  {}", if report.passed() { "verified" } else { "NOT verified" });
}

/// One row a block that differs.
fn print_blocks(report: &VerifyReport) {
    let mut layers: Vec<_> = report.projections.iter().map(|p| p.layer).collect();
    layers.dedup();
    let rows = layers.into_iter().filter_map(|layer| {
        let block = || report.projections.iter().filter(move |p| p.layer == layer);
        let sum = |count: fn(&ProjectionReport) -> usize| block().map(count).sum::<usize>().to_string();
        // `f32::max` would drop a NaN; in this order it is the largest.
        let scale = block().map(|p| p.scale_difference / p.scale).max_by(f32::total_cmp).unwrap_or(0.0);
        let first = block().find(|p| !p.identical())?;
        let name = first.tensor.split('.').nth(if layer.is_some() { 2 } else { 0 });
        Some(vec![
            layer.map_or_else(|| "-".to_string(), |layer| layer.to_string()),
            name.unwrap_or_default().to_string(),
            sum(|p| p.codes_different),
            format!("{scale:.2e}"),
            sum(|p| p.activations_different),
            sum(|p| p.sums_different),
            block().map(|p| p.sum_difference).max().unwrap_or(0).to_string(),
            format!("{:.2e}", block().map(|p| p.bias_difference).max_by(f32::total_cmp).unwrap_or(0.0)),
        ])
    });
    println!("  differences by block (codes, activations, sums: counts; scale: relative):");
    let header = ["block", "first in", "codes", "scale", "activations", "sums", "largest sum", "bias"];
    table::print(&header, &rows.collect::<Vec<_>>());
}

/// One row a projection.
fn print_projections<'a>(projections: impl Iterator<Item = &'a ProjectionReport>) {
    let rows = projections.map(|p| {
        vec![
            p.tensor.clone(),
            p.codes_different.to_string(),
            format!("{:.7}", p.scale),
            format!("{:.3e}", p.scale_difference),
            p.activations_different.to_string(),
            format!("{:.3e}", p.activation_scale_difference),
            p.sums_different.to_string(),
            p.sum_difference.to_string(),
            format!("{:.3e}", p.bias_difference),
        ]
    });
    let header = [
        "tensor",
        "codes",
        "scale",
        "differs by",
        "activations",
        "their scale",
        "sums",
        "largest sum",
        "biases",
    ];
    table::print(&header, &rows.collect::<Vec<_>>());
}
