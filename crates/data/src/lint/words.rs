//! A text as words: what is compared when spelling, punctuation and white space do not count.

/// A word: the hash of its lower-case letters and digits, and where it stands in the text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) hash: u64,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// FNV-1a's.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Runs of letters and digits; apostrophes do not end a word. Scripts without spaces have a word a character.
pub(super) fn words(text: &str) -> Vec<Word> {
    let mut found = Vec::new();
    let mut open: Option<Word> = None;
    let close = |open: &mut Option<Word>, found: &mut Vec<Word>| {
        found.extend(open.take().map(|word| Word { hash: mix(word.hash), ..word }));
    };
    for (start, c) in text.char_indices() {
        let end = start + c.len_utf8();
        if matches!(c, '\'' | '’') {
            continue;
        }
        if !c.is_alphanumeric() || has_no_spaces(c) {
            close(&mut open, &mut found);
        }
        if c.is_alphanumeric() {
            let word = open.get_or_insert(Word { hash: BASIS, start, end });
            for lower in c.to_lowercase() {
                word.hash = (word.hash ^ u64::from(lower)).wrapping_mul(PRIME);
            }
            word.end = end;
            if has_no_spaces(c) {
                close(&mut open, &mut found);
            }
        }
    }
    close(&mut open, &mut found);
    found
}

/// Thai, Lao, Burmese, Khmer; Chinese and Japanese.
fn has_no_spaces(c: char) -> bool {
    matches!(u32::from(c), 0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x2e80..=0x9fff
        | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}

/// A hash of words in a row.
pub(super) fn gram(words: &[Word]) -> u64 {
    words.iter().fold(BASIS, |hash, word| mix(hash.rotate_left(7) ^ word.hash))
}

/// The sorted set of a text's shingles of so many words; a shorter text is one shingle, one without words none.
pub(super) fn shingles<'a>(texts: impl IntoIterator<Item = &'a str>, length: usize) -> Vec<u64> {
    let mut all: Vec<Word> = Vec::new();
    texts.into_iter().for_each(|text| all.extend(words(text)));
    let length = length.clamp(1, all.len().max(1));
    let mut set: Vec<u64> = all.windows(length).map(gram).collect();
    set.sort_unstable();
    set.dedup();
    set
}

/// The finalizer of splitmix64: each bit of the result depends on all bits.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
