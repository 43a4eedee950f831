//! Damage that knows the format: words, lines and structure of a text or binary file, beside the blind damage
//! of [`mutate`].

use crate::mutations::{Random, mutate};

/// What every text format gets wrong sooner or later: extreme numbers, deep nesting, characters that are no
/// letters.
const COMMON: [&str; 24] = [
    "0",
    "-1",
    "1e308",
    "1e999",
    "-0.0",
    "NaN",
    "Infinity",
    "4294967296",
    "18446744073709551615",
    "9223372036854775808",
    "-9223372036854775808",
    "99999999999999999999999999",
    "null",
    "true",
    "\"\"",
    "[]",
    "{}",
    "\n",
    "\r\n",
    "\u{feff}",
    "\0",
    "\u{10ffff}",
    "\\ud800",
    "é",
];

/// Pairs of brackets that nest.
const BRACKETS: [[&str; 2]; 5] = [["[", "]"], ["{\"a\":", "}"], ["(", ")"], ["{", "}"], ["\"", "\""]];

/// A file with up to four changes. `words` are those of its format; `others` are files of the same format
/// that lend pieces.
pub(crate) fn damage(file: &[u8], others: &[&[u8]], words: &[&str], random: &mut Random) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..1 + random.below(3) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(9) {
            0 => {
                let word = word(words, random);
                bytes.splice(at..at, word.bytes());
            }
            // A word in the place of the next one of the file.
            1 => {
                let word = word(words, random);
                let (start, end) = next_word(&bytes, at);
                bytes.splice(start..end, word.bytes());
            }
            2 => lines(&mut bytes, at, random),
            3 => {
                let other = others[random.below(others.len())];
                if !other.is_empty() {
                    let from = random.below(other.len());
                    let end = other.len().min(from + random.below(200));
                    let replaced = (at + random.below(60)).min(bytes.len());
                    bytes.splice(at..replaced, other[from..end].iter().copied());
                }
            }
            // Nesting, deep enough to end a recursion without a bound.
            4 if random.below(8) == 0 => {
                let [open, close] = BRACKETS[random.below(BRACKETS.len())];
                let depth = 1 << random.below(12);
                let text = open.repeat(depth) + &close.repeat(depth * random.below(2));
                bytes.splice(at..at, text.into_bytes());
            }
            5 => bytes[at] = random.next() as u8,
            _ => bytes = mutate(&bytes, random),
        }
    }
    bytes
}

fn word<'a>(words: &[&'a str], random: &mut Random) -> &'a str {
    let n = random.below(words.len() + COMMON.len());
    words.get(n).copied().unwrap_or_else(|| COMMON[n - words.len()])
}

/// The next run of letters, digits and what numbers have, at or behind a place.
fn next_word(bytes: &[u8], at: usize) -> (usize, usize) {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let start = bytes[at..].iter().position(part).map_or(bytes.len(), |n| at + n);
    let end = bytes[start..].iter().position(|byte| !part(byte)).map_or(bytes.len(), |n| start + n);
    (start, end)
}

/// A line twice, gone, or in another place.
fn lines(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let begin = |at: usize| bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |n| n + 1);
    let start = begin(at);
    let end = bytes[start..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |n| start + n + 1);
    let line = bytes[start..end].to_vec();
    match random.below(3) {
        0 => {
            bytes.splice(start..start, line);
        }
        1 => {
            bytes.drain(start..end);
        }
        _ => {
            let to = begin(random.below(bytes.len()));
            bytes.splice(to..to, line);
        }
    }
}
