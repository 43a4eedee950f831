//! Answers that break off, as far as their ends show it. A guess: short answers, lists, code and numbers end without
//! punctuation rightly, so that only ends that speak for themselves count.

use super::{FindingKind, quoted};
use crate::examples::{Body, ChatTurn};

/// English words after which no sentence ends.
const UNFINISHED: [&str; 18] = [
    "a", "an", "and", "are", "because", "but", "by", "from", "if", "into", "is", "my", "of", "or", "the",
    "their", "which", "your",
];
/// Words that the last line of prose has at least.
const PROSE: usize = 8;

pub(super) fn check(body: &Body, find: &mut dyn FnMut(FindingKind, String)) {
    let mut look = |turns: &[ChatTurn], before: usize, name: &str| {
        for (index, turn) in turns.iter().enumerate().filter(|(_, turn)| turn.learn && turn.answer) {
            // What stands before a call may end in any way.
            let text = turn.content().filter(|_| !turn.message.contains_key("tool_calls"));
            let Some(text) = text else { continue };
            if let Some(why) = broken_off(text) {
                let at = before + index + 1;
                find(
                    FindingKind::Truncated,
                    format!("message {at}{name} {why}: {}", quoted(text.trim_end(), true)),
                );
            }
        }
    };
    match body {
        // A text is learned as it is, and may be a part of a longer one.
        Body::Text(_) => {}
        // A bad answer may be bad because it breaks off.
        Body::Labelled { desirable: false, .. } => {}
        Body::Turns(turns) | Body::Labelled { turns, .. } => look(turns, 0, ""),
        Body::Preference { prompt, chosen, rejected } => {
            look(chosen, prompt.len(), " (chosen)");
            look(rejected, prompt.len(), " (rejected)");
        }
    }
}

/// How an answer breaks off, if it does.
pub(super) fn broken_off(answer: &str) -> Option<&'static str> {
    let text = answer.trim_end();
    let last = text.chars().next_back()?;
    let fences = text.lines().filter(|line| line.trim_start().starts_with("```")).count();
    if fences % 2 == 1 {
        return Some("ends inside a code fence");
    }
    let line = text.lines().next_back().unwrap_or_default().trim();
    // Behind a code block or in a table, punctuation means nothing.
    if line.starts_with("```") || line.starts_with('|') {
        return None;
    }
    let words = line.split_whitespace().count();
    match last {
        ',' | '(' | '[' | '{' | '，' | '、' | '（' => return Some("ends with an opening mark or a comma"),
        // A question may ask to finish after a colon or a dash; a word that is cut by a hyphen is none.
        '-' if text.chars().rev().nth(1).is_some_and(char::is_alphabetic) && words > 1 => {
            return Some("ends inside a word");
        }
        ':' if words >= PROSE => return Some("ends with a colon"),
        _ => {}
    }
    let word = line.rsplit(char::is_whitespace).next().unwrap_or_default();
    if words >= PROSE && UNFINISHED.contains(&word) {
        return Some("ends in the middle of a sentence");
    }
    let sentences = text.char_indices().any(|(at, c)| {
        let next = text[at + c.len_utf8()..].chars().next();
        matches!(c, '.' | '!' | '?') && next.is_some_and(char::is_whitespace)
            || matches!(c, '。' | '！' | '？')
    });
    let long = words >= PROSE || line.chars().count() >= 5 * PROSE;
    let plain =
        !line.starts_with(['-', '*', '#', '•', '>', '+']) && !line.starts_with(|c: char| c.is_ascii_digit());
    // An address ends without punctuation.
    (sentences && long && plain && last.is_alphabetic() && !word.contains(['/', '@', '.']))
        .then_some("ends without punctuation, which its sentences have")
}
