//! Pre-tokenizers by the names that GGUF files give them (`tokenizer.ggml.pre`).
//!
//! A byte-level BPE is its vocabulary, its merges, and the patterns that split text before anything is
//! merged. GGUF stores the patterns by name only, and a runtime that is not told the name, or guesses it,
//! gives other ids: text in, gibberish out. So the name of a Hugging Face pre-tokenizer is found by comparing
//! its patterns with those of the known names, and a pre-tokenizer that matches none is an error that shows
//! it.

use serde_json::Value;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::TextError;
use crate::byte_level::GPT2_PATTERN;

/// How one name splits text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pre {
    /// The name in `tokenizer.ggml.pre`.
    pub(crate) name: &'static str,
    /// Other names that llama.cpp takes for the same.
    aliases: &'static [&'static str],
    /// Patterns applied one after the other; every match and every gap becomes a piece.
    patterns: &'static [&'static str],
    /// Whether a piece that is a token is taken whole, whatever the merges say.
    pub(crate) ignore_merges: bool,
    /// Whether text is brought to Unicode form NFC first.
    pub(crate) nfc: bool,
}

/// The known names. Sources: `llama-vocab.cpp` of llama.cpp for the names, `default` and `ignore_merges`; the
/// models' own `tokenizer.json` for the other patterns.
const KNOWN: [Pre; 6] = [
    Pre { name: "gpt-2", aliases: &[], patterns: &[GPT2_PATTERN], ignore_merges: false, nfc: false },
    Pre {
        name: "llama-bpe",
        aliases: &["llama3", "llama-v3", "falcon3"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: true,
        nfc: false,
    },
    Pre {
        name: "qwen2",
        aliases: &[],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: false,
        nfc: true,
    },
    Pre {
        name: "gpt-4o",
        aliases: &["llama4"],
        patterns: &[concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        ignore_merges: false,
        nfc: false,
    },
    Pre {
        name: "smollm",
        aliases: &[],
        patterns: &[r"\p{N}", GPT2_PATTERN],
        ignore_merges: false,
        nfc: false,
    },
    Pre {
        name: "default",
        aliases: &[],
        patterns: &[
            r"[\p{P}\$\+<=>\^~\|]+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
            r"\p{N}+",
            r"[0-9][0-9][0-9]",
        ],
        ignore_merges: false,
        nfc: false,
    },
];

/// The supported names, for messages.
pub(crate) fn names() -> String {
    KNOWN.map(|pre| pre.name).join(", ")
}

impl Pre {
    /// The pre-tokenizer of a name in a GGUF file.
    pub(crate) fn by_name(name: &str) -> Result<Pre, TextError> {
        KNOWN.into_iter().find(|pre| pre.name == name || pre.aliases.contains(&name)).ok_or_else(|| {
            TextError::Unsupported {
                what: "pre-tokenizer (tokenizer.ggml.pre)",
                found: format!("{name:?}"),
                supported: names(),
            }
        })
    }

    /// The name that describes a tokenizer's normalizer and pre-tokenizer, given as in `tokenizer.json`.
    ///
    /// # Errors
    /// If no name does; the message shows what was found.
    pub(crate) fn recognize(
        normalizer: &Value,
        pre_tokenizer: &Value,
        ignore_merges: bool,
    ) -> Result<Pre, TextError> {
        let unsupported = |what, found: String| TextError::Unsupported { what, found, supported: names() };
        let patterns = patterns(pre_tokenizer)
            .map_err(|found| unsupported("pre-tokenizer without a GGUF name", found))?;
        let pre = KNOWN.into_iter().find(|pre| pre.patterns == patterns).ok_or_else(|| {
            unsupported("pre-tokenizer without a GGUF name", format!("byte-level after {patterns:?}"))
        })?;
        let nfc = match (normalizer, normalizer["type"].as_str()) {
            (Value::Null, _) => false,
            (_, Some("NFC")) => true,
            _ => {
                return Err(TextError::Unsupported {
                    what: "normalizer",
                    found: shorten(normalizer),
                    supported: "none, or NFC with qwen2".to_string(),
                });
            }
        };
        if nfc != pre.nfc {
            return Err(TextError::Unsupported {
                what: "normalizer",
                found: format!("{} with the pre-tokenizer {}", if nfc { "NFC" } else { "none" }, pre.name),
                supported: format!("{} with {}", if pre.nfc { "NFC" } else { "none" }, pre.name),
            });
        }
        if ignore_merges != pre.ignore_merges {
            return Err(TextError::Unsupported {
                what: "model.ignore_merges",
                found: format!("{ignore_merges} with the pre-tokenizer {}", pre.name),
                supported: format!(
                    "{}, since runtimes derive it from the name {}",
                    pre.ignore_merges, pre.name
                ),
            });
        }
        Ok(pre)
    }

    /// The pre-tokenizer, built.
    pub(crate) fn build(&self) -> Result<PreTokenizerWrapper, TextError> {
        if self.patterns == [GPT2_PATTERN] {
            return Ok(ByteLevel::new(false, true, true).into());
        }
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        for pattern in self.patterns {
            let split = Split::new(
                SplitPattern::Regex((*pattern).to_string()),
                SplitDelimiterBehavior::Isolated,
                false,
            )
            .map_err(|e| TextError::Tokenize(e.to_string()))?;
            steps.push(split.into());
        }
        steps.push(ByteLevel::new(false, true, false).into());
        Ok(Sequence::new(steps).into())
    }

    /// The normalizer that goes with it.
    pub(crate) fn normalizer(&self) -> Option<NormalizerWrapper> {
        self.nfc.then(|| NFC.into())
    }
}

/// Whether a pre-tokenizer, as in `tokenizer.json`, spells bytes in GPT-2's way.
pub(crate) fn is_byte_level(pre_tokenizer: &Value) -> bool {
    steps(pre_tokenizer).iter().any(|step| step["type"] == "ByteLevel")
}

/// Whether a piece is one that a pattern gave up on. The regular expression library ends a search after a
/// million steps back and `tokenizers` takes the rest of the text for one piece; only the patterns'
/// `\s+(?!\S)` steps back so far. No pattern leaves spaces and something else together in a piece that long.
pub(crate) fn was_given_up(piece: &str) -> bool {
    const LONG: usize = 100_000;
    piece.len() > LONG
        && piece.chars().skip(1).any(char::is_whitespace)
        && piece.chars().any(|c| !c.is_whitespace())
}

/// The steps of a pre-tokenizer, sequences unrolled.
fn steps(pre_tokenizer: &Value) -> Vec<&Value> {
    match pre_tokenizer["pretokenizers"].as_array() {
        Some(inner) => inner.iter().flat_map(steps).collect(),
        None => vec![pre_tokenizer],
    }
}

/// The patterns of a byte-level pre-tokenizer, or what it is instead.
fn patterns(pre_tokenizer: &Value) -> Result<Vec<&str>, String> {
    let steps = steps(pre_tokenizer);
    let mut patterns = Vec::new();
    let mut spelled = false;
    for step in &steps {
        let flag = |name: &str| step[name].as_bool();
        match step["type"].as_str() {
            // Bytes are spelled last: nothing may split after it.
            _ if spelled => return Err(shorten(pre_tokenizer)),
            Some("ByteLevel") if flag("add_prefix_space") == Some(false) => {
                if flag("use_regex") != Some(false) {
                    patterns.push(GPT2_PATTERN);
                }
                spelled = true;
            }
            Some("Digits") if flag("individual_digits") == Some(true) => patterns.push(r"\p{N}"),
            Some("Split") => {
                let isolated = step["behavior"] == "Isolated" && flag("invert") == Some(false);
                // Keep what matches and drop what does not: the same for a pattern that leaves no gaps, as
                // those do that end by taking any space.
                let kept = step["behavior"] == "Removed" && flag("invert") == Some(true);
                match step["pattern"]["Regex"].as_str() {
                    Some(pattern) if isolated || (kept && pattern.ends_with(r"|\s+")) => {
                        patterns.push(pattern);
                    }
                    _ => return Err(shorten(pre_tokenizer)),
                }
            }
            _ => return Err(shorten(pre_tokenizer)),
        }
    }
    if spelled { Ok(patterns) } else { Err(shorten(pre_tokenizer)) }
}

/// JSON for a message, cut.
fn shorten(value: &Value) -> String {
    const MOST: usize = 400;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_built_is_recognized() {
        for pre in KNOWN {
            let built = serde_json::to_value(pre.build().unwrap()).unwrap();
            let normalizer = serde_json::to_value(pre.normalizer()).unwrap();
            assert_eq!(Pre::recognize(&normalizer, &built, pre.ignore_merges).unwrap(), pre);
            assert_eq!(Pre::by_name(pre.name).unwrap(), pre);
            assert!(is_byte_level(&built));
        }
    }

    #[test]
    fn the_spellings_of_hugging_face_files_are_recognized() {
        // SmolLM's tokenizer.json.
        let smollm = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]});
        assert_eq!(Pre::recognize(&Value::Null, &smollm, false).unwrap().name, "smollm");
        // GPT-2's own, older than the `use_regex` field.
        let gpt2 = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
        assert_eq!(Pre::recognize(&Value::Null, &gpt2, false).unwrap().name, "gpt-2");
    }

    #[test]
    fn what_is_not_known_is_shown() {
        let prefix = json!({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true});
        let other = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "[a-z]+"}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]});
        let after = json!({"type": "Sequence", "pretokenizers": [
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
            {"type": "Digits", "individual_digits": true}]});
        for (found, part) in
            [(prefix, "add_prefix_space"), (other, "[a-z]+"), (after, "Digits"), (json!(null), "null")]
        {
            let error = Pre::recognize(&Value::Null, &found, false).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("llama-bpe, qwen2"), "{error}");
        }
        assert!(Pre::by_name("tekken").unwrap_err().to_string().contains("\"tekken\""));
    }

    #[test]
    fn a_name_that_would_change_the_encoding_is_refused() {
        let qwen2 = serde_json::to_value(Pre::by_name("qwen2").unwrap().build().unwrap()).unwrap();
        let error = Pre::recognize(&Value::Null, &qwen2, false).unwrap_err().to_string();
        assert!(error.contains("NFC with qwen2"), "{error}");
        let llama = serde_json::to_value(Pre::by_name("llama3").unwrap().build().unwrap()).unwrap();
        let error = Pre::recognize(&Value::Null, &llama, false).unwrap_err().to_string();
        assert!(error.contains("ignore_merges"), "{error}");
    }
}
