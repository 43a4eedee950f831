//! GPT-2's spelling of bytes: each of the 256 bytes is one printable character, so that every token is a
//! string.
//!
//! Printable Latin-1 stands for itself; the other bytes, in order, are U+0100 and up (`bytes_to_unicode` of
//! GPT-2's `encoder.py`). The space is `Ġ`, the newline `Ċ`.

use std::sync::LazyLock;

/// The pattern that GPT-2 splits text by before it merges.
pub(crate) const GPT2_PATTERN: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

static TO_CHAR: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut table = ['\0'; 256];
    let mut next = 0x100u32;
    for (byte, slot) in table.iter_mut().enumerate() {
        *slot = match byte {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or('\0')
            }
        };
    }
    table
});

/// The character of a byte.
pub(crate) fn byte_to_char(byte: u8) -> char {
    TO_CHAR[usize::from(byte)]
}

/// The byte of a character, `None` for characters that stand for no byte.
pub(crate) fn char_to_byte(c: char) -> Option<u8> {
    match u32::from(c) {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(u32::from(c)).ok(),
        // The rest in order: 0..=0x20, 0x7f..=0xa0, 0xad.
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Text, or any bytes, in the spelling of tokens.
pub(crate) fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|b| byte_to_char(*b)).collect()
}

/// The bytes of a token; a token with a character that stands for no byte stands for its own UTF-8, as in the
/// `ByteLevel` decoder of `tokenizers`.
pub(crate) fn unspell(token: &str) -> Vec<u8> {
    token.chars().map(char_to_byte).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The 256 characters by code point: the order of the alphabet in trained vocabularies.
pub(crate) fn alphabet() -> Vec<char> {
    let mut alphabet = TO_CHAR.to_vec();
    alphabet.sort_unstable();
    alphabet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_that_of_the_tokenizers_crate() {
        use tokenizers::pre_tokenizers::byte_level::ByteLevel;
        let ours: std::collections::HashSet<char> = alphabet().into_iter().collect();
        assert_eq!(ours, ByteLevel::alphabet().into_iter().collect());
        assert_eq!(spell(" \n".as_bytes()), "ĠĊ");
        assert_eq!(spell("é".as_bytes()), "Ã©");
    }

    #[test]
    fn every_byte_comes_back() {
        for byte in 0..=255 {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte));
        }
        assert_eq!(char_to_byte('世'), None);
        assert_eq!(unspell("世"), "世".as_bytes());
    }
}
