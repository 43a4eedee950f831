//! `tritforge report`: the curves of one run or several as a page.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use tritforge_report::{REPORT, write_report};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    tritforge report runs/demo                          rebuild runs/demo/report.html\n  \
    tritforge report runs/ternary runs/full -o both.html   both in the same charts")]
pub(crate) struct Args {
    /// Run directories, or their metrics.jsonl files.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// HTML file to write; for a single run, report.html in its directory by default.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let output = match (&args.output, &args.runs[..]) {
        (Some(output), _) => output.clone(),
        (None, [run]) if run.is_dir() => run.join(REPORT),
        (None, [run]) => run.with_file_name(REPORT),
        (None, _) => bail!("several runs: give the output file, as in -o {REPORT}"),
    };
    write_report(&args.runs, &output)?;
    println!("{}", output.display());
    Ok(ExitCode::SUCCESS)
}
