//! The object of a call, which may not have come whole yet.

use serde_json::Value;

use super::json::{Found, value};

/// The beginning of a call's object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The function, and where the object of its arguments begins.
    Arguments(String, usize),
    /// The function, its arguments, and where the call's object ends.
    Whole(String, String, usize),
}

/// Reads a call's object: up to its arguments if they come after the name, else the whole.
pub(super) fn head(text: &str, names: &[String]) -> Found<Head> {
    let known = |name: &str| names.iter().any(|known| known == name);
    match begun(text) {
        Ok((name, at)) if known(&name) => return Found::Yes(Head::Arguments(name, at)),
        Ok(_) => return Found::No,
        Err(Stop::More) => return Found::More,
        Err(Stop::Other) => {}
    }
    let (object, end) = match value::<Value>(text) {
        Found::More => return Found::More,
        Found::No => return Found::No,
        Found::Yes(found) => found,
    };
    let arguments = match object.get("arguments").or_else(|| object.get("parameters")) {
        // Some models write the text of the object.
        Some(Value::String(text)) => text.clone(),
        Some(arguments @ Value::Object(_)) => arguments.to_string(),
        None | Some(Value::Null) => "{}".to_string(),
        Some(_) => return Found::No,
    };
    match object.get("name").and_then(Value::as_str) {
        Some(name) if known(name) => Found::Yes(Head::Whole(name.to_string(), arguments, end)),
        _ => Found::No,
    }
}

/// Why a beginning is not read to its end.
enum Stop {
    /// It takes more text.
    More,
    /// It is written in another way.
    Other,
}

/// Reads `{"name": NAME, "arguments": {`: the name, and where the last brace is.
fn begun(text: &str) -> Result<(String, usize), Stop> {
    let at = sign(text, 0, '{')?;
    let (key, at) = string(text, at)?;
    let at = sign(text, at, ':')?;
    if key != "name" {
        return Err(Stop::Other);
    }
    let (name, at) = string(text, at)?;
    let (key, at) = string(text, sign(text, at, ',')?)?;
    if !["arguments", "parameters"].contains(&key.as_str()) {
        return Err(Stop::Other);
    }
    let at = sign(text, sign(text, at, ':')?, '{')?;
    Ok((name, at - 1))
}

/// The place behind a sign that is to come next, white space aside.
fn sign(text: &str, at: usize, sign: char) -> Result<usize, Stop> {
    let rest = text[at..].trim_start();
    match rest.chars().next() {
        None => Err(Stop::More),
        Some(found) if found == sign => Ok(text.len() - rest.len() + sign.len_utf8()),
        Some(_) => Err(Stop::Other),
    }
}

/// The string that is to come next, and the place behind it.
fn string(text: &str, at: usize) -> Result<(String, usize), Stop> {
    match value::<String>(&text[at..]) {
        Found::Yes((string, length)) => Ok((string, at + length)),
        Found::More => Err(Stop::More),
        Found::No => Err(Stop::Other),
    }
}
