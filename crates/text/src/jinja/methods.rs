//! Python's methods of strings, lists and dicts.

use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, from_args};
use minijinja::{Error, State, Value};

use super::budget::{VALUE, spend};
use super::filters::{center, spend_replaced};
use super::{arguments, invalid, widths};
use crate::python::{splitlines, value_text};

/// Methods of dict, str and list that a template may ask for without a call.
pub(super) const DICT: [&str; 6] = ["get", "items", "keys", "values", "copy", "pop"];
pub(super) const STR: [&str; 11] = [
    "split",
    "strip",
    "lstrip",
    "rstrip",
    "upper",
    "lower",
    "title",
    "replace",
    "startswith",
    "endswith",
    "join",
];
pub(super) const LIST: [&str; 6] = ["append", "pop", "index", "count", "insert", "extend"];

/// The methods of a value's type that a template may name without calling them.
pub(super) fn methods(value: &Value) -> &'static [&'static str] {
    match value.kind() {
        ValueKind::Map => &DICT,
        ValueKind::String => &STR,
        ValueKind::Seq => &LIST,
        _ => &[],
    }
}

/// Python's methods that minijinja-contrib lacks, then its own.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let (ValueKind::Map, "copy") = (value.kind(), name) {
        let () = from_args(args)?;
        return Ok(value.clone());
    }
    if let (ValueKind::Seq, "copy" | "index") = (value.kind(), name) {
        if name == "copy" {
            let () = from_args(args)?;
            return Ok(value.clone());
        }
        let (wanted,): (&Value,) = from_args(args)?;
        let at = value.try_iter()?.position(|item| item == *wanted);
        return at.map(Value::from).ok_or_else(|| invalid(format!("index: {wanted} is not in the list")));
    }
    let Some(text) = value.as_str() else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args);
    };
    // What a method reads, and the values of the parts that it may make.
    let parts = match (name, args.first().and_then(Value::as_str)) {
        ("split" | "rsplit", Some(separator)) if !separator.is_empty() => text.matches(separator).count(),
        ("split" | "rsplit", _) => text.chars().filter(|c| c.is_whitespace()).count(),
        ("splitlines", _) => splitlines(text, false).len(),
        _ => 0,
    };
    spend(state, text.len() + parts.saturating_mul(VALUE))?;
    let tuple = |parts: [&str; 3]| Value::from(Tuple::from(parts.map(Value::from)));
    Ok(match name {
        "split" => {
            let (places, named): (Rest<Value>, Kwargs) = from_args(args)?;
            let [separator, most] = arguments(name, &places, &named, ["sep", "maxsplit"])?;
            let [separator, most] = [separator, most].map(Option::unwrap_or_default);
            let args = [if separator.is_undefined() { Value::from(()) } else { separator }, most];
            let args = if args[1].is_undefined() { &args[..1] } else { &args[..] };
            return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args);
        }
        "replace" => {
            if let [old, new, ..] = args
                && let (Some(old), Some(new)) = (old.as_str(), new.as_str())
            {
                spend_replaced(state, text, old, new)?;
            }
            return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args);
        }
        "format" => Value::from(widths::format(state, FormatStyle::StrFormat, text, args)?),
        "swapcase" => {
            let () = from_args(args)?;
            let swap = |c: char| match c.is_uppercase() {
                true => c.to_lowercase().collect::<String>(),
                false => c.to_uppercase().collect(),
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let length = text.chars().count();
            let place = |at: i64| {
                let at = if at < 0 { at + length as i64 } else { at };
                usize::try_from(at).unwrap_or(0).min(length)
            };
            let (start, end) = (start.map_or(0, place), end.map_or(length, place));
            let byte = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
            let part = text.get(byte(start)..byte(end)).unwrap_or_default();
            if name == "count" {
                let empty = if start <= end { end - start + 1 } else { 0 };
                return Ok(Value::from(if wanted.is_empty() { empty } else { part.matches(wanted).count() }));
            }
            let found = if name.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) };
            let found = found.map(|at| start + part[..at].chars().count());
            match found {
                Some(at) => Value::from(at),
                None if name.ends_with("find") => Value::from(-1),
                None => return Err(invalid(format!("{name}: substring not found"))),
            }
        }
        // Of other characters than these Python's tables and Rust's say different things.
        "isdigit" | "isdecimal" | "isnumeric" => {
            let () = from_args(args)?;
            if !text.is_ascii() {
                return Err(invalid(format!("str.{name} is not supported for non-ASCII characters")));
            }
            Value::from(!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        }
        "rsplit" => {
            let (places, named): (Rest<Value>, Kwargs) = from_args(args)?;
            let [separator, most] = arguments(name, &places, &named, ["sep", "maxsplit"])?;
            let separator = separator.as_ref().and_then(Value::as_str);
            let most = most.and_then(|most| most.as_i64());
            let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            rsplit(text, separator, most)?.into_iter().map(Value::from).collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            if separator.is_empty() {
                return Err(invalid(format!("{name}: empty separator")));
            }
            let cut =
                if name == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            tuple(match cut {
                Some((before, after)) => [before, separator, after],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            })
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = match text.strip_prefix(['+', '-']) {
                Some(digits) => text.split_at(text.len() - digits.len()),
                None => ("", text),
            };
            let missing = width.min(1 << 16).saturating_sub(text.chars().count());
            Value::from(format!("{sign}{}{digits}", "0".repeat(missing)))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            let fill = fill.unwrap_or(' ');
            let missing = width.min(1 << 16).saturating_sub(text.chars().count());
            let pad = fill.to_string().repeat(missing);
            Value::from(match name {
                "ljust" => format!("{text}{pad}"),
                "rjust" => format!("{pad}{text}"),
                _ => center(text, width, fill),
            })
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            splitlines(text, keep.unwrap_or(false)).into_iter().map(Value::from).collect()
        }
        "join" => {
            let (values,): (&Value,) = from_args(args)?;
            let parts: Vec<Value> = values.try_iter()?.collect();
            if let Some(other) = parts.iter().find(|part| part.as_str().is_none()) {
                return Err(invalid(format!("join: expected strings, found {}", value_text(other))));
            }
            for part in &parts {
                spend(state, part.as_str().map_or(0, str::len) + text.len())?;
            }
            Value::from(parts.iter().map(value_text).collect::<Vec<_>>().join(text))
        }
        _ => return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    })
}

fn rsplit<'a>(text: &'a str, separator: Option<&str>, most: usize) -> Result<Vec<&'a str>, Error> {
    let mut parts: Vec<&str> = match separator {
        Some("") => return Err(invalid("rsplit: empty separator".to_string())),
        Some(separator) => text.rsplitn(most.saturating_add(1), separator).collect(),
        None => {
            let (mut rest, mut parts) = (text.trim_end(), Vec::new());
            while let Some(at) = rest.rfind(char::is_whitespace).filter(|_| parts.len() < most) {
                let end = at + rest[at..].chars().next().map_or(1, char::len_utf8);
                parts.push(&rest[end..]);
                rest = rest[..at].trim_end();
            }
            if !rest.is_empty() {
                parts.push(rest);
            }
            parts
        }
    };
    parts.reverse();
    Ok(parts)
}
