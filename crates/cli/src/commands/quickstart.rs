//! `tritforge quickstart`: the whole path on real text, in minutes.

use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use tritforge_checkpoint::Checkpoint;
use tritforge_eval::{EvalModel, VerifyOptions, verify};
use tritforge_export::{ExportOptions, export_gguf};
use tritforge_infer::{GenerateOptions, Model, Sampling, Session, generate};
use tritforge_support::counted;
use tritforge_train::recipe::Recipe;
use tritforge_train::{RunOptions, prepare, train};

use crate::sinks::{Preparation, Training};

/// The recipe; `recipes/quickstart.toml` in the repository.
const RECIPE: &str = include_str!("../../../../recipes/quickstart.toml");
/// The shape that the recipe names.
const CONFIG: &str = include_str!("../../../../configs/tiny.toml");

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  tritforge quickstart\n  tritforge quickstart --data my_texts/ --prompt 'Once upon'\n\n\
    Without --data the model trains on the Rust sources of the project's own dependencies, found through \
    cargo: real text that is already present wherever the project was built."
)]
pub(crate) struct Args {
    /// Text file or directory of text files to train on.
    #[arg(long, value_name = "FILE_OR_DIR")]
    data: Option<PathBuf>,
    /// Output directory.
    #[arg(long, value_name = "DIR", default_value = "runs/quickstart")]
    out: PathBuf,
    /// Optimizer steps.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    steps: Option<u64>,
    /// Prompt for the text generated at the end.
    #[arg(long)]
    prompt: Option<String>,
    /// Override a recipe key, e.g. `optim.lr=2e-3`; can be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let begin = Instant::now();
    let recipe = recipe(args)?;

    heading("1. Data");
    let prepared = prepare(&recipe, &Preparation::new(|message| println!("  {message}")))?;
    let text =
        prepared.text().context("the quickstart trains on plain text: data.records is not supported")?;
    let held_out = args.out.join("held_out.txt");
    write(&held_out, &text.held_out_text())?;
    let bigram = text.bigram()?;
    println!(
        "  baselines on the held-out text: byte bigram {:.3} bits/byte, token bigram {:.3}",
        bigram.byte_bits_per_byte, bigram.token_bits_per_byte
    );

    heading("2. Training");
    let sink = Training::new(recipe.train.steps);
    let options = RunOptions { overwrite: true, sink: &sink, ..RunOptions::default() };
    let summary = train(&recipe, &prepared, &options)?;
    sink.finish();
    super::train::print_summary(&summary);

    heading("3. Export");
    let checkpoint = Checkpoint::open(&summary.checkpoint)?;
    let path = args.out.join("model.gguf");
    let options = ExportOptions {
        packing: recipe.export.format,
        embeddings: recipe.export.embeddings,
        name: "tritforge quickstart".to_string(),
        ..ExportOptions::default()
    };
    let report = export_gguf(&checkpoint, &path, &options)?;
    println!("  {}", path.display());
    super::export::print_report(&report);

    heading("4. Verification: the file against the training forward pass");
    let model = Arc::new(Model::open(&path)?);
    let ids = text.held_out.tokens(0, model.config().max_position_embeddings);
    let options = VerifyOptions { ids, greedy_tokens: 200, logit_bound: 1e-4 };
    let report =
        verify(EvalModel::open(&summary.checkpoint)?, EvalModel::Deployed(Arc::clone(&model)), &options)?;
    super::verify::print_report(&report);

    heading("5. A text");
    let prompt = args.prompt.as_deref().unwrap_or(&recipe.sample.prompt);
    write_text(&model, prompt)?;

    heading("Done");
    println!(
        "  {:.3} bits/byte held out (token bigram: {:.3}); {:.0} tokens/s in training; {:.0} s in total",
        summary.bits_per_byte,
        bigram.token_bits_per_byte,
        summary.tokens_per_second,
        begin.elapsed().as_secs_f64()
    );
    println!("  model: {}", path.display());
    let program = "cargo run --release --";
    println!("\nNext:");
    println!("  {program} generate {} --prompt 'impl ' --temperature 0.7", path.display());
    println!("  {program} inspect {} --tensors", path.display());
    println!("  {program} eval {} --text {} --tokens 20000", path.display(), held_out.display());
    println!("  {program} serve {}", path.display());
    println!("  {program} quickstart --data YOUR_TEXTS --out runs/mine");
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn heading(text: &str) {
    match std::io::stdout().is_terminal() {
        true => println!("\n\x1b[1m{text}\x1b[0m"),
        false => println!("\n{text}"),
    }
}

/// The embedded recipe with the arguments applied. It is written into the run's directory first, like any
/// recipe a user writes.
fn recipe(args: &Args) -> Result<Recipe> {
    let dir = args.out.join("recipe");
    write(&dir.join("recipes/quickstart.toml"), RECIPE)?;
    write(&dir.join("configs/tiny.toml"), CONFIG)?;
    let mut overrides = vec![format!("run.out={:?}", args.out.display().to_string())];
    if let Some(data) = &args.data {
        if !data.exists() {
            bail!("{}: no such file or directory", data.display());
        }
        overrides.push(format!("data.train=[{:?}]", data.display().to_string()));
        overrides.push("data.source=\"files\"".to_string());
        // A few documents cannot be split by documents: the end of the text is held out.
        overrides.push("data.split=contiguous".to_string());
        overrides.push("sample.prompt=\"The \"".to_string());
    }
    if let Some(steps) = args.steps {
        overrides.push(format!("train.steps={steps}"));
        // The recipe's warm-up may be longer than a short run.
        overrides.push(format!("optim.warmup_steps={}", (steps / 10).min(60)));
    }
    overrides.extend(args.set.iter().cloned());
    Ok(Recipe::load(&dir.join("recipes/quickstart.toml"), &overrides)?)
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("{}: cannot create", parent.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("{}: cannot write", path.display()))
}

fn write_text(model: &Arc<Model>, prompt: &str) -> Result<()> {
    let ids = model.tokenizer().encode(prompt, model.tokenizer().adds_bos())?;
    let mut session = Session::new(Arc::clone(model), model.config().max_position_embeddings)?;
    let options = GenerateOptions {
        max_tokens: 120,
        sampling: Sampling { temperature: 0.7, top_k: 40, seed: 1, ..Sampling::default() },
        ..GenerateOptions::default()
    };
    print!("{prompt}");
    let generation = generate(&mut session, &ids, &options, |text| {
        print!("{text}");
        ControlFlow::Continue(())
    })?;
    println!("\n  [{}, {:.0} tokens/s]", counted(generation.tokens.len(), "token"), generation.decode_rate());
    Ok(())
}
