//! `tritforge data`: a look at a recipe's data before anything is trained.

mod lint;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use tritforge_support::counted;
use tritforge_train::recipe::Recipe;
use tritforge_train::{Lengths, Preview, PreviewSample, preview};

use crate::sinks::Preparation;
use crate::table;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show samples as the model will see them, with the tokens in the loss marked; print counts and lengths
    /// for all.
    #[command(after_help = "Examples:\n  \
        tritforge data preview recipes/sft.toml --set data.train=alpaca.json\n  \
        tritforge data preview recipes/sft.toml --samples 10 --set data.template=alpaca --no-color")]
    Preview {
        /// Recipe (TOML file).
        recipe: PathBuf,
        /// Number of samples to show.
        #[arg(long, default_value_t = 3, value_name = "N", value_parser = super::ranges::count(0..=1_000_000))]
        samples: usize,
        /// Override a recipe key, e.g. `data.template=alpaca`; can be repeated.
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Mark tokens in the loss with ⟦brackets⟧ instead of colors; the default if the output is not a
        /// terminal.
        #[arg(long)]
        no_color: bool,
    },
    /// Find what is wrong with training data: duplicates, empty and truncated answers, roles out of order, leaked
    /// questions of evaluation sets, damaged characters.
    #[command(after_help = "Examples:\n  \
        tritforge data lint recipes/sft.toml --set data.train=alpaca.json\n  \
        tritforge data lint train.jsonl --held-out valid.jsonl --against gsm8k-test.jsonl --strict\n  \
        tritforge data lint gsm8k.jsonl --column instruction=question --column output=answer --json")]
    Lint(lint::Args),
}

pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    let (recipe, samples, set, no_color) = match command {
        Command::Preview { recipe, samples, set, no_color } => (recipe, samples, set, no_color),
        Command::Lint(args) => return lint::run(args),
    };
    let recipe = Recipe::load(recipe, set)?;
    let found = preview(&recipe, *samples, &Preparation::new(|message| eprintln!("{message}")))?;
    let color = !no_color && std::env::var_os("NO_COLOR").is_none() && std::io::stdout().is_terminal();
    found.shown.iter().for_each(|sample| print_sample(sample, color));
    print_counts(&found, recipe.data.seq_len);
    Ok(ExitCode::SUCCESS)
}

/// A sample: what is learned in green, what is not dimmed.
fn print_sample(sample: &PreviewSample, color: bool) {
    let (learned, tokens) = (sample.targets, sample.tokens);
    let head =
        format!("{}: {tokens}, {learned} in the loss", sample.source, tokens = counted(tokens, "token"));
    if !color {
        println!("{head}\n{sample}\n");
        return;
    }
    println!("\x1b[1m{head}\x1b[0m");
    for (text, learned) in &sample.parts {
        print!("{}{text}\x1b[0m", if *learned { "\x1b[32m" } else { "\x1b[2m" });
    }
    println!("\n");
}

fn print_counts(found: &Preview, seq_len: usize) {
    if let Some(report) = &found.report {
        let kept = report.records - report.dropped.len();
        let mut rows = vec![
            vec!["records".to_string(), report.records.to_string(), String::new()],
            vec!["kept".to_string(), kept.to_string(), String::new()],
        ];
        for (reason, count, first) in report.counts() {
            let first = format!("{}: {}", first.source, first.message);
            rows.push(vec![format!("dropped: {reason}"), count.to_string(), first]);
        }
        if let Some((source, tokens)) = report.cut.first() {
            rows.push(vec![
                "cut".to_string(),
                report.cut.len().to_string(),
                format!("{source}: {tokens}", tokens = counted(*tokens, "token")),
            ]);
        }
        table::print(&["", "number", "first"], &rows);
        if report.limited {
            println!("the rest was not read (data.max_samples)");
        }
        println!();
    }
    let side = |name: &str, lengths: &Lengths| {
        let total = lengths.total();
        let share = 100.0 * lengths.targets as f64 / total.max(1) as f64;
        vec![
            name.to_string(),
            lengths.tokens.len().to_string(),
            total.to_string(),
            lengths.targets.to_string(),
            format!("{share:.1} %"),
            format!("{:.2}", lengths.bytes as f64 / lengths.targets.max(1) as f64),
        ]
    };
    let header = ["", "samples", "tokens", "in the loss", "share", "bytes/token"];
    table::print(&header, &[side("training", &found.train), side("held out", &found.held_out)]);
    let (rows, filled) = found.rows;
    println!(
        "\none epoch: {rows} of {seq_len}, {:.1} % filled",
        100.0 * filled,
        seq_len = counted(seq_len, "token"),
        rows = counted(rows, "row")
    );
    if found.train.tokens.len() < 2 {
        return;
    }
    let at = |share: f64| found.train.percentile(share).unwrap_or(0);
    println!(
        "tokens per sample: min {}, median {}, p90 {}, p99 {}, max {}",
        at(0.0),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    let bins = found.train.histogram(12);
    let most = bins.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    for (low, count) in bins {
        println!("  from {low:>6} {count:>7} {}", "█".repeat((count * 40).div_ceil(most)));
    }
}
