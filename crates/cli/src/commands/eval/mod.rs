//! `tritforge eval`: perplexity and bits per byte of a text, or tasks.

mod tasks;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args as ClapArgs, ValueEnum};
use tritforge_eval::{EvalModel, PerplexityOptions, Scoring, perplexity, write_logits};
use tritforge_infer::KvType;
use tritforge_support::counted;

use super::device_args::DeviceArgs;
use super::lora_args::LoraArgs;
use super::ranges::{MOST_TOKENS, count};

#[derive(ClapArgs)]
#[command(
    after_help = "Tasks: arc_easy arc_challenge boolq hellaswag openbookqa piqa social_iqa winogrande instruction gsm8k humaneval\n\n\
        Examples:\n  \
        tritforge eval model.gguf --text held_out.txt\n  \
        tritforge eval runs/demo --text held_out.txt --json\n  \
        tritforge eval model.gguf --text wiki.test.raw --score second-half       as llama-perplexity does\n  \
        tritforge eval model.gguf --text held_out.txt --kv q8_0                  with the KV cache of a service\n  \
        tritforge eval model.gguf --tasks arc_easy,piqa --data benchmarks        benchmarks/arc_easy/test.jsonl …\n  \
        tritforge eval model.gguf --tasks gsm8k --task-file gsm8k=test.jsonl --limit 100\n  \
        tritforge eval model.gguf --tasks arc_easy --task-file \\\n    \
            arc_easy=hf://datasets/allenai/ai2_arc/ARC-Easy/test-00000-of-00001.parquet"
)]
pub(crate) struct Args {
    /// GGUF file, checkpoint, run directory, Hugging Face directory, or an adapter (of a run or written by
    /// peft) with the base model that it names.
    model: PathBuf,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Text file on which to compute perplexity.
    #[arg(long, value_name = "FILE", required_unless_present = "tasks", conflicts_with = "tasks")]
    text: Option<PathBuf>,
    /// Tokens per window; each window starts with an empty context. Default: the model's context length; 512
    /// with `--score second-half`.
    #[arg(long, requires = "text", value_parser = count(1..=MOST_TOKENS))]
    window: Option<usize>,
    /// Which tokens of each window are scored.
    #[arg(long, value_enum, default_value_t = Score::All, requires = "text")]
    score: Score,
    /// Score at most this many tokens.
    #[arg(long, requires = "text", value_parser = count(1..=MOST_TOKENS))]
    tokens: Option<usize>,
    /// Type of an exported model's KV cache: f32, which gives the logits of training; or f16 or q8_0, to see what they cost.
    #[arg(long, value_name = "f32|f16|q8_0", default_value_t = KvType::F32, requires = "text")]
    kv: KvType,
    /// Write the token ids and the logits of every position to a safetensors file, to compare with other
    /// runtimes.
    #[arg(long, value_name = "FILE", requires = "text")]
    dump_logits: Option<PathBuf>,
    #[command(flatten)]
    tasks: tasks::Args,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Write the result to a JSON file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Which tokens of a window are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Score {
    /// Every token except the first of the text.
    All,
    /// The second half of each window, as llama-perplexity does.
    SecondHalf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Some(text) = &args.text {
        return of_text(args, text);
    }
    let results = tasks::run(&args.tasks, || open(args))?;
    write_json(args, &results.to_json(&args.model))?;
    if !args.json {
        results.print();
    }
    Ok(ExitCode::SUCCESS)
}

/// The model, with its adapters: an adapter as the model brings its own.
fn open(args: &Args) -> Result<EvalModel> {
    let mut model = EvalModel::open_with(&args.model, &args.lora.options(), &args.lora.adapters()?)?;
    if model.tokenizer().is_none() {
        bail!("{}: no tokenizer.json, which is needed to evaluate text", args.model.display());
    }
    args.device.place_any(&mut model, &args.model)?;
    Ok(model)
}

fn of_text(args: &Args, text: &Path) -> Result<ExitCode> {
    let model = open(args)?;
    let text = super::read_text(text)?;
    let longest = model.config().max_position_embeddings;
    let scoring = match args.score {
        Score::All => Scoring::All { window: args.window.unwrap_or(longest) },
        Score::SecondHalf => Scoring::SecondHalf { window: args.window.unwrap_or(longest.min(512)) },
    };
    let (mut ids, mut logits) = (Vec::new(), Vec::new());
    let result = perplexity(
        &model,
        &text,
        PerplexityOptions { scoring, max_tokens: args.tokens, kv: args.kv },
        |window_ids, window_logits| {
            if args.dump_logits.is_some() {
                ids.extend_from_slice(window_ids);
                logits.extend_from_slice(window_logits);
            }
            Ok(())
        },
    )?;
    if let Some(path) = &args.dump_logits {
        write_logits(path, &ids, &logits, model.config().vocab_size)?;
    }
    write_json(args, &serde_json::to_value(result)?)?;
    if !args.json {
        println!(
            "loss {:.4} ± {:.4} nats/token, perplexity {:.3}, {:.4} bits/byte over {} ({})",
            result.loss,
            result.loss_stderr,
            result.perplexity,
            result.bits_per_byte,
            counted(result.tokens, "token"),
            counted(result.bytes, "byte")
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
