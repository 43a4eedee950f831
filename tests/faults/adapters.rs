//! Adapters as peft writes them: weights against configuration and base.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tritforge_checkpoint::AdapterFiles;
use tritforge_config::{ADAPTER_CONFIG, ADAPTER_MODEL, HuggingFaceConfig, ModelConfig};
use tritforge_export::{ImportOptions, LoadedModel, export_adapter};

use crate::safetensors::{Fault, Tensor, broken_each, broken_files, file, read};
use crate::{Round, caught, copy, golden, golden_path, written};

/// Reads the adapter for a model, every number of it.
fn fits(dir: &Path, model: &ModelConfig) -> Result<String, String> {
    caught(|| {
        let files = AdapterFiles::open(dir).map_err(|e| e.to_string())?;
        let modules = files.modules(model).map_err(|e| e.to_string())?;
        for module in &modules {
            files.matrices(module).map_err(|e| e.to_string())?;
        }
        Ok(format!("{modules:?}"))
    })
}

/// The same, and exports it.
fn load(dir: &Path, model: &ModelConfig, base: &Path) -> Result<String, String> {
    let out = dir.with_file_name("exported.gguf");
    written(&out, "", || {
        let modules = fits(dir, model)?;
        let files = AdapterFiles::open(dir).map_err(|e| e.to_string())?;
        export_adapter(&files, Some(base), &out, "test", false).map_err(|e| e.to_string())?;
        Ok(modules)
    })
}

#[test]
fn adapters_with_one_fault() {
    let temp = tempfile::tempdir().unwrap();
    let bad = temp.path().join("bad");
    let mut round = Round::default();
    for (name, base) in [("lora_bitnet", "bitnet_tiny"), ("lora_llama", "llama_tiny")] {
        let good = temp.path().join("good");
        copy(&golden_path(name), &good);
        let _ = fs::remove_file(good.join("goldens.safetensors"));
        let model = HuggingFaceConfig::from_json(&golden(&format!("{base}/config.json"))).unwrap().config;
        // BitNet's golden says nothing of its weights: its adapter is read, not exported.
        let export = base == "llama_tiny";
        let load = |dir: &Path, model: &ModelConfig| match export {
            true => load(dir, model, &golden_path(base)),
            false => fits(dir, model),
        };
        let right = load(&good, &model).unwrap();
        let with = |file: &str, bytes: &[u8]| {
            copy(&good, &bad);
            fs::write(bad.join(file), bytes).unwrap();
            load(&bad, &model)
        };
        let tensors = read(&good.join(ADAPTER_MODEL));
        let whole = fs::read(good.join(ADAPTER_MODEL)).unwrap();
        broken_files(&mut round, ADAPTER_MODEL, &whole, |bytes| with(ADAPTER_MODEL, bytes));
        broken_matrices(&mut round, &tensors, |tensors| with(ADAPTER_MODEL, &file(tensors)));
        let config: Value = serde_json::from_str(&golden(&format!("{name}/adapter_config.json"))).unwrap();
        for (key, value) in [
            ("r", json!(8)),
            ("r", json!(1)),
            ("target_modules", json!(["q_proj"])),
            ("target_modules", json!(["q_proj", "no_such_proj"])),
            ("target_modules", json!("[")),
            ("target_modules", json!([])),
            ("layers_to_transform", json!([0])),
            ("layers_to_transform", json!([99])),
            ("rank_pattern", json!({"q_proj": 2})),
            ("modules_to_save", json!(["lm_head"])),
            ("bias", json!("all")),
            ("use_dora", json!(true)),
            ("peft_type", json!("IA3")),
            ("task_type", json!("SEQ_CLS")),
            ("fan_in_fan_out", json!(true)),
            ("lora_alpha", json!(null)),
            ("init_lora_weights", json!("pissa")),
        ] {
            let mut other = config.clone();
            other[key] = value.clone();
            let found = with(ADAPTER_CONFIG, other.to_string().as_bytes());
            let what = format!("{name}: {key} = {value}");
            let places = [key, "lora_A", "lora_B", "adapter_config.json", "IA3"];
            match &found {
                // What another initialization was, the matrices hold.
                Ok(_) if ["init_lora_weights", "task_type"].contains(&key) => round.tried += 1,
                _ => round.take(&what, found, &places, &right),
            }
        }
        for text in ["", "{", "[]", "null", "\u{feff}{}"] {
            let what = format!("{name}: {ADAPTER_CONFIG} = {text:?}");
            round.refused(&what, with(ADAPTER_CONFIG, text.as_bytes()), &[ADAPTER_CONFIG]);
        }
        for missing in [ADAPTER_CONFIG, ADAPTER_MODEL] {
            copy(&good, &bad);
            fs::remove_file(bad.join(missing)).unwrap();
            round.refused(&format!("{name} without {missing}"), load(&bad, &model), &[missing]);
        }
        // Only the pickle that peft wrote before it had safetensors.
        copy(&good, &bad);
        fs::rename(bad.join(ADAPTER_MODEL), bad.join("adapter_model.bin")).unwrap();
        round.refused("a pickle", load(&bad, &model), &["adapter_model.bin"]);
        // Bases that the adapter does not fit.
        for (what, other) in [
            ("a wider base", ModelConfig { hidden_size: 128, ..model.clone() }),
            ("a base of one block", ModelConfig { num_hidden_layers: 1, ..model.clone() }),
            ("a base of more blocks", ModelConfig { num_hidden_layers: 9, ..model.clone() }),
        ] {
            round.refused(what, fits(&good, &other), &["lora_A", "lora_B"]);
        }
        // An adapter is not a model.
        let found = LoadedModel::open(&good, &ImportOptions::default());
        let found = found.map(|_| String::new()).map_err(|e| e.to_string());
        round.refused("an adapter as a model", found, &["adapter"]);
    }
    round.end(150);
}

/// Faults of each matrix.
fn broken_matrices(
    round: &mut Round,
    tensors: &[Tensor],
    mut load: impl FnMut(&[Tensor]) -> Result<String, String>,
) {
    // Of a square matrix the transposed one is a matrix like any other.
    let faults: [Fault<'_>; 8] = [
        ("is renamed", &|t| t.name = t.name.replace("lora_", "lore_")),
        ("is of another layer", &|t| t.name = t.name.replace("layers.", "layers.7")),
        ("has no prefix", &|t| t.name = t.name.replace("base_model.", "")),
        ("is transposed", &|t| t.shape.reverse()),
        ("has another rank", &|t| t.shape.push(1)),
        ("is an integer", &|t| t.dtype = "I32".to_string()),
        ("has NaN", &|t| t.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes())),
        ("has infinity", &|t| t.bytes[..4].copy_from_slice(&f32::INFINITY.to_le_bytes())),
    ];
    broken_each(round, tensors, &faults, &mut load);
}
