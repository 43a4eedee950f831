//! Nine thousand damaged tokenizer files: each is an error, or a tokenizer that encodes and decodes.

#[path = "../../../tests/mutations/mod.rs"]
mod mutations;

use std::fs;
use std::path::Path;

use mutations::{Random, mutate};
use tritforge_gguf::Metadata;
use tritforge_text::{EncodeOptions, SpecialTokens, TextError, TiktokenPattern, Tokenizer};

const TEXTS: [&str; 4] =
    ["", "  The quick brown fox, 1234 times.\n", "größe 世界 🙂 </s> <unk> <0x41>", "aaaaaaaaa\u{0}▁▁▁ b"];

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizers").join(name)).unwrap()
}

/// A damaged file's tokenizer does what tokenizers do, or says why not.
fn exercise(tokenizer: &Tokenizer) {
    for text in TEXTS {
        for parse_special in [false, true] {
            let Ok(ids) = tokenizer.encode_with(text, EncodeOptions { add_bos: true, parse_special }) else {
                continue;
            };
            assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()), "{ids:?}");
            let _ = tokenizer.decode(&ids);
            let mut stream = tokenizer.stream();
            ids.iter().for_each(|id| drop(stream.push(*id)));
            let _ = stream.finish();
        }
    }
    let _ = tokenizer.to_json();
    let size = tokenizer.vocab_size();
    if size > 1 << 12 {
        return;
    }
    if let Ok(entries) = tokenizer.to_gguf(size) {
        let mut metadata = Metadata::new();
        for (key, value) in entries {
            metadata.insert(key, value);
        }
        let _ = Tokenizer::from_gguf(&metadata);
    }
}

/// Reads `count` damaged copies of a file; returns how many were read and how many refused.
fn run(
    file: &[u8],
    count: usize,
    seed: u64,
    read: impl Fn(&[u8]) -> Result<Tokenizer, TextError>,
) -> (usize, usize) {
    let mut random = Random(seed);
    let (mut sound, mut refused) = (0, 0);
    for _ in 0..count {
        match read(&mutate(file, &mut random)) {
            Ok(tokenizer) => {
                exercise(&tokenizer);
                sound += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    (sound, refused)
}

#[test]
fn damaged_tokenizer_json() {
    let texts = ["the quick brown fox jumps", "größe größer am größten", "1234 12 34"];
    let bpe = Tokenizer::train_bpe(texts, 280, &SpecialTokens::default()).unwrap();
    let unigram = Tokenizer::from_sentencepiece(&golden("unigram.model")).unwrap();
    let characters = Tokenizer::characters(["abc äö"], &SpecialTokens::default()).unwrap();
    let mut total = (0, 0);
    for (i, tokenizer) in [bpe, unigram, characters].iter().enumerate() {
        let json = tokenizer.to_json().unwrap();
        // Without the line breaks, which take most of the file.
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let (sound, refused) = run(json.to_string().as_bytes(), 1100, 11 + i as u64, Tokenizer::from_json);
        total = (total.0 + sound, total.1 + refused);
    }
    assert!(total.0 > 100 && total.1 > 1000, "{total:?}");
}

#[test]
fn damaged_sentencepiece_models() {
    let mut total = (0, 0);
    for (i, name) in ["bpe", "plain", "unigram", "user"].into_iter().enumerate() {
        let model = golden(&format!("{name}.model"));
        let (sound, refused) = run(&model, 900, 21 + i as u64, Tokenizer::from_sentencepiece);
        total = (total.0 + sound, total.1 + refused);
    }
    assert!(total.0 > 100 && total.1 > 1000, "{total:?}");
}

#[test]
fn damaged_tiktoken_files() {
    let file = golden("toy.tiktoken");
    let specials = [(420, "<|end|>".to_string())];
    let (sound, refused) =
        run(&file, 2100, 31, |bytes| Tokenizer::from_tiktoken(bytes, TiktokenPattern::O200k, &specials));
    assert!(sound > 50 && refused > 1000, "{sound} {refused}");
}
