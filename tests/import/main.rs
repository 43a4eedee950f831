//! Models in and out: imports against transformers' logits, round trips through every format, and the faults
//! that bring a model to the runtime as another one: an inverted scale, a second quantization, permuted rows,
//! a tokenizer without its pre-tokenizer.

mod gguf;
mod gguf_types;
mod hugging_face;

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tritforge_checkpoint::{Checkpoint, MODEL, TOKENIZER, TOKENIZER_CONFIG, TensorView, Writer};
use tritforge_config::{ActivationQuant, AttentionBias, HiddenAct, ModelConfig, RopeScaling, WeightQuant};
use tritforge_export::{
    Assume, ExportError, ExportOptions, HuggingFaceOptions, ImportOptions, ImportReport, LoadedModel,
    export_gguf, export_hugging_face, import,
};
use tritforge_gguf::Gguf;
use tritforge_infer::{KvType, LogitsRequest, Model, Session};
use tritforge_kernels::DenseType;
use tritforge_model::Decoder;
use tritforge_ternary::Packing;
use tritforge_text::{SpecialTokens, Tokenizer};

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

/// A Llama whose numbers are not quantized.
fn full_precision() -> ModelConfig {
    ModelConfig {
        use_sub_norm: false,
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..base()
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
