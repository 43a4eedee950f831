//! What minijinja's grammar has no hook for, written as calls of filters: `'…' % values`, `value.method is
//! …`, and the operands of `~`, which are to be written as Python writes them.

use super::methods::{DICT, LIST, STR};
use super::{METHOD, MODULO, TEXT};

/// Operators that bind tighter than `~`.
const PRODUCT: [char; 3] = ['*', '/', '%'];

/// Opening brackets of a tag up to which it is rewritten: the rewriting recurses into them, and templates
/// come from strangers. Minijinja's parser refuses nesting far less deep.
const DEPTH: usize = 500;

/// A template, rewritten.
pub(crate) fn rewrite(source: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(source.len()), source);
    while let Some(at) = rest.find('{') {
        let (text, tag) = rest.split_at(at);
        out += text;
        let close = match tag.as_bytes().get(1) {
            Some(b'#') => "#}",
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            _ => {
                out.push('{');
                rest = &tag[1..];
                continue;
            }
        };
        // A tag without an end is left to the parser, which says so.
        let Some(end) = tag_end(tag, close) else { return out + tag };
        let (whole, after) = tag.split_at(end);
        let name = whole[2..].trim_start_matches(['-', '+']).trim_start();
        if close == "%}" && name.starts_with("raw") {
            let raw = after.find("endraw").unwrap_or(after.len());
            out += whole;
            out += &after[..raw];
            // The tag that ends it goes on as plain text: it has no expression.
            rest = &after[raw..];
            continue;
        }
        out += &if close == "#}" || depth(whole) > DEPTH { whole.to_string() } else { rewrite_tag(whole) };
        rest = after;
    }
    out + rest
}

/// A bound of how deep brackets nest: closing ones are not subtracted, since they may be part of a string.
fn depth(tag: &str) -> usize {
    tag.bytes().filter(|byte| matches!(byte, b'(' | b'[' | b'{')).count()
}

/// Bytes of a tag, its end included, that stands outside of strings.
fn tag_end(tag: &str, close: &str) -> Option<usize> {
    if close == "#}" {
        return tag.find(close).map(|at| at + 2);
    }
    let (mut at, mut depth) = (2, 0usize);
    while at < tag.len() {
        let byte = tag.as_bytes()[at];
        match byte {
            b'\'' | b'"' => at = string_end(tag, at),
            b'{' => (depth, at) = (depth + 1, at + 1),
            b'}' if depth > 0 => (depth, at) = (depth - 1, at + 1),
            _ if tag.as_bytes()[at..].starts_with(close.as_bytes()) => return Some(at + 2),
            _ => at += 1,
        }
    }
    None
}

/// Where the string that begins at `at` ends.
fn string_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != bytes[at] {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(text.len())
}

fn rewrite_tag(tag: &str) -> String {
    let (mut out, mut at, bytes) = (String::with_capacity(tag.len()), 0, tag.as_bytes());
    let blank = |from: usize| from + tag[from..].len() - tag[from..].trim_start().len();
    while at < tag.len() {
        if begins_operand(tag, at) {
            let end = operand_end(tag, at);
            let (before, after) = (tag[..at].trim_end(), tag[end..].trim_start());
            let joined = before.ends_with('~') || after.starts_with('~');
            if joined && !before.ends_with(PRODUCT) && !after.starts_with(PRODUCT) {
                out += &format!("{}|{TEXT}", rewrite_tag(&tag[at..end]));
                at = end;
                continue;
            }
        }
        if matches!(bytes[at], b'\'' | b'"') {
            let end = string_end(tag, at);
            out += &tag[at..end];
            at = end;
            let sign = blank(at);
            if bytes.get(sign) == Some(&b'%') && bytes.get(sign + 1) != Some(&b'}') {
                let begin = blank(sign + 1);
                let end = operand_end(tag, begin);
                out += &format!("|{MODULO}({})", rewrite_tag(&tag[begin..end]));
                at = end;
            }
            continue;
        }
        if bytes[at].is_ascii_digit() && begins_operand(tag, at) {
            let end = operand_end(tag, at);
            out += &tag[at..end];
            at = end;
            continue;
        }
        if bytes[at] == b'.' {
            let word = word_end(tag, at + 1);
            let name = &tag[at + 1..word];
            let known = DICT.contains(&name) || STR.contains(&name) || LIST.contains(&name);
            let next = blank(word);
            if known && next > word && &tag[next..word_end(tag, next)] == "is" {
                out += &format!("|{METHOD}('{name}')");
                at = word;
                continue;
            }
        }
        let width = tag[at..].chars().next().map_or(1, char::len_utf8);
        out += &tag[at..at + width];
        at += width;
    }
    out
}

fn word_end(text: &str, at: usize) -> usize {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    text[at..].find(|c: char| !word(c)).map_or(text.len(), |n| at + n)
}

/// Where a unary operand ends: a name, a number, a string or a group, with all `.name`, `[…]`, `(…)` and
/// `|filter` behind it.
fn operand_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let mut end = if bytes.get(at) == Some(&b'-') { at + 1 } else { at };
    end = match bytes.get(end) {
        Some(b'(' | b'[' | b'{') => group_end(text, end),
        Some(b'\'' | b'"') => string_end(text, end),
        Some(b'0'..=b'9') => number_end(text, end),
        _ => word_end(text, end),
    };
    loop {
        let next = end + text[end..].len() - text[end..].trim_start().len();
        end = match bytes.get(next) {
            Some(b'(' | b'[') => group_end(text, next),
            Some(b'.' | b'|') => {
                let name = next + 1;
                let name = name + text[name..].len() - text[name..].trim_start().len();
                word_end(text, name)
            }
            _ => return end,
        };
    }
}

/// Where a number ends: digits, a fraction, an exponent.
fn number_end(text: &str, at: usize) -> usize {
    let (bytes, mut end) = (text.as_bytes(), word_end(text, at));
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end = word_end(text, end + 1);
    }
    let hexadecimal = text[at..].starts_with("0x") || text[at..].starts_with("0X");
    if !hexadecimal && matches!(bytes[end - 1], b'e' | b'E') && matches!(bytes.get(end), Some(b'-' | b'+')) {
        end = word_end(text, end + 1);
    }
    end
}

/// Whether an operand begins at a place: it does not stand within a word, nor behind another operand.
fn begins_operand(text: &str, at: usize) -> bool {
    let Some(c) = text[at..].chars().next() else { return false };
    if !(c.is_alphanumeric() || matches!(c, '_' | '\'' | '"' | '(' | '[')) {
        return false;
    }
    let before = &text[..at];
    let within = before.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
    let behind = before.trim_end().ends_with(['.', '|', ')', ']', '}']) && !before.ends_with("%}");
    !within && !behind
}

fn group_end(text: &str, at: usize) -> usize {
    let (bytes, mut depth, mut end) = (text.as_bytes(), 0usize, at);
    while end < text.len() {
        match bytes[end] {
            b'\'' | b'"' => {
                end = string_end(text, end);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        end += 1;
        if depth == 0 {
            return end;
        }
    }
    end
}
