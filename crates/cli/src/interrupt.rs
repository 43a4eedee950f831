//! Ctrl-C: stops the work in hand, not the program; the program if there is no work, or if it is pressed
//! twice.

use std::process::exit;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context as _, Result};

/// Nothing is being generated: Ctrl-C leaves.
const IDLE: u8 = 0;
/// Something is being generated.
const BUSY: u8 = 1;
/// It has been asked to stop.
const STOP: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// What shells report for a program that Ctrl-C ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// Takes Ctrl-C over from the system, once a process.
pub(crate) fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        if STATE.compare_exchange(BUSY, STOP, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            exit(i32::from(EXIT_CODE));
        }
    })
    .context("cannot handle Ctrl-C")
}

/// Work that Ctrl-C stops, from its creation until it is dropped.
pub(crate) struct Work(());

impl Work {
    /// Begins.
    pub(crate) fn begin() -> Self {
        STATE.store(BUSY, Ordering::SeqCst);
        Self(())
    }

    /// Whether Ctrl-C was pressed since.
    pub(crate) fn stopped(&self) -> bool {
        STATE.load(Ordering::SeqCst) == STOP
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        STATE.store(IDLE, Ordering::SeqCst);
    }
}
