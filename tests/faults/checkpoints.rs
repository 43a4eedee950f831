//! Checkpoints: manifest, configuration, tensors, tokenizer.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tritforge_checkpoint::{
    CONFIG, Checkpoint, MANIFEST, MODEL, TOKENIZER, TOKENIZER_CONFIG, TensorView, Writer,
};
use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_export::{ExportOptions, ImportOptions, LoadedModel, export_gguf, synth_checkpoint};
use tritforge_model::Decoder;
use tritforge_ternary::Packing;

use crate::configurations::json_fields;
use crate::safetensors::{Tensor, broken_files, broken_tensors, file, read};
use crate::{Round, copy, written};

fn config(weights: WeightQuant) -> ModelConfig {
    let shape = "vocab_size = 257\nhidden_size = 128\nintermediate_size = 256\nnum_hidden_layers = 1\n\
        num_attention_heads = 4\nnum_key_value_heads = 2\nhead_dim = 32\nmax_position_embeddings = 32\n";
    let activations = match weights {
        WeightQuant::None => ActivationQuant::None,
        _ => ActivationQuant::Absmax,
    };
    ModelConfig { weights, activations, ..ModelConfig::from_toml(shape).unwrap() }
}

/// Opens the checkpoint as every command does, and exports it.
fn load(dir: &Path) -> Result<String, String> {
    let out = dir.with_file_name("exported.gguf");
    written(&out, "", || {
        let model = LoadedModel::open(dir, &ImportOptions::default()).map_err(|e| e.to_string())?;
        let ids = model.tokenizer().map_err(|e| e.to_string())?.map(|t| t.encode("abc é", true));
        let checkpoint = Checkpoint::open(dir).map_err(|e| e.to_string())?;
        let options = ExportOptions { packing: Packing::I2S, ..ExportOptions::default() };
        export_gguf(&checkpoint, &out, &options).map_err(|e| e.to_string())?;
        Ok(format!("{:?} {ids:?}", checkpoint.config().map_err(|e| e.to_string())?))
    })
}

/// A checkpoint of the files of another, one of them changed, with a manifest that fits.
fn rewritten(from: &Path, to: &Path, name: &str, bytes: &[u8]) {
    let _ = fs::remove_dir_all(to);
    let mut writer = Writer::create(to).unwrap();
    for (file, _) in Checkpoint::open(from).unwrap().files() {
        if file != name {
            writer.write_file(file, &fs::read(from.join(file)).unwrap()).unwrap();
        }
    }
    writer.write_file(name, bytes).unwrap();
    writer.commit().unwrap();
}

#[test]
fn manifests_and_files_with_one_fault() {
    let temp = tempfile::tempdir().unwrap();
    let (good, bad) = (temp.path().join("good"), temp.path().join("bad"));
    synth_checkpoint(&config(WeightQuant::Ternary), &good, 1, None).unwrap();
    let right = load(&good).unwrap();
    let mut round = Round::default();
    let manifest: Value = serde_json::from_slice(&fs::read(good.join(MANIFEST)).unwrap()).unwrap();
    let mut with_manifest = |what: &str, text: &str, places: &[&str]| {
        copy(&good, &bad);
        fs::write(bad.join(MANIFEST), text).unwrap();
        round.refused(&format!("manifest: {what}"), load(&bad), places);
    };
    for version in [json!(0), json!(2), json!(u64::MAX), json!(-1), json!("1"), json!(null), json!(1.5)] {
        let mut other = manifest.clone();
        other["version"] = version.clone();
        with_manifest(&format!("version {version}"), &other.to_string(), &["manifest.json"]);
    }
    for files in [json!(null), json!([]), json!("all"), json!({})] {
        let mut other = manifest.clone();
        other["files"] = files.clone();
        with_manifest(&format!("files {files}"), &other.to_string(), &["manifest.json", "has no "]);
    }
    for key in ["version", "files"] {
        let mut other = manifest.clone();
        other.as_object_mut().unwrap().remove(key);
        with_manifest(&format!("no {key}"), &other.to_string(), &["manifest.json"]);
    }
    let whole = manifest.to_string();
    for cut in (0..8).map(|part| whole.len() * part / 8) {
        with_manifest(&format!("cut at {cut}"), &whole[..cut], &["manifest.json"]);
    }
    with_manifest("UTF-16", "\u{feff}\0{\0", &["manifest.json"]);
    for outside in ["../good/config.json", "/etc/hostname", "a/../../good/config.json", "", ".", ".."] {
        let mut other = manifest.clone();
        other["files"][outside] = manifest["files"][CONFIG].clone();
        with_manifest(&format!("a file {outside:?}"), &other.to_string(), &["manifest.json"]);
    }
    let names: Vec<&str> = manifest["files"].as_object().unwrap().keys().map(String::as_str).collect();
    for name in &names {
        let mut other = manifest.clone();
        other["files"].as_object_mut().unwrap().remove(*name);
        // A checkpoint without a tokenizer is one that reads ids only.
        if *name != TOKENIZER {
            with_manifest(&format!("no {name}"), &other.to_string(), &[name]);
        }
        for (key, value) in [
            ("bytes", json!(1)),
            ("bytes", json!(u64::MAX)),
            ("bytes", json!("12")),
            ("bytes", json!(-1)),
            ("sha256", json!("")),
            ("sha256", json!("0".repeat(64))),
            ("sha256", json!(12)),
        ] {
            let mut other = manifest.clone();
            other["files"][name][key] = value.clone();
            let places = [*name, "manifest.json"];
            with_manifest(&format!("{name}: {key} = {value}"), &other.to_string(), &places);
        }
    }
    for name in names {
        let bytes = fs::read(good.join(name)).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 4;
        let longer = [&bytes[..], b"\n"].concat();
        for (what, other) in [
            ("cut", &bytes[..bytes.len() - 1]),
            ("empty", &[]),
            ("with a bit flipped", &flipped),
            ("longer", &longer),
        ] {
            copy(&good, &bad);
            fs::write(bad.join(name), other).unwrap();
            round.refused(&format!("{name} {what}"), load(&bad), &[name]);
        }
        copy(&good, &bad);
        fs::remove_file(bad.join(name)).unwrap();
        round.refused(&format!("{name} is missing"), load(&bad), &[name]);
        fs::create_dir(bad.join(name)).unwrap();
        round.refused(&format!("{name} is a directory"), load(&bad), &[name]);
    }
    // A file that the manifest does not list takes no part.
    copy(&good, &bad);
    fs::write(bad.join("notes.txt"), "x").unwrap();
    round.take("a file more", load(&bad), &[], &right);
    round.end(60);
}

#[test]
fn tensors_of_a_checkpoint_with_one_fault() {
    let temp = tempfile::tempdir().unwrap();
    let (good, bad) = (temp.path().join("good"), temp.path().join("bad"));
    let mut round = Round::default();
    for weights in [WeightQuant::Ternary, WeightQuant::None] {
        let _ = fs::remove_dir_all(&good);
        synth_checkpoint(&config(weights), &good, 1, None).unwrap();
        let model = good.join(MODEL);
        broken_tensors(&mut round, &read(&model), |tensors| {
            rewritten(&good, &bad, MODEL, &file(tensors));
            load(&bad)
        });
        broken_files(&mut round, MODEL, &fs::read(&model).unwrap(), |bytes| {
            rewritten(&good, &bad, MODEL, bytes);
            load(&bad)
        });
    }
    // Learned scales beside latent weights.
    let learned = ModelConfig { quantizer: "lsq".parse().unwrap(), ..config(WeightQuant::Absmean) };
    learned_checkpoint(&learned, &good);
    load(&good).unwrap();
    let scales = |tensors: &[Tensor], change: &dyn Fn(&mut Tensor)| {
        let mut other = tensors.to_vec();
        other.iter_mut().filter(|t| t.name.ends_with("up_proj.weight_clip_val")).for_each(change);
        other
    };
    let (tensors, name) = (read(&good.join(MODEL)), "model.layers.0.mlp.up_proj.weight_clip_val");
    for (what, other) in [
        ("renamed", scales(&tensors, &|t| t.name += ".old")),
        ("of two", scales(&tensors, &|t| (t.shape, t.bytes) = (vec![2], t.bytes.repeat(2)))),
        ("of another rank", scales(&tensors, &|t| t.shape.push(1))),
        ("NaN", scales(&tensors, &|t| t.bytes = f32::NAN.to_le_bytes().to_vec())),
    ] {
        rewritten(&good, &bad, MODEL, &file(&other));
        round.refused(&format!("learned scales {what}"), load(&bad), &[name]);
    }
    round.end(200);
}

/// A checkpoint of a new model, as a run begins.
fn learned_checkpoint(config: &ModelConfig, out: &Path) {
    let _ = fs::remove_dir_all(out);
    synth_checkpoint(config, out, 1, None).unwrap();
    let tokenizer = [TOKENIZER, TOKENIZER_CONFIG].map(|name| fs::read(out.join(name)).unwrap());
    let model = Decoder::init(config, 1).unwrap();
    fs::remove_dir_all(out).unwrap();
    let mut writer = Writer::create(out).unwrap();
    writer.write_config(config).unwrap();
    let values: Vec<_> = model.parameters().iter().map(|p| p.tensor.read()).collect();
    let parameters = model.parameters().iter().zip(&values);
    let views: Vec<_> =
        parameters.map(|(p, values)| TensorView::new(&p.name, p.tensor.dims(), values)).collect();
    writer.write_tensors(MODEL, &views).unwrap();
    for (name, bytes) in [TOKENIZER, TOKENIZER_CONFIG].into_iter().zip(tokenizer) {
        writer.write_file(name, &bytes).unwrap();
    }
    writer.commit().unwrap();
}

#[test]
fn documents_of_a_checkpoint_with_one_fault() {
    let temp = tempfile::tempdir().unwrap();
    let (good, bad) = (temp.path().join("good"), temp.path().join("bad"));
    synth_checkpoint(&config(WeightQuant::Ternary), &good, 1, None).unwrap();
    let mut round = Round::default();
    let text = fs::read_to_string(good.join(CONFIG)).unwrap();
    json_fields(&mut round, CONFIG, &text, |text| {
        rewritten(&good, &bad, CONFIG, text.as_bytes());
        let checkpoint = Checkpoint::open(&bad).map_err(|e| e.to_string())?;
        checkpoint.config().map(|config| format!("{config:?}")).map_err(|e| e.to_string())
    });
    for (name, bytes) in [
        (CONFIG, &b""[..]),
        (CONFIG, b"null"),
        (CONFIG, b"\xff\xfe{\0}\0"),
        (TOKENIZER, b""),
        (TOKENIZER, b"{}"),
        (TOKENIZER, b"[1]"),
        (TOKENIZER_CONFIG, b""),
        (TOKENIZER_CONFIG, b"[]"),
        (TOKENIZER_CONFIG, b"{\"eos_token\": 3}"),
        (TOKENIZER_CONFIG, b"{\"chat_template\": 3}"),
    ] {
        rewritten(&good, &bad, name, bytes);
        let what = format!("{name} = {}", String::from_utf8_lossy(bytes));
        round.refused(&what, load(&bad), &[name, "chat template", "chat_template"]);
    }
    // A configuration of another shape: the tensors do not fit it.
    for key in ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"] {
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config[key] = json!(config[key].as_u64().unwrap() * 2);
        rewritten(&good, &bad, CONFIG, config.to_string().as_bytes());
        round.refused(&format!("{key} doubled"), load(&bad), &["model.", key, "lm_head.weight"]);
    }
    round.end(80);
}
