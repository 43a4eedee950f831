//! `tritforge synth`: a model of any shape with random weights, for benchmarks and tests of conversions.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use tritforge_config::{Granularity, ModelConfig};
use tritforge_export::{synth_checkpoint, synth_gguf};
use tritforge_text::Tokenizer;

use super::export::{Embeddings, Format, gguf_options, print_report};

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  tritforge synth configs/125m.toml -o 125m.gguf --format i2_s --embeddings q8_0\n  \
    tritforge synth configs/2b4t.toml -o 2b4t --checkpoint\n  \
    tritforge synth configs/qwen3-1.7b.toml -o bonsai.gguf --granularity 128 --ternary-embedding 128 --format pq2_0"
)]
pub(crate) struct Args {
    /// Model config (TOML), as in `configs/`.
    config: PathBuf,
    /// File to write, or checkpoint directory.
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Write a checkpoint (packed ternary matrices, everything else in bf16) to export or to train from.
    #[arg(long, conflicts_with_all = ["format", "embeddings"])]
    checkpoint: bool,
    /// Tokenizer: a `tokenizer.json` or its directory; default: one token per byte value.
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Storage type of the projections; default: tq2_0 for ternary models, f16 for others.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Storage type of the embedding and the output head, where they are not ternary.
    #[arg(long, value_enum, default_value = "q8_0")]
    embeddings: Embeddings,
    /// Weights that share a scale: tensor, row, or groups of 32, 64, 128 or 256; default: what the config says.
    #[arg(long, value_name = "GRANULARITY")]
    granularity: Option<Granularity>,
    /// Make the embedding ternary, and a head that is tied to it; its weights share scales as --granularity says of the
    /// projections'.
    #[arg(long, value_name = "GRANULARITY")]
    ternary_embedding: Option<Granularity>,
    /// Make a head that is not the embedding ternary.
    #[arg(long, value_name = "GRANULARITY")]
    ternary_head: Option<Granularity>,
    /// Random seed for the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let place = || args.config.display().to_string();
    let text = std::fs::read_to_string(&args.config).with_context(|| format!("{}: cannot read", place()))?;
    let mut config = ModelConfig::from_toml(&text).with_context(place)?;
    config.granularity = args.granularity.unwrap_or(config.granularity);
    config.ternary_embedding = args.ternary_embedding.or(config.ternary_embedding);
    config.ternary_head = args.ternary_head.or(config.ternary_head);
    config.validate().with_context(place)?;
    let tokenizer = args.tokenizer.as_deref().map(Tokenizer::from_file).transpose()?;
    let parameters = config.parameters().total();
    if args.checkpoint {
        synth_checkpoint(&config, &args.output, args.seed, tokenizer.as_ref())?;
        println!("{}: {parameters} parameters, random", args.output.display());
        return Ok(ExitCode::SUCCESS);
    }
    let stem = args.config.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let options = gguf_options(&config, args.format, args.embeddings, format!("{stem}, random weights"))?;
    let report = synth_gguf(&config, &args.output, &options, args.seed, tokenizer.as_ref())?;
    println!("{}: {parameters} parameters, random", args.output.display());
    print_report(&report);
    Ok(ExitCode::SUCCESS)
}
