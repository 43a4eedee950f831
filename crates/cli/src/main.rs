//! The `tritforge` binary: one file a subcommand, no logic of its own.

// First: its macros take the place of the standard library's in all that follows.
#[macro_use]
mod out;
mod commands;
mod interrupt;
#[cfg(feature = "train")]
mod sinks;
mod table;
mod warnings;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::ranges;

#[derive(Parser)]
#[command(
    name = "tritforge",
    version,
    about = "Train, export, verify and run ternary (BitNet b1.58) language models",
    after_help = "Examples:\n  \
        tritforge quickstart                              train, export, verify and generate, in minutes\n  \
        tritforge train recipes/shakespeare-char.toml     train from a recipe\n  \
        tritforge import bitnet-b1.58-2B-4T -o models/2b  convert a published model to a checkpoint\n  \
        tritforge export runs/demo -o demo.gguf           convert a checkpoint to GGUF\n  \
        tritforge verify runs/demo demo.gguf              check that the file is the trained model\n  \
        tritforge generate demo.gguf --prompt 'fn main'   generate text\n  \
        tritforge chat demo.gguf                          chat with the model\n\n\
        Exit codes: 0 success, 1 error, 2 usage error (diff: 1 the models differ, 2 error), 130 interrupted"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Number of threads; default: all cores.
    #[arg(long, global = true, value_name = "N", value_parser = ranges::count(1..=ranges::MOST_THREADS))]
    threads: Option<usize>,
    /// Threads for decoding (memory-bound); default: --threads.
    #[arg(long, global = true, value_name = "N", value_parser = ranges::count(1..=ranges::MOST_THREADS))]
    decode_threads: Option<usize>,
}

#[derive(Subcommand)]
enum Command {
    /// Train a small model on real text, export it, verify it and generate text: the whole workflow in
    /// minutes.
    #[cfg(feature = "train")]
    Quickstart(commands::quickstart::Args),
    /// Train a model from a recipe.
    #[cfg(feature = "train")]
    Train(commands::train::Args),
    /// Answer a question about training with error bars: an experiment's arms over several seeds, with statistics and a
    /// report.
    #[cfg(feature = "train")]
    Ablate(commands::ablate::Args),
    /// Try every combination of several values of a recipe's keys, and rank them.
    #[cfg(feature = "train")]
    Sweep(commands::ablate::SweepArgs),
    /// Compare any training runs in one table, with statistics where there are several seeds.
    #[cfg(feature = "train")]
    Compare(commands::compare::Args),
    /// Compute statements about ternary training that need no seeds, and compare them with their formulas.
    #[cfg(feature = "train")]
    Selfcheck(commands::selfcheck::Args),
    /// List, show and copy the built-in recipes; print the recipe reference and JSON Schema.
    #[cfg(feature = "train")]
    Recipes(commands::recipes::Args),
    /// Look at data before training: samples, loss masks, lengths, dropped records (preview); duplicates, damaged
    /// answers, leaked questions (lint).
    #[cfg(feature = "train")]
    #[command(subcommand)]
    Data(commands::data::Command),
    /// Write a self-contained HTML report of one or more runs: loss curves, ternary statistics, text samples.
    #[cfg(feature = "train")]
    Report(commands::report::Args),
    /// Evaluate a checkpoint or GGUF file: perplexity and bits per byte on a text, or tasks (ARC, PIQA,
    /// GSM8K, …).
    #[cfg(feature = "train")]
    Eval(commands::eval::Args),
    /// Show the differences between two models: configuration, tensors, tokenizer.
    Diff(commands::diff::Args),
    /// Run two models side by side and compare codes, scales, activations, sums, logits and greedy tokens.
    #[cfg(feature = "train")]
    Verify(commands::verify::Args),
    /// Convert a published model (Hugging Face or GGUF, full-precision or ternary) to a checkpoint.
    Import(commands::import::Args),
    /// Make a full-precision model ternary without training it as a whole: block-wise reconstruction on a
    /// calibration text.
    #[cfg(feature = "train")]
    Quantize(commands::quantize::Args),
    /// Merge an adapter into its base model and write a checkpoint.
    #[cfg(feature = "train")]
    Merge(commands::merge::Args),
    /// Convert a checkpoint to a GGUF file or a Hugging Face directory.
    Export(commands::export::Args),
    /// Chat with a GGUF model in the terminal.
    Chat(commands::chat::Args),
    /// Generate text with a GGUF model from one prompt or a file of prompts.
    Generate(commands::generate::Args),
    /// Show the contents of a GGUF file, checkpoint or safetensors file, and which runtimes can load it.
    Inspect(commands::inspect::Args),
    /// Serve a GGUF model over HTTP with an OpenAI-compatible API.
    Serve(Box<commands::serve::Args>),
    /// Plan how a model is served on a phone, a board, a server or a machine of your own.
    #[command(subcommand)]
    Deploy(commands::deploy::Command),
    /// Benchmark the speed and memory use of GGUF models on this machine.
    Bench(commands::bench::Args),
    /// Write a model of any shape with random weights, for benchmarks.
    Synth(commands::synth::Args),
    /// Show the tokens of a text.
    Tokenize(commands::tokenize::Args),
}

fn main() -> ExitCode {
    // Training allocates and frees large buffers at every step; giving their pages back each time halves its
    // speed.
    tritforge_machine::keep_pages();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(shown) => return usage(&shown),
    };
    let cli = match commands::serve::with_config(cli) {
        Ok(cli) => cli,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    warnings::install();
    if cli.decode_threads.is_some() && matches!(cli.command, Command::Bench(_)) {
        eprintln!("error: --decode-threads: not supported by bench; use --thread-counts");
        return ExitCode::from(2);
    }
    // SAFETY: nothing before this line starts a thread.
    unsafe { tritforge_machine::configure_threads(cli.threads) };
    tritforge_infer::set_decode_threads(cli.decode_threads);
    // As of `diff`: 1 says that there are differences.
    let trouble = if matches!(cli.command, Command::Diff(_)) { ExitCode::from(2) } else { ExitCode::FAILURE };
    let result = match cli.command {
        #[cfg(feature = "train")]
        Command::Quickstart(args) => commands::quickstart::run(&args),
        #[cfg(feature = "train")]
        Command::Train(args) => commands::train::run(&args),
        #[cfg(feature = "train")]
        Command::Ablate(args) => commands::ablate::run(&args),
        #[cfg(feature = "train")]
        Command::Sweep(args) => commands::ablate::sweep(&args),
        #[cfg(feature = "train")]
        Command::Compare(args) => commands::compare::run(&args),
        #[cfg(feature = "train")]
        Command::Selfcheck(args) => commands::selfcheck::run(&args),
        #[cfg(feature = "train")]
        Command::Recipes(args) => commands::recipes::run(&args),
        #[cfg(feature = "train")]
        Command::Data(command) => commands::data::run(&command),
        #[cfg(feature = "train")]
        Command::Report(args) => commands::report::run(&args),
        #[cfg(feature = "train")]
        Command::Eval(args) => commands::eval::run(&args),
        #[cfg(feature = "train")]
        Command::Verify(args) => commands::verify::run(&args),
        #[cfg(feature = "train")]
        Command::Quantize(args) => commands::quantize::run(&args),
        #[cfg(feature = "train")]
        Command::Merge(args) => commands::merge::run(&args),
        Command::Diff(args) => commands::diff::run(&args),
        Command::Import(args) => commands::import::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Chat(args) => commands::chat::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Serve(args) => commands::serve::run(&args),
        Command::Deploy(command) => commands::deploy::run(&command),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Synth(args) => commands::synth::run(&args),
        Command::Tokenize(args) => commands::tokenize::run(&args),
    };
    let written = out::failure();
    match result {
        Ok(code) => match written {
            Some(error) => {
                eprintln!("error: {error}");
                trouble
            }
            None => code,
        },
        // Whoever read the output has heard enough.
        Err(error) if out::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", message(&error));
            trouble
        }
    }
}

/// Help and the version go to standard output, what is wrong with the arguments to standard error.
fn usage(shown: &clap::Error) -> ExitCode {
    match shown.print() {
        Err(error) if !shown.use_stderr() && error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("error: standard output: cannot write: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::from(u8::try_from(shown.exit_code()).unwrap_or(2)),
    }
}

/// An error with its causes, without those that its own text already quotes.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
