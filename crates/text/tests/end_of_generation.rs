//! Which tokens end an answer, by every place where a model says so.

use std::fs;

use tritforge_gguf::{Metadata, Value};
use tritforge_text::{ChatTemplate, SpecialTokens, Tokenizer, TurnEnd};

/// A byte-level tokenizer whose special tokens are `<|endoftext|>`, EOS, with the id 0, and these, from id 1
/// on.
fn tokenizer(names: &[&str]) -> Tokenizer {
    let others = names.iter().map(ToString::to_string).collect();
    Tokenizer::train_bpe(["abc"], 400, &SpecialTokens { others, ..SpecialTokens::default() }).unwrap()
}

fn metadata(tokenizer: &Tokenizer) -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in tokenizer.to_gguf(512).unwrap() {
        metadata.insert(key, value);
    }
    metadata
}

#[test]
fn each_built_in_template_says_how_an_answer_ends() {
    let tokenizer = tokenizer(&["<|im_start|>", "<|im_end|>", "<|eot_id|>"]);
    for name in ChatTemplate::names() {
        let found = tokenizer.turn_end(&ChatTemplate::named(name).unwrap());
        let token = |id| TurnEnd { token: Some(id), written: true, ..TurnEnd::default() };
        let expected = match name {
            "chatml" | "hermes" => token(2),
            "llama3" => token(3),
            "alpaca" | "verbatim" => token(0),
            _ => TurnEnd { stop: Some("\n\nUser:".into()), closing: "\n\n".into(), ..TurnEnd::default() },
        };
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn marks_that_are_no_tokens_are_stop_strings() {
    let chatml = ChatTemplate::named("chatml").unwrap();
    let found = tokenizer(&[]).turn_end(&chatml);
    assert_eq!(
        found,
        TurnEnd { stop: Some("<|im_end|>".into()), written: true, ..TurnEnd::default() },
        "the mark is spelled out"
    );
    let none = Tokenizer::train_bpe(["abc"], 400, &SpecialTokens::none()).unwrap();
    // Alpaca's end is EOS: without one, the next instruction's heading.
    let alpaca = none.turn_end(&ChatTemplate::named("alpaca").unwrap());
    assert_eq!(alpaca, TurnEnd { stop: Some("\n\n### Instruction:".into()), ..TurnEnd::default() });
    // A template that refuses the example, and one that does not write the answer as it is.
    for source in
        ["{{ raise_exception('no') }}", "{% for m in messages %}{{ m.content | upper }}{% endfor %}"]
    {
        assert_eq!(none.turn_end(&ChatTemplate::new(source).unwrap()), TurnEnd::default());
    }
}

#[test]
fn a_special_token_behind_other_text_is_not_what_ends_an_answer() {
    let tokenizer = tokenizer(&["<|im_end|>", "<extra>"]);
    let of = |after: &str| {
        let source = format!("{{% for m in messages %}}{{{{ m.content }}}}{after}{{% endfor %}}");
        tokenizer.turn_end(&ChatTemplate::new(source).unwrap())
    };
    assert_eq!(of(" <extra>\n").token, Some(2));
    assert_eq!(of("<extra><|im_end|>").token, Some(2));
    assert_eq!(
        (of("### End<extra>").token, of("### End<extra>").stop.as_deref()),
        (None, Some("### End<extra>"))
    );
}

#[test]
fn the_models_own_template_counts() {
    let plain = tokenizer(&["<|user|>", "<done>"]);
    assert_eq!(plain.end_ids(), [0]);
    let template =
        ChatTemplate::new("{% for m in messages %}<|user|>{{ m.content }}<done>{% endfor %}").unwrap();
    let chat = plain.with_chat_template(Some(&template));
    assert_eq!(chat.end_ids(), [0, 2]);
    // GGUF has a key for the end of a turn, by which llama.cpp knows a token whose name it does not know.
    let metadata = metadata(&chat);
    assert_eq!(metadata.get_u32("tokenizer.ggml.eot_token_id").unwrap(), 2);
    assert_eq!(metadata.get_i64_array("tokenizer.ggml.eos_token_ids").unwrap(), [0, 2]);
    assert_eq!(Tokenizer::from_gguf(&metadata).unwrap().end_ids(), [0, 2]);
}

#[test]
fn names_count_under_llama_cpps_conditions() {
    let ends = |names: &[&str]| tokenizer(names).end_ids();
    assert_eq!(ends(&["<|eot_id|>", "<|start|>", "<end_of_turn>", "_<EOT>", "<|eom_id|>"]), [0, 1, 3, 4, 5]);
    assert_eq!(ends(&["<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>", "</s>"]), [0, 1, 2]);
    // Of gpt-oss the first ends a part of an answer; of Gemma 4 the last is no end.
    assert_eq!(ends(&["<|end|>", "<|return|>", "<|call|>"]), [0, 2, 3]);
    assert_eq!(ends(&["<|end|>", "<|return|>"]), [0, 1, 2]);
    assert_eq!(ends(&["<|tool_response>", "</s>"]), [0, 1]);
    // A token that merges make of text is text.
    let model = serde_json::json!({
        "type": "BPE", "vocab": {"<": 0, "/": 1, "s": 2, ">": 3, "</": 4, "s>": 5, "</s>": 6, "<|im_end|>": 7},
        "merges": [["<", "/"], ["s", ">"], ["</", "s>"]],
    });
    let json = |added: &[(&str, u32)]| {
        let added = added.iter().map(|(content, id)| {
            serde_json::json!({
                "id": id, "content": content, "special": false, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false,
            })
        });
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model,
        });
        Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
    };
    assert_eq!(json(&[]).encode("</s>", false).unwrap(), [6]);
    assert_eq!(json(&[]).end_ids(), [7], "no text is encoded to the other");
    assert_eq!(json(&[("</s>", 6)]).end_ids(), [6, 7]);
}

#[test]
fn every_key_of_gguf_metadata_counts() {
    let original = metadata(&tokenizer(&["<a>", "<b>", "<c>", "<d>", "<e>", "<f>"]));
    assert!(original.get("tokenizer.ggml.eot_token_id").is_none());
    let with = |key: &str, value: Value| {
        let mut changed = original.clone();
        changed.insert(format!("tokenizer.ggml.{key}"), value);
        Tokenizer::from_gguf(&changed).map(|tokenizer| tokenizer.end_ids())
    };
    let keys = ["eot_token_id", "eom_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"];
    for (id, key) in (1u32..).zip(keys) {
        assert_eq!(with(key, id.into()).unwrap(), [0, id], "{key}");
        // As converters write it for a model that has none.
        assert_eq!(with(key, u32::MAX.into()).unwrap(), [0], "{key}");
        assert_eq!(with(key, (-1i32).into()).unwrap(), [0], "{key}");
        assert!(with(key, "1".into()).is_err(), "{key}");
    }
    assert_eq!(with("eos_token_ids", vec![0i32, 6, 4].into()).unwrap(), [0, 4, 6]);
}

#[test]
fn hugging_face_files_declare_ends() {
    let dir = tempfile::tempdir().unwrap();
    let read = |generation: Option<&str>, config: Option<&str>| {
        tokenizer(&["<a>", "<b>", "<c>"]).save(dir.path()).unwrap();
        for (name, text) in [("generation_config.json", generation), ("config.json", config)] {
            let path = dir.path().join(name);
            match text {
                Some(text) => fs::write(path, text).unwrap(),
                None => drop(fs::remove_file(path)),
            }
        }
        Tokenizer::from_file(dir.path())
    };
    let ends = |generation, config| read(generation, config).unwrap().end_ids();
    assert_eq!(ends(None, None), [0]);
    assert_eq!(ends(Some(r#"{"eos_token_id": 2}"#), None), [0, 2]);
    assert_eq!(ends(Some(r#"{"eos_token_id": [3, 1, 3]}"#), Some(r#"{"eos_token_id": 2}"#)), [0, 1, 3]);
    assert_eq!(ends(None, Some(r#"{"eos_token_id": [2]}"#)), [0, 2]);
    assert_eq!(ends(Some("{}"), Some(r#"{"eos_token_id": 2}"#)), [0, 2]);
    assert_eq!(ends(Some(r#"{"eos_token_id": null}"#), None), [0]);
    assert_eq!(ends(Some(r#"{"eos_token_id": [-1, 100000]}"#), None), [0], "no token has these ids");
    let error = read(Some(r#"{"eos_token_id": "</s>"}"#), None).unwrap_err().to_string();
    assert!(error.contains("generation_config.json") && error.contains("eos_token_id"), "{error}");

    // A checkpoint keeps them in the one file that it has; GGUF has two keys beside EOS, and ollama's list.
    let original = read(Some(r#"{"eos_token_id": [1, 2, 3]}"#), None).unwrap();
    let json = original.to_json().unwrap();
    let kept = Tokenizer::from_json(json.as_bytes()).unwrap();
    let kept = kept.with_config(original.to_config_json().as_bytes()).unwrap();
    assert_eq!(kept.end_ids(), [0, 1, 2, 3]);
    let metadata = metadata(&kept);
    assert_eq!(metadata.get_u32("tokenizer.ggml.eot_token_id").unwrap(), 1);
    assert_eq!(metadata.get_u32("tokenizer.ggml.eom_token_id").unwrap(), 2);
    assert_eq!(Tokenizer::from_gguf(&metadata).unwrap().end_ids(), [0, 1, 2, 3]);
}
