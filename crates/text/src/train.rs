//! Training a byte-level BPE (Sennrich et al., arXiv 1508.07909; bytes as in GPT-2).
//!
//! Text is split by GPT-2's pattern into words; the most frequent pair of neighbouring tokens becomes a
//! token, again and again. Of equally frequent pairs the one with the lower ids comes first, so that the same
//! texts give the same vocabulary on every machine. Pairs are counted in 64 bits: a corpus may be of any
//! size.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use tokenizers::utils::SysRegex;

use crate::byte_level::{GPT2_PATTERN, alphabet, spell};
use crate::pre::Pre;
use crate::tokenizer::{Parts, Roles};
use crate::{SpecialTokens, TextError, Tokenizer};

type Pair = (u32, u32);

/// A pair that comes less often is noise.
const MIN_COUNT: u64 = 2;

impl Tokenizer {
    /// Trains a byte-level BPE with GPT-2's pre-tokenizer on texts.
    ///
    /// Ids: the special tokens, the 256 bytes, then the merged tokens in the order in which they were found.
    /// Every text has an encoding. The vocabulary is smaller than `vocab_size` if the texts have no more
    /// pairs that come twice. Sequences begin with BOS if there is one.
    ///
    /// # Errors
    /// If `vocab_size` does not hold the special tokens and the bytes, a special token's name is a word of
    /// the texts, or a run of spaces is hundreds of thousands long.
    pub fn train_bpe<I>(texts: I, vocab_size: usize, specials: &SpecialTokens) -> Result<Self, TextError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let needed = specials.names().len() + 256;
        if vocab_size < needed {
            return Err(TextError::VocabularyTooSmall {
                found: vocab_size,
                needed,
                reason: "the 256 bytes and the special tokens",
            });
        }
        let words = count_words(texts)?;
        let mut tokens: Vec<String> = specials.names().into_iter().map(str::to_string).collect();
        let first_byte = tokens.len() as u32;
        tokens.extend(alphabet().into_iter().map(String::from));
        let merges = merge_pairs(words, &mut tokens, first_byte, vocab_size);
        finish(tokens, merges, specials)
    }
}

/// Builds a tokenizer with GPT-2's pre-tokenizer from tokens in the order of their ids.
pub(crate) fn finish(
    tokens: Vec<String>,
    merges: Vec<(String, String)>,
    specials: &SpecialTokens,
) -> Result<Tokenizer, TextError> {
    const PLACE: &str = "new vocabulary";
    let mut seen = HashSet::new();
    if let Some(twice) = tokens.iter().find(|token| !seen.insert(token.as_str())) {
        return Err(TextError::malformed(
            PLACE,
            "special tokens",
            format!("{twice:?} is a token of the text"),
        ));
    }
    let parts = Parts {
        vocab: tokens.into_iter().zip(0..).collect(),
        merges,
        pre: Pre::by_name("gpt-2")?,
        added: specials.names().into_iter().map(|name| (name.to_string(), true)).collect(),
    };
    let tokenizer = Tokenizer::build(parts, PLACE, "merges")?;
    let id = |name: &Option<String>| name.as_deref().and_then(|name| tokenizer.id(name));
    let roles = Roles {
        bos: id(&specials.bos),
        eos: id(&specials.eos),
        pad: id(&specials.pad),
        add_bos: id(&specials.bos).is_some(),
    };
    Ok(tokenizer.with_roles(roles))
}

/// The words of the texts and how often each comes, sorted.
fn count_words<I>(texts: I) -> Result<Vec<(String, u64)>, TextError>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let pattern = SysRegex::new(GPT2_PATTERN).map_err(|e| TextError::Tokenize(e.to_string()))?;
    let mut counts: HashMap<String, u64> = HashMap::new();
    for text in texts {
        let text = text.as_ref();
        let mut covered = 0;
        for (start, end) in pattern.find_iter(text) {
            covered = end;
            let word = &text[start..end];
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(word.to_string(), 1);
                }
            }
        }
        // The pattern leaves nothing out: it gave up.
        if covered != text.len() {
            return Err(TextError::RunOfSpaces { offset: covered });
        }
    }
    let mut words: Vec<_> = counts.into_iter().collect();
    words.sort_unstable();
    Ok(words)
}

/// Merges until there are `vocab_size` tokens. `tokens` holds the alphabet, its first byte at `first_byte`,
/// and grows.
fn merge_pairs(
    words: Vec<(String, u64)>,
    tokens: &mut Vec<String>,
    first_byte: u32,
    vocab_size: usize,
) -> Vec<(String, String)> {
    let byte_ids: HashMap<char, u32> = alphabet().into_iter().zip(first_byte..).collect();
    let mut words: Vec<(Vec<u32>, u64)> = words
        .into_iter()
        .map(|(word, count)| (spell(word.as_bytes()).chars().map(|c| byte_ids[&c]).collect(), count))
        .collect();
    // Without the special tokens: text never merges into one.
    let mut ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).skip(first_byte as usize).collect();

    // How often each pair comes, and in which words it has come.
    let mut counts: HashMap<Pair, u64> = HashMap::new();
    let mut places: HashMap<Pair, Vec<u32>> = HashMap::new();
    for (i, (word, count)) in words.iter().enumerate() {
        for pair in pairs(word) {
            *counts.entry(pair).or_default() += count;
            let places = places.entry(pair).or_default();
            if places.last() != Some(&(i as u32)) {
                places.push(i as u32);
            }
        }
    }
    // Entries may be out of date: a count that has changed since is looked up when its entry comes to the
    // top.
    let mut queue: BinaryHeap<(u64, Reverse<Pair>)> =
        counts.iter().map(|(pair, count)| (*count, Reverse(*pair))).collect();

    let mut merges = Vec::new();
    let mut merged: HashSet<Pair> = HashSet::new();
    while tokens.len() < vocab_size {
        let Some((count, Reverse(pair))) = queue.pop() else { break };
        let now = counts.get(&pair).copied().unwrap_or(0);
        if now != count {
            if now > 0 && now < count {
                queue.push((now, Reverse(pair)));
            }
            continue;
        }
        if count < MIN_COUNT {
            break;
        }
        let token = format!("{}{}", tokens[pair.0 as usize], tokens[pair.1 as usize]);
        let id = *ids.entry(token).or_insert_with_key(|token| {
            tokens.push(token.clone());
            tokens.len() as u32 - 1
        });
        // A pair can come back when a token is made in a second way; its merge is known already.
        if merged.insert(pair) {
            merges.push((tokens[pair.0 as usize].clone(), tokens[pair.1 as usize].clone()));
        }
        let mut changes: HashMap<Pair, i64> = HashMap::new();
        for i in places.remove(&pair).unwrap_or_default() {
            let (word, count) = &mut words[i as usize];
            if !pairs(word).any(|other| other == pair) {
                continue;
            }
            let count = *count as i64;
            pairs(word).for_each(|pair| *changes.entry(pair).or_default() -= count);
            *word = merge(word, pair, id);
            for new in pairs(word) {
                *changes.entry(new).or_default() += count;
                if new.0 == id || new.1 == id {
                    let places = places.entry(new).or_default();
                    if places.last() != Some(&i) {
                        places.push(i);
                    }
                }
            }
        }
        for (pair, change) in changes.into_iter().filter(|(_, change)| *change != 0) {
            let count = counts.entry(pair).or_default();
            *count = count.saturating_add_signed(change);
            if *count == 0 {
                counts.remove(&pair);
            } else if change > 0 {
                queue.push((*count, Reverse(pair)));
            }
        }
    }
    merges
}

fn pairs(word: &[u32]) -> impl Iterator<Item = Pair> + '_ {
    word.windows(2).map(|pair| (pair[0], pair[1]))
}

/// Replaces the pair by the id, from the left.
fn merge(word: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut out = Vec::with_capacity(word.len());
    let mut i = 0;
    while i < word.len() {
        if word.get(i..i + 2) == Some(&[pair.0, pair.1]) {
            out.push(id);
            i += 2;
        } else {
            out.push(word[i]);
            i += 1;
        }
    }
    out
}
