//! `tritforge export`: a checkpoint to GGUF, or to Hugging Face's layout.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::{Result, bail};
use clap::builder::PossibleValue;
use clap::{Args as ClapArgs, ValueEnum};
use tritforge_checkpoint::{AdapterFiles, Checkpoint};
use tritforge_config::{ModelConfig, WeightQuant};
use tritforge_export::{
    ExportOptions, HuggingFaceOptions, Located, Report, checkpoint_of, default_packing, export_adapter,
    export_gguf, export_hugging_face, locate,
};
use tritforge_kernels::DenseType;
use tritforge_support::{counted, either};
use tritforge_ternary::Packing;

use crate::table;

/// File format and storage type of the projections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// GGUF, ternary.
    Packed(Packing),
    /// GGUF of a full-precision model, or of a ternary one with its weights as numbers.
    Numbers(DenseType),
    /// Hugging Face, packed ternary weights.
    HfPacked,
    /// Hugging Face, bf16.
    HfBf16,
    /// Hugging Face, f32.
    HfF32,
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<Format>> = LazyLock::new(|| {
            let packed = Packing::ALL.into_iter().map(Format::Packed);
            let numbers = DenseType::ALL.into_iter().map(Format::Numbers);
            packed.chain(numbers).chain([Format::HfPacked, Format::HfBf16, Format::HfF32]).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Format::Packed(packing) => (packing.option(), format!("GGUF, ternary, {}", packing.help())),
            Format::Numbers(ty) => {
                let of = "GGUF of a full-precision model";
                let help = match ty {
                    DenseType::F32 => format!("{of}, or of a ternary one with its weights as numbers"),
                    DenseType::F16 | DenseType::Bf16 => {
                        format!("{of}, or of a ternary one with its weights as numbers, rounded")
                    }
                    DenseType::Q8_0 => format!("{of}, 8.5 bits per weight"),
                    DenseType::Q6K => format!("{of}, 6.6 bits per weight"),
                };
                (ty.name(), help)
            }
            Format::HfPacked => {
                ("hf-packed", "Hugging Face, packed ternary weights, 2 bits per weight".to_string())
            }
            Format::HfBf16 => ("hf-bf16", "Hugging Face, bf16".to_string()),
            Format::HfF32 => ("hf-f32", "Hugging Face, f32".to_string()),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// The options of a GGUF file of this model. Without a format, ternary models are TQ2_0 and others F16.
pub(crate) fn gguf_options(
    config: &ModelConfig,
    format: Option<Format>,
    embeddings: Embeddings,
    name: String,
) -> Result<ExportOptions> {
    let defaults = ExportOptions { embeddings: embeddings.dense(), name, ..ExportOptions::default() };
    let ternary = config.weights != WeightQuant::None;
    let Some(format) = format else {
        return Ok(ExportOptions { packing: default_packing(config), ..defaults });
    };
    let packings = || Packing::ALL.into_iter().map(Packing::option);
    let numbers = || DenseType::ALL.into_iter().map(DenseType::name);
    match format {
        Format::Packed(packing) if ternary => Ok(ExportOptions { packing, ..defaults }),
        // For quantizers of other programs; q8_0 and q6_k would quantize twice.
        Format::Numbers(linears @ (DenseType::F32 | DenseType::F16 | DenseType::Bf16)) if ternary => {
            Ok(ExportOptions { linears, dequantize: true, ..defaults })
        }
        Format::Numbers(linears) if !ternary => Ok(ExportOptions { linears, ..defaults }),
        Format::Packed(_) => {
            bail!("--format: the model is full-precision: choose {}", either(numbers()))
        }
        Format::Numbers(_) => bail!(
            "--format: the model is ternary: choose {}, or f32, f16 or bf16 for its weights as numbers",
            either(packings())
        ),
        Format::HfPacked | Format::HfBf16 | Format::HfF32 => {
            bail!("--format: expected a GGUF format: {}", either(packings().chain(numbers())))
        }
    }
}

/// How the embedding and the head are stored.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Embeddings {
    /// 4 bytes per weight; logits identical to training.
    #[value(name = "f32")]
    F32,
    /// 2 bytes per weight.
    #[value(name = "f16")]
    F16,
    /// 2 bytes per weight; exact for weights trained in bf16.
    #[value(name = "bf16")]
    Bf16,
    /// 1.06 bytes per weight.
    #[value(name = "q8_0")]
    Q8_0,
    /// 0.82 bytes per weight.
    #[value(name = "q6_k")]
    Q6K,
}

impl Embeddings {
    pub(crate) fn dense(self) -> DenseType {
        match self {
            Embeddings::F32 => DenseType::F32,
            Embeddings::F16 => DenseType::F16,
            Embeddings::Bf16 => DenseType::Bf16,
            Embeddings::Q8_0 => DenseType::Q8_0,
            Embeddings::Q6K => DenseType::Q6K,
        }
    }
}

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  tritforge export runs/shakespeare-char -o shakespeare.gguf --format i2_s\n  \
    tritforge export runs/shakespeare-char -o shakespeare-hf --format hf-packed"
)]
pub(crate) struct Args {
    /// Checkpoint, run directory (its latest checkpoint is used), or an adapter written by peft.
    checkpoint: PathBuf,
    /// File to write, or directory for the hf formats.
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// File format and storage type of the projections; default: tq2_0 for ternary models, f16 for others.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Storage type of the embedding and the output head, where they are not ternary.
    #[arg(long, value_enum, default_value = "f16")]
    embeddings: Embeddings,
    /// Model name in the file; default: the file name without extension.
    #[arg(long)]
    name: Option<String>,
    /// For an adapter: the base model (checkpoint, Hugging Face directory or GGUF file); default: the one
    /// that the adapter names.
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    /// For an adapter: the runtime that will load it; default: tritforge.
    #[arg(long = "for", value_enum, value_name = "RUNTIME")]
    runtime: Option<AdapterRuntime>,
}

/// Runtimes that apply adapters differently.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AdapterRuntime {
    /// Tritforge.
    Tritforge,
    /// llama.cpp and programs built on it.
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let checkpoint = match locate(&args.checkpoint)? {
        Located::Adapter(adapter) => return adapter_to_gguf(args, &adapter),
        other => checkpoint_of(other, &args.checkpoint)?,
    };
    for (option, given) in [("--for", args.runtime.is_some()), ("--base", args.base.is_some())] {
        if given {
            bail!("{option}: {} is not an adapter: the option is for adapters", args.checkpoint.display());
        }
    }
    let stem = args.output.file_stem().map(|s| s.to_string_lossy().into_owned());
    let name = args.name.clone().or(stem).unwrap_or_else(|| "tritforge".to_string());
    if let Some(format @ (Format::HfPacked | Format::HfBf16 | Format::HfF32)) = args.format {
        return to_hugging_face(args, &checkpoint, format, name);
    }
    let options = gguf_options(&checkpoint.config()?, args.format, args.embeddings, name)?;
    let report = export_gguf(&checkpoint, &args.output, &options)?;
    println!("{}", args.output.display());
    print_report(&report);
    if options.dequantize {
        println!(
            "  the ternary weights as numbers, for other quantizers: runtimes do not quantize the activations of such a file, so \
             that its logits differ from those of training; tq2_0 and i2_s keep them"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// An adapter has one form: F32, as llama.cpp's own converter writes them by default.
fn adapter_to_gguf(args: &Args, adapter: &AdapterFiles) -> Result<ExitCode> {
    if args.format.is_some() {
        bail!(
            "--format: {} is an adapter, which is always written in F32; leave --format out",
            args.checkpoint.display()
        );
    }
    let name = args.name.clone().unwrap_or_else(|| "tritforge adapter".to_string());
    let for_llama_cpp = args.runtime == Some(AdapterRuntime::LlamaCpp);
    let report = export_adapter(adapter, args.base.as_deref(), &args.output, &name, for_llama_cpp)?;
    println!("{}", args.output.display());
    println!(
        "  {}: adapter of rank {} on {}, for models of architecture {}",
        table::bytes(report.bytes),
        report.rank,
        counted(report.projections, "projection"),
        report.architecture.name()
    );
    let file = args.output.display();
    match for_llama_cpp {
        true => println!("  use it with its base: llama-cli -m BASE.gguf --lora {file}"),
        false => println!("  use it with its base: tritforge generate BASE.gguf --lora {file}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn to_hugging_face(args: &Args, checkpoint: &Checkpoint, format: Format, name: String) -> Result<ExitCode> {
    let packed = format == Format::HfPacked;
    // Packed weights are exact; the rest is then what `--embeddings` says, of the two types that there are.
    let bf16 = format == Format::HfBf16 || (packed && args.embeddings != Embeddings::F32);
    let report = export_hugging_face(checkpoint, &args.output, &HuggingFaceOptions { packed, bf16, name })?;
    println!("{}", args.output.display());
    println!("  {}, transformers class {}", table::bytes(report.bytes), report.class);
    if packed {
        println!("  {} ternary tensors, codes and scales exact", report.packed_tensors);
    }
    if report.rounding > 0.0 {
        println!("  largest change from rounding to bf16: {:.2e}", report.rounding);
    }
    if report.codes_changed > 0 {
        println!(
            "  quantizing the rounded weights changes {} of training; hf-packed keeps all codes",
            counted(report.codes_changed, "code")
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what was written and who can load it.
pub(crate) fn print_report(report: &Report) {
    let kind = if report.ternary_tensors > 0 {
        format!("{} ternary tensors", report.ternary_tensors)
    } else {
        "full-precision projections".to_string()
    };
    println!(
        "  {} in architecture {}, {kind} in {}",
        table::bytes(report.bytes),
        report.architecture.name(),
        report.weights
    );
    let runtimes: Vec<&str> = report.runtimes.iter().map(|r| r.name()).collect();
    println!("  loads in: {}", runtimes.join(", "));
    if report.embedding_rounding > 0.0 {
        println!("  largest change from rounding the embedding: {:.2e}", report.embedding_rounding);
    }
    if report.linear_rounding > 0.0 {
        println!("  largest change from rounding the projections: {:.2e}", report.linear_rounding);
    }
    if report.scale_rounding > 0.0 {
        println!(
            "  largest relative change from rounding scales to f16: {:.2e}; i2_s and iq2_bn keep scales \
             exact",
            report.scale_rounding
        );
    }
}
