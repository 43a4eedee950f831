//! `tritforge quantize`: a full-precision model to a ternary checkpoint, a few blocks at a time.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr as _;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use indicatif::{ProgressBar, ProgressStyle};
use tritforge_config::{ModelConfig, Projection};
use tritforge_export::{ImportOptions, LoadedModel};
use tritforge_quantize::{Event, Options, calibration_ids, quantize};
use tritforge_support::counted;
use tritforge_ternary::{Granularity, WeightQuantizer};

use super::ranges;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge quantize SmolLM2-135M-Instruct.Q4_1.gguf --text calibration.txt -o models/smollm2-ternary\n  \
    tritforge export models/smollm2-ternary -o smollm2.gguf --format q2_0_g128\n  \
    tritforge quantize hub/Qwen3-1.7B --text a.txt --text b.txt --samples 256 --window 1 -o models/qwen3-ternary\n\n\
    One window of blocks is in memory at a time, and the hidden states of the calibration sequences, four times \
    samples x length x hidden size in f32. An interrupted conversion goes on where it was, from OUTPUT.partial, when \
    the same command is given again. The result is a checkpoint with latent weights: export it, evaluate it, or repair \
    it further with a recipe ([lora] mode \"qat_lora\", or all weights with distillation).")]
pub(crate) struct Args {
    /// Full-precision model: checkpoint, run directory, Hugging Face directory or GGUF file.
    model: PathBuf,
    /// Checkpoint directory to write.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Calibration text (UTF-8); can be repeated.
    #[arg(long, value_name = "FILE", required = true)]
    text: Vec<PathBuf>,
    /// Calibration sequences, evenly spread over the text.
    #[arg(long, default_value_t = 128, value_parser = ranges::count(1..=1 << 20))]
    samples: usize,
    /// Tokens of each sequence; default: 512, or the model's context if that is shorter.
    #[arg(long, value_name = "TOKENS", value_parser = ranges::count(1..=ranges::MOST_TOKENS))]
    length: Option<usize>,
    /// Which weights share a scale: `tensor`, `row`, or the size of a group of inputs (64, 128, 256); default: 128,
    /// or 64 or `row` where that does not divide the model's widths.
    #[arg(long, value_parser = granularity)]
    granularity: Option<Granularity>,
    /// Quantizer of the weights, as `quant.scale` of recipes.
    #[arg(long, default_value_t = WeightQuantizer::default(), value_parser = quantizer)]
    scale: WeightQuantizer,
    /// Blocks trained together.
    #[arg(long, default_value_t = Options::default().window, value_parser = ranges::count(1..=1024))]
    window: usize,
    /// Blocks by which the window moves on, at most --window.
    #[arg(long, default_value_t = Options::default().stride, value_parser = ranges::count(1..=1024))]
    stride: usize,
    /// Passes through the sequences for each window; 0: round the weights without training.
    #[arg(long, default_value_t = Options::default().epochs, value_parser = ranges::count(0..=100_000))]
    epochs: usize,
    /// Sequences per step.
    #[arg(long, default_value_t = Options::default().batch, value_parser = ranges::count(1..=4096))]
    batch: usize,
    /// Peak learning rate of AdamW, relative to the mean magnitude of each tensor.
    #[arg(long, default_value_t = Options::default().learning_rate)]
    learning_rate: f64,
    /// Share of the steps over which quantization sets in, from 0 to 1.
    #[arg(long, default_value_t = Options::default().soft)]
    soft: f64,
    /// Random seed of the order of the sequences.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Do not print progress.
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.output.exists() {
        bail!("{}: exists already: remove it, or give another --output", args.output.display());
    }
    let model = LoadedModel::open(&args.model, &ImportOptions::default())?;
    let tokenizer = model.tokenizer()?;
    let tokenizer = tokenizer.with_context(|| format!("{}: no tokenizer found", args.model.display()))?;
    let mut text = String::new();
    for path in &args.text {
        text.push_str(&super::read_text(path)?);
    }
    let context = model.config().max_position_embeddings;
    let length = args.length.unwrap_or(context.min(512));
    if length > context {
        bail!("--length {length}: expected at most the model's context, {context} tokens");
    }
    let calibration = calibration_ids(&tokenizer, &text, args.samples, length)?;
    let options = Options {
        quantizer: args.scale,
        granularity: args.granularity.unwrap_or_else(|| widest(model.config())),
        window: args.window,
        stride: args.stride,
        epochs: args.epochs,
        batch: args.batch,
        learning_rate: args.learning_rate,
        soft: args.soft,
        seed: args.seed,
    };
    if !args.quiet {
        println!(
            "{}: {}, {} of {} for calibration",
            args.model.display(),
            counted(model.config().num_hidden_layers, "block"),
            counted(calibration.sequences(), "sequence"),
            counted(length, "token")
        );
    }
    let began = Instant::now();
    let shown = Shown::new(args.quiet);
    let report = quantize(&model, &calibration, &args.output, &options, &mut |event| shown.event(event))?;
    shown.bar.finish_and_clear();
    println!(
        "{}: ternary by {}, granularity {}, {:.0} s",
        args.output.display(),
        report.config.quantizer,
        report.config.granularity,
        began.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// A bar for the steps of a window, a line for each window.
struct Shown {
    bar: ProgressBar,
    quiet: bool,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let style = ProgressStyle::with_template("  {msg} {wide_bar} {pos}/{len} {eta}");
        Self { bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())), quiet }
    }

    fn event(&self, event: Event<'_>) {
        match event {
            Event::Step { blocks, done, steps, loss } => {
                self.bar.set_length(steps as u64);
                self.bar.set_position(done as u64);
                self.bar.set_message(format!("blocks {}–{}, loss {loss:.4}", blocks.start, blocks.end - 1));
            }
            Event::Window { report, earlier } if !self.quiet => {
                let note = if earlier { " (finished earlier)" } else { "" };
                let line = format!(
                    "  blocks {:>2}–{:<2} loss {:.4} -> {:.4}{note}",
                    report.first, report.last, report.before, report.after
                );
                match self.bar.is_hidden() {
                    true => println!("{line}"),
                    false => self.bar.println(line),
                }
            }
            Event::Window { .. } => {}
        }
    }
}

/// A granularity that files can hold.
fn granularity(text: &str) -> Result<Granularity, String> {
    match Granularity::from_str(text) {
        Ok(Granularity::Group(32)) => {
            Err("no GGUF type holds a scale per 32 weights: expected 64".to_string())
        }
        other => other.map_err(|e| e.to_string()),
    }
}

/// Groups of 128, as published models have them, or of what else divides the widths of all projections.
fn widest(config: &ModelConfig) -> Granularity {
    let divides = |group: &Granularity| {
        Projection::ALL.iter().all(|projection| group.check(config.projection_shape(*projection)[1]).is_ok())
    };
    [Granularity::Group(128), Granularity::Group(64)].into_iter().find(divides).unwrap_or(Granularity::Row)
}

fn quantizer(text: &str) -> Result<WeightQuantizer, String> {
    WeightQuantizer::from_str(text).map_err(|e| e.to_string())
}
