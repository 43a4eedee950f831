//! Warnings of the libraries, on standard error: what a model's files say that is not applied, or not known.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Prints each warning of this project's crates once: a command may open a file twice. Those of the service, which runs for
/// long, are news each time.
struct Warnings {
    printed: Mutex<HashSet<String>>,
}

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn && metadata.target().starts_with("tritforge")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        if record.target().starts_with("tritforge_serve") {
            eprintln!("warning: {message}");
            return;
        }
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.insert(message.clone()) {
            eprintln!("warning: {message}");
        }
    }

    fn flush(&self) {}
}

/// Begins to print warnings. To be called once, before any file is opened.
pub(crate) fn install() {
    // It fails only where a logger is installed already, which then has the warnings.
    if log::set_boxed_logger(Box::new(Warnings { printed: Mutex::default() })).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}
