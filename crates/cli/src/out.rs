//! Standard output and standard error of the commands: `println!` and its like without their panics.
//!
//! A reader that has gone (`| head`) is no error: the command goes on in silence, so that the files it writes
//! are whole and a service stays up. Any other failure, such as a full disk, is remembered, and [`failure`]
//! tells it when the command is done. A command that writes much, or must know when its reader has gone,
//! takes [`stdout`]. Only errors of this module count as a reader that has gone: a broken pipe elsewhere,
//! such as a named pipe given with `--output`, is an error.

use std::io::{self, ErrorKind, StdoutLock, Write};
use std::sync::{Mutex, PoisonError};
use std::{error, fmt};

/// The first failure that was not a closed pipe.
static FAILURE: Mutex<Option<OutputError>> = Mutex::new(None);

/// Writes to standard output.
pub(crate) fn write_out(text: fmt::Arguments<'_>) {
    // Failures are remembered there.
    let _ = stdout().write_fmt(text);
}

/// Standard output as a writer. Its errors name it, and [`failure`] knows them.
pub(crate) fn stdout() -> Output {
    Output(io::stdout().lock())
}

/// See [`stdout`].
pub(crate) struct Output(StdoutLock<'static>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(failed)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(failed)
    }
}

/// A failure to write to standard output.
#[derive(Debug)]
struct OutputError(String);

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "standard output: cannot write: {}", self.0)
    }
}

impl error::Error for OutputError {}

/// Marks an error as one of standard output, and remembers it.
fn failed(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::Interrupted {
        return error; // the caller writes again
    }
    let kind = error.kind();
    if kind != ErrorKind::BrokenPipe {
        let mut first = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| OutputError(error.to_string()));
    }
    io::Error::new(kind, OutputError(error.to_string()))
}

/// Writes to standard error; nobody is left to hear of it if that fails.
pub(crate) fn write_err(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Whether an error is a failure to write to standard output.
pub(crate) fn is_output(error: &anyhow::Error) -> bool {
    kind(error).is_some()
}

/// Whether writing to standard output failed only because its reader has gone.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    kind(error) == Some(ErrorKind::BrokenPipe)
}

fn kind(error: &anyhow::Error) -> Option<ErrorKind> {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.find(|e| e.get_ref().is_some_and(|inner| inner.is::<OutputError>())).map(io::Error::kind)
}

/// What became of the output: the first failure to write it, but for a closed pipe.
pub(crate) fn failure() -> Option<impl fmt::Display> {
    let _ = stdout().flush();
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take()
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
macro_rules! eprint {
    ($($arg:tt)*) => { $crate::out::write_err(format_args!($($arg)*)) };
}

/// As that of the standard library, but it never panics.
macro_rules! eprintln {
    () => { $crate::out::write_err(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::out::write_err(format_args!("{}\n", format_args!($($arg)*))) };
}
