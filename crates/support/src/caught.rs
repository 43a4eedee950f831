//! Third-party parsers that panic at some inputs: their panics are caught, not printed, and answered by the
//! caller with an error of its own.
//!
//! The message of a panic is printed by a hook of the process before anything can catch it. The first call of
//! [`caught`] puts a hook in front of the present one, which keeps quiet about panics of the code that runs
//! inside [`caught`], on the same thread, and passes on all others. A hook that the program sets later takes
//! its place: these panics are printed then, and caught as before.
//!
//! ```
//! let numbers: Option<u32> = tritforge_support::caught(|| "12".parse().expect("a number"));
//! assert_eq!(numbers, Some(12));
//! assert_eq!(tritforge_support::caught(|| "x".parse::<u32>().expect("a number")), None);
//! ```

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// How many calls of [`caught`] the thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Leaves a call however it ends.
struct Inside;

impl Inside {
    fn enter() -> Self {
        DEPTH.with(|depth| depth.set(depth.get() + 1));
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// What a function returns, or `None` if it panics; the message of the panic is not printed.
///
/// The function has to leave what it shares with its caller in a state that the caller can use, or the caller
/// has to drop it: nothing is checked, as with [`AssertUnwindSafe`].
pub fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // Where the thread's locals are gone already, nothing is caught.
            if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
                usual(info);
            }
        }));
    });
    let inside = Inside::enter();
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    drop(inside);
    result.ok()
}
