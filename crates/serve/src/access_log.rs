//! The access log: one JSON object a line for every request that is over. It has neither prompts nor answers, nor
//! keys, nor addresses.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Where requests are written down.
pub struct AccessLog {
    out: Mutex<Box<dyn Write + Send>>,
    /// Whether a line was lost, which is reported once.
    failed: AtomicBool,
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}

/// A line. Times are in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    /// Unix time of the end.
    pub(crate) time: f64,
    pub(crate) request_id: &'a str,
    pub(crate) method: &'a str,
    /// The path as the service knows it; `other` for one that it does not know.
    pub(crate) endpoint: &'a str,
    pub(crate) status: u16,
    /// The code of the error, or of the filter that ended the answer.
    pub(crate) code: Option<&'a str>,
    /// Whether the client got the whole answer.
    pub(crate) complete: bool,
    /// The name of the client's key.
    pub(crate) key: Option<&'a str>,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    /// Whether the answer came from the response cache.
    pub(crate) cached: bool,
    /// Time in the queue, for requests that had their turn.
    pub(crate) queue_seconds: Option<f64>,
    /// Time from the arrival to the first text.
    pub(crate) first_text_seconds: Option<f64>,
    /// Time from the arrival to the end.
    pub(crate) seconds: f64,
}

impl AccessLog {
    /// A log that is written to `out`, a line at a time.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self { out: Mutex::new(Box::new(out)), failed: AtomicBool::new(false) }
    }

    /// A log at the end of a file, which is made if there is none.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(OpenOptions::new().create(true).append(true).open(path)?))
    }

    pub(crate) fn write(&self, line: &Line<'_>) {
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // In one piece, so that another process that appends to the file cannot come between.
        let written = out.write_all(&text).and_then(|()| out.flush());
        if let Err(error) = written
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            log::warn!("the access log cannot be written: {error}; further lines are lost as well");
        }
    }
}
