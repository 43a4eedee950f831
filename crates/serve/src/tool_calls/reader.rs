//! Reads calls out of an answer as it comes. What is no call, or a call of a function that there is not, is text: nothing
//! of an answer is lost.

use tritforge_text::ToolFormat;

use super::head::{Head, head};
use super::json::{Found, ObjectEnd};

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text beside the calls.
    Text(String),
    /// A call of this function begins.
    Call(String),
    /// More of the JSON of its arguments.
    Arguments(String),
}

/// Where the reader stands.
#[derive(Debug)]
enum State {
    /// In text, before the mark of a call.
    Text,
    /// Behind a mark, before the arguments; what is held begins with so many bytes of mark.
    Head(usize),
    /// In the arguments.
    Arguments(ObjectEnd),
    /// Behind the arguments, before the end of the call's object.
    Tail,
    /// Behind the object, before what ends the call or begins the next.
    Close,
}

/// A reader of one answer.
#[derive(Debug)]
pub(crate) struct ToolReader {
    format: ToolFormat,
    /// The functions that there are.
    names: Vec<String>,
    state: State,
    /// What has come and not been handed out.
    held: String,
    /// Whether text has been handed out.
    any_text: bool,
    calls: usize,
}

/// Mark of Llama's models before what is no text for the user.
const PYTHON_TAG: &str = "<|python_tag|>";

impl ToolReader {
    pub(crate) fn new(format: ToolFormat, names: Vec<String>) -> Self {
        Self { format, names, state: State::Text, held: String::new(), any_text: false, calls: 0 }
    }

    /// How many calls have begun.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    /// Takes a piece of the answer, and returns what it makes certain.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        let mut parts = Vec::new();
        while self.advance(&mut parts) {}
        parts
    }

    /// What is left at the end of the answer.
    pub(crate) fn finish(&mut self) -> Vec<Part> {
        let held = std::mem::take(&mut self.held);
        match self.state {
            // White space behind the last call is no text.
            State::Text if self.calls > 0 && held.trim().is_empty() => Vec::new(),
            State::Text | State::Head(_) if !held.is_empty() => vec![Part::Text(held)],
            _ => Vec::new(),
        }
    }

    /// One step; false if it takes more text.
    fn advance(&mut self, parts: &mut Vec<Part>) -> bool {
        match self.state {
            State::Text => self.text(parts),
            State::Head(mark) => self.head(mark, parts),
            State::Arguments(ref mut end) => {
                let Some(at) = end.find(&self.held) else {
                    if !self.held.is_empty() {
                        parts.push(Part::Arguments(std::mem::take(&mut self.held)));
                    }
                    return false;
                };
                let rest = self.held.split_off(at);
                parts.push(Part::Arguments(std::mem::replace(&mut self.held, rest)));
                self.state = State::Tail;
                true
            }
            State::Tail => {
                // Further keys, such as an id, up to the end of the object.
                let mut end = ObjectEnd::default();
                let object = format!("{{{}", self.held);
                let Some(at) = end.find(&object) else { return false };
                self.held.drain(..at - 1);
                self.state = State::Close;
                true
            }
            State::Close => self.close(),
        }
    }

    /// Hands out text that cannot be the beginning of a call.
    fn text(&mut self, parts: &mut Vec<Part>) -> bool {
        if let Some((at, mark)) = self.find_mark() {
            let call = self.held.split_off(at);
            // White space before a call is no text.
            let text = std::mem::replace(&mut self.held, call);
            self.hand_out(text.trim_end(), parts);
            self.state = State::Head(mark);
            return true;
        }
        let keep = self.may_begin();
        let held = self.held.split_off(keep);
        let text = std::mem::replace(&mut self.held, held);
        self.hand_out(&text, parts);
        false
    }

    fn hand_out(&mut self, text: &str, parts: &mut Vec<Part>) {
        if !text.is_empty() {
            self.any_text = true;
            parts.push(Part::Text(text.to_string()));
        }
    }

    /// The mark of a call in what is held: where it begins, and its length.
    fn find_mark(&self) -> Option<(usize, usize)> {
        match self.format {
            ToolFormat::Hermes => self.held.find("<tool_call>").map(|at| (at, "<tool_call>".len())),
            ToolFormat::Mistral => {
                let mark = "[TOOL_CALLS]";
                let at = self.held.find(mark)?;
                let rest = self.held[at + mark.len()..].trim_start();
                let list = self.held.len() - rest.len() - at;
                rest.starts_with('[').then_some((at, list + 1))
            }
            // The whole answer is the call.
            ToolFormat::Llama3 => {
                if self.any_text {
                    return None;
                }
                let rest = self.held.trim_start();
                let rest = rest.strip_prefix(PYTHON_TAG).unwrap_or(rest).trim_start();
                rest.starts_with('{').then_some((0, self.held.len() - rest.len()))
            }
        }
    }

    /// Where the part of what is held begins that may be the beginning of a mark, white space before it included.
    fn may_begin(&self) -> usize {
        let mark = match self.format {
            ToolFormat::Hermes => "<tool_call>",
            ToolFormat::Mistral => "[TOOL_CALLS]",
            ToolFormat::Llama3 if self.any_text => return self.held.len(),
            ToolFormat::Llama3 => {
                let rest = self.held.trim_start();
                let may = PYTHON_TAG.starts_with(rest)
                    || rest.starts_with(PYTHON_TAG) && rest.trim_end() == PYTHON_TAG;
                return if may { 0 } else { self.held.len() };
            }
        };
        let at = (self.held.char_indices().map(|(at, _)| at))
            .find(|at| {
                let rest = self.held[*at..].trim_end();
                mark.starts_with(rest) && (rest.len() < mark.len() || self.format == ToolFormat::Mistral)
            })
            .unwrap_or(self.held.len());
        self.held[..at].trim_end().len()
    }

    /// Reads a call's object up to its arguments.
    fn head(&mut self, mark: usize, parts: &mut Vec<Part>) -> bool {
        match head(&self.held[mark..], &self.names) {
            Found::More => false,
            Found::No => {
                // The mark and what came behind it are text, in which the next call may begin.
                let mark = self.held.chars().next().map_or(0, char::len_utf8).max(mark);
                let rest = self.held.split_off(mark.min(self.held.len()));
                let text = std::mem::replace(&mut self.held, rest);
                self.hand_out(&text, parts);
                self.state = State::Text;
                true
            }
            Found::Yes(Head::Arguments(name, at)) => {
                self.call(name, parts);
                self.held.drain(..mark + at);
                self.state = State::Arguments(ObjectEnd::default());
                true
            }
            Found::Yes(Head::Whole(name, arguments, at)) => {
                self.call(name, parts);
                parts.push(Part::Arguments(arguments));
                self.held.drain(..mark + at);
                self.state = State::Close;
                true
            }
        }
    }

    fn call(&mut self, name: String, parts: &mut Vec<Part>) {
        self.calls += 1;
        parts.push(Part::Call(name));
    }

    /// Reads what stands behind a call's object.
    fn close(&mut self) -> bool {
        let rest = self.held.trim_start();
        let skipped = self.held.len() - rest.len();
        let (end, next) = match self.format {
            ToolFormat::Hermes => ("</tool_call>", None),
            ToolFormat::Llama3 => ("", Some(";")),
            ToolFormat::Mistral => ("]", Some(",")),
        };
        if let Some(next) = next.filter(|next| rest.starts_with(next)) {
            self.held.drain(..skipped + next.len());
            self.state = State::Head(0);
            return true;
        }
        if rest.is_empty() || end.len() > rest.len() && end.starts_with(rest) {
            return false;
        }
        // A model may forget the end.
        let end = if rest.starts_with(end) { end.len() } else { 0 };
        self.held.drain(..skipped + end);
        self.state = State::Text;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of an answer that comes in pieces of so many characters: its text, and its calls.
    fn read(format: ToolFormat, answer: &str, size: usize) -> (String, Vec<(String, String)>) {
        let mut reader = ToolReader::new(format, vec!["add".to_string(), "now".to_string()]);
        let characters: Vec<char> = answer.chars().collect();
        let mut parts: Vec<Part> = Vec::new();
        for piece in characters.chunks(size) {
            parts.extend(reader.push(&piece.iter().collect::<String>()));
        }
        parts.extend(reader.finish());
        let (mut text, mut calls) = (String::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text(more) => text += &more,
                Part::Call(name) => calls.push((name, String::new())),
                Part::Arguments(more) => calls.last_mut().unwrap().1 += &more,
            }
        }
        assert_eq!(reader.calls(), calls.len());
        (text, calls)
    }

    fn check(format: ToolFormat, answer: &str, text: &str, calls: &[(&str, &str)]) {
        let calls: Vec<_> = calls.iter().map(|(name, json)| (name.to_string(), json.to_string())).collect();
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(read(format, answer, size), (text.to_string(), calls.clone()), "{answer:?} by {size}");
        }
    }

    #[test]
    fn hermes() {
        let add = r#"{"name": "add", "arguments": {"a": [1, "}</tool_call>"], "b": {}}}"#;
        let arguments = r#"{"a": [1, "}</tool_call>"], "b": {}}"#;
        let call = format!("<tool_call>\n{add}\n</tool_call>");
        let check = |answer: &str, text: &str, calls: &[_]| check(ToolFormat::Hermes, answer, text, calls);
        check("just <text> and <tool", "just <text> and <tool", &[]);
        check("ends with a space \n", "ends with a space \n", &[]);
        check(&call, "", &[("add", arguments)]);
        check(&format!("I add. \n{call}\n"), "I add.", &[("add", arguments)]);
        let now = r#"<tool_call>{"arguments":{},"name":"now"}</tool_call>"#;
        check(&format!("{call}\n{now}"), "", &[("add", arguments), ("now", "{}")]);
        check(&format!("{now} and so"), " and so", &[("now", "{}")]);
        let text = r#"<tool_call>{"name": "now", "arguments": "{\"a\": 1}"}</tool_call>"#;
        check(text, "", &[("now", r#"{"a": 1}"#)]);
        check(r#"<tool_call>{"name": "now"}</tool_call>"#, "", &[("now", "{}")]);
        let id = r#"<tool_call>{"name": "now", "arguments": {}, "id": "}x"}</tool_call>"#;
        check(id, "", &[("now", "{}")]);
        // What is no call of a known function is text.
        for text in [
            r#"<tool_call>{"name": "other", "arguments": {}}</tool_call>"#,
            "<tool_call>add</tool_call>",
            r#"<tool_call>{"name": "add", "arg"#,
        ] {
            check(text, text, &[]);
        }
        check(&format!("<tool_call>?{now}"), "<tool_call>?", &[("now", "{}")]);
        // The end is missing.
        check(r#"<tool_call>{"name": "add", "arguments": {"a": 1"#, "", &[("add", r#"{"a": 1"#)]);
        check(r#"<tool_call>{"name": "now", "arguments": {}} so"#, "so", &[("now", "{}")]);
    }

    #[test]
    fn llama() {
        let check = |answer: &str, text: &str, calls: &[_]| check(ToolFormat::Llama3, answer, text, calls);
        let add = r#"{"name": "add", "parameters": {"a": 1}}"#;
        check(add, "", &[("add", r#"{"a": 1}"#)]);
        check(&format!("<|python_tag|>{add}"), "", &[("add", r#"{"a": 1}"#)]);
        check(&format!("\n {add}; {add}"), "", &[("add", r#"{"a": 1}"#), ("add", r#"{"a": 1}"#)]);
        check(&format!("So: {add}"), &format!("So: {add}"), &[]);
        check(r#"{"name": "Ada", "age": 36}"#, r#"{"name": "Ada", "age": 36}"#, &[]);
        check("<|python_tag|>print(1)", "<|python_tag|>print(1)", &[]);
        check("{ not JSON", "{ not JSON", &[]);
    }

    #[test]
    fn mistral() {
        let check = |answer: &str, text: &str, calls: &[_]| check(ToolFormat::Mistral, answer, text, calls);
        let add = r#"{"name": "add", "arguments": {"a": 1}}"#;
        check(&format!("[TOOL_CALLS][{add}]"), "", &[("add", r#"{"a": 1}"#)]);
        check(&format!("[TOOL_CALLS] [{add}, {add}]"), "", &[("add", r#"{"a": 1}"#), ("add", r#"{"a": 1}"#)]);
        check(&format!("Yes. [TOOL_CALLS] [{add}]"), "Yes.", &[("add", r#"{"a": 1}"#)]);
        check("[TOOL_CALLS] none", "[TOOL_CALLS] none", &[]);
        check("a [list]", "a [list]", &[]);
    }
}
