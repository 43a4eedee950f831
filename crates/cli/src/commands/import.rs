//! `tritforge import`: a published model to a checkpoint.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};
use tritforge_config::{Quantization, WeightQuant};
use tritforge_export::{ImportOptions, import};
use tritforge_support::counted;

use super::lora_args::OverrideArgs;

/// Kind of weights of a Hugging Face checkpoint.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Assume {
    /// Not ternary.
    FullPrecision,
    /// Latent weights, quantized in every forward.
    Online,
    /// Packed codes; weights are divided by the scale, 1/mean|W| (`bitlinear`).
    Divides,
    /// Packed codes; weights are multiplied by the scale, mean|W| (`autobitlinear`).
    Multiplies,
}

impl Assume {
    /// What it means to the importer.
    pub(crate) fn weights(self) -> tritforge_export::Assume {
        use tritforge_export::Assume::{FullPrecision, Ternary};
        match self {
            Assume::FullPrecision => FullPrecision,
            Assume::Online => Ternary(Quantization::Online),
            Assume::Divides => Ternary(Quantization::Divides),
            Assume::Multiplies => Ternary(Quantization::Multiplies),
        }
    }
}

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  tritforge import bitnet-b1.58-2B-4T -o models/2b4t\n  \
    tritforge import SmolLM2-135M-Instruct.Q4_1.gguf -o models/smollm2\n  \
    tritforge import model.gguf -o models/m --latent     trainable weights from a ternary file")]
pub(crate) struct Args {
    /// Hugging Face directory, `.safetensors` file or index with `config.json` beside it, `.gguf` file, or
    /// `hf://OWNER/NAME[@REVISION]`.
    source: String,
    /// Checkpoint directory to write.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Kind of weights, if `config.json` does not say or is wrong.
    #[arg(long, value_enum)]
    assume: Option<Assume>,
    /// Create trainable latent weights from ternary ones; they quantize to the same codes and scales.
    #[arg(long)]
    latent: bool,
    /// Read I2_S tensors in the layout of bitnet.cpp's ARM builds; the file itself does not record the
    /// layout.
    #[arg(long)]
    i2_s_arm: bool,
    #[command(flatten)]
    overrides: OverrideArgs,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let options = ImportOptions {
        assume: args.assume.map(Assume::weights),
        latent: args.latent,
        i2_s_arm: args.i2_s_arm,
        overrides: args.overrides.list().to_vec(),
    };
    let report = import(&local(&args.source)?, &args.output, &options)?;
    let config = &report.config;
    println!("{}", args.output.display());
    println!("  from {}", report.source);
    println!(
        "  {}, {}",
        counted(config.parameters().total(), "parameter"),
        counted(config.num_hidden_layers, "layer")
    );
    match config.weights {
        WeightQuant::Ternary => {
            println!("  {} ternary tensors, codes and scales unchanged", report.ternary_tensors);
        }
        WeightQuant::Absmean if args.latent => println!(
            "  latent weights created from {} ternary tensors: same codes and scales, but not the original \
             latent weights",
            report.ternary_tensors
        ),
        WeightQuant::Absmean => println!("  latent weights of a ternary model"),
        WeightQuant::None => println!("  full-precision weights"),
    }
    if report.decoded_tensors > 0 {
        println!("  {} dequantized", counted(report.decoded_tensors, "tensor"));
    }
    if !report.tokenizer {
        println!(
            "  warning: no tokenizer.json, tokenizer.model or *.tiktoken: the checkpoint has no tokenizer"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The source on this machine: downloaded, if it is an address of the hub.
#[cfg(feature = "train")]
fn local(source: &str) -> Result<PathBuf> {
    if source.starts_with("hf://") {
        return Ok(tritforge_data::Hub::from_env().model(source)?);
    }
    Ok(Path::new(source).to_path_buf())
}

#[cfg(not(feature = "train"))]
fn local(source: &str) -> Result<PathBuf> {
    if source.starts_with("hf://") {
        anyhow::bail!("{source}: this build cannot download: fetch the files and give their directory");
    }
    Ok(Path::new(source).to_path_buf())
}
