//! `tritforge merge`: an adapter and its base to one checkpoint.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args as ClapArgs;
use tritforge_checkpoint::AdapterFiles;
use tritforge_eval::{EvalModel, PerplexityOptions, Scoring, perplexity};
use tritforge_export::{ImportOptions, Located, MergeReport, MergedProjection, import, locate, merge};

use crate::table;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  tritforge merge runs/qat-lora -o models/merged\n  \
    tritforge merge runs/lora -o models/lossy --requantize --text held_out.txt\n  \
    tritforge merge peft-adapter -o models/merged --base hub/Llama-3.2-1B\n\n\
    Adapters of modes qat_lora and lota merge exactly: the merged model has the codes and scales used in \
    training (lota: as a packed checkpoint). An adapter of mode adapter is used beside its base: `tritforge \
    export` writes it as a GGUF adapter. --requantize merges it anyway and reports the loss.")]
pub(crate) struct Args {
    /// Adapter: a run trained with a `[lora]` section, one of its checkpoints, or a directory written by
    /// peft.
    adapter: PathBuf,
    /// Base model of the adapter: checkpoint, run directory, Hugging Face directory or GGUF file; default:
    /// the one that the adapter names.
    #[arg(long, value_name = "PATH")]
    base: Option<PathBuf>,
    /// Checkpoint directory to write.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Merge an adapter of mode adapter into ternary weights (lossy).
    #[arg(long)]
    requantize: bool,
    /// Text file on which to compare the merged model with base + adapter.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Use at most this many tokens of the text.
    #[arg(long, default_value_t = 16384, value_parser = super::ranges::count(1..=super::ranges::MOST_TOKENS))]
    tokens: usize,
    /// List every projection.
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let files = AdapterFiles::open(&args.adapter)?;
    let base = Base::find(&files, args)?;
    let report = merge(&args.adapter, Some(base.path()), &args.output, args.requantize)?;
    println!("{}", args.output.display());
    print_report(&report, args.verbose);
    if let Some(path) = &args.text {
        let text = super::read_text(path)?;
        let measure = |subject: EvalModel| -> Result<f64> {
            let window = subject.config().max_position_embeddings.min(512);
            let options =
                PerplexityOptions { max_tokens: Some(args.tokens), ..Scoring::All { window }.into() };
            Ok(perplexity(&subject, &text, options, |_, _| Ok(()))?.perplexity)
        };
        let before = measure({
            let adapters = [(args.adapter.clone(), 1.0)];
            EvalModel::open_with(base.path(), &ImportOptions::default(), &adapters)?
        })?;
        let after = measure(EvalModel::open(&args.output)?)?;
        println!(
            "  perplexity {before:.4} with the adapter, {after:.4} merged: {:+.2} %",
            100.0 * (after / before - 1.0)
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The base as a checkpoint: as it lies, or imported for as long as the merge takes.
enum Base {
    Checkpoint(PathBuf),
    /// The directory is removed at the end.
    Imported {
        path: PathBuf,
        _dir: tempfile::TempDir,
    },
}

impl Base {
    fn find(files: &AdapterFiles, args: &Args) -> Result<Self> {
        let path = files.base_path(args.base.as_deref())?;
        if let Located::Checkpoint(checkpoint) = locate(&path)? {
            return Ok(Base::Checkpoint(checkpoint.dir().to_path_buf()));
        }
        let beside = args.output.parent().filter(|dir| dir.is_dir()).unwrap_or(Path::new("."));
        let dir =
            tempfile::Builder::new().prefix(".tritforge-merge-").tempdir_in(beside).with_context(|| {
                format!("{}: cannot make a directory for the imported base", beside.display())
            })?;
        let imported = dir.path().join("base");
        import(&path, &imported, &ImportOptions::default())
            .with_context(|| format!("{}: its base", files.dir().display()))?;
        Ok(Base::Imported { path: imported, _dir: dir })
    }

    fn path(&self) -> &Path {
        match self {
            Base::Checkpoint(path) => path,
            Base::Imported { path, .. } => path,
        }
    }
}

fn print_report(report: &MergeReport, verbose: bool) {
    let (flipped, weights) =
        report.projections.iter().fold((0, 0), |(f, w), p| (f + p.flipped, w + p.weights));
    let percent =
        |flipped: usize, weights: usize| format!("{:.3} %", 100.0 * flipped as f64 / weights.max(1) as f64);
    let kind = if report.exact { "exact" } else { "LOSSY: merged outputs differ from base + adapter" };
    println!("  {} adapted projections, {kind}", report.projections.len());
    let scales = report.projections.iter().map(|p| p.scale_ratio);
    let (least, most) = scales.fold((f64::MAX, f64::MIN), |(a, b), r| (a.min(r), b.max(r)));
    println!(
        "  {} of {weights} codes differ from the base's, scales are {least:.4} to {most:.4} times the base's",
        percent(flipped, weights)
    );
    if verbose {
        let row = |p: &MergedProjection| {
            vec![p.name.clone(), percent(p.flipped, p.weights), format!("{:.5}", p.scale_ratio)]
        };
        table::print(
            &["weight", "codes flipped", "scale ratio"],
            &report.projections.iter().map(row).collect::<Vec<_>>(),
        );
    }
}
