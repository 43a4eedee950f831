//! A tokenizer's file, of the kind that the first byte says: refused, or it encodes and decodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tritforge_text::{TiktokenPattern, Tokenizer};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let tokenizer = match kind % 3 {
        0 => Tokenizer::from_json(bytes),
        1 => Tokenizer::from_sentencepiece(bytes),
        _ => Tokenizer::from_tiktoken(bytes, TiktokenPattern::Llama3, &[]),
    };
    let Ok(tokenizer) = tokenizer else { return };
    if let Ok(ids) = tokenizer.encode("The quick brown fox, 1234 größe 🙂 <s>", true) {
        let _ = tokenizer.decode(&ids);
    }
});
