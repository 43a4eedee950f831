//! Calls of tools: the grammar of those that a request demands, and what an answer has of them.

mod grammar;
mod head;
mod json;
mod reader;

pub(crate) use grammar::grammar;
pub(crate) use reader::{Part, ToolReader};

use sha2::{Digest as _, Sha256};
use tritforge_text::ToolFormat;

/// How the answers to a request call functions.
#[derive(Debug, Clone)]
pub(crate) struct Calling {
    pub(crate) format: ToolFormat,
    /// The functions.
    pub(crate) names: Vec<String>,
}

impl Calling {
    /// A reader of an answer.
    pub(crate) fn reader(&self) -> ToolReader {
        ToolReader::new(self.format, self.names.clone())
    }
}

/// The id of a call, made of its answer's id and its place there. Mistral's templates take nine characters.
pub(crate) fn call_id(format: ToolFormat, answer: &str, choice: usize, call: usize) -> String {
    let hash = Sha256::digest(format!("{answer} {choice} {call}"));
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    match format {
        ToolFormat::Mistral => hex[..9].to_string(),
        ToolFormat::Hermes | ToolFormat::Llama3 => format!("call_{}", &hex[..24]),
    }
}
