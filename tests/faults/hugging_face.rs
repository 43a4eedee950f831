//! Directories in Hugging Face's layout: configuration, weights in one file and in shards, tokenizer.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tritforge_checkpoint::MODEL;
use tritforge_export::{ImportOptions, import};
use tritforge_text::{SpecialTokens, Tokenizer};

use crate::safetensors::{Tensor, broken_files, broken_tensors, file, read};
use crate::{Round, copy, golden_path, written};

const INDEX: &str = "model.safetensors.index.json";
const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

fn load(dir: &Path) -> Result<String, String> {
    let out = dir.with_file_name("imported");
    written(&out, MODEL, || match import(dir, &out, &ImportOptions::default()) {
        Ok(report) => Ok(format!("{:?} {}", report.config, report.tokenizer)),
        Err(error) => Err(error.to_string()),
    })
}

#[test]
fn weights_with_one_fault() {
    let temp = tempfile::tempdir().unwrap();
    let bad = temp.path().join("bad");
    let mut round = Round::default();
    for name in ["llama_tiny", "qwen3_tiny", "bitnet_packed/bitlinear"] {
        let good = golden_path(name);
        let mut with = |bytes: &[u8]| {
            copy(&good, &bad);
            fs::write(bad.join(MODEL), bytes).unwrap();
            load(&bad)
        };
        broken_files(&mut round, MODEL, &fs::read(good.join(MODEL)).unwrap(), &mut with);
        let tensors = read(&good.join(MODEL));
        broken_tensors(&mut round, &tensors, |tensors| with(&file(tensors)));
        // Scales that make other weights of the codes.
        for (at, scale) in tensors.iter().enumerate().filter(|(_, t)| t.name.ends_with("_scale")) {
            for value in [0.0f32, -1.0, f32::MAX] {
                let mut other = tensors.clone();
                other[at].bytes = match scale.dtype.as_str() {
                    "BF16" => value.to_le_bytes()[2..].to_vec(),
                    _ => value.to_le_bytes().to_vec(),
                };
                let found = with(&file(&other));
                // A large scale is a number like any other.
                if value < 1.0 {
                    round.refused(&format!("{} = {value}", scale.name), found, &[&scale.name]);
                }
            }
        }
    }
    round.end(300);
}

/// A directory with two shards and their index.
fn sharded(dir: &Path) -> Vec<Tensor> {
    copy(&golden_path("llama_tiny"), dir);
    let tensors = read(&dir.join(MODEL));
    fs::remove_file(dir.join(MODEL)).unwrap();
    let mut map = Map::new();
    for (shard, half) in SHARDS.iter().zip(tensors.chunks(tensors.len().div_ceil(2))) {
        fs::write(dir.join(shard), file(half)).unwrap();
        map.extend(half.iter().map(|t| (t.name.clone(), json!(shard))));
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(dir.join(INDEX), index.to_string()).unwrap();
    tensors
}

fn place(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

#[test]
fn shards_with_one_fault() {
    let temp = tempfile::tempdir().unwrap();
    let (good, bad) = (temp.path().join("good"), temp.path().join("bad"));
    let tensors = sharded(&good);
    let right = load(&golden_path_copy(&temp)).unwrap();
    let mut round = Round::default();
    round.take("shards as they are", load(&good), &[], &right);
    let with = |change: &dyn Fn(&Path)| {
        copy(&good, &bad);
        change(&bad);
        load(&bad)
    };
    for shard in SHARDS {
        round.refused("a shard is missing", with(&|dir| fs::remove_file(dir.join(shard)).unwrap()), &[shard]);
        round.refused("a shard is empty", with(&|dir| fs::write(dir.join(shard), "").unwrap()), &[shard]);
        let half = |dir: &Path| {
            let bytes = fs::read(dir.join(shard)).unwrap();
            fs::write(dir.join(shard), &bytes[..bytes.len() / 2]).unwrap();
        };
        round.refused("a shard is cut", with(&half), &[shard]);
        let other = SHARDS[usize::from(shard == SHARDS[0])];
        let twice = |dir: &Path| place(&dir.join(other), &dir.join(shard));
        round.refused("a shard is there twice", with(&twice), &[shard, other]);
    }
    let swap = |dir: &Path| {
        fs::rename(dir.join(SHARDS[0]), dir.join("x")).unwrap();
        fs::rename(dir.join(SHARDS[1]), dir.join(SHARDS[0])).unwrap();
        fs::rename(dir.join("x"), dir.join(SHARDS[1])).unwrap();
    };
    round.refused("shards swapped", with(&swap), &SHARDS);
    round.refused("no index", with(&|dir| fs::remove_file(dir.join(INDEX)).unwrap()), &[INDEX]);
    let text = fs::read_to_string(good.join(INDEX)).unwrap();
    for cut in (0..8).map(|part| text.len() * part / 8) {
        let found = with(&|dir| fs::write(dir.join(INDEX), &text[..cut]).unwrap());
        round.refused(&format!("index cut at {cut}"), found, &[INDEX]);
    }
    let index: Value = serde_json::from_str(&text).unwrap();
    for map in [json!(null), json!([]), json!("all"), json!({}), json!(1)] {
        let found = with(&|dir| {
            let other = json!({"metadata": {}, "weight_map": map});
            fs::write(dir.join(INDEX), other.to_string()).unwrap();
        });
        // Of an empty one the first tensor is missing.
        round.refused(&format!("weight_map = {map}"), found, &[INDEX, "model.embed_tokens.weight"]);
    }
    for tensor in tensors.iter().map(|t| t.name.as_str()) {
        for place in [
            json!("../good/model-00001-of-00002.safetensors"),
            json!("/etc/hostname"),
            json!(""),
            json!(".."),
            json!(3),
            json!(null),
            json!("model-00003-of-00003.safetensors"),
        ] {
            let mut other = index.clone();
            other["weight_map"][tensor] = place.clone();
            let found = with(&|dir| fs::write(dir.join(INDEX), other.to_string()).unwrap());
            round.refused(&format!("{tensor} in {place}"), found, &[tensor, "model-00003"]);
        }
        let mut other = index.clone();
        other["weight_map"].as_object_mut().unwrap().remove(tensor);
        let found = with(&|dir| fs::write(dir.join(INDEX), other.to_string()).unwrap());
        round.refused(&format!("{tensor} not in the index"), found, &[tensor]);
    }
    let mut stale = index.clone();
    stale["weight_map"]["model.layers.9.mlp.up_proj.weight"] = json!(SHARDS[0]);
    let found = with(&|dir| fs::write(dir.join(INDEX), stale.to_string()).unwrap());
    round.refused("a stale index", found, &["model.layers.9.mlp.up_proj.weight"]);
    // As transformers: the single file goes before an index, and what no index lists is not read.
    let single = |dir: &Path| place(&golden_path("llama_tiny").join(MODEL), &dir.join(MODEL));
    round.take("a single file beside shards", with(&single), &[], &right);
    let old = |dir: &Path| {
        place(&dir.join(SHARDS[0]), &dir.join("model-00001-of-00003.safetensors"));
    };
    round.take("a shard of an older version", with(&old), &[], &right);
    round.end(150);
}

/// A golden in a directory that may be written beside.
fn golden_path_copy(temp: &tempfile::TempDir) -> std::path::PathBuf {
    let dir = temp.path().join("single");
    copy(&golden_path("llama_tiny"), &dir);
    dir
}

#[test]
fn documents_with_one_fault() {
    let temp = tempfile::tempdir().unwrap();
    let (good, bad) = (temp.path().join("good"), temp.path().join("bad"));
    copy(&golden_path("llama_tiny"), &good);
    let tokenizer = Tokenizer::train_bpe(["the fox"], 260, &SpecialTokens::default()).unwrap();
    tokenizer.save(&good).unwrap();
    fs::write(good.join("generation_config.json"), "{\"eos_token_id\": 2}").unwrap();
    let right = load(&good).unwrap();
    let mut round = Round::default();
    let with = |name: &str, bytes: &[u8]| {
        copy(&good, &bad);
        fs::write(bad.join(name), bytes).unwrap();
        load(&bad)
    };
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        let text = fs::read(good.join(name)).unwrap();
        let utf16: Vec<u8> =
            String::from_utf8_lossy(&text).encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (what, bytes) in [
            ("empty", &b""[..]),
            ("cut", &text[..text.len() / 2]),
            ("a list", b"[]"),
            ("null", b"null"),
            ("in UTF-16", &utf16),
            ("binary", b"\0\x01\xff\xfe"),
        ] {
            round.refused(&format!("{name} {what}"), with(name, bytes), &[name]);
        }
    }
    let config: Value = serde_json::from_slice(&fs::read(good.join("config.json")).unwrap()).unwrap();
    for key in config.as_object().unwrap().keys() {
        for value in [json!("abc"), json!([]), json!({"a": 1}), json!(-1), json!(0.5), json!(1e308)] {
            let mut other = config.clone();
            other[key] = value.clone();
            match with("config.json", other.to_string().as_bytes()) {
                Ok(_) if value.is_number() && config[key].is_number() => round.tried += 1,
                Ok(_) if value.is_string() && config[key].is_string() => round.tried += 1,
                found => round.take(&format!("{key} = {value}"), found, &[key, "model.", "lm_head"], &right),
            }
        }
        let mut other = config.clone();
        other.as_object_mut().unwrap().remove(key);
        match with("config.json", other.to_string().as_bytes()) {
            // Its default, as transformers defines it.
            Ok(_) => round.tried += 1,
            found => round.take(&format!("no {key}"), found, &[key, "model.", "lm_head"], &right),
        }
    }
    for (name, text, places) in [
        ("tokenizer_config.json", "{\"eos_token\": [1]}", ["eos_token", "tokenizer_config.json"]),
        ("tokenizer_config.json", "{\"bos_token\": 1}", ["bos_token", "tokenizer_config.json"]),
        ("tokenizer_config.json", "{\"chat_template\": 3}", ["chat_template", "chat template"]),
        ("generation_config.json", "{\"eos_token_id\": 0.5}", ["eos_token_id", "generation_config.json"]),
        ("generation_config.json", "{\"eos_token_id\": \"x\"}", ["eos_token_id", "generation_config.json"]),
        ("generation_config.json", "{\"eos_token_id\": 1e9}", ["eos_token_id", "generation_config.json"]),
    ] {
        round.refused(&format!("{name}: {text}"), with(name, text.as_bytes()), &places);
    }
    fs::remove_file(good.join("config.json")).unwrap();
    round.refused("no config.json", load(&good), &["config.json"]);
    round.end(100);
}
