//! `tritforge tokenize`: the tokens of a text, by the tokenizer of any model.

use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use tritforge_export::{ImportOptions, LoadedModel};
use tritforge_support::counted;
use tritforge_text::{EncodeOptions, Tokenizer};

use super::lora_args::OverrideArgs;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  tritforge tokenize model.gguf --text notes.txt\n  \
    echo -n 'fn main() {}' | tritforge tokenize tokenizer.json --json")]
pub(crate) struct Args {
    /// GGUF file, checkpoint, run directory, Hugging Face directory, or `tokenizer.json`.
    model: PathBuf,
    /// Text file; default: standard input.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Prepend BOS.
    #[arg(long)]
    bos: bool,
    /// Read names of special tokens in the text as those tokens.
    #[arg(long)]
    special: bool,
    /// Print only the ids, as a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    overrides: OverrideArgs,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let tokenizer = tokenizer(&args.model, &args.overrides)?;
    let mut bytes = Vec::new();
    let place = match &args.text {
        Some(path) => {
            bytes = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
            path.display().to_string()
        }
        None => {
            io::stdin().lock().read_to_end(&mut bytes).context("standard input")?;
            "standard input".to_string()
        }
    };
    let text = std::str::from_utf8(&bytes).with_context(|| format!("{place}: not UTF-8"))?;
    let ids =
        tokenizer.encode_with(text, EncodeOptions { add_bos: args.bos, parse_special: args.special })?;
    let mut out = BufWriter::new(crate::out::stdout());
    if args.json {
        serde_json::to_writer(&mut out, &ids).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        for id in &ids {
            writeln!(out, "{id:>8}  {:?}", String::from_utf8_lossy(&tokenizer.bytes(*id)?))?;
        }
        writeln!(out, "{}, {}", counted(ids.len(), "token"), counted(bytes.len(), "byte"))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn tokenizer(model: &Path, overrides: &OverrideArgs) -> Result<Tokenizer> {
    if model.extension().is_some_and(|extension| extension == "json") {
        return Ok(Tokenizer::from_file(model)?);
    }
    let options = ImportOptions { overrides: overrides.list().to_vec(), ..ImportOptions::default() };
    let opened = LoadedModel::open(model, &options)?;
    opened.tokenizer()?.with_context(|| format!("{}: no tokenizer found", model.display()))
}
