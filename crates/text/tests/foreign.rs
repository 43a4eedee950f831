//! Tokenizers of other libraries against the ids that these give (`tests/golden/make_tokenizers.py`).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tritforge_gguf::Metadata;
use tritforge_text::{EncodeOptions, TextError, TiktokenPattern, Tokenizer};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizers").join(name)
}

struct Goldens {
    texts: Vec<String>,
    json: Value,
}

impl Goldens {
    fn read() -> Self {
        let json: Value = serde_json::from_slice(&fs::read(golden("ids.json")).unwrap()).unwrap();
        let texts =
            json["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_string()).collect();
        Self { texts, json }
    }

    fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let rows = self.json["ids"][name].as_array().unwrap().iter();
        let row =
            |row: &Value| row.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        rows.map(row).collect()
    }

    /// Says how many texts differ, and shows some.
    fn compare(&self, name: &str, tokenizer: &Tokenizer) {
        let mut wrong = 0;
        for (text, expected) in self.texts.iter().zip(self.ids(name)) {
            let found = tokenizer.encode(text, false).unwrap();
            if found != expected {
                wrong += 1;
                let spell = |ids: &[u32]| ids.iter().map(|id| tokenizer.token(*id)).collect::<Vec<_>>();
                if wrong < 5 {
                    println!("{name} {text:?}:\n  {:?}\n  {:?}", spell(&found), spell(&expected));
                }
            }
        }
        assert_eq!(wrong, 0, "{name}: {wrong} of {} texts differ", self.texts.len());
    }
}

#[test]
fn sentencepiece_models_encode_as_sentencepiece_does() {
    let goldens = Goldens::read();
    assert!(goldens.texts.len() > 200);
    for name in ["bpe", "plain", "added", "unigram", "user"] {
        let bytes = fs::read(golden(&format!("{name}.model"))).unwrap();
        let tokenizer = Tokenizer::from_sentencepiece(&bytes).unwrap();
        goldens.compare(name, &tokenizer);
        // The same through a tokenizer.json.
        let again = Tokenizer::from_json(tokenizer.to_json().unwrap().as_bytes()).unwrap();
        goldens.compare(name, &again);
    }
}

fn gguf(tokenizer: &Tokenizer, vocab_size: usize) -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in tokenizer.to_gguf(vocab_size).unwrap() {
        metadata.insert(key, value);
    }
    metadata
}

#[test]
fn sentencepiece_bpe_goes_through_gguf() {
    let goldens = Goldens::read();
    for (name, prefix) in [("bpe", true), ("added", false)] {
        let tokenizer = Tokenizer::from_file(&golden(&format!("{name}.model"))).unwrap();
        let metadata = gguf(&tokenizer, 512);
        assert_eq!(metadata.get_str("tokenizer.ggml.model").unwrap(), "llama");
        assert_eq!(metadata.get_bool("tokenizer.ggml.add_space_prefix").unwrap(), prefix);
        let types = metadata.get_i64_array("tokenizer.ggml.token_type").unwrap();
        // <unk>, <s>, </s>, then the tokens of the user, if any, and the bytes; what rounds the vocabulary up
        // is unused.
        assert_eq!(types[..3], [2, 3, 3]);
        assert_eq!(types[tokenizer.id("<0x0A>").unwrap() as usize], 6);
        assert_eq!(types[511], 5);
        assert_eq!(tokenizer.id("<tag>").map(|id| types[id as usize]), (!prefix).then_some(4));
        let read = Tokenizer::from_gguf(&metadata).unwrap();
        goldens.compare(name, &read);
        assert_eq!((read.bos(), read.eos(), read.adds_bos()), (Some(1), Some(2), true));
        assert_eq!(gguf(&read, 512), metadata);
    }
    // What GGUF cannot say: normalization, and unigram models.
    for (name, part) in [("plain", "remove_extra_whitespaces"), ("unigram", "unigram"), ("user", "unigram")] {
        let tokenizer = Tokenizer::from_file(&golden(&format!("{name}.model"))).unwrap();
        let error = tokenizer.to_gguf(512).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn merges_that_scores_cannot_express_are_refused() {
    let tokenizer = Tokenizer::from_file(&golden("bpe.model")).unwrap();
    let mut json: Value = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
    json["model"]["merges"].as_array_mut().unwrap().pop();
    let fewer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    let error = fewer.to_gguf(512).unwrap_err().to_string();
    assert!(error.contains("order of tokens"), "{error}");

    let mut metadata = gguf(&tokenizer, 512);
    metadata.insert("tokenizer.ggml.scores", vec![0f32; 3]);
    let error = Tokenizer::from_gguf(&metadata).unwrap_err().to_string();
    assert!(error.contains("512 tokens, 3 scores"), "{error}");
}

#[test]
fn tiktoken_files_encode_as_tiktoken_does() {
    let goldens = Goldens::read();
    let bytes = fs::read(golden("toy.tiktoken")).unwrap();
    for (name, pattern) in [
        ("r50k", TiktokenPattern::Gpt2),
        ("cl100k", TiktokenPattern::Cl100k),
        ("o200k", TiktokenPattern::O200k),
        ("llama3", TiktokenPattern::Llama3),
        ("qwen", TiktokenPattern::Qwen),
    ] {
        let tokenizer = Tokenizer::from_tiktoken(&bytes, pattern, &[(420, "<|end|>".to_string())]).unwrap();
        goldens.compare(name, &tokenizer);
        let again = Tokenizer::from_json(tokenizer.to_json().unwrap().as_bytes()).unwrap();
        goldens.compare(name, &again);
        assert_eq!(tokenizer.id("<|end|>"), Some(420));
        // Through GGUF, whose names know all of these patterns.
        goldens.compare(name, &Tokenizer::from_gguf(&gguf(&tokenizer, 448)).unwrap());
    }
}

#[test]
fn texts_come_back_from_a_sentencepiece_model() {
    let goldens = Goldens::read();
    for (name, prefix) in [("bpe", true), ("added", false)] {
        let tokenizer = Tokenizer::from_file(&golden(&format!("{name}.model"))).unwrap();
        let decoded = goldens.json["decoded"][name].as_array().unwrap();
        for ((text, ids), theirs) in goldens.texts.iter().zip(goldens.ids(name)).zip(decoded) {
            let found = tokenizer.decode(&ids).unwrap();
            assert_eq!(found, theirs.as_str().unwrap(), "{name} {text:?}");
            // In pieces, with the space that stands before the text.
            let mut stream = tokenizer.stream();
            let mut pieces = String::new();
            for id in &ids {
                pieces.extend(stream.push(*id).unwrap());
            }
            pieces.extend(stream.finish().unwrap());
            let whole = if prefix { pieces.strip_prefix(' ').unwrap_or(&pieces) } else { &pieces };
            assert_eq!(whole, found, "{name} {text:?}");
        }
    }
    let tokenizer = Tokenizer::from_file(&golden("bpe.model")).unwrap();
    // In the middle of a text a word brings its space.
    let ids = tokenizer.encode("ka lo", false).unwrap();
    let text: Vec<u8> = ids.iter().flat_map(|id| tokenizer.bytes(*id).unwrap()).collect();
    assert_eq!(text, b" ka lo");
}

#[test]
fn roles_are_those_of_the_model() {
    let tokenizer = Tokenizer::from_file(&golden("unigram.model")).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(1), Some(2), Some(3)));
    assert!(tokenizer.adds_bos() && tokenizer.is_special(0) && tokenizer.is_special(1));
    assert_eq!(tokenizer.encode("ka", true).unwrap()[0], 1);
    // A name in a text is text, unless names are asked for.
    let names = EncodeOptions { add_bos: false, parse_special: true };
    assert!(!tokenizer.encode("<s>", false).unwrap().contains(&1));
    assert_eq!(tokenizer.encode_with("<s>", names).unwrap(), [1]);
}

#[test]
fn a_directory_without_tokenizer_json_is_read_with_its_configuration() {
    let temp = tempfile::tempdir().unwrap();
    fs::copy(golden("bpe.model"), temp.path().join("tokenizer.model")).unwrap();
    let plain = Tokenizer::from_file(temp.path()).unwrap();
    let size = plain.vocab_size();
    let config = serde_json::json!({
        "add_bos_token": false, "bos_token": "<s>", "eos_token": "<|im_end|>", "chat_template": "{{ messages }}",
        "added_tokens_decoder": {
            "1": {"content": "<s>", "special": true},
            (size.to_string()): {"content": "<|im_end|>", "special": true},
        },
    });
    fs::write(temp.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    fs::write(temp.path().join("added_tokens.json"), format!("{{\"<extra>\": {}}}", size + 1)).unwrap();
    let tokenizer = Tokenizer::from_file(temp.path()).unwrap();
    assert_eq!(tokenizer.eos(), Some(size as u32));
    assert!(!tokenizer.adds_bos() && !tokenizer.is_special(size as u32 + 1));
    let names = EncodeOptions { add_bos: false, parse_special: true };
    let ids = tokenizer.encode_with("ka<|im_end|><extra>", names).unwrap();
    assert_eq!(ids[ids.len() - 2..], [size as u32, size as u32 + 1]);
    Goldens::read().compare("bpe", &tokenizer);

    fs::write(temp.path().join("added_tokens.json"), format!("{{\"<extra>\": {}}}", size + 5)).unwrap();
    let error = Tokenizer::from_file(temp.path()).unwrap_err().to_string();
    assert!(error.contains("<extra>") && error.contains("added tokens"), "{error}");
}

#[test]
fn a_tiktoken_file_is_known_by_its_name() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("llama3.tiktoken");
    fs::copy(golden("toy.tiktoken"), &file).unwrap();
    let tokenizer = Tokenizer::from_file(temp.path()).unwrap();
    Goldens::read().compare("llama3", &tokenizer);
    let other = temp.path().join("tokenizer.model");
    fs::rename(&file, &other).unwrap();
    let error = Tokenizer::from_file(&other).unwrap_err().to_string();
    assert!(error.contains("420 tokens") && error.contains("llama3.tiktoken"), "{error}");
    // Special tokens as the configuration says.
    fs::rename(&other, &file).unwrap();
    let config = r#"{"added_tokens_decoder": {"420": {"content": "<|begin_of_text|>", "special": true}}}"#;
    fs::write(temp.path().join("tokenizer_config.json"), config).unwrap();
    let tokenizer = Tokenizer::from_file(temp.path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.adds_bos()), (Some(420), true));
}

#[test]
fn damaged_files_are_errors_that_name_the_place() {
    let model = fs::read(golden("bpe.model")).unwrap();
    let attempt = |bytes: &[u8]| Tokenizer::from_sentencepiece(bytes).unwrap_err().to_string();
    assert!(attempt(&model[..1000]).contains("begins no field"), "{}", attempt(&model[..1000]));
    assert!(attempt(b"").contains("none of type unknown"));
    // Two pieces `a`, made by hand: field 1, a message with a string in field 1.
    assert!(attempt(&[0x0a, 3, 0x0a, 1, b'a', 0x0a, 3, 0x0a, 1, b'a']).contains("is also piece 0"));
    assert!(attempt(&[0x0a, 5, 0x0a, 1, b'a', 0x18, 9]).contains("type 9"));
    // A trainer that made a vocabulary of words.
    assert!(attempt(&[0x12, 2, 0x18, 3]).contains("model_type"));

    let tiktoken = |text: &str| {
        let found = Tokenizer::from_tiktoken(text.as_bytes(), TiktokenPattern::Gpt2, &[]);
        match found {
            Err(TextError::Malformed { place, problem, .. }) => format!("{place}: {problem}"),
            other => format!("{other:?}"),
        }
    };
    assert!(tiktoken("YQ== 0\nYg== 0\n").starts_with("line 2: rank 0"));
    assert!(tiktoken("YQ== 0\nYQ== 1\n").contains("twice"));
    assert!(tiktoken("YQ== 0\nYg==\n").starts_with("line 2: expected"));
    assert!(tiktoken("YQ== 99999999\n").contains("2^24"));
    assert!(tiktoken("").contains("none"));
}
