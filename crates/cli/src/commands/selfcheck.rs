//! `tritforge selfcheck`: statements that need no seeds, computed on this machine.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args as ClapArgs;
use tritforge_ablate::selfcheck;

use crate::table;

#[derive(ClapArgs)]
#[command(after_help = "Example:\n  tritforge selfcheck\n\nExit codes: 0 all hold, 1 one does not")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    let statements = selfcheck()?;
    let number = |x: f64| match x {
        x if x.fract() == 0.0 => format!("{x}"),
        x if x.abs() < 1e-3 => format!("{x:.1e}"),
        x => format!("{x:.5}"),
    };
    let rows: Vec<Vec<String>> = statements
        .iter()
        .map(|s| {
            let holds = if s.holds() { "holds" } else { "DOES NOT HOLD" };
            vec![s.text.clone(), s.source.to_string(), number(s.expected), number(s.found), holds.to_string()]
        })
        .collect();
    table::print(&["statement", "source", "expected", "found", ""], &rows);
    let wrong = statements.iter().filter(|s| !s.holds()).count();
    println!("\n{} of {} statements hold", statements.len() - wrong, statements.len());
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
