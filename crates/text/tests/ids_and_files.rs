//! Ids that no token has, keys that are not applied, and what the files beside a `tokenizer.json` say.

use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};
use tritforge_gguf::{Metadata, Value};
use tritforge_text::{EncodeOptions, SpecialTokens, Tokenizer};

/// A byte-level vocabulary with `<|endoftext|>` as token 0.
fn trained() -> Tokenizer {
    Tokenizer::train_bpe(["some text, and some more text"], 280, &SpecialTokens::default()).unwrap()
}

fn metadata(changes: &[(&str, Value)]) -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in trained().to_gguf(280).unwrap() {
        metadata.insert(key, value);
    }
    for (key, value) in changes {
        metadata.insert(*key, value.clone());
    }
    metadata
}

fn read(changes: &[(&str, Value)]) -> Tokenizer {
    Tokenizer::from_gguf(&metadata(changes)).unwrap()
}

#[test]
fn ids_that_no_token_has_mean_none() {
    let none: [Value; 6] =
        [u32::MAX.into(), (-1i32).into(), 280u32.into(), u64::MAX.into(), i64::MIN.into(), (-1i64).into()];
    for id in none {
        let tokenizer = read(&[
            ("tokenizer.ggml.padding_token_id", id.clone()),
            ("tokenizer.ggml.eos_token_id", id.clone()),
            ("tokenizer.ggml.bos_token_id", id.clone()),
            ("tokenizer.ggml.add_bos_token", true.into()),
        ]);
        assert_eq!((tokenizer.pad(), tokenizer.eos(), tokenizer.bos()), (None, None, None), "{id:?}");
        assert!(!tokenizer.adds_bos());
        let whole = trained().encode("some text", false).unwrap();
        assert_eq!(tokenizer.encode("some text", true).unwrap(), whole);
    }
    let last = read(&[("tokenizer.ggml.padding_token_id", 279u32.into())]);
    assert_eq!(last.pad(), Some(279));
    let text = metadata(&[("tokenizer.ggml.eos_token_id", "two".into())]);
    let error = Tokenizer::from_gguf(&text).unwrap_err().to_string();
    assert!(error.contains("tokenizer.ggml.eos_token_id") && error.contains("two"), "{error}");
}

#[test]
fn further_ends_without_a_token_are_passed_over() {
    let ends = read(&[]).end_ids();
    for key in ["eot_token_id", "eom_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"] {
        let key = format!("tokenizer.ggml.{key}");
        for id in [Value::from(u32::MAX), (-1i32).into(), 4000u32.into()] {
            assert_eq!(read(&[(&key, id)]).end_ids(), ends, "{key}");
        }
        assert!(read(&[(&key, 7u32.into())]).end_ids().contains(&7), "{key}");
    }
    assert_eq!(read(&[("tokenizer.ggml.eos_token_ids", vec![-1i32, 7, 90_000].into())]).end_ids(), {
        let mut with = ends;
        with.push(7);
        with
    });
}

#[test]
fn tokens_that_are_never_generated_are_refused() {
    let key = "tokenizer.ggml.suppress_tokens";
    let error = Tokenizer::from_gguf(&metadata(&[(key, vec![3i32].into())])).unwrap_err().to_string();
    assert!(error.contains(key), "{error}");
    read(&[(key, Vec::<i32>::new().into())]);
    // Keys that change nothing here, and unknown ones.
    read(&[
        ("tokenizer.ggml.add_eos_token", true.into()),
        ("tokenizer.ggml.remove_extra_whitespaces", true.into()),
        ("tokenizer.ggml.something_new", 1u32.into()),
        ("tokenizer.chat_template.tool_use", "{{ x }}".into()),
    ]);
}

#[test]
fn a_sentencepiece_model_without_the_key_begins_with_its_bos() {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_string).into();
    let mut types = vec![2i32, 3, 3];
    for byte in 0..=255u8 {
        tokens.push(format!("<0x{byte:02X}>"));
        types.push(6);
    }
    let scores = vec![0f32; tokens.len()];
    let model = |changes: &[(&str, Value)]| {
        let mut metadata = Metadata::new();
        metadata.insert("tokenizer.ggml.model", "llama");
        metadata.insert("tokenizer.ggml.tokens", tokens.clone());
        metadata.insert("tokenizer.ggml.scores", scores.clone());
        metadata.insert("tokenizer.ggml.token_type", types.clone());
        for (key, value) in changes {
            metadata.insert(*key, value.clone());
        }
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        (tokenizer.bos(), tokenizer.adds_bos())
    };
    assert_eq!(model(&[]), (Some(1), true));
    assert_eq!(model(&[("tokenizer.ggml.bos_token_id", u32::MAX.into())]), (Some(1), true));
    assert_eq!(model(&[("tokenizer.ggml.bos_token_id", 2u32.into())]), (Some(2), true));
    assert_eq!(model(&[("tokenizer.ggml.add_bos_token", false.into())]), (None, false));
}

/// A directory with the trained tokenizer and other files.
fn directory(files: &[(&str, Json)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("tokenizer.json"), trained().to_json().unwrap()).unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content.to_string()).unwrap();
    }
    directory
}

fn open(path: &Path) -> Tokenizer {
    Tokenizer::from_file(path).unwrap()
}

#[test]
fn tokens_that_other_files_add_are_tokens() {
    let added = |content: &str| json!({"content": content, "special": true});
    let size = trained().vocab_size() as u32;
    let turn = size.to_string();
    for files in [
        vec![("tokenizer_config.json", json!({"added_tokens_decoder": {&turn: added("<|turn|>")}}))],
        vec![
            ("added_tokens.json", json!({"<|turn|>": size})),
            ("tokenizer_config.json", json!({"additional_special_tokens": ["<|turn|>"]})),
        ],
    ] {
        let directory = directory(&files);
        let tokenizer = open(directory.path());
        assert!(tokenizer.is_extended());
        let options = EncodeOptions { add_bos: false, parse_special: true };
        assert_eq!(tokenizer.encode_with("<|turn|>", options).unwrap(), [size]);
        // What the other files say is in what is written, too.
        let again = Tokenizer::from_json(tokenizer.to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(again.encode_with("<|turn|>", options).unwrap(), [size]);
    }
    // An id that is not free is an error, padding is nothing that a text has.
    let taken = json!({"added_tokens_decoder": {"999": added("<|turn|>")}});
    let directory_of = directory(&[("tokenizer_config.json", taken)]);
    let error = Tokenizer::from_file(directory_of.path()).unwrap_err().to_string();
    assert!(error.contains("<|turn|>") && error.contains("999"), "{error}");
    let padding = json!({"pad_token": "<pad>", "added_tokens_decoder": {"999": added("<pad>")}});
    let tokenizer = open(directory(&[("tokenizer_config.json", padding)]).path());
    assert_eq!((tokenizer.pad(), tokenizer.is_extended()), (None, false));
}

#[test]
fn a_template_that_is_no_text_is_refused() {
    let directory = directory(&[]);
    fs::write(directory.path().join("chat_template.jinja"), b"{{ x \xff }}").unwrap();
    let error = Tokenizer::from_file(directory.path()).unwrap_err().to_string();
    assert!(error.contains("chat_template.jinja"), "{error}");
}
