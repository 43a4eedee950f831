//! Standard output and standard error of the commands: `println!` and its like without their panics.
//!
//! A reader that has gone (`| head`) is no error: the command goes on in silence, so that the files it writes
//! are whole and a service stays up. Any other failure, such as a full disk, is remembered, and [`failure`]
//! tells it when the command is done.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

/// The first failure that was not a closed pipe.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes to standard output.
pub(crate) fn write_out(text: fmt::Arguments<'_>) {
    note(io::stdout().lock().write_fmt(text));
}

/// Writes to standard error; nobody is left to hear of it if that fails.
pub(crate) fn write_err(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Whether writing to standard output failed only because its reader has gone.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let closed = |e: &io::Error| e.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(closed))
}

/// What became of the output: the first failure to write it, but for a closed pipe.
pub(crate) fn failure() -> Option<io::Error> {
    note(io::stdout().lock().flush());
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn note(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::BrokenPipe
    {
        FAILURE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// As that of the standard library, but it never panics.
macro_rules! print {
    ($($arg:tt)*) => { $crate::out::write_out(format_args!($($arg)*)) };
}

/// As that of the standard library, but it never panics.
macro_rules! println {
    () => { $crate::out::write_out(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::out::write_out(format_args!("{}\n", format_args!($($arg)*))) };
}

/// As that of the standard library, but it never panics.
macro_rules! eprintln {
    () => { $crate::out::write_err(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::out::write_err(format_args!("{}\n", format_args!($($arg)*))) };
}
