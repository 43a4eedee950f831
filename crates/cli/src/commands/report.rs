//! `tritforge report`: the curves of one run or several as a page.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use tritforge_train::report;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge report runs/demo                          draw runs/demo/report.html anew\n  \
    tritforge report runs/ternary runs/full -o both.html   one over the other")]
pub(crate) struct Args {
    /// Directories of runs, or their metrics.jsonl.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page; by default report.html in the directory of the run, where there is one run only.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let output = match (&args.output, &args.runs[..]) {
        (Some(output), _) => output.clone(),
        (None, [run]) if run.is_dir() => run.join(report::FILE),
        (None, [run]) => run.with_file_name(report::FILE),
        (None, _) => bail!("several runs: say where to write the page, as in -o {}", report::FILE),
    };
    report::write(&args.runs, &output)?;
    println!("{}", output.display());
    Ok(ExitCode::SUCCESS)
}
