//! `tritforge export`: a checkpoint to GGUF.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};
use tritforge_checkpoint::Checkpoint;
use tritforge_export::{ExportOptions, Report, export_gguf};
use tritforge_kernels::DenseType;
use tritforge_ternary::Packing;

use crate::table;

/// How ternary weights are packed.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// 2.06 bits a weight; llama.cpp, bitnet.cpp, ik_llama.cpp.
    #[value(name = "tq2_0")]
    Tq2_0,
    /// 1.69 bits a weight; llama.cpp, bitnet.cpp, ik_llama.cpp.
    #[value(name = "tq1_0")]
    Tq1_0,
    /// 2 bits a weight, exact scale; bitnet.cpp, ik_llama.cpp.
    #[value(name = "i2_s")]
    I2S,
}

impl Format {
    pub(crate) fn packing(self) -> Packing {
        match self {
            Format::Tq2_0 => Packing::Tq2_0,
            Format::Tq1_0 => Packing::Tq1_0,
            Format::I2S => Packing::I2S,
        }
    }
}

/// How the embedding and the head are stored.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Embeddings {
    /// 4 bytes a weight: logits identical to training's.
    #[value(name = "f32")]
    F32,
    /// 2 bytes a weight.
    #[value(name = "f16")]
    F16,
    /// 1.06 bytes a weight.
    #[value(name = "q8_0")]
    Q8_0,
    /// 0.82 bytes a weight.
    #[value(name = "q6_k")]
    Q6K,
}

impl Embeddings {
    pub(crate) fn dense(self) -> DenseType {
        match self {
            Embeddings::F32 => DenseType::F32,
            Embeddings::F16 => DenseType::F16,
            Embeddings::Q8_0 => DenseType::Q8_0,
            Embeddings::Q6K => DenseType::Q6K,
        }
    }
}

#[derive(ClapArgs)]
#[command(
    after_help = "Example:\n  tritforge export runs/shakespeare-char -o shakespeare.gguf --format i2_s"
)]
pub(crate) struct Args {
    /// A checkpoint, or the directory of a run (its newest checkpoint is taken).
    checkpoint: PathBuf,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Packing of the ternary weights.
    #[arg(long, value_enum, default_value = "tq2_0")]
    format: Format,
    /// Storage of the embedding and the head.
    #[arg(long, value_enum, default_value = "f16")]
    embeddings: Embeddings,
    /// `general.name` in the file; the file's stem by default.
    #[arg(long)]
    name: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let checkpoint = Checkpoint::open(&super::checkpoint_dir(&args.checkpoint)?)?;
    let stem = args.output.file_stem().map(|s| s.to_string_lossy().into_owned());
    let options = ExportOptions {
        packing: args.format.packing(),
        embeddings: args.embeddings.dense(),
        name: args.name.clone().or(stem).unwrap_or_else(|| "tritforge".to_string()),
    };
    let report = export_gguf(&checkpoint, &args.output, &options)?;
    println!("{}", args.output.display());
    print_report(&report, options.packing);
    Ok(ExitCode::SUCCESS)
}

/// Says what was written and who can load it.
pub(crate) fn print_report(report: &Report, packing: Packing) {
    println!(
        "  {} in architecture {}, {} ternary tensors in {}",
        table::bytes(report.bytes),
        report.architecture.name(),
        report.ternary_tensors,
        packing.name()
    );
    let runtimes: Vec<&str> = report.runtimes.iter().map(|r| r.name()).collect();
    println!("  loads in: {}", runtimes.join(", "));
    if report.embedding_rounding > 0.0 {
        println!("  storing the embedding changed a value by at most {:.2e}", report.embedding_rounding);
    }
    if report.scale_rounding > 0.0 {
        println!(
            "  storing the scales as f16 changed one by {:.2e} of itself; i2_s keeps them exactly",
            report.scale_rounding
        );
    }
}
