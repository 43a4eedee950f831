//! Tokenizers through Hugging Face files and GGUF metadata, and files that contradict themselves.

mod common;

use common::{MIXED, corpus};
use serde_json::{Value as Json, json};
use tritforge_gguf::{Metadata, Value};
use tritforge_text::{ChatTemplate, EncodeOptions, SpecialTokens, TextError, Tokenizer};

fn trained() -> Tokenizer {
    Tokenizer::train_bpe(corpus(), 400, &SpecialTokens::default()).unwrap()
}

fn metadata(tokenizer: &Tokenizer, vocab_size: usize) -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in tokenizer.to_gguf(vocab_size).unwrap() {
        metadata.insert(key, value);
    }
    metadata
}

/// Encodes a batch of texts with each of the flags.
fn encoded(tokenizer: &Tokenizer, texts: &[&str]) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    for text in texts {
        for parse_special in [false, true] {
            for add_bos in [false, true] {
                all.push(tokenizer.encode_with(text, EncodeOptions { add_bos, parse_special }).unwrap());
            }
        }
    }
    all
}

fn assert_same(a: &Tokenizer, b: &Tokenizer, texts: &[&str]) {
    assert_eq!((a.bos(), a.eos(), a.pad(), a.adds_bos()), (b.bos(), b.eos(), b.pad(), b.adds_bos()));
    assert_eq!(a.vocab_size(), b.vocab_size());
    assert_eq!(encoded(a, texts), encoded(b, texts));
}

/// The tokenizer with another pre-tokenizer (and model flag), as a `tokenizer.json`.
fn variant(pre_tokenizer: Json, ignore_merges: bool, normalizer: Json) -> Tokenizer {
    let mut json: Json = serde_json::from_str(&trained().to_json().unwrap()).unwrap();
    json["pre_tokenizer"] = pre_tokenizer;
    json["normalizer"] = normalizer;
    json["model"]["ignore_merges"] = json!(ignore_merges);
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

fn split_then_bytes(patterns: &[&str]) -> Json {
    let mut steps: Vec<Json> = patterns
        .iter()
        .map(|p| json!({"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": false}))
        .collect();
    steps.push(
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}),
    );
    json!({"type": "Sequence", "pretokenizers": steps})
}

/// The pre-tokenizers of the published `tokenizer.json` of Llama 3 and Qwen 2.
fn llama3() -> Tokenizer {
    variant(
        split_then_bytes(&[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ]),
        true,
        Json::Null,
    )
}

fn qwen2() -> Tokenizer {
    variant(
        split_then_bytes(&[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ]),
        false,
        json!({"type": "NFC"}),
    )
}

fn smollm() -> Tokenizer {
    let steps = json!([
        {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
    ]);
    variant(json!({"type": "Sequence", "pretokenizers": steps}), false, Json::Null)
}

#[test]
fn gguf_round_trips_encode_identically() {
    for (tokenizer, pre) in
        [(trained(), "gpt-2"), (llama3(), "llama-bpe"), (qwen2(), "qwen2"), (smollm(), "smollm")]
    {
        let metadata = metadata(&tokenizer, 448);
        assert_eq!(metadata.get_str("tokenizer.ggml.pre").unwrap(), pre);
        let read = Tokenizer::from_gguf(&metadata).unwrap();
        assert_same(&tokenizer, &read, &MIXED);
        // And once more: what was read is written as it was.
        assert_eq!(read.to_gguf(448).unwrap(), tokenizer.to_gguf(448).unwrap());
    }
}

#[test]
fn each_name_has_its_own_pattern() {
    // Merges that only apply where the pattern leaves their parts together.
    let mut metadata = metadata(&Tokenizer::train_bpe([""], 256, &SpecialTokens::none()).unwrap(), 256);
    let mut tokens = metadata.get_str_array("tokenizer.ggml.tokens").unwrap().to_vec();
    let mut merges = Vec::new();
    for (left, right) in [("1", "2"), ("12", "3"), ("123", "4"), ("!", "x"), ("=", "=")] {
        tokens.push(format!("{left}{right}"));
        merges.push(format!("{left} {right}"));
    }
    metadata.insert("tokenizer.ggml.token_type", vec![1i32; tokens.len()]);
    metadata.insert("tokenizer.ggml.tokens", tokens);
    metadata.insert("tokenizer.ggml.merges", merges);
    for (pre, expected) in [
        ("gpt-2", "1234 ! x =="),
        ("llama-bpe", "123 4 !x =="),
        ("qwen2", "1 2 3 4 !x =="),
        ("smollm", "1 2 3 4 ! x =="),
        ("default", "123 4 ! x =="),
    ] {
        metadata.insert("tokenizer.ggml.pre", pre);
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        let ids = tokenizer.encode("1234!x==", false).unwrap();
        let found: Vec<String> = ids.iter().map(|id| tokenizer.token(*id).unwrap()).collect();
        assert_eq!(found.join(" "), expected, "{pre}");
    }
}

#[test]
fn the_default_pre_tokenizer_of_llama_cpp() {
    let mut metadata = metadata(&trained(), 400);
    metadata.insert("tokenizer.ggml.pre", "default");
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    assert_eq!(
        tokenizer.to_gguf(400).unwrap()[1],
        ("tokenizer.ggml.pre".to_string(), Value::from("default"))
    );
    for text in MIXED {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, false).unwrap()).unwrap(), text);
    }
}

#[test]
fn characters_round_trip_with_their_errors() {
    let tokenizer = Tokenizer::characters(["abc äé世🦀\n"], &SpecialTokens::default()).unwrap();
    let by_gguf = Tokenizer::from_gguf(&metadata(&tokenizer, 64)).unwrap();
    let by_json = Tokenizer::from_json(tokenizer.to_json().unwrap().as_bytes()).unwrap();
    for read in [by_gguf, by_json] {
        assert_same(&tokenizer, &read, &["abc", "世🦀\n\nä é", ""]);
        let error = read.encode("a\u{e3}", false).unwrap_err();
        assert!(matches!(error, TextError::UnknownCharacter { character: 'ã', offset: 1 }), "{error}");
    }
}

#[test]
fn padding_stands_for_no_token() {
    let tokenizer = trained();
    let metadata = metadata(&tokenizer, 448);
    let tokens = metadata.get_str_array("tokenizer.ggml.tokens").unwrap();
    let types = metadata.get_i64_array("tokenizer.ggml.token_type").unwrap();
    assert_eq!((tokens.len(), types.len()), (448, 448));
    assert_eq!((tokens[447].as_str(), types[447], types[399]), ("[PAD447]", 5, 1));
    assert_eq!((tokens[0].as_str(), types[0]), ("<|endoftext|>", 3));
    let read = Tokenizer::from_gguf(&metadata).unwrap();
    assert_eq!(read.vocab_size(), 400);
    assert_eq!(read.id("[PAD447]"), None);
    // A model may still give such an id: it is shown, not an error in the middle of a text.
    assert_eq!(read.decode(&[447]).unwrap(), "[PAD447]");
    assert!(read.decode(&[448]).is_err());
    let error = tokenizer.to_gguf(399).unwrap_err();
    assert!(matches!(error, TextError::VocabularyTooSmall { found: 399, needed: 400, .. }), "{error}");
}

#[test]
fn hugging_face_files_round_trip() {
    let template = ChatTemplate::named("chatml").unwrap();
    let specials = SpecialTokens {
        bos: Some("[BEGIN]".to_string()),
        eos: Some("[END]".to_string()),
        pad: Some("[NONE]".to_string()),
        others: vec!["<|im_start|>".to_string()],
    };
    let tokenizer =
        Tokenizer::train_bpe(corpus(), 400, &specials).unwrap().with_chat_template(Some(&template));
    let directory = tempfile::tempdir().unwrap();
    tokenizer.save(directory.path()).unwrap();
    for path in [directory.path().to_path_buf(), directory.path().join("tokenizer.json")] {
        let read = Tokenizer::from_file(&path).unwrap();
        assert_same(&tokenizer, &read, &MIXED);
        assert_eq!(read.chat_template().unwrap().unwrap().source(), template.source());
        assert_eq!(read.to_config_json(), tokenizer.to_config_json());
    }
    // GGUF keeps the roles and the template too.
    let read = Tokenizer::from_gguf(&metadata(&tokenizer, 400)).unwrap();
    assert_same(&tokenizer, &read, &MIXED);
    assert_eq!(read.chat_template().unwrap().unwrap().source(), template.source());
}

#[test]
fn tokenizer_json_alone_knows_the_usual_roles() {
    let read = Tokenizer::from_json(trained().to_json().unwrap().as_bytes()).unwrap();
    assert_same(&trained(), &read, &MIXED);
    assert_eq!((read.eos(), read.bos(), read.adds_bos()), (Some(0), Some(0), true));
}

#[test]
fn tokenizer_config_is_believed() {
    let config = json!({"bos_token": null, "eos_token": {"content": "<|endoftext|>", "lstrip": false},
        "chat_template": [{"name": "tools", "template": "x"}, {"name": "default", "template": "{{ bos_token }}"}]});
    let read = trained().with_config(config.to_string().as_bytes()).unwrap();
    assert_eq!((read.bos(), read.eos(), read.adds_bos()), (None, Some(0), false));
    assert_eq!(read.chat_template().unwrap().unwrap().source(), "{{ bos_token }}");
    // A token that the vocabulary lacks cannot occur: the model has no such token.
    let read = trained().with_config(br#"{"eos_token": "</s>", "pad_token": {"content": "<pad>"}}"#).unwrap();
    assert_eq!((read.bos(), read.eos(), read.pad()), (Some(0), None, None));
    assert!(trained().with_config(b"[1]").is_err());
    assert!(trained().with_config(br#"{"eos_token": 3}"#).is_err());
}

#[test]
fn truncation_and_padding_of_a_file_cut_nothing() {
    let mut json: Json = serde_json::from_str(&trained().to_json().unwrap()).unwrap();
    json["truncation"] =
        json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    let read = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    assert_same(&trained(), &read, &MIXED);
}

#[test]
fn what_gguf_cannot_say_is_refused() {
    let word_level = json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "hello": 1}, "unk_token": "[UNK]"}});
    let word_level = Tokenizer::from_json(word_level.to_string().as_bytes()).unwrap();
    assert_eq!(word_level.encode("hello there", false).unwrap(), [1, 0]);
    let other_pattern = variant(split_then_bytes(&["[a-z]+"]), false, Json::Null);
    let lowercase = variant(
        json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true, "trim_offsets": true}),
        false,
        json!({"type": "Lowercase"}),
    );
    for (tokenizer, part) in [(word_level, "WordLevel"), (other_pattern, "[a-z]+"), (lowercase, "Lowercase")]
    {
        let error = tokenizer.to_gguf(1000).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn characters_that_a_model_would_leave_out_are_errors() {
    let bpe = json!({"version": "1.0", "added_tokens": [],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}});
    let tokenizer = Tokenizer::from_json(bpe.to_string().as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("abba", false).unwrap(), [2, 1, 0]);
    let error = tokenizer.encode("abéb", false).unwrap_err();
    assert!(matches!(error, TextError::UnknownCharacter { character: 'é', offset: 2 }), "{error}");
}

#[test]
fn contradictory_tokenizer_json_is_an_error() {
    let good = json!({"version": "1.0",
        "added_tokens": [{"id": 3, "content": "<e>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}});
    assert!(Tokenizer::from_json(good.to_string().as_bytes()).is_ok());
    let cases: [(&str, Json, &str); 13] = [
        ("/model/merges/0", json!(["a", "c"]), "\"c\" is not a token"),
        ("/model/merges/0", json!(["b", "a"]), "\"ba\" is not a token"),
        ("/model/merges/0", json!("a b c"), "expected two tokens"),
        ("/model/merges/0", json!(7), "expected two tokens"),
        ("/model/merges", json!([["a", "b"], ["a", "b"]]), "second time"),
        ("/model/merges", json!("a b"), "expected an array"),
        ("/model/vocab/b", json!(0), "same id"),
        ("/model/vocab/b", json!(-1), "expected 0 to"),
        ("/model/vocab/b", json!(4_000_000_000u64), "expected 0 to"),
        ("/model/vocab", json!(["a"]), "expected an object"),
        ("/model", json!(null), "no tokenizer.json"),
        ("/added_tokens/0/id", json!(9), "the vocabulary assigns it 3"),
        ("/pre_tokenizer/type", json!("Unheard"), "tokenizer"),
    ];
    for (place, value, part) in cases {
        let mut bad = good.clone();
        *bad.pointer_mut(place).unwrap() = value;
        let error = Tokenizer::from_json(bad.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("tokenizer.json: ") && error.contains(part), "{error}");
    }
    let mut dropout = good.clone();
    dropout["model"]["dropout"] = json!(0.1);
    assert!(
        Tokenizer::from_json(dropout.to_string().as_bytes()).unwrap_err().to_string().contains("dropout")
    );
    let mut prefix = good.clone();
    prefix["model"]["continuing_subword_prefix"] = json!("####");
    assert!(Tokenizer::from_json(prefix.to_string().as_bytes()).is_err());
    let text = good.to_string();
    for end in (0..text.len()).step_by(7) {
        assert!(Tokenizer::from_json(&text.as_bytes()[..end]).is_err());
    }
    for junk in [&b"\xff\xfe"[..], b"[]", b"7", b"{}", b"null"] {
        assert!(Tokenizer::from_json(junk).is_err());
    }
}

#[test]
fn contradictory_gguf_metadata_is_an_error() {
    let good = metadata(&trained(), 400);
    let strings = |list: &[&str]| Value::from(list.iter().map(|s| (*s).to_string()).collect::<Vec<_>>());
    let mut twice = good.get_str_array("tokenizer.ggml.tokens").unwrap().to_vec();
    twice[7] = twice[9].clone();
    let cases: [(&str, Option<Value>, &str); 15] = [
        ("model", None, "tokenizer.ggml.model"),
        ("model", Some("bert".into()), "found \"bert\"; supported: gpt2"),
        ("model", Some("llama".into()), "tokenizer.ggml.scores"),
        ("pre", None, "guessing could"),
        ("pre", Some("tekken".into()), "gpt-2, llama-bpe, qwen2, gpt-4o, smollm, default"),
        ("pre", Some(3u32.into()), "u32 3"),
        ("tokens", None, "is missing"),
        ("tokens", Some(strings(&[])), "0 tokens"),
        ("tokens", Some(twice.into()), "tokens[9]"),
        ("token_type", Some(vec![1i32; 399].into()), "399 types for 400 tokens"),
        ("token_type", Some(vec![9i32; 400].into()), "expected 1 to 6"),
        ("merges", None, "is missing"),
        ("merges", Some(strings(&["ab"])), "merges[0]"),
        ("merges", Some(strings(&["a b c"])), "merges[0]"),
        ("merges", Some(strings(&["a missing"])), "not a token"),
    ];
    for (key, value, part) in cases {
        let mut bad = good.clone();
        let key = format!("tokenizer.ggml.{key}");
        match value {
            Some(value) => bad.insert(key, value),
            None => bad.remove(&key),
        };
        let error = Tokenizer::from_gguf(&bad).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // An id that no token has means none.
    let mut metadata = good.clone();
    metadata.insert("tokenizer.ggml.eos_token_id", 400u32);
    assert_eq!(Tokenizer::from_gguf(&metadata).unwrap().eos(), None);
    // A template that does not parse must not keep the model from loading.
    let mut metadata = good.clone();
    metadata.insert("tokenizer.chat_template", "{% for %}");
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    assert!(tokenizer.chat_template().is_err());
}

#[test]
fn token_types_decide_what_is_special() {
    let mut metadata = metadata(&trained(), 403);
    let mut tokens = metadata.get_str_array("tokenizer.ggml.tokens").unwrap().to_vec();
    let mut types: Vec<i32> =
        metadata.get_i64_array("tokenizer.ggml.token_type").unwrap().iter().map(|t| *t as i32).collect();
    (tokens[400], types[400]) = ("<think>".to_string(), 4);
    (tokens[402], types[402]) = ("<|end|>".to_string(), 3);
    metadata.insert("tokenizer.ggml.tokens", tokens);
    metadata.insert("tokenizer.ggml.token_type", types);
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    assert_eq!(tokenizer.vocab_size(), 403);
    assert!(tokenizer.is_special(402) && !tokenizer.is_special(400) && !tokenizer.is_special(401));
    let plain = tokenizer.encode("<think><|end|>", false).unwrap();
    assert!(plain[0] == 400 && !plain.contains(&402));
    assert_eq!(tokenizer.decode(&plain).unwrap(), "<think><|end|>");
    // Read and written, the hole stays a hole.
    let again = Tokenizer::from_gguf(&metadata).unwrap().to_gguf(403).unwrap();
    assert_eq!(again[2].1, *metadata.get("tokenizer.ggml.tokens").unwrap());
    assert_eq!(again[3].1, *metadata.get("tokenizer.ggml.token_type").unwrap());
}
