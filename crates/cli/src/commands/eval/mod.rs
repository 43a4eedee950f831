//! `tritforge eval`: perplexity and bits per byte of a text, or tasks.

mod tasks;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args as ClapArgs, ValueEnum};
use tritforge_eval::{Scoring, Subject, perplexity, write_logits};

use super::lora_args::LoraArgs;
use super::ranges::{MOST_TOKENS, count};

#[derive(ClapArgs)]
#[command(
    after_help = "Tasks: arc_easy arc_challenge boolq hellaswag openbookqa piqa social_iqa winogrande instruction gsm8k humaneval\n\n\
        Examples:\n  \
        tritforge eval model.gguf --text held_out.txt\n  \
        tritforge eval runs/demo --text held_out.txt --json\n  \
        tritforge eval model.gguf --text wiki.test.raw --score second-half       as llama.cpp's perplexity\n  \
        tritforge eval model.gguf --tasks arc_easy,piqa --data benchmarks        benchmarks/arc_easy/test.jsonl …\n  \
        tritforge eval model.gguf --tasks gsm8k --task-file gsm8k=test.jsonl --limit 100\n  \
        tritforge eval model.gguf --tasks arc_easy --task-file \\\n    \
            arc_easy=hf://datasets/allenai/ai2_arc/ARC-Easy/test-00000-of-00001.parquet"
)]
pub(crate) struct Args {
    /// A GGUF file, a checkpoint, or the directory of a run.
    model: PathBuf,
    #[command(flatten)]
    lora: LoraArgs,
    /// The text to predict.
    #[arg(long, value_name = "FILE", required_unless_present = "tasks", conflicts_with = "tasks")]
    text: Option<PathBuf>,
    /// Inputs a window; each window starts with an empty context. The model's context by default; 512 with `--score
    /// second-half`.
    #[arg(long, requires = "text", value_parser = count(1..=MOST_TOKENS))]
    window: Option<usize>,
    /// Which tokens of each window are scored.
    #[arg(long, value_enum, default_value_t = Score::All, requires = "text")]
    score: Score,
    /// Predict at most this many tokens.
    #[arg(long, requires = "text", value_parser = count(1..=MOST_TOKENS))]
    tokens: Option<usize>,
    /// Write the ids and the logits of every position as safetensors, to compare with other runtimes.
    #[arg(long, value_name = "FILE", requires = "text")]
    dump_logits: Option<PathBuf>,
    #[command(flatten)]
    tasks: tasks::Args,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Write the result as JSON to a file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Which tokens of a window are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Score {
    /// Every token but the text's first, once.
    All,
    /// Those of the window's second half, as llama.cpp's perplexity tool.
    SecondHalf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let path = match args.model.is_dir() {
        true => super::checkpoint_dir(&args.model)?,
        false => args.model.clone(),
    };
    if let Some(text) = &args.text {
        return of_text(args, &path, text);
    }
    let results = tasks::run(&args.tasks, || open(args, &path))?;
    write_json(args, &results.to_json(&args.model))?;
    if !args.json {
        results.print();
    }
    Ok(ExitCode::SUCCESS)
}

/// The model, with its adapters: a checkpoint of an adapter has its own.
fn open(args: &Args, path: &Path) -> Result<Subject> {
    if !path.is_dir() {
        return Ok(Subject::Gguf(args.lora.open(path)?));
    }
    match args.lora.given() {
        Some("--lora") => {
            bail!(
                "--lora: {} is a checkpoint: name the adapter's own run or checkpoint as the model",
                path.display()
            )
        }
        Some(option) => bail!("{option}: {} is a checkpoint: the option is for GGUF files", path.display()),
        None => Ok(Subject::open(path)?),
    }
}

fn of_text(args: &Args, model: &Path, text: &Path) -> Result<ExitCode> {
    let subject = open(args, model)?;
    let text = super::read_text(text)?;
    let longest = subject.config().max_position_embeddings;
    let scoring = match args.score {
        Score::All => Scoring::All { window: args.window.unwrap_or(longest) },
        Score::SecondHalf => Scoring::SecondHalf { window: args.window.unwrap_or(longest.min(512)) },
    };
    let (mut ids, mut logits) = (Vec::new(), Vec::new());
    let result = perplexity(&subject, &text, scoring, args.tokens, |window_ids, window_logits| {
        if args.dump_logits.is_some() {
            ids.extend_from_slice(window_ids);
            logits.extend_from_slice(window_logits);
        }
        Ok(())
    })?;
    if let Some(path) = &args.dump_logits {
        write_logits(path, &ids, &logits, subject.config().vocab_size)?;
    }
    write_json(args, &serde_json::to_value(result)?)?;
    if !args.json {
        println!(
            "loss {:.4} ± {:.4} nats/token, perplexity {:.3}, {:.4} bits/byte over {} tokens ({} bytes)",
            result.loss,
            result.loss_stderr,
            result.perplexity,
            result.bits_per_byte,
            result.tokens,
            result.bytes
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints or writes the result, as was asked for.
fn write_json(args: &Args, result: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(result)?;
    if args.json {
        println!("{text}");
    }
    if let Some(path) = &args.output {
        std::fs::write(path, text + "\n").with_context(|| format!("{}: cannot write", path.display()))?;
    }
    Ok(())
}

/// Splits `TASK=FILE`.
fn named_file(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((task, file)) if !task.is_empty() && !file.is_empty() => {
            Ok((task.to_string(), file.to_string()))
        }
        _ => bail!("expected TASK=FILE"),
    }
}
