//! `tritforge generate`: continue a prompt, or each prompt of a file.

mod batch;
mod json;
mod request;

use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use tritforge_infer::{Finish, GenerateOptions, KvType, Session, generate, generate_pieces};
use tritforge_support::counted;
use tritforge_text::EncodeOptions;

use super::draft_args::{DraftArgs, accepted};
use super::grammar_args::GrammarArgs;
use super::model_args::ModelArgs;
use super::ranges::{MOST_TOKENS, count};
use super::sampling_args::SamplingArgs;
use crate::interrupt;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge generate model.gguf --prompt 'fn main() {' --temperature 0.8 --top-k 40 --seed 1\n  \
    git diff | tritforge generate model.gguf --prompt-file - --quiet\n  \
    tritforge generate model.gguf --batch prompts.jsonl -o answers.jsonl --parallel 8\n  \
    tritforge generate model.gguf --prompt 'Ada, 36: ' --json-schema person.json\n  \
    tritforge generate model.gguf --prompt 'The answer is ' --regex '[0-9]+'\n  \
    tritforge generate model.gguf --prompt 'fn main' --json --logprobs 5\n  \
    tritforge generate 2b.gguf --prompt 'fn main' --draft-model 125m.gguf --draft-tokens 4\n\n\
    A line of a batch file has a prompt or messages; all other fields are optional:\n  \
    {\"id\": 7, \"prompt\": \"fn main\", \"max_tokens\": 32, \"temperature\": 0, \"seed\": 1, \"stop\": [\"\\n\\n\"]}\n  \
    {\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"top_k\": 40, \"top_p\": 0.9}\n\
    Results do not depend on the other lines in the file.")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    source: Source,
    /// Maximum number of tokens to generate.
    #[arg(short = 'n', long, default_value_t = 128, value_parser = count(0..=MOST_TOKENS))]
    max_tokens: usize,
    /// Context length; default: the model's.
    #[arg(long, value_name = "N", value_parser = count(1..=MOST_TOKENS))]
    context: Option<usize>,
    /// Type of the KV cache: f16; f32, which reproduces the logits of training bit for bit; or q8_0, half of f16's memory.
    #[arg(long, value_name = "f16|f32|q8_0", default_value_t = KvType::F16)]
    kv: KvType,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    grammar: GrammarArgs,
    /// Stop before this string; can be repeated.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Ignore end-of-generation tokens such as EOS and keep generating.
    #[arg(long)]
    ignore_eos: bool,
    /// Propose up to N tokens at once that followed the same words before (prompt lookup), which is faster where a
    /// text repeats itself; the text stays the same. 0 disables.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count(0..=64))]
    prompt_lookup: usize,
    #[command(flatten)]
    draft: DraftArgs,
    /// Print one JSON object with the text, its tokens, timings and memory instead of the text.
    #[arg(long, conflicts_with = "batch")]
    json: bool,
    /// With --json: the log-probability of each token and of the N most probable tokens in its place.
    #[arg(long, value_name = "N", requires = "json", value_parser = count(0..=20))]
    logprobs: Option<usize>,
    /// Print only the text, without statistics.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    batch: batch::BatchArgs,
}

/// Where prompts come from: exactly one of these.
#[derive(ClapArgs)]
#[group(required = true, multiple = false)]
struct Source {
    /// Prompt; names of special tokens in it are read as those tokens.
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Read the prompt from a file; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Run all prompts of a JSONL file, several at a time; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    batch: Option<PathBuf>,
}

impl Args {
    fn options(&self) -> Result<GenerateOptions> {
        Ok(GenerateOptions {
            max_tokens: self.max_tokens,
            sampling: self.sampling.sampling()?,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            logprobs: self.logprobs,
            prompt_lookup: self.prompt_lookup,
            ..GenerateOptions::default()
        })
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut options = args.options()?;
    if let Some(file) = &args.source.batch {
        return batch::run(args, options, file);
    }
    let text = prompt(&args.source)?;
    let model = args.model.open()?;
    options.constraint = args.grammar.constraint(&model)?;
    let context = args.context.unwrap_or(model.config().max_position_embeddings);
    let mut session = Session::with_kv(Arc::clone(&model), context, args.kv)?;
    session.set_draft(args.draft.open(&model, &args.model.device)?.as_ref())?;
    let how = EncodeOptions { add_bos: model.tokenizer().adds_bos(), parse_special: true };
    let prompt = model.tokenizer().encode_with(&text, how)?;
    interrupt::install()?;
    let work = interrupt::Work::begin();
    let mut out = crate::out::stdout();
    if args.json {
        let mut tokens = Vec::new();
        let generation = generate_pieces(&mut session, &prompt, &options, |piece| {
            tokens.extend_from_slice(piece.tokens);
            if work.stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let tokens = args.logprobs.map(|_| tokens.as_slice());
        let proposed = [args.prompt_lookup > 0, args.draft.is_on()];
        writeln!(out, "{}", json::object(&session, &text, &generation, tokens, proposed))?;
        return Ok(if work.stopped() { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS });
    }
    write!(out, "{text}")?;
    out.flush()?;
    let generation = generate(&mut session, &prompt, &options, |text| {
        // A closed pipe ends the generation.
        match write!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) if !work.stopped() => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    })?;
    let stopped = work.stopped();
    if generation.finish != Finish::Cancelled || stopped {
        writeln!(out)?;
    }
    if !args.quiet {
        eprintln!(
            "[prompt {} at {:.0} tokens/s; generated {} at {:.0} tokens/s; finish reason {:?}{}{}]",
            counted(generation.prompt_tokens, "token"),
            generation.prefill_rate(),
            generation.tokens.len(),
            generation.decode_rate(),
            generation.finish,
            accepted("look-up", args.prompt_lookup > 0, generation.lookup),
            accepted("draft", args.draft.is_on(), generation.draft)
        );
    }
    Ok(if stopped { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// The text to continue.
fn prompt(source: &Source) -> Result<String> {
    let (place, text) = match (&source.prompt, &source.prompt_file) {
        (Some(text), _) => ("--prompt".to_string(), text.clone()),
        (None, Some(file)) => {
            let text = String::from_utf8(read(file)?).map_err(|e| {
                anyhow::anyhow!("{}: not UTF-8 at byte {}", place(file), e.utf8_error().valid_up_to())
            })?;
            (place(file), text)
        }
        (None, None) => bail!("no prompt: give --prompt, --prompt-file or --batch"),
    };
    if text.is_empty() {
        bail!("{place}: the prompt is empty: expected at least one character");
    }
    Ok(text)
}

/// The bytes of a file, or of the standard input for `-`.
fn read(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .with_context(|| format!("{}: cannot read", place(file)))?;
    } else {
        bytes = std::fs::read(file).with_context(|| format!("{}: cannot read", place(file)))?;
    }
    Ok(bytes)
}

/// What messages call a file, or the standard input for `-`.
fn place(file: &Path) -> String {
    if file.as_os_str() == "-" { "standard input".to_string() } else { file.display().to_string() }
}
