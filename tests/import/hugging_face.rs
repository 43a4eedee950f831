//! Directories in Hugging Face's layout: logits against those of transformers, packed codes, what a
//! configuration does not say, shards and older names.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tritforge_checkpoint::{Dtype, MODEL, TensorFile, TensorSpec, TensorType, TensorView, Tensors, Writer};
use tritforge_config::{Granularity, Projection, Quantization, WeightQuant};
use tritforge_export::{Assume, ImportOptions, import, ternary_tensor};

use crate::{difference, imported, trained};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// transformers' tokens, number of sequences and logits.
fn goldens(dir: &str, mode: &str) -> (Vec<u32>, usize, Vec<f32>) {
    let tensors = Tensors::open(&golden(dir).join("goldens.safetensors")).unwrap();
    let (dtype, shape, bytes) = tensors.raw("input_ids").unwrap();
    assert_eq!(dtype, Dtype::I64);
    let ids = bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
    let name = if mode.is_empty() { "logits".to_string() } else { format!("{mode}.logits") };
    let logits_shape = tensors.raw(&name).unwrap().1;
    (ids, shape[0], tensors.f32(&name, &logits_shape).unwrap().into_owned())
}

/// The largest difference of a golden's logits from those of its import.
fn golden_difference(dir: &str, mode: &str, assume: Option<Assume>) -> f32 {
    let temp = tempfile::tempdir().unwrap();
    let options = ImportOptions { assume, ..ImportOptions::default() };
    let (report, checkpoint) = imported(&golden(dir), &temp.path().join("c"), &options).unwrap();
    assert_eq!(report.unknown, [""; 0], "{dir}");
    let (ids, sequences, expected) = goldens(dir, mode);
    let logits = trained(&checkpoint).unwrap().logits(&ids, sequences, None).unwrap();
    difference(&logits, &expected)
}

#[test]
fn imports_have_the_logits_of_transformers() {
    let full = Some(Assume::FullPrecision);
    for (dir, mode, assume) in [
        ("bitnet_tiny", "plain", full),
        ("bitnet_tiny", "online", None),
        ("bitnet_silu", "online", None),
        ("bitnet_packed/bitlinear", "", None),
        ("bitnet_packed/autobitlinear", "", None),
        ("llama_tiny", "plain", None),
        ("qwen2_tiny", "plain", None),
        ("qwen3_tiny", "plain", None),
    ] {
        let difference = golden_difference(dir, mode, assume);
        assert!(difference <= 1e-5, "{dir} {mode}: logits differ by {difference}");
    }
}

#[test]
fn an_inverted_scale_is_another_model() {
    // What the two conventions give when one is taken for the other: far from the logits, and never an error.
    for (dir, wrong) in [("bitlinear", Quantization::Multiplies), ("autobitlinear", Quantization::Divides)] {
        let difference = golden_difference(&format!("bitnet_packed/{dir}"), "", Some(Assume::Ternary(wrong)));
        assert!(difference > 0.05, "{dir}: taken as {wrong:?}, logits differ by {difference} only");
    }
}

#[test]
fn packed_codes_and_scales_are_kept_and_never_quantized_again() {
    let temp = tempfile::tempdir().unwrap();
    let source = golden("bitnet_packed/autobitlinear");
    let (report, checkpoint) = imported(&source, &temp.path().join("c"), &ImportOptions::default()).unwrap();
    assert_eq!((report.ternary_tensors, report.config.weights), (7, WeightQuant::Ternary));
    let theirs = Tensors::open(&source.join("model.safetensors")).unwrap();
    let ours = checkpoint.tensors(MODEL).unwrap();
    let decoder = trained(&checkpoint).unwrap();
    for p in Projection::ALL {
        let name = p.hf_weight(0);
        assert_eq!(ours.raw(&name).unwrap().2, theirs.raw(&name).unwrap().2, "{name}");
        let scale = theirs.f32(&format!("{name}_scale"), &[1]).unwrap()[0];
        assert_eq!(ours.f32(&format!("{name}_scale"), &[1]).unwrap()[0], scale);
        // What the model multiplies with: the mean of |code · scale| would be a third less.
        assert_eq!(decoder.projection(0, p).quantized().unwrap().scales().of_tensor(), Some(scale));
    }
    // Latent weights on request: the same codes, the scale up to a rounding.
    let options = ImportOptions { latent: true, ..ImportOptions::default() };
    let (report, latent) = imported(&source, &temp.path().join("l"), &options).unwrap();
    assert_eq!(report.config.weights, WeightQuant::Absmean);
    let tensors = latent.tensors(MODEL).unwrap();
    for p in Projection::ALL {
        let shape = report.config.projection_shape(p);
        let kept = ternary_tensor(&ours, &checkpoint.config().unwrap(), &p.hf_weight(0), shape).unwrap();
        let again = ternary_tensor(&tensors, &report.config, &p.hf_weight(0), shape).unwrap();
        assert_eq!(again.codes(), kept.codes());
        assert!((again.scales().mean() / kept.scales().mean() - 1.0).abs() < 1e-6);
    }
}

/// A golden of packed weights whose scales are those of rows: `scale` gives them, of the tensor's and the row.
fn with_row_scales(temp: &TempDir, dir: &str, scale: impl Fn(f32, usize) -> f32) -> PathBuf {
    let out = changed(temp, &format!("bitnet_packed/{dir}"), |_| {});
    let source = Tensors::open(&golden(&format!("bitnet_packed/{dir}")).join(MODEL)).unwrap();
    let mut tensors = Vec::new();
    for (name, shape, _) in source.list().unwrap() {
        let (dtype, _, bytes) = source.raw(&name).unwrap();
        let ty = match dtype {
            Dtype::U8 => TensorType::U8,
            Dtype::BF16 => TensorType::Bf16,
            _ => TensorType::F32,
        };
        let Some(weight) = name.strip_suffix("_scale") else {
            tensors.push((TensorSpec { name, shape, ty }, bytes.to_vec()));
            continue;
        };
        let rows = 4 * source.raw(weight).unwrap().1[0];
        let of_tensor = source.f32(&name, &shape).unwrap()[0];
        let bytes = (0..rows).flat_map(|row| scale(of_tensor, row).to_le_bytes()).collect();
        tensors.push((TensorSpec { name, shape: vec![rows], ty: TensorType::F32 }, bytes));
    }
    let specs = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut file = TensorFile::create(&out.join(MODEL), specs).unwrap();
    // The file has an order of its own.
    for spec in file.specs().to_vec() {
        let (_, bytes) = tensors.iter().find(|(found, _)| found.name == spec.name).unwrap();
        file.write(&spec.name, bytes).unwrap();
    }
    file.finish().unwrap();
    out
}

#[test]
fn packed_weights_may_have_a_scale_for_each_row() {
    let temp = tempfile::tempdir().unwrap();
    for (dir, divides) in [("bitlinear", true), ("autobitlinear", false)] {
        let whole = golden(&format!("bitnet_packed/{dir}"));
        let (_, expected) =
            imported(&whole, &temp.path().join(format!("{dir}-whole")), &ImportOptions::default()).unwrap();
        let (ids, sequences, _) = goldens(&format!("bitnet_packed/{dir}"), "");
        let logits = |checkpoint| trained(checkpoint).unwrap().logits(&ids, sequences, None).unwrap();
        // The scale of the tensor for every row: the same model, to the bit.
        let same = with_row_scales(&temp, dir, |scale, _| scale);
        let (report, checkpoint) =
            imported(&same, &temp.path().join(format!("{dir}-same")), &ImportOptions::default()).unwrap();
        assert_eq!(report.config.granularity, Granularity::Row, "{dir}");
        assert_eq!(logits(&checkpoint), logits(&expected), "{dir}");
        // Scales of their own, applied as the configuration says.
        let own = |scale: f32, row: usize| scale * (1.0 + (row % 5) as f32 / 4.0);
        let source = with_row_scales(&temp, dir, own);
        let (_, checkpoint) =
            imported(&source, &temp.path().join(format!("{dir}-own")), &ImportOptions::default()).unwrap();
        let (theirs, ours) =
            (Tensors::open(&source.join(MODEL)).unwrap(), checkpoint.tensors(MODEL).unwrap());
        let decoder = trained(&checkpoint).unwrap();
        for p in Projection::ALL {
            let name = p.hf_weight(0);
            assert_eq!(ours.raw(&name).unwrap().2, theirs.raw(&name).unwrap().2, "{name}");
            let [rows, _] = report.config.projection_shape(p);
            let stored = theirs.f32(&format!("{name}_scale"), &[rows]).unwrap();
            let scales = decoder.projection(0, p).quantized().unwrap().scales();
            for (row, stored) in stored.iter().enumerate() {
                let expected = if divides { 1.0 / stored } else { *stored };
                assert_eq!(scales.row(row), [expected], "{dir}: {name}, row {row}");
            }
        }
        assert_ne!(logits(&checkpoint), logits(&expected), "{dir}");
    }
}

/// A golden with its `config.json` changed.
fn changed(temp: &TempDir, dir: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let out = temp.path().join("source");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir(&out).unwrap();
    fs::copy(golden(dir).join(MODEL), out.join(MODEL)).unwrap();
    let mut json: Value =
        serde_json::from_slice(&fs::read(golden(dir).join("config.json")).unwrap()).unwrap();
    change(&mut json);
    fs::write(out.join("config.json"), json.to_string()).unwrap();
    out
}

#[test]
fn what_a_configuration_does_not_say_is_asked_and_what_is_not_known_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("c");
    let attempt = |source: &Path| import(source, &out, &ImportOptions::default());

    let source = changed(&temp, "bitnet_tiny", |json| {
        json.as_object_mut().unwrap().remove("quantization_config");
    });
    let error = attempt(&source).unwrap_err().to_string();
    assert!(error.contains("--assume: online"), "{error}");
    assert!(!out.exists());

    let source = changed(&temp, "llama_tiny", |json| json["brand_new_field"] = json!(2.0));
    assert_eq!(attempt(&source).unwrap().unknown, ["brand_new_field = 2.0"]);
    fs::remove_dir_all(&out).unwrap();

    let faults: [(&str, &str, Value, &str); 8] = [
        ("llama_tiny", "logit_scale", json!(2.0), "logit_scale = 2.0"),
        ("llama_tiny", "mlp_bias", json!(true), "mlp_bias"),
        ("llama_tiny", "hidden_act", json!("gelu"), "gelu"),
        ("llama_tiny", "model_type", json!("mamba"), "mamba"),
        // Its biases are there, and the configuration has no place for them.
        ("llama_tiny", "attention_bias", json!(false), "self_attn.k_proj.bias is not part of the model"),
        ("qwen2_tiny", "use_sliding_window", json!(true), "tritforge"),
        ("bitnet_tiny", "quantization_config", json!({"quant_method": "gptq"}), "gptq"),
        ("bitnet_tiny", "quantization_config", json!({"quant_method": "bitnet"}), "is not packed"),
    ];
    for (dir, key, value, part) in faults {
        let source = changed(&temp, dir, |json| {
            json[key] = value;
            if key == "use_sliding_window" {
                json["sliding_window"] = json!(16);
                json["max_window_layers"] = json!(1);
            }
        });
        let error = attempt(&source).unwrap_err().to_string();
        let part = if key == "use_sliding_window" { "sliding_window = 16" } else { part };
        assert!(error.contains(part), "{key}: {error}");
    }
    let source = changed(&temp, "bitnet_packed/bitlinear", |json| {
        json["quantization_config"]["linear_class"] = json!("autobitlinear");
        json["quantization_config"]["quantization_mode"] = json!("online");
    });
    let error = attempt(&source).unwrap_err().to_string();
    assert!(error.contains("is packed"), "{error}");
}

#[test]
fn older_names_and_shards_are_read() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("sharded");
    fs::create_dir(&source).unwrap();
    let mut json: Value =
        serde_json::from_slice(&fs::read(golden("bitnet_tiny/config.json")).unwrap()).unwrap();
    // As 1bitLLM/bitnet_b1_58-3B says it.
    json.as_object_mut().unwrap().remove("quantization_config");
    json["architectures"] = json!(["BitnetForCausalLM"]);
    json["model_type"] = json!("llama");
    json["weight_bits"] = json!(1);
    json["input_bits"] = json!(8);
    fs::write(source.join("config.json"), json.to_string()).unwrap();
    let tensors = Tensors::open(&golden("bitnet_tiny").join(MODEL)).unwrap();
    let list = tensors.list().unwrap();
    let mut weight_map = serde_json::Map::new();
    for (shard, half) in list.chunks(list.len().div_ceil(2)).enumerate() {
        let file = format!("model-{}-of-00002.safetensors", shard + 1);
        let renamed: Vec<(String, Vec<usize>, Vec<f32>)> = half
            .iter()
            .map(|(name, shape, _)| {
                let older =
                    name.replace("attn_sub_norm", "inner_attn_ln").replace("ffn_sub_norm", "ffn_layernorm");
                weight_map.insert(older.clone(), json!(file));
                (older, shape.clone(), tensors.f32(name, shape).unwrap().into_owned())
            })
            .collect();
        let views: Vec<TensorView<'_>> = renamed.iter().map(|(n, s, v)| TensorView::new(n, s, v)).collect();
        let mut writer = Writer::create(&temp.path().join("shard")).unwrap();
        writer.write_tensors(&file, &views).unwrap();
        writer.commit().unwrap();
        fs::copy(temp.path().join("shard").join(&file), source.join(&file)).unwrap();
    }
    let index = json!({"metadata": {}, "weight_map": weight_map}).to_string();
    fs::write(source.join("model.safetensors.index.json"), index).unwrap();
    let (report, checkpoint) = imported(&source, &temp.path().join("c"), &ImportOptions::default()).unwrap();
    assert_eq!(report.config.weights, WeightQuant::Absmean);
    let (ids, sequences, expected) = goldens("bitnet_tiny", "online");
    let logits = trained(&checkpoint).unwrap().logits(&ids, sequences, None).unwrap();
    assert!(difference(&logits, &expected) <= 1e-5);

    let outside = json!({"weight_map": {"model.norm.weight": "../m.safetensors"}}).to_string();
    fs::write(source.join("model.safetensors.index.json"), outside).unwrap();
    let error = import(&source, &temp.path().join("d"), &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("../m.safetensors"), "{error}");
}
