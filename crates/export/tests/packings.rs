//! Packed checkpoints through every packing: the codes and scales of the source, and the same logits from
//! every file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tritforge_checkpoint::{Checkpoint, MODEL};
use tritforge_config::Projection;
use tritforge_export::{
    ExportOptions, ImportOptions, ImportReport, Report, export_gguf, import, ternary_tensor,
};
use tritforge_gguf::{Gguf, TensorSpec, Writer};
use tritforge_infer::{KvType, LogitsRequest, Model, Session};
use tritforge_kernels::DenseType;
use tritforge_ternary::Packing;
use tritforge_text::{SpecialTokens, Tokenizer};

const VOCAB: usize = 512;

/// The code of a weight, from its projection's number and its place.
fn code(projection: usize, i: usize) -> i8 {
    ((i * i + projection * i + i / 5) % 3) as i8 - 1
}

/// What divides the codes of a projection.
fn divisor(projection: usize) -> f32 {
    8.0 + projection as f32
}

/// The upper half of an f32, where the rest is zeros.
fn bf16(x: f32) -> [u8; 2] {
    ((x.to_bits() >> 16) as u16).to_le_bytes()
}

/// Shapes of the projections of a model of this width.
fn shapes(hidden: usize) -> [[usize; 2]; 7] {
    let (kv, ffn) = (hidden / 2, 2 * hidden);
    [
        [hidden, hidden],
        [kv, hidden],
        [kv, hidden],
        [hidden, hidden],
        [ffn, hidden],
        [ffn, hidden],
        [hidden, ffn],
    ]
}

/// A checkpoint as tiiuae publishes Falcon-E: a LlamaForCausalLM whose linears are `bitlinear`, four stripes
/// of rows in a byte, with scales that divide; embedding, norms and head in bf16. Put together byte by byte,
/// apart from the crates' writers.
fn falcon_e(directory: &Path, hidden: usize) {
    fs::create_dir(directory).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden,
        "intermediate_size": 2 * hidden, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": hidden / 4, "vocab_size": VOCAB, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_042, "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": null},
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    let mut add = |name: String, dtype: &str, shape: &[usize], bytes: Vec<u8>| {
        let end = data.len() + bytes.len();
        header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), end]}));
        data.extend(bytes);
    };
    for (name, shape) in [
        ("model.embed_tokens", vec![VOCAB, hidden]),
        ("lm_head", vec![VOCAB, hidden]),
        ("model.norm", vec![hidden]),
        ("model.layers.0.input_layernorm", vec![hidden]),
        ("model.layers.0.post_attention_layernorm", vec![hidden]),
    ] {
        let count: usize = shape.iter().product();
        let bytes = (0..count).flat_map(|i| bf16((i as f32 * 0.37).sin())).collect();
        add(format!("{name}.weight"), "BF16", &shape, bytes);
    }
    for (number, (p, [rows, cols])) in Projection::ALL.into_iter().zip(shapes(hidden)).enumerate() {
        let byte = |i: usize| {
            let (r, c) = (i / cols, i % cols);
            let code = |n: usize| (code(number, (n * rows / 4 + r) * cols + c) + 1) as u8;
            (0..4).fold(0u8, |b, n| b | code(n) << (2 * n))
        };
        add(p.hf_weight(0), "U8", &[rows / 4, cols], (0..rows / 4 * cols).map(byte).collect());
        add(format!("{}_scale", p.hf_weight(0)), "BF16", &[1], bf16(divisor(number)).to_vec());
    }
    let header = serde_json::to_vec(&header).unwrap();
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    fs::write(directory.join(MODEL), file).unwrap();
    let tokenizer = Tokenizer::train_bpe([""; 0], 257, &SpecialTokens::default()).unwrap();
    tokenizer.save(directory).unwrap();
}

fn imported(source: &Path, out: &Path, options: &ImportOptions) -> (ImportReport, Checkpoint) {
    let report = import(source, out, options).unwrap();
    (report, Checkpoint::open(out).unwrap())
}

/// Codes and scales of all projections.
fn projections(checkpoint: &Checkpoint, hidden: usize) -> Vec<(Vec<i8>, f32)> {
    let (tensors, config) = (checkpoint.tensors(MODEL).unwrap(), checkpoint.config().unwrap());
    let tensor = |(p, shape): (Projection, [usize; 2])| {
        let tensor = ternary_tensor(&tensors, &config, &p.hf_weight(0), shape).unwrap();
        (tensor.codes().to_vec(), tensor.scales().of_tensor().unwrap())
    };
    Projection::ALL.into_iter().zip(shapes(hidden)).map(tensor).collect()
}

fn exported(checkpoint: &Checkpoint, file: &Path, packing: Packing, embeddings: DenseType) -> Report {
    export_gguf(checkpoint, file, &ExportOptions { packing, embeddings, ..ExportOptions::default() }).unwrap()
}

fn logits(file: &Path) -> Vec<f32> {
    let model = Arc::new(Model::open(file).unwrap());
    let ids: Vec<u32> = (0..24u32).map(|i| i * 53 % 257).collect();
    Session::with_kv(model, 32, KvType::F32).unwrap().forward(&ids, LogitsRequest::All).unwrap()
}

#[test]
fn a_packed_llama_as_falcon_e_keeps_codes_and_scales() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("falcon-e");
    falcon_e(&source, 64);
    let (report, checkpoint) = imported(&source, &temp.path().join("c"), &ImportOptions::default());
    assert_eq!((report.ternary_tensors, report.config.use_sub_norm, report.tokenizer), (7, false, true));
    assert_eq!(report.unknown, [""; 0]);
    for (number, (codes, scale)) in projections(&checkpoint, 64).into_iter().enumerate() {
        let [rows, cols] = shapes(64)[number];
        assert_eq!(codes, (0..rows * cols).map(|i| code(number, i)).collect::<Vec<_>>(), "{number}");
        assert_eq!(scale, 1.0 / divisor(number), "{number}");
    }
    // No width is a multiple of 128: what llama.cpp and ik_llama.cpp load has blocks of 64.
    let (q2_0, iq2_bn) = (temp.path().join("q2_0.gguf"), temp.path().join("iq2_bn.gguf"));
    let report = exported(&checkpoint, &q2_0, Packing::Q2_0, DenseType::F32);
    assert_eq!((report.architecture.name(), report.scale_rounding), ("llama", 0.0));
    exported(&checkpoint, &iq2_bn, Packing::Iq2Bn, DenseType::F32);
    assert_eq!(logits(&q2_0), logits(&iq2_bn));
    let wide = ExportOptions { packing: Packing::Tq2_0, ..ExportOptions::default() };
    let error = export_gguf(&checkpoint, &temp.path().join("x.gguf"), &wide).unwrap_err().to_string();
    assert!(error.contains("blocks of 256"), "{error}");
}

#[test]
fn every_packing_is_written_read_and_run_without_a_change() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    falcon_e(&source, 256);
    let (_, first) = imported(&source, &temp.path().join("c"), &ImportOptions::default());
    let kept = projections(&first, 256);
    let mut all: Vec<Vec<f32>> = Vec::new();
    for packing in Packing::ALL {
        let file = temp.path().join(format!("{}.gguf", packing.name()));
        let report = exported(&first, &file, packing, DenseType::F32);
        assert_eq!((report.ternary_tensors, report.scale_rounding, report.weights), (7, 0.0, packing.name()));
        let out = temp.path().join(packing.name());
        let (_, second) = imported(&file, &out, &ImportOptions::default());
        assert_eq!(projections(&second, 256), kept, "{}", packing.name());
        all.push(logits(&file));
    }
    assert!(all[0].iter().any(|logit| *logit != 0.0));
    assert!(all.iter().all(|logits| *logits == all[0]));
    // What was stored in bf16 is exact in it, and is multiplied in the same order.
    let file = temp.path().join("bf16.gguf");
    assert_eq!(exported(&first, &file, Packing::I2S, DenseType::Bf16).embedding_rounding, 0.0);
    assert_eq!(logits(&file), all[0]);
    let (_, second) = imported(&file, &temp.path().join("bf16"), &ImportOptions::default());
    let again = temp.path().join("again.gguf");
    exported(&second, &again, Packing::I2S, DenseType::F32);
    assert_eq!(logits(&again), all[0]);
}

#[test]
fn i2_s_of_an_arm_build_is_read_as_such_on_request() {
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    falcon_e(&source, 128);
    let (_, first) = imported(&source, &temp.path().join("c"), &ImportOptions::default());
    let file = temp.path().join("m.gguf");
    exported(&first, &file, Packing::I2SArm, DenseType::F32);
    // As bitnet.cpp writes it, the file does not say which layout it has.
    let gguf = Gguf::open(&file).unwrap();
    let mut metadata = gguf.metadata().clone();
    assert_eq!(metadata.get_str("tritforge.i2_s.layout").unwrap(), "arm");
    metadata.remove("tritforge.i2_s.layout");
    let specs = gguf.tensors().iter();
    let specs = specs.map(|t| TensorSpec { name: t.name.clone(), dims: t.dims.clone(), ty: t.ty }).collect();
    let theirs = temp.path().join("theirs.gguf");
    let mut writer = Writer::create(&theirs, &metadata, specs).unwrap();
    for tensor in gguf.tensors() {
        writer.write_tensor(&tensor.name, gguf.data(tensor)).unwrap();
    }
    writer.finish().unwrap();
    let options = ImportOptions { i2_s_arm: true, ..ImportOptions::default() };
    let (_, arm) = imported(&theirs, &temp.path().join("arm"), &options);
    assert_eq!(projections(&arm, 128), projections(&first, 128));
    let (_, x86) = imported(&theirs, &temp.path().join("x86"), &ImportOptions::default());
    assert_ne!(projections(&x86, 128), projections(&first, 128));
}

#[test]
fn a_sentencepiece_model_comes_along_and_goes_into_gguf() {
    let model = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizers/bpe.model");
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source");
    falcon_e(&source, 64);
    // As older repositories have it: no tokenizer.json.
    fs::remove_file(source.join("tokenizer.json")).unwrap();
    fs::write(source.join("tokenizer_config.json"), r#"{"bos_token": "<s>", "eos_token": "</s>"}"#).unwrap();
    fs::copy(&model, source.join("tokenizer.model")).unwrap();
    let (report, checkpoint) = imported(&source, &temp.path().join("c"), &ImportOptions::default());
    assert!(report.tokenizer);
    let file = temp.path().join("m.gguf");
    exported(&checkpoint, &file, Packing::Q2_0, DenseType::F32);
    let deployed = Model::open(&file).unwrap();
    let theirs = Tokenizer::from_file(&model).unwrap();
    for text in ["ternary scale 世界", "  a  b ", "<s> x"] {
        let ids = deployed.tokenizer().encode(text, true).unwrap();
        assert_eq!(ids, theirs.encode(text, true).unwrap(), "{text:?}");
        assert_eq!(deployed.tokenizer().decode(&ids[1..]).unwrap(), text);
    }
    assert_eq!(Gguf::open(&file).unwrap().metadata().get_str("tokenizer.ggml.model").unwrap(), "llama");
}
