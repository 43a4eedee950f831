//! Jinja2's filters of texts for people: sizes of files, attributes of XML, texts without tags, lines of a
//! width.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, State, Value};

use super::budget::{VALUE, spend};
use super::filters::escape;
use super::{arguments, invalid};
use crate::python::{splitlines, value_text};

/// `filesizeformat`.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn filesizeformat(value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let [binary] = arguments("filesizeformat", &args, &kwargs, ["binary"])?;
    let binary = binary.is_some_and(|binary| binary.is_true());
    let bytes = match value.as_str() {
        Some(text) => text.trim().parse::<f64>().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    let bytes = bytes.filter(|bytes| bytes.is_finite());
    let bytes = bytes.ok_or_else(|| invalid(format!("filesizeformat: {value} is not a number")))?;
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok("1 Byte".to_string());
    }
    if bytes < base {
        return Ok(format!("{:.0} Bytes", bytes.trunc()));
    }
    let letters = ['k', 'M', 'G', 'T', 'P', 'E', 'Z', 'Y'];
    let place =
        (0..letters.len() - 1).find(|i| bytes < base.powi(*i as i32 + 2)).unwrap_or(letters.len() - 1);
    let size = base * bytes / base.powi(place as i32 + 2);
    Ok(match binary {
        true => format!("{size:.1} {}iB", letters[place].to_ascii_uppercase()),
        false => format!("{size:.1} {}B", letters[place]),
    })
}

/// `xmlattr`: attributes of a dict, those that are none or undefined left out.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn xmlattr(
    state: &mut State<'_, '_>,
    value: &Value,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let [space] = arguments("xmlattr", &args, &kwargs, ["autospace"])?;
    if value.kind() != ValueKind::Map {
        return Err(invalid(format!("xmlattr: expected a dict, found {}", value.kind())));
    }
    let mut attributes = Vec::new();
    for key in value.try_iter()? {
        let item = value.get_item(&key)?;
        if item.is_none() || item.is_undefined() {
            continue;
        }
        let name = key.as_str().ok_or_else(|| invalid(format!("xmlattr: {key} is not a string")))?;
        if name.contains([' ', '\t', '\n', '\r', '\u{b}', '\u{c}', '/', '>', '=']) {
            return Err(invalid(format!("xmlattr: invalid character in attribute name: {name:?}")));
        }
        let attribute = format!("{}=\"{}\"", escape(name), escape(&value_text(&item)));
        spend(state, attribute.len())?;
        attributes.push(attribute);
    }
    let space = space.is_none_or(|space| space.is_true()) && !attributes.is_empty();
    Ok(format!("{}{}", if space { " " } else { "" }, attributes.join(" ")))
}

/// `striptags`, as markupsafe has it: without comments and tags, white space as one space, entities as their
/// characters.
pub(super) fn striptags(value: &Value) -> Result<String, Error> {
    let text = value_text(value);
    let (mut without, mut rest) = (String::with_capacity(text.len()), text.as_str());
    while let Some(start) = rest.find("<!--") {
        // The end may share its first characters with the beginning.
        let Some(end) = rest[start..].find("-->") else { break };
        without += &rest[..start];
        rest = &rest[start + end + 3..];
    }
    without += rest;
    let (mut plain, mut rest) = (String::with_capacity(without.len()), without.as_str());
    while let Some(start) = rest.find('<') {
        let Some(end) = rest[start..].find('>') else { break };
        plain += &rest[..start];
        rest = &rest[start + end + 1..];
    }
    plain += rest;
    unescape(&plain.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// `html.unescape`, of the entities that HTML shares with XML, `&nbsp;` and numbers.
fn unescape(text: &str) -> Result<String, Error> {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('&') {
        out += &rest[..at];
        rest = &rest[at..];
        let name =
            rest[1..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '#')).map_or(rest.len(), |n| n + 1);
        let (entity, ended) = (&rest[1..name], rest[name..].starts_with(';'));
        let number = entity.strip_prefix('#').and_then(|number| match number.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => number.parse().ok(),
        });
        let c = match entity {
            "" | "#" => {
                out.push('&');
                rest = &rest[1..];
                continue;
            }
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            "nbsp" => Some('\u{a0}'),
            // What HTML takes for Windows-1252, for nothing or for a character that is replaced is refused.
            _ => number.filter(|n| (0x20..0x7f).contains(n) || *n > 0x9f).and_then(char::from_u32),
        };
        let c = c.filter(|_| ended);
        out.push(c.ok_or_else(|| invalid(format!("striptags: the entity &{entity} is not supported")))?);
        rest = &rest[name + 1..];
    }
    Ok(out + rest)
}

/// `wordwrap`, by the rules of Python's `textwrap.wrap` without its replacement of white space.
#[expect(clippy::needless_pass_by_value, reason = "the signature that minijinja calls")]
pub(super) fn wordwrap(
    state: &mut State<'_, '_>,
    value: &Value,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, long, between, hyphens] = arguments("wordwrap", &args, &kwargs, names)?;
    let flag = |flag: Option<Value>| flag.is_none_or(|flag| flag.is_true());
    let width = match width {
        None => 79,
        Some(width) => width
            .as_usize()
            .filter(|width| *width > 0)
            .ok_or_else(|| invalid(format!("wordwrap: invalid width {width} (must be > 0)")))?,
    };
    if flag(hyphens) && value_text(value).contains('-') {
        let problem = "wordwrap: text with hyphens needs break_on_hyphens=false here";
        return Err(invalid(problem.to_string()));
    }
    let (long, between) = (flag(long), between.as_ref().map_or_else(|| "\n".to_string(), value_text));
    let text = value_text(value);
    // Every character may become a line of its own.
    spend(state, text.len().saturating_mul(VALUE))?;
    let lines: Vec<Vec<String>> =
        splitlines(&text, false).into_iter().map(|line| wrapped(line, width, long)).collect();
    // Counted before it is joined: what stands between the lines may be far longer than they are.
    let parts: usize = lines.iter().map(|parts| parts.len().max(1)).sum();
    spend(state, text.len() + parts.saturating_mul(between.len()))?;
    let lines: Vec<String> = lines.into_iter().map(|parts| parts.join(&between)).collect();
    Ok(lines.join(&between))
}

/// Characters that `textwrap` takes for white space.
fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// The lines of a line: words and the white space between them, which ends no line and begins none but the
/// first.
fn wrapped(text: &str, width: usize, break_long: bool) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut chunks: Vec<&[char]> = chars.chunk_by(|a, b| is_space(*a) == is_space(*b)).collect();
    chunks.reverse();
    let blank = |chunk: &[char]| chunk.iter().all(|c| c.is_whitespace());
    let mut lines = Vec::new();
    while let Some(next) = chunks.last() {
        if blank(next) && !lines.is_empty() {
            chunks.pop();
        }
        let (mut line, mut length): (Vec<&[char]>, usize) = (Vec::new(), 0);
        while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.len() <= width) {
            length += chunk.len();
            line.push(chunk);
        }
        if let Some(chunk) = chunks.pop_if(|chunk| chunk.len() > width) {
            if break_long {
                let (head, tail) = chunk.split_at(width - length);
                line.push(head);
                chunks.push(tail);
            } else if line.is_empty() {
                line.push(chunk);
            } else {
                chunks.push(chunk);
            }
        }
        line.pop_if(|chunk| blank(chunk));
        if !line.is_empty() {
            lines.push(line.concat().into_iter().collect());
        }
    }
    lines
}
