//! `tritforge eval`: perplexity and bits per byte.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;
use tritforge_eval::{Subject, perplexity, write_logits};

#[derive(ClapArgs)]
#[command(
    after_help = "Example:\n  tritforge eval model.gguf --text held_out.txt\n  tritforge eval runs/demo --text held_out.txt --json"
)]
pub(crate) struct Args {
    /// A GGUF file, a checkpoint, or the directory of a run.
    model: PathBuf,
    /// The text to predict.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Inputs a window; each window starts with an empty context. The model's context by default.
    #[arg(long)]
    window: Option<usize>,
    /// Predict at most this many tokens.
    #[arg(long)]
    tokens: Option<usize>,
    /// Write the ids and the logits of every position as safetensors, to compare with other runtimes.
    #[arg(long, value_name = "FILE")]
    dump_logits: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let path = match args.model.is_dir() {
        true => super::checkpoint_dir(&args.model)?,
        false => args.model.clone(),
    };
    let subject = Subject::open(&path)?;
    let text = super::read_text(&args.text)?;
    let window = args.window.unwrap_or(subject.config().max_position_embeddings);
    let (mut ids, mut logits) = (Vec::new(), Vec::new());
    let result = perplexity(&subject, &text, window, args.tokens, |window_ids, window_logits| {
        if args.dump_logits.is_some() {
            ids.extend_from_slice(window_ids);
            logits.extend_from_slice(window_logits);
        }
        Ok(())
    })?;
    if let Some(path) = &args.dump_logits {
        write_logits(path, &ids, &logits, subject.config().vocab_size)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        println!(
            "loss {:.4} nats/token, perplexity {:.3}, {:.4} bits/byte over {} tokens ({} bytes)",
            result.loss, result.perplexity, result.bits_per_byte, result.tokens, result.bytes
        );
    }
    Ok(ExitCode::SUCCESS)
}
