//! Lines and columns of a text, found without reading it again for each.

/// Bytes between two counts of characters.
const BLOCK: usize = 256;

/// Where lines begin, and how many characters stand before each block of bytes.
pub(super) struct Places<'a> {
    text: &'a str,
    lines: Vec<usize>,
    characters: Vec<usize>,
}

impl<'a> Places<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let (mut characters, mut count) = (vec![0], 0);
        for block in text.as_bytes().chunks(BLOCK) {
            count += begun(block);
            characters.push(count);
        }
        Self { text, lines, characters }
    }

    /// Line and column of a byte, both from 1, columns in characters; of the end for bytes beyond it.
    pub(super) fn of(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.lines.partition_point(|&start| start <= offset);
        (line, self.characters_before(offset) - self.characters_before(self.lines[line - 1]) + 1)
    }

    fn characters_before(&self, offset: usize) -> usize {
        let block = offset / BLOCK;
        self.characters[block] + begun(&self.text.as_bytes()[block * BLOCK..offset])
    }
}

/// The characters that begin in these bytes of UTF-8.
fn begun(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_counting() {
        let mut text = String::new();
        for i in 0..700 {
            text.push_str(["a", "ä", "\n", "漢", "🦀", "bc", "\r\n"][i * i % 7]);
        }
        text.push_str(&"é".repeat(700));
        for text in [text.as_str(), "", "\n", "x\n\n"] {
            let places = Places::new(text);
            for offset in 0..=text.len() + 2 {
                let before = &text[..text.floor_char_boundary(offset)];
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
                assert_eq!(places.of(offset), (line, column), "{offset} of {}", text.len());
            }
        }
    }
}
