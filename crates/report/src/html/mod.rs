//! The report of a run: one HTML file that needs nothing else, drawn from the metrics of one run or of
//! several.
//!
//! It shows losses, learning rate, gradient norm, speed, memory, the health of every ternary matrix, the
//! samples of text and the recipe. Drawings are SVG in the page; a few lines of script show the numbers under
//! the pointer.

mod charts;
mod health;
mod page;
mod svg;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use page::{STYLE, escape};
pub use svg::{Scale, label, path};

use crate::ReportError;
use crate::history::history;

/// The report's name in the directory of its run.
pub const FILE: &str = "report.html";

/// Draws one page of all `runs`, each the directory of a run or its metrics file, and writes it to `file`.
///
/// # Errors
/// If a run has no metrics, a line of them cannot be understood, or the file cannot be written. A last line
/// that was cut off, as a kill leaves it, is passed over.
pub fn write(runs: &[impl AsRef<Path>], file: &Path) -> Result<(), ReportError> {
    let runs = runs.iter().map(|path| history(path.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let mut temporary = file.to_path_buf().into_os_string();
    temporary.push(".tmp");
    std::fs::write(&temporary, page::page(&runs)).map_err(ReportError::io(file, "write"))?;
    std::fs::rename(&temporary, file).map_err(ReportError::io(file, "write"))
}
