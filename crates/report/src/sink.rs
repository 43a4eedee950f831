//! Where a library says what it does. Nothing below the binary prints.

use crate::Event;

/// Hears what goes on in a task that takes long. A closure `|text: &str| …` is a sink that hears the messages
/// alone, and [`Silent`] hears nothing.
pub trait Sink {
    /// A line about what goes on, without a line feed at its end.
    fn message(&self, text: &str);

    /// How far a part of the task is.
    fn progress(&self, progress: &Progress<'_>) {
        let _ = progress;
    }

    /// What a training run has just written to its log.
    fn event(&self, event: &Event) {
        let _ = event;
    }
}

/// How far a part of a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// What is done, such as `tokenizing train.bin`.
    pub task: &'a str,
    /// Bytes that are done.
    pub done: u64,
    /// Bytes in all. The task has ended when all are done.
    pub total: u64,
}

impl<F: Fn(&str)> Sink for F {
    fn message(&self, text: &str) {
        self(text);
    }
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Sink for Silent {
    fn message(&self, _: &str) {}
}
