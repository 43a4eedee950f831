//! The `tritforge` binary: one file a subcommand, no logic of its own.

// First: its macros take the place of the standard library's in all that follows.
#[macro_use]
mod out;
mod commands;
mod interrupt;
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
        tritforge train recipes/shakespeare-char.toml     a recipe\n  \
        tritforge import bitnet-b1.58-2B-4T -o models/2b  a published model to a checkpoint\n  \
        tritforge export runs/demo -o demo.gguf           a checkpoint to GGUF\n  \
        tritforge verify runs/demo demo.gguf              is the file the model that was trained?\n  \
        tritforge generate demo.gguf --prompt 'fn main'   write text\n  \
        tritforge chat demo.gguf                          talk to it\n\n\
        Exit codes: 0 done, 1 error, 2 wrong usage (diff: 1 differences, 2 error), 130 interrupted"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads for computing; all cores by default.
    #[arg(long, global = true, value_name = "N", value_parser = ranges::count(1..=ranges::MOST_THREADS))]
    threads: Option<usize>,
    /// Threads for passes of one token a sequence, which wait for memory; as many as --threads by default.
    #[arg(long, global = true, value_name = "N", value_parser = ranges::count(1..=ranges::MOST_THREADS))]
    decode_threads: Option<usize>,
}

#[derive(Subcommand)]
enum Command {
    /// Train a small model on real text, export it, verify it and let it write: the whole path in minutes.
    #[cfg(feature = "train")]
    Quickstart(commands::quickstart::Args),
    /// Train a model from a recipe.
    #[cfg(feature = "train")]
    Train(commands::train::Args),
    /// List, show and copy the recipes that come with the program; print their reference and JSON Schema.
    #[cfg(feature = "train")]
    Recipes(commands::recipes::Args),
    /// Look at a recipe's data before training: samples, what is learned of them, lengths, what is left out.
    #[cfg(feature = "train")]
    Data(commands::data::Args),
    /// Draw the curves, the ternary health and the samples of runs as a page that needs no network.
    #[cfg(feature = "train")]
    Report(commands::report::Args),
    /// Measure a checkpoint or a GGUF file: perplexity and bits per byte of a text, or tasks (ARC, PIQA, GSM8K …).
    #[cfg(feature = "train")]
    Eval(commands::eval::Args),
    /// Tell what two models have that is not the same: configuration, tensors, tokenizer.
    Diff(commands::diff::Args),
    /// Run two models side by side: codes, scales, activations, sums, logits, greedy tokens.
    #[cfg(feature = "train")]
    Verify(commands::verify::Args),
    /// Make a checkpoint of a published model: Hugging Face's layout or GGUF, full-precision or ternary.
    Import(commands::import::Args),
    /// Make one checkpoint of an adapter and its base.
    #[cfg(feature = "train")]
    Merge(commands::merge::Args),
    /// Write a checkpoint as a GGUF file, or in Hugging Face's layout.
    Export(commands::export::Args),
    /// Talk to a GGUF model.
    Chat(commands::chat::Args),
    /// Continue a prompt with a GGUF model, or all prompts of a file.
    Generate(commands::generate::Args),
    /// Show what a GGUF file, a checkpoint or a safetensors file holds.
    Inspect(commands::inspect::Args),
    /// Serve a GGUF model over HTTP, in OpenAI's format.
    Serve(commands::serve::Args),
    /// Measure speed and memory of GGUF models on this machine.
    Bench(commands::bench::Args),
    /// Write a model of any shape with random weights, for benchmarks.
    Synth(commands::synth::Args),
    /// Show the tokens of a text.
    Tokenize(commands::tokenize::Args),
}

fn main() -> ExitCode {
    // Training allocates and frees large buffers at every step; giving their pages back each time halves its speed.
    tritforge_kernels::keep_pages();
    let cli = Cli::parse();
    warnings::install();
    if cli.decode_threads.is_some() && matches!(cli.command, Command::Bench(_)) {
        eprintln!("error: --decode-threads: bench measures rows at each of its --thread-counts instead");
        return ExitCode::from(2);
    }
    // SAFETY: nothing before this line starts a thread.
    unsafe { tritforge_kernels::configure_threads(cli.threads) };
    tritforge_infer::set_decode_threads(cli.decode_threads);
    // As of `diff`: 1 says that there are differences.
    let trouble = if matches!(cli.command, Command::Diff(_)) { ExitCode::from(2) } else { ExitCode::FAILURE };
    let result = match cli.command {
        #[cfg(feature = "train")]
        Command::Quickstart(args) => commands::quickstart::run(&args),
        #[cfg(feature = "train")]
        Command::Train(args) => commands::train::run(&args),
        #[cfg(feature = "train")]
        Command::Recipes(args) => commands::recipes::run(&args),
        #[cfg(feature = "train")]
        Command::Data(args) => commands::data::run(&args),
        #[cfg(feature = "train")]
        Command::Report(args) => commands::report::run(&args),
        #[cfg(feature = "train")]
        Command::Eval(args) => commands::eval::run(&args),
        #[cfg(feature = "train")]
        Command::Verify(args) => commands::verify::run(&args),
        #[cfg(feature = "train")]
        Command::Merge(args) => commands::merge::run(&args),
        Command::Diff(args) => commands::diff::run(&args),
        Command::Import(args) => commands::import::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Chat(args) => commands::chat::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Serve(args) => commands::serve::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Synth(args) => commands::synth::run(&args),
        Command::Tokenize(args) => commands::tokenize::run(&args),
    };
    let written = out::failure();
    match result {
        Ok(code) => match written {
            Some(error) => {
                eprintln!("error: standard output: cannot write: {error}");
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
