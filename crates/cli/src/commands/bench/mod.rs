//! `tritforge bench`: speed and memory of a model on this machine, as llama-bench shows it.

mod measure;
mod output;
mod patterns;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args as ClapArgs, ValueEnum};
use tritforge_infer::{Device, KvType};

use super::device_args::DeviceArgs;
use super::ranges::{MOST_TOKENS, count};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge bench model.gguf                                 pp512 and tg128 on all threads\n  \
    tritforge bench model.gguf -p 128,512 -n 64 --depth 0,2048 --thread-counts 1,2\n  \
    tritforge bench model.gguf -p 0 -n 32 --batch 1,2,4,8      batched decoding\n  \
    tritforge bench model.gguf --roofline                      as a percentage of the hardware limit\n  \
    tritforge bench 15m.gguf 125m.gguf 700m.gguf -o csv        several models in one table\n  \
    tritforge bench model.gguf --patterns prompts.txt          real prompts: latency, requests per minute\n\n\
    Rows: `ppN` processes a prompt of N tokens; `tgN` generates N tokens one by one; `@dD` starts after D \
    tokens of context; `xB` decodes B sequences together (total tokens/s). Every row is warmed up once.")]
pub(crate) struct Args {
    /// GGUF files.
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// Prompt lengths in tokens; 0 for none.
    #[arg(short = 'p', long, value_delimiter = ',', default_value = "512", value_parser = count(0..=MOST_TOKENS))]
    prompt: Vec<usize>,
    /// Numbers of tokens to generate; 0 for none.
    #[arg(short = 'n', long, value_delimiter = ',', default_value = "128", value_parser = count(0..=MOST_TOKENS))]
    generate: Vec<usize>,
    /// Tokens already in the context before measuring.
    #[arg(long, value_delimiter = ',', default_value = "0", value_parser = count(0..=MOST_TOKENS))]
    depth: Vec<usize>,
    /// Numbers of sequences decoded together.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = count(1..=4096))]
    batch: Vec<usize>,
    /// Numbers of threads; default: all cores.
    #[arg(long, value_delimiter = ',', value_name = "N,…", value_parser = count(1..=super::ranges::MOST_THREADS))]
    thread_counts: Vec<usize>,
    /// Repetitions of each row.
    #[arg(short, long, default_value_t = 5, value_parser = count(1..=10_000))]
    repetitions: usize,
    #[command(flatten)]
    device: DeviceArgs,
    /// Type of the KV cache: f16, f32 or q8_0.
    #[arg(long, value_name = "f16|f32|q8_0", default_value_t = KvType::F16)]
    kv: KvType,
    /// Measure this machine's memory bandwidth and int8 peak, and show what percentage of them each row
    /// reaches.
    #[arg(long)]
    roofline: bool,
    /// Run the prompts of a file, one per line, with three settings. `baseline`: one thread, f32 KV cache,
    /// one prompt at a time. `optimized`: all threads, f16 KV cache, one prompt at a time, reusing the prefix
    /// shared with the previous prompt. `aggressive`: all threads, f16 KV cache, up to eight prompts batched
    /// together. -n is the number of tokens per answer.
    #[arg(long, value_name = "FILE")]
    patterns: Option<PathBuf>,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "md")]
    output: Format,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A Markdown table.
    Md,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON document with everything, including every sample.
    Json,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Some(count) = args.thread_counts.iter().find(|n| **n > tritforge_kernels::max_threads()) {
        bail!("--thread-counts {count}: expected 1 to {} on this machine", tritforge_kernels::max_threads());
    }
    if args.device.device != Device::Cpu && (args.roofline || args.patterns.is_some()) {
        bail!("--device {}: --roofline and --patterns are for the CPU", args.device.device);
    }
    if let Some(file) = &args.patterns {
        let [model] = args.models.as_slice() else {
            bail!("--patterns runs one model, found {}", args.models.len())
        };
        let tokens = args.generate.first().copied().filter(|n| *n > 0);
        let Some(tokens) = tokens else { bail!("--patterns: -n must be at least 1") };
        let settings = patterns::run(model, file, tokens)?;
        print!("{}", patterns::print(&settings, args.output));
        return Ok(ExitCode::SUCCESS);
    }
    if args.prompt.iter().chain(&args.generate).all(|n| *n == 0) {
        bail!("nothing to measure: -p and -n are 0");
    }
    let threads = if args.thread_counts.is_empty() {
        vec![tritforge_kernels::max_threads()]
    } else {
        args.thread_counts.clone()
    };
    let plan = measure::Plan {
        prompts: args.prompt.clone(),
        generate: args.generate.clone(),
        depths: args.depth.clone(),
        batches: args.batch.clone(),
        threads,
        repetitions: args.repetitions,
        kv: args.kv,
    };
    let mut report = output::Report::default();
    if args.roofline {
        report.machine = plan.threads.iter().map(|n| measure::machine(*n)).collect::<Result<_>>()?;
    }
    for path in &args.models {
        report.models.push(measure::model(path, &args.device, &plan)?);
    }
    print!("{}", output::print(&report, args.output));
    Ok(ExitCode::SUCCESS)
}
