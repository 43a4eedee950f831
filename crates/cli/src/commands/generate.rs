//! `tritforge generate`: continue a prompt.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args as ClapArgs;
use tritforge_infer::{Finish, GenerateOptions, Model, Sampling, Session, generate};

#[derive(ClapArgs)]
#[command(
    after_help = "Example:\n  tritforge generate model.gguf --prompt 'fn main() {' --temperature 0.8 --top-k 40 --seed 1"
)]
pub(crate) struct Args {
    /// A GGUF file.
    model: PathBuf,
    /// The text to continue.
    #[arg(short, long)]
    prompt: String,
    /// Most tokens to generate.
    #[arg(short = 'n', long, default_value_t = 128)]
    max_tokens: usize,
    /// Context length; the model's by default.
    #[arg(long)]
    context: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// End the text before this string; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on after an end-of-sequence token.
    #[arg(long)]
    ignore_eos: bool,
    /// Print the text alone, without the statistics.
    #[arg(short, long)]
    quiet: bool,
}

/// How to choose each token.
#[derive(ClapArgs)]
pub(crate) struct SamplingArgs {
    /// 0 takes the most probable token.
    #[arg(long, default_value_t = 0.8)]
    temperature: f32,
    /// Keep the k most probable tokens; 0 keeps all.
    #[arg(long, default_value_t = 40)]
    top_k: usize,
    /// Keep the most probable tokens up to this probability.
    #[arg(long, default_value_t = 0.95)]
    top_p: f32,
    /// Drop tokens less probable than this share of the most probable.
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// More than 1 makes recent tokens less probable.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Seed of the choice.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            ..Sampling::default()
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let model = Arc::new(Model::open(&args.model)?);
    let context = args.context.unwrap_or(model.config().max_position_embeddings);
    let mut session = Session::new(Arc::clone(&model), context)?;
    let prompt = model.tokenizer().encode(&args.prompt, true)?;
    let options = GenerateOptions {
        max_tokens: args.max_tokens,
        sampling: args.sampling.sampling(),
        stop: args.stop.clone(),
        ignore_eos: args.ignore_eos,
    };
    let mut out = std::io::stdout().lock();
    write!(out, "{}", args.prompt)?;
    out.flush()?;
    let generation = generate(&mut session, &prompt, &options, |text| {
        // A closed pipe ends the generation.
        match write!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    if generation.finish != Finish::Cancelled {
        writeln!(out)?;
    }
    if !args.quiet {
        eprintln!(
            "[prompt {} tokens at {:.0} tokens/s; generated {} at {:.0} tokens/s; ended by {:?}]",
            generation.prompt_tokens,
            generation.prefill_rate(),
            generation.tokens.len(),
            generation.decode_rate(),
            generation.finish
        );
    }
    Ok(ExitCode::SUCCESS)
}
