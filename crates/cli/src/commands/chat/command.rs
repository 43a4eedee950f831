//! What a line means: a message, or a command that begins with `/`.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// The commands, as `/help` shows them.
pub(super) const HELP: &str = "  \
    /reset         forget the conversation, but not the system prompt\n  \
    /undo          drop the last message and its answer\n  \
    /system TEXT   change the system prompt; without TEXT, remove it\n  \
    /stats         show tokens in the context, speed, memory\n  \
    /save FILE     write the messages as JSON\n  \
    /load FILE     continue from messages in a JSON file\n  \
    /help          show this list\n  \
    /exit          quit (also Ctrl-D); Ctrl-C stops an answer\n  \
    //text         send the message \"/text\"";

/// A line, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A message to be answered.
    Say(String),
    Reset,
    Undo,
    System(String),
    Stats,
    Save(PathBuf),
    Load(PathBuf),
    Help,
    Exit,
}

impl Command {
    /// Reads a line; an empty one means nothing.
    pub(super) fn parse(line: &str) -> Result<Option<Self>> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(None);
        }
        let Some(command) = line.strip_prefix('/') else { return Ok(Some(Self::Say(line.to_string()))) };
        if command.starts_with('/') {
            return Ok(Some(Self::Say(command.to_string())));
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let file = || match rest {
            "" => bail!("/{name}: expected a file: /{name} FILE"),
            file => Ok(PathBuf::from(file)),
        };
        let alone = |command| match rest {
            "" => Ok(command),
            _ => bail!("/{name}: takes no argument, found {rest:?}"),
        };
        Ok(Some(match name {
            "reset" => alone(Self::Reset)?,
            "undo" => alone(Self::Undo)?,
            "system" => Self::System(rest.to_string()),
            "stats" => alone(Self::Stats)?,
            "save" => Self::Save(file()?),
            "load" => Self::Load(file()?),
            "help" => alone(Self::Help)?,
            "exit" | "quit" => alone(Self::Exit)?,
            _ => bail!("/{name}: no such command; /help lists them, and //{name} sends it as a message"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Command> {
        Command::parse(line).unwrap()
    }

    #[test]
    fn lines_are_messages_or_commands() {
        assert_eq!(parse("  "), None);
        assert_eq!(parse(" Hello /exit\r"), Some(Command::Say("Hello /exit".to_string())));
        assert_eq!(parse("//usr/bin"), Some(Command::Say("/usr/bin".to_string())));
        assert_eq!(parse("/system  Be brief. "), Some(Command::System("Be brief.".to_string())));
        assert_eq!(parse("/save a b.json"), Some(Command::Save("a b.json".into())));
        assert_eq!(parse("/quit"), Some(Command::Exit));
    }

    #[test]
    fn what_is_no_command_is_an_error() {
        for line in ["/resett", "/save", "/undo 3", "/"] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
    }
}
