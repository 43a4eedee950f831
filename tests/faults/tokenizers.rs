//! Tokenizers: the parts of a `tokenizer.json`, and files of sentencepiece and tiktoken.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tritforge_text::{SpecialTokens, Tokenizer};

use crate::{Round, caught, golden_path};

/// What a tokenizer does with a text, or why it cannot be read.
fn load(path: &Path) -> Result<String, String> {
    caught(|| {
        let tokenizer = Tokenizer::from_file(path).map_err(|e| e.to_string())?;
        let ids = tokenizer.encode("the größe <|endoftext|> 12\n", true).map_err(|e| e.to_string())?;
        let text = tokenizer.decode(&ids).map_err(|e| e.to_string())?;
        Ok(format!("{} {ids:?} {text:?}", tokenizer.vocab_size()))
    })
}

#[test]
fn a_tokenizer_json_with_one_fault() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("tokenizer.json");
    let mut round = Round::default();
    let specials = SpecialTokens::default();
    let texts = ["the größe of the 12 foxes\n <|endoftext|>"];
    for made in [Tokenizer::train_bpe(texts, 280, &specials), Tokenizer::characters(texts, &specials)] {
        let text = made.unwrap().to_json().unwrap();
        fs::write(&path, &text).unwrap();
        let right = load(&path).unwrap();
        let whole: Value = serde_json::from_str(&text).unwrap();
        let mut with = |what: &str, change: &dyn Fn(&mut Value), places: &[&str]| {
            let mut other = whole.clone();
            change(&mut other);
            if other != whole {
                fs::write(&path, other.to_string()).unwrap();
                round.take(what, load(&path), places, &right);
            }
        };
        for key in whole.as_object().unwrap().keys() {
            for value in [json!("abc"), json!(12), json!([1]), json!({"type": "NoSuch"}), json!(true)] {
                let what = format!("{key} = {value}");
                with(&what, &|json| json[key] = value.clone(), &["tokenizer.json"]);
            }
        }
        for key in whole["model"].as_object().unwrap().keys() {
            for value in [json!("abc"), json!(-1), json!([[1]]), json!({"a": "b"}), json!({"a": -1})] {
                let what = format!("model.{key} = {value}");
                // A prefix or suffix of a type that it has is one like any other.
                if !(value.is_string() && (key.ends_with("_prefix") || key.ends_with("_suffix"))) {
                    with(&what, &|json| json["model"][key] = value.clone(), &["tokenizer.json"]);
                }
            }
        }
        for (token, id) in whole["model"]["vocab"].as_object().unwrap().iter().step_by(40) {
            for value in [json!(-1), json!(0.5), json!("1"), json!(null), json!(u64::MAX), json!(1u64 << 40)]
            {
                let what = format!("model.vocab.{token} = {value} and not {id}");
                let places = ["tokenizer.json"];
                with(&what, &|json| json["model"]["vocab"][token] = value.clone(), &places);
            }
        }
        for merge in [json!("a"), json!(["a"]), json!(["\u{fffd}", "b"]), json!(3), json!("\u{fffd} b")] {
            let what = format!("a merge {merge}");
            let change = |json: &mut Value| {
                if let Some(merges) = json["model"]["merges"].as_array_mut() {
                    merges.push(merge.clone());
                }
            };
            with(&what, &change, &["tokenizer.json"]);
        }
        let added = json!({"id": 9999, "content": "the", "special": true});
        let change = |json: &mut Value| json["added_tokens"].as_array_mut().unwrap().push(added.clone());
        with("an added token without its flags", &change, &["tokenizer.json"]);
        for (key, value) in [
            ("id", json!(-1)),
            ("id", json!(1)),
            ("id", json!(1u64 << 33)),
            ("content", json!(3)),
            ("content", json!(null)),
            ("special", json!("yes")),
        ] {
            let what = format!("added_tokens[0].{key} = {value}");
            let change = |json: &mut Value| {
                if json["added_tokens"][0].is_object() {
                    json["added_tokens"][0][key] = value.clone();
                }
            };
            with(&what, &change, &["tokenizer.json"]);
        }
        for cut in (0..16).map(|part| text.len() * part / 16) {
            fs::write(&path, text.as_bytes().get(..cut).unwrap()).unwrap();
            round.refused(&format!("cut at {cut}"), load(&path), &["tokenizer.json"]);
        }
    }
    round.end(150);
}

#[test]
fn model_files_with_one_fault() {
    let temp = tempfile::tempdir().unwrap();
    let mut round = Round::default();
    for (golden, name) in [
        ("bpe.model", "tokenizer.model"),
        ("unigram.model", "tokenizer.model"),
        ("toy.tiktoken", "o200k_base.tiktoken"),
    ] {
        let path = temp.path().join(name);
        let whole = fs::read(golden_path("tokenizers").join(golden)).unwrap();
        let _ = fs::remove_file(&path);
        fs::write(&path, &whole).unwrap();
        load(&path).unwrap();
        let mut with = |what: &str, bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            round.refused(&format!("{golden} {what}"), load(&path), &[name]);
        };
        with("empty", b"");
        with("binary", b"\x7fELF\x02\x01\x01\0\0\0\0\0");
        with("a page of the web", b"<!DOCTYPE html>\n<html><body>Not Found</body></html>\n");
        with("a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
        if name.ends_with("tiktoken") {
            let text = String::from_utf8(whole.clone()).unwrap();
            let line = text.lines().nth(3).unwrap();
            with("with a line twice", format!("{text}{line}\n").as_bytes());
            with(
                "with a line without its rank",
                text.replacen(line, line.split(' ').next().unwrap(), 1).as_bytes(),
            );
            with("with a rank below zero", text.replacen(line, "AA== -1", 1).as_bytes());
            with("with a rank beyond", text.replacen(line, "AA== 99999999999999", 1).as_bytes());
            with("without base64", text.replacen(line, "?! 3", 1).as_bytes());
        } else {
            // Cut within a message: a whole prefix of messages is a smaller vocabulary.
            with("cut", &whole[..whole.len() - 1]);
            with("cut at its beginning", &whole[..2]);
        }
    }
    round.end(15);
}
