//! Models in and out: imports against transformers' logits, round trips through every format, and the faults
//! that bring a model to the runtime as another one: an inverted scale, a second quantization, permuted rows,
//! a tokenizer without its pre-tokenizer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tritforge_checkpoint::{
    Checkpoint, Dtype, MODEL, TOKENIZER, TOKENIZER_CONFIG, TensorView, Tensors, Writer,
};
use tritforge_config::{
    ActivationQuant, AttentionBias, HiddenAct, ModelConfig, Projection, Quantization, RopeScaling,
    WeightQuant,
};
use tritforge_export::{
    Assume, ExportError, ExportOptions, HuggingFaceOptions, ImportOptions, ImportReport, LoadedModel,
    export_gguf, export_hugging_face, import, ternary_tensor,
};
use tritforge_gguf::{GgmlType, Gguf, TensorSpec, Writer as GgufWriter};
use tritforge_infer::{KvType, LogitsRequest, Model, Session};
use tritforge_kernels::DenseType;
use tritforge_model::Decoder;
use tritforge_ternary::Packing;
use tritforge_text::{SpecialTokens, Tokenizer};

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

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()))
}

fn imported(
    source: &Path,
    out: &Path,
    options: &ImportOptions,
) -> Result<(ImportReport, Checkpoint), ExportError> {
    let report = import(source, out, options)?;
    Ok((report, Checkpoint::open(out)?))
}

/// The model in the training forward.
fn trained(checkpoint: &Checkpoint) -> Result<Decoder, ExportError> {
    LoadedModel::open(checkpoint.dir(), &ImportOptions::default())?.decoder()
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
        assert_eq!(decoder.projection(0, p).quantized().unwrap().scale(), scale);
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
        assert!((again.scale() / kept.scale() - 1.0).abs() < 1e-6);
    }
}

/// A checkpoint of random weights with a tokenizer, every vector of them random too.
fn checkpoint(directory: &TempDir, name: &str, config: &ModelConfig) -> Checkpoint {
    let model = Decoder::init(config, 5).unwrap();
    let mut tensors = model.snapshot();
    let mut names: Vec<String> = tensors.keys().cloned().collect();
    names.sort();
    for (i, name) in names.iter().enumerate().filter(|(_, name)| !name.ends_with("proj.weight")) {
        for (j, value) in tensors.get_mut(name).unwrap().iter_mut().enumerate() {
            *value += 0.2 * ((i * 37 + j * 101) as f32).sin();
        }
    }
    let out = directory.path().join(name);
    let mut writer = Writer::create(&out).unwrap();
    writer.write_config(config).unwrap();
    let tokenizer = Tokenizer::train_bpe([""; 0], 257, &SpecialTokens::default()).unwrap();
    writer.write_file(TOKENIZER, tokenizer.to_json().unwrap().as_bytes()).unwrap();
    writer.write_file(TOKENIZER_CONFIG, tokenizer.to_config_json().as_bytes()).unwrap();
    let shapes: Vec<Vec<usize>> = names
        .iter()
        .map(|n| model.parameters().iter().find(|p| p.name == *n).unwrap().tensor.dims().to_vec())
        .collect();
    let views: Vec<TensorView<'_>> =
        names.iter().zip(&shapes).map(|(n, shape)| TensorView::new(n, shape, &tensors[n])).collect();
    writer.write_tensors(MODEL, &views).unwrap();
    writer.commit().unwrap();
    Checkpoint::open(&out).unwrap()
}

fn base() -> ModelConfig {
    ModelConfig {
        vocab_size: 288,
        hidden_size: 128,
        intermediate_size: 256,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 32,
        max_position_embeddings: 64,
        initializer_range: 0.1,
        ..ModelConfig::default()
    }
}

/// One model of every GGUF architecture.
fn architectures(weights: WeightQuant, activations: ActivationQuant) -> Vec<ModelConfig> {
    let base = ModelConfig { weights, activations, ..base() };
    let plain = ModelConfig { use_sub_norm: false, ..base.clone() };
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 32,
    };
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor: 1.2,
        original_max_position_embeddings: 16,
    };
    vec![
        base.clone(),
        ModelConfig { hidden_act: HiddenAct::Relu2, tie_word_embeddings: false, ..base },
        ModelConfig { rope_scaling: Some(llama3), tie_word_embeddings: false, ..plain.clone() },
        ModelConfig { attention_bias: AttentionBias::All, ..plain.clone() },
        ModelConfig {
            attention_bias: AttentionBias::Qkv,
            rope_scaling: Some(RopeScaling::Linear { factor: 2.0 }),
            ..plain.clone()
        },
        ModelConfig { use_qk_norm: true, head_dim: 64, rope_scaling: Some(yarn), ..plain },
    ]
}

fn ids() -> Vec<u32> {
    (0..48u32).map(|i| i * 53 % 257).collect()
}

fn trained_logits(checkpoint: &Checkpoint) -> Vec<f32> {
    trained(checkpoint).unwrap().logits(&ids(), 1, None).unwrap()
}

fn engine_logits(path: &Path) -> Vec<f32> {
    let model = Arc::new(Model::open(path).unwrap());
    Session::with_kv(model, 64, KvType::F32).unwrap().forward(&ids(), LogitsRequest::All).unwrap()
}

fn exact(packing: Packing) -> ExportOptions {
    ExportOptions { packing, linears: DenseType::F32, embeddings: DenseType::F32, ..ExportOptions::default() }
}

#[test]
fn every_architecture_goes_through_gguf_and_hugging_face_unchanged() {
    for (i, config) in architectures(WeightQuant::Absmean, ActivationQuant::Absmax).iter().enumerate() {
        let temp = tempfile::tempdir().unwrap();
        let first = checkpoint(&temp, "first", config);
        let trained = trained_logits(&first);
        let file = temp.path().join("m.gguf");
        // I2_S: the one packing that keeps scales exactly in every architecture.
        let report = export_gguf(&first, &file, &exact(Packing::I2S)).unwrap();
        assert_eq!(report.ternary_tensors, 14);
        let deployed = engine_logits(&file);
        // Divisors of frequencies are rounded to f32 on their way; all else is the same bits.
        let exact_rope = !matches!(config.rope_scaling, Some(RopeScaling::Llama3 { .. }));
        let close = |found: &[f32], what: &str| {
            let bound = if exact_rope { 0.0 } else { 0.05 };
            assert!(difference(found, &trained) <= bound, "{i} {what}: {}", difference(found, &trained));
        };
        close(&deployed, "GGUF");

        let (report, second) =
            imported(&file, &temp.path().join("second"), &ImportOptions::default()).unwrap();
        assert_eq!((report.ternary_tensors, report.decoded_tensors), (14, 0));
        assert_eq!(trained_logits(&second), deployed, "{i}: import of the GGUF file");
        let again = temp.path().join("again.gguf");
        export_gguf(&second, &again, &exact(Packing::I2S)).unwrap();
        let (a, b) = (Gguf::open(&file).unwrap(), Gguf::open(&again).unwrap());
        for tensor in a.tensors() {
            assert_eq!(a.data(tensor), b.data(b.tensor(&tensor.name).unwrap()), "{i}: {}", tensor.name);
        }

        let options = HuggingFaceOptions { packed: true, bf16: false, name: "test".to_string() };
        let directory = temp.path().join("hf");
        if config.attention_bias == AttentionBias::None {
            // transformers runs all of these families with ternary linears.
            assert_eq!(export_hugging_face(&first, &directory, &options).unwrap().packed_tensors, 14);
            let (_, third) =
                imported(&directory, &temp.path().join("third"), &ImportOptions::default()).unwrap();
            assert_eq!(trained_logits(&third), trained, "{i}: packed Hugging Face");
        } else {
            // A bias would be multiplied by the scale there.
            let error = export_hugging_face(&first, &directory, &options).unwrap_err().to_string();
            assert!(error.contains("biases"), "{error}");
            assert!(!directory.exists());
        }
        let options = HuggingFaceOptions { packed: false, ..options };
        let directory = temp.path().join("hf-latent");
        export_hugging_face(&first, &directory, &options).unwrap();
        let (_, fourth) =
            imported(&directory, &temp.path().join("fourth"), &ImportOptions::default()).unwrap();
        assert_eq!(trained_logits(&fourth), trained, "{i}: latent Hugging Face");
    }
}

#[test]
fn full_precision_models_go_through_gguf_and_hugging_face() {
    for (i, config) in architectures(WeightQuant::None, ActivationQuant::None).iter().enumerate() {
        let temp = tempfile::tempdir().unwrap();
        let first = checkpoint(&temp, "first", config);
        let trained = trained_logits(&first);
        let file = temp.path().join("m.gguf");
        export_gguf(&first, &file, &exact(Packing::Tq2_0)).unwrap();
        let difference_of_sums = difference(&engine_logits(&file), &trained);
        assert!(difference_of_sums < 1e-4, "{i}: the engine's logits differ by {difference_of_sums}");
        let (_, second) = imported(&file, &temp.path().join("second"), &ImportOptions::default()).unwrap();
        let through_gguf = difference(&trained_logits(&second), &trained);
        assert!(through_gguf < 1e-5, "{i}: import of the GGUF file differs by {through_gguf}");
        let directory = temp.path().join("hf");
        let options = HuggingFaceOptions { packed: false, bf16: false, name: "test".to_string() };
        export_hugging_face(&first, &directory, &options).unwrap();
        let assume = config.use_sub_norm.then_some(Assume::FullPrecision);
        let options = ImportOptions { assume, ..ImportOptions::default() };
        let (_, third) = imported(&directory, &temp.path().join("third"), &options).unwrap();
        assert_eq!(trained_logits(&third), trained, "{i}");
        // The types that are read where they lie.
        for linears in [DenseType::F16, DenseType::Q8_0] {
            let file = temp.path().join(format!("{}.gguf", linears.name()));
            export_gguf(&first, &file, &ExportOptions { linears, ..exact(Packing::Tq2_0) }).unwrap();
            let rounding = difference(&engine_logits(&file), &trained);
            assert!(rounding > 0.0 && rounding < 0.3, "{i} {}: {rounding}", linears.name());
        }
    }
}

#[test]
fn rows_of_queries_and_keys_are_permuted_as_llama_cpp_reads_them() {
    let temp = tempfile::tempdir().unwrap();
    let config = ModelConfig {
        use_sub_norm: false,
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..base()
    };
    let first = checkpoint(&temp, "first", &config);
    let file = temp.path().join("m.gguf");
    export_gguf(&first, &file, &exact(Packing::Tq2_0)).unwrap();
    let gguf = Gguf::open(&file).unwrap();
    let tensors = first.tensors(MODEL).unwrap();
    for (p, heads) in [(Projection::Q, 4), (Projection::K, 2), (Projection::V, 2)] {
        let [rows, cols] = config.projection_shape(p);
        let ours = tensors.f32(&p.hf_weight(0), &[rows, cols]).unwrap();
        let stored = gguf.data(gguf.tensor(&p.gguf_weight(0)).unwrap());
        let stored: Vec<f32> = stored.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        // `permute` of convert_hf_to_gguf.py: reshape (heads, 2, rows / heads / 2, cols), swap the middle
        // two.
        let half = rows / heads / 2;
        let mut expected = Vec::new();
        for head in 0..heads {
            for j in 0..half {
                for k in 0..2 {
                    let row = (head * 2 + k) * half + j;
                    expected.extend_from_slice(&ours[row * cols..][..cols]);
                }
            }
        }
        assert_eq!(stored == expected, p != Projection::V, "{p:?}");
        assert_eq!(stored == ours.to_vec(), p == Projection::V, "{p:?}");
    }
}

#[test]
fn a_gguf_file_without_its_pre_tokenizer_is_neither_written_nor_read() {
    let temp = tempfile::tempdir().unwrap();
    let first = checkpoint(&temp, "first", &base());
    let file = temp.path().join("m.gguf");
    export_gguf(&first, &file, &exact(Packing::I2S)).unwrap();
    let gguf = Gguf::open(&file).unwrap();
    assert_eq!(gguf.metadata().get_str("tokenizer.ggml.pre").unwrap(), "gpt-2");

    let mut metadata = gguf.metadata().clone();
    metadata.remove("tokenizer.ggml.pre");
    let specs = gguf.tensors().iter();
    let specs = specs.map(|t| TensorSpec { name: t.name.clone(), dims: t.dims.clone(), ty: t.ty }).collect();
    let without = temp.path().join("without.gguf");
    let mut writer = GgufWriter::create(&without, &metadata, specs).unwrap();
    for tensor in gguf.tensors() {
        writer.write_tensor(&tensor.name, gguf.data(tensor)).unwrap();
    }
    writer.finish().unwrap();
    let error = import(&without, &temp.path().join("c"), &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.ggml.pre"), "{error}");
    assert!(!temp.path().join("c").exists());
    assert!(Model::open(&without).is_err());
}

/// The bytes of IQ2_BN: before each row its scale, then 64 weights in 16 bytes.
fn iq2_bn(codes: &[i8], cols: usize, scale: f32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in codes.chunks_exact(cols) {
        bytes.extend_from_slice(&scale.to_le_bytes());
        for block in row.chunks_exact(64) {
            let code = |i: usize| (block[i] + 1) as u8;
            bytes
                .extend((0..16).map(|j| code(j) | code(j + 16) << 2 | code(j + 32) << 4 | code(j + 48) << 6));
        }
    }
    bytes
}

#[test]
fn files_of_ik_llama_keep_codes_and_scales() {
    let temp = tempfile::tempdir().unwrap();
    let config = ModelConfig { hidden_act: HiddenAct::Relu2, ..base() };
    let first = checkpoint(&temp, "first", &config);
    let file = temp.path().join("m.gguf");
    export_gguf(&first, &file, &exact(Packing::I2S)).unwrap();
    let gguf = Gguf::open(&file).unwrap();
    let other = |ty| if ty == GgmlType::I2_S { GgmlType::IQ2_BN } else { ty };
    let specs = gguf.tensors().iter();
    let specs =
        specs.map(|t| TensorSpec { name: t.name.clone(), dims: t.dims.clone(), ty: other(t.ty) }).collect();
    let theirs = temp.path().join("ik.gguf");
    let mut writer = GgufWriter::create(&theirs, gguf.metadata(), specs).unwrap();
    for tensor in gguf.tensors() {
        let bytes = gguf.data(tensor);
        if tensor.ty == GgmlType::I2_S {
            let (cols, rows) = (tensor.dims[0] as usize, tensor.dims[1] as usize);
            let unpacked = Packing::I2S.unpack(bytes, rows, cols).unwrap();
            writer.write_tensor(&tensor.name, &iq2_bn(&unpacked.codes, cols, unpacked.scales[0])).unwrap();
        } else {
            writer.write_tensor(&tensor.name, bytes).unwrap();
        }
    }
    writer.finish().unwrap();
    let (report, second) = imported(&theirs, &temp.path().join("second"), &ImportOptions::default()).unwrap();
    assert_eq!(report.ternary_tensors, 14);
    assert_eq!(trained_logits(&second), trained_logits(&first));
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
