//! A GGUF file: the reader refuses it, or every tensor and the tokenizer in it can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tritforge_gguf::Gguf;
use tritforge_text::Tokenizer;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Gguf::from_bytes(bytes.to_vec()) else { return };
    for tensor in file.tensors() {
        assert_eq!(file.data(tensor).len() as u64, tensor.nbytes);
    }
    if let Ok(tokenizer) = Tokenizer::from_gguf(file.metadata()) {
        let _ = tokenizer.encode("a b", true);
    }
});
