//! `tritforge synth`: a GGUF file of any shape with random weights, for benchmarks.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use tritforge_config::ModelConfig;
use tritforge_export::synth_gguf;

use super::export::{Embeddings, Format, gguf_options, print_report};

#[derive(ClapArgs)]
#[command(
    after_help = "Example:\n  tritforge synth configs/125m.toml -o 125m.gguf --format i2_s --embeddings q8_0"
)]
pub(crate) struct Args {
    /// A shape in TOML, as in `configs/`.
    config: PathBuf,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Storage of the projections; tq2_0 for ternary models and f16 for others, if not given.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Storage of the embedding and the head.
    #[arg(long, value_enum, default_value = "q8_0")]
    embeddings: Embeddings,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let place = || args.config.display().to_string();
    let text = std::fs::read_to_string(&args.config).with_context(|| format!("{}: cannot read", place()))?;
    let config = ModelConfig::from_toml(&text).with_context(place)?;
    let stem = args.config.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let options = gguf_options(&config, args.format, args.embeddings, format!("{stem}, random weights"))?;
    let report = synth_gguf(&config, &args.output, &options, args.seed)?;
    println!("{}: {} parameters, random", args.output.display(), config.parameters().total());
    print_report(&report);
    Ok(ExitCode::SUCCESS)
}
