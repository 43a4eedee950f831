//! Lines: with editing and history from a terminal, plain from a pipe.

use std::io::IsTerminal as _;

use anyhow::{Context as _, Result};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

/// Where lines come from.
pub(super) enum Input {
    /// Somebody who types.
    Terminal(Box<DefaultEditor>),
    /// A pipe or a file: one message a line, nothing decorated.
    Pipe,
}

impl Input {
    /// The standard input.
    pub(super) fn new() -> Result<Self> {
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            let editor = DefaultEditor::new().context("cannot read from the terminal")?;
            Ok(Self::Terminal(Box::new(editor)))
        } else {
            Ok(Self::Pipe)
        }
    }

    /// Whether somebody types.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line; none at the end, which Ctrl-D or a second Ctrl-C is in a terminal.
    pub(super) fn line(&mut self) -> Result<Option<String>> {
        match self {
            Self::Terminal(editor) => edited(editor),
            Self::Pipe => {
                let mut line = String::new();
                let read =
                    std::io::stdin().read_line(&mut line).context("standard input: cannot read a line")?;
                Ok((read > 0).then_some(line))
            }
        }
    }
}

fn edited(editor: &mut DefaultEditor) -> Result<Option<String>> {
    let mut interrupted = false;
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                editor.add_history_entry(&line).context("cannot save a line to the history")?;
                return Ok(Some(line));
            }
            Err(ReadlineError::Interrupted) if !interrupted => {
                interrupted = true;
                eprintln!("[press Ctrl-C again or Ctrl-D to quit]");
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(error).context("cannot read from the terminal"),
        }
    }
}
