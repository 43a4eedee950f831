//! Characters that a text should not have.

use super::FindingKind;

pub(super) fn check(texts: &[&str], find: &mut dyn FnMut(FindingKind, String)) {
    let mut count = |kind, is: &dyn Fn(char) -> bool| {
        let mut found = texts.iter().flat_map(|text| text.char_indices().map(move |at| (text, at)));
        let Some((text, (at, c))) = found.find(|(_, (_, c))| is(*c)) else { return };
        let more = found.filter(|(_, (_, c))| is(*c)).count();
        find(kind, format!("{} U+{:04X}, the first in {}", more + 1, u32::from(c), around(text, at)));
    };
    count(FindingKind::ReplacementCharacter, &|c| c == '\u{fffd}');
    count(FindingKind::ControlCharacter, &|c| {
        c == '\u{feff}' || c.is_control() && !matches!(c, '\0' | '\t' | '\n' | '\r')
    });
    count(FindingKind::Nul, &|c| c == '\0');
    let mut found = texts.iter().flat_map(|text| mojibake(text).into_iter().map(move |found| (text, found)));
    if let Some((text, (at, wrong, right))) = found.next() {
        let detail =
            format!("{} such, the first {wrong:?} for {right:?} in {}", found.count() + 1, around(text, at));
        find(FindingKind::Mojibake, detail);
    }
}

/// What stands around an offset.
fn around(text: &str, at: usize) -> String {
    let start = text[..at].char_indices().rev().nth(14).map_or(0, |(start, _)| start);
    format!("{:?}", text[start..].chars().take(30).collect::<String>())
}

/// Characters whose bytes in Windows-1252 are a character in UTF-8: their offset, they, and what was meant.
pub(super) fn mojibake(text: &str) -> Vec<(usize, String, char)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let meant = byte(c).filter(|byte| (0xc2..=0xf4).contains(byte)).and_then(|first| {
            let length = if first < 0xe0 {
                2
            } else if first < 0xf0 {
                3
            } else {
                4
            };
            let wrong: String = text[at..].chars().take(length).collect();
            let bytes: Vec<u8> = wrong.chars().map(byte).collect::<Option<_>>()?;
            let right = std::str::from_utf8(&bytes).ok()?.chars().next()?;
            (bytes.len() == length).then_some((wrong, right))
        });
        match meant {
            Some((wrong, right)) => {
                let start = at;
                at += wrong.len();
                found.push((start, wrong, right));
            }
            None => at += c.len_utf8(),
        }
    }
    found
}

/// The byte of a character in Windows-1252, where undefined bytes are those of Latin-1; none for ASCII.
fn byte(c: char) -> Option<u8> {
    const FROM_80: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match u32::from(c) {
        code @ 0x80..=0xff => Some(code as u8),
        0..0x80 => None,
        _ => FROM_80.iter().position(|other| *other == c).map(|at| 0x80 + at as u8),
    }
}
