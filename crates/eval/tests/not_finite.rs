//! NaN and infinity in a model: every tensor, in every type that files have, stops whatever reads, runs or
//! measures the model, with an error that names the tensor and the place.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, TensorView, serialize};
use tritforge_checkpoint::Tensors;
use tritforge_config::{ActivationQuant, AttentionBias, ModelConfig, WeightQuant};
use tritforge_eval::{
    EvalModel, GreedyOptions, ScoredSequence, Scorer, Scoring, VerifyOptions, generate_greedy, perplexity,
    verify,
};
use tritforge_export::{ExportOptions, ImportOptions, LoadedModel, diff, import, synth_gguf};
use tritforge_gguf::{GgmlType, Gguf, TensorInfo};
use tritforge_infer::{InferError, LogitsRequest, Model, Session};
use tritforge_kernels::DenseType;
use tritforge_ternary::{Packing, ScalePlace};

const SEED: u64 = 24;
const TEXT: &str = "a text of some length";

/// Numbers that are none, with their names.
const BAD: [(f32, &str); 3] = [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")];

fn config(ternary: bool) -> ModelConfig {
    let (weights, activations) = match ternary {
        true => (WeightQuant::Absmean, ActivationQuant::Absmax),
        false => (WeightQuant::None, ActivationQuant::None),
    };
    ModelConfig {
        vocab_size: 257,
        hidden_size: 256,
        intermediate_size: 256,
        num_hidden_layers: 1,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 64,
        max_position_embeddings: 64,
        // The architecture with sub-norms and SiLU ties its head.
        tie_word_embeddings: ternary,
        use_sub_norm: ternary,
        attention_bias: if ternary { AttentionBias::None } else { AttentionBias::Qkv },
        weights,
        activations,
        ..ModelConfig::default()
    }
}

/// A small generator: the tests are the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

/// A GGUF file whose tensors can be changed.
struct File {
    bytes: Vec<u8>,
    tensors: Vec<TensorInfo>,
    start: usize,
}

impl File {
    fn open(path: &Path) -> Self {
        let gguf = Gguf::open(path).unwrap();
        let (tensors, start) = (gguf.tensors().to_vec(), gguf.data_offset() as usize);
        Self { bytes: fs::read(path).unwrap(), tensors, start }
    }

    /// A sound model whose numbers are f32.
    fn in_f32(dir: &Path) -> Self {
        let path = dir.join("sound.gguf");
        let options =
            ExportOptions { linears: DenseType::F32, embeddings: DenseType::F32, ..ExportOptions::default() };
        synth_gguf(&config(false), &path, &options, SEED, None).unwrap();
        Self::open(&path)
    }

    fn tensor(&self, name: &str) -> &TensorInfo {
        self.tensors.iter().find(|tensor| tensor.name == name).unwrap()
    }

    /// The file with bytes of a tensor changed.
    fn with(&self, name: &str, at: usize, change: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let begin = self.start + self.tensor(name).offset as usize + at;
        bytes[begin..begin + change.len()].copy_from_slice(change);
        bytes
    }
}

/// Asserts that nothing that reads, runs or measures a GGUF file takes it, and that each says which tensor
/// and what. A file that loads all the same does not run: not with `token`.
fn refused(path: &Path, what: &[&str], token: u32) {
    let out = path.with_extension("ck");
    let options = ImportOptions::default();
    let mut errors = vec![
        ("import", import(path, &out, &options).map(|_| ()).map_err(|e| e.to_string())),
        ("eval", EvalModel::open(path).map(|_| ()).map_err(|e| e.to_string())),
    ];
    errors.push(("generate", run(path, token)));
    for (command, result) in errors {
        let error = result.expect_err(&format!("{command} took {}: {what:?}", path.display()));
        for part in what {
            assert!(error.contains(part), "{command}: {part:?} is missing in: {error}");
        }
    }
    assert!(!out.exists(), "a refused import leaves nothing");
}

/// Loads a file and runs a token; the session that refuses it is as it was.
fn run(path: &Path, token: u32) -> Result<(), String> {
    let model = Arc::new(Model::open(path).map_err(|e| e.to_string())?);
    let mut session = Session::new(Arc::clone(&model), 8).unwrap();
    let result = session.forward(&[token], LogitsRequest::Last);
    assert_eq!(session.len(), usize::from(result.is_ok()));
    result.map(|_| ()).map_err(|e| e.to_string())
}

#[test]
fn every_tensor_of_every_dense_type() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sound) = (dir.path().join("m.gguf"), dir.path().join("sound.gguf"));
    let mut random = Random(SEED);
    let mut variants = 0;
    for ty in DenseType::ALL {
        let options = ExportOptions { linears: ty, embeddings: ty, ..ExportOptions::default() };
        synth_gguf(&config(false), &sound, &options, SEED, None).unwrap();
        EvalModel::open(&sound).unwrap();
        let file = File::open(&sound);
        for info in &file.tensors {
            let cols = info.dims[0] as usize;
            let rows = info.elements() as usize / cols;
            for (value, name) in BAD {
                let (row, column) = (random.below(rows), random.below(cols));
                let element = row * cols + column;
                let f16 = half_bits(value);
                let (at, change) = match info.ty {
                    GgmlType::F32 => (4 * element, value.to_le_bytes().to_vec()),
                    GgmlType::F16 => (2 * element, f16.to_vec()),
                    GgmlType::BF16 => (2 * element, value.to_le_bytes()[2..].to_vec()),
                    GgmlType::Q8_0 => (element / 32 * 34, f16.to_vec()),
                    GgmlType::Q6_K => (element / 256 * 210 + 208, f16.to_vec()),
                    other => panic!("{}", other.name()),
                };
                fs::write(&path, file.with(&info.name, at, &change)).unwrap();
                // What a scale makes of a block's codes depends on them; the row is the same.
                let block = matches!(info.ty, GgmlType::Q8_0 | GgmlType::Q6_K);
                let place = match (rows, block) {
                    (1, _) => format!("element {column} is {name}"),
                    (_, true) => format!("row {row}, column "),
                    (_, false) => format!("row {row}, column {column} is {name}"),
                };
                let embedding = info.name == "token_embd.weight";
                refused(&path, &[&info.name, &place], if embedding { row as u32 } else { 1 });
                if embedding {
                    // Other tokens do not use that row.
                    run(&path, (row as u32 + 1) % 257).unwrap();
                }
                // `diff` says which tensor is broken; a model is not the same as itself then.
                let open = |path: &Path| LoadedModel::open(path, &ImportOptions::default()).unwrap();
                let (first, second) = (open(&path), open(&path));
                let report = diff([&first, &second], |_| {}).unwrap();
                assert!(!report.same(f32::INFINITY), "{} of {name}", info.name);
                let json = serde_json::to_string(&report).unwrap();
                assert!(json.contains("not-finite"), "{json}");
                variants += 1;
            }
        }
    }
    assert!(variants >= 200, "{variants}");
}

/// The f16 of a number that is none.
fn half_bits(value: f32) -> [u8; 2] {
    let bits: u16 = if value.is_nan() { 0x7e00 } else { 0x7c00 | (u16::from(value < 0.0) << 15) };
    bits.to_le_bytes()
}

#[test]
fn every_scale_of_every_packing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sound) = (dir.path().join("m.gguf"), dir.path().join("sound.gguf"));
    let mut random = Random(SEED);
    for packing in Packing::ALL {
        let options = ExportOptions { packing, embeddings: DenseType::F32, ..ExportOptions::default() };
        synth_gguf(&config(true), &sound, &options, SEED, None).unwrap();
        EvalModel::open(&sound).unwrap();
        let file = File::open(&sound);
        let weights = file.tensors.iter().filter(|info| info.ty.name() == packing.ggml_type());
        let mut matrices = 0;
        for info in weights {
            matrices += 1;
            let len = packing.packed_len(256, 256).unwrap().min(info.nbytes as usize);
            let rows = info.elements() as usize / 256;
            // Where the scales stand in a tensor, and how wide they are.
            let (block, at, wide) = match packing {
                Packing::Tq1_0 => (54, 52, false),
                Packing::Tq2_0 => (66, 64, false),
                Packing::Q2_0 => (18, 0, false),
                Packing::Q2_0G128 | Packing::Pq2_0 => (34, 0, false),
                Packing::Ptq1_0 => (28, 26, false),
                Packing::Iq2Bn => (info.nbytes as usize / rows, 0, true),
                Packing::Iq1Bn => (info.nbytes as usize / rows, 0, false),
                Packing::I2S | Packing::I2SArm => (len, info.nbytes as usize - 32, true),
            };
            let count = if packing.scales() == ScalePlace::Tensor { 1 } else { info.nbytes as usize / block };
            let which = random.below(count);
            for (value, name) in [BAD[0], BAD[1], BAD[2], (-1.0, "-1")] {
                let change = match (wide, value.is_finite()) {
                    (true, _) => value.to_le_bytes().to_vec(),
                    (false, false) => half_bits(value).to_vec(),
                    (false, true) => 0xbc00u16.to_le_bytes().to_vec(),
                };
                fs::write(&path, file.with(&info.name, which * block + at, &change)).unwrap();
                refused(&path, &[&info.name, &format!("is {name}: expected a positive number")], 1);
            }
            // Codes that are not 0 with a scale that is: a layer that is silently dead.
            let zero: &[u8] = if wide { &[0; 4] } else { &[0; 2] };
            let mut bytes = file.bytes.clone();
            let begin = file.start + info.offset as usize;
            for i in 0..count {
                bytes[begin + i * block + at..][..zero.len()].copy_from_slice(zero);
            }
            fs::write(&path, bytes).unwrap();
            refused(&path, &[&info.name, " is 0: expected a positive number"], 1);
        }
        assert_eq!(matrices, 7, "{}", packing.name());
        for info in file.tensors.iter().filter(|info| info.name.ends_with(".scale")) {
            let weight = info.name.replace(".scale", ".weight");
            for (value, name) in [BAD[0], BAD[1], BAD[2], (-1.0, "-1"), (0.0, "0")] {
                fs::write(&path, file.with(&info.name, 0, &value.to_le_bytes())).unwrap();
                let tensor = weight.trim_end_matches("weight");
                refused(&path, &[tensor, &format!("is {name}")], 1);
            }
        }
    }
}

#[test]
fn every_tensor_of_a_hugging_face_directory() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/llama_tiny");
    let tensors = Tensors::open(&golden.join("model.safetensors")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (dir.path().join("hf"), dir.path().join("ck"));
    fs::create_dir(&source).unwrap();
    fs::copy(golden.join("config.json"), source.join("config.json")).unwrap();
    let list = tensors.list().unwrap();
    let mut random = Random(SEED);
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let number = |value: f32| match dtype {
            Dtype::F32 => value.to_le_bytes().to_vec(),
            // bf16 rounds toward zero here; f16 holds the powers of two up to 2^15.
            Dtype::BF16 => value.to_le_bytes()[2..].to_vec(),
            _ if value.is_finite() => [0x00, 0x3c].to_vec(),
            _ => half_bits(value).to_vec(),
        };
        let stored: Vec<(String, Vec<usize>, Vec<u8>)> = list
            .iter()
            .map(|(name, shape, _)| {
                let values = tensors.f32(name, shape).unwrap();
                (name.clone(), shape.clone(), values.iter().flat_map(|v| number(*v)).collect())
            })
            .collect();
        let save = |stored: &[(String, Vec<usize>, Vec<u8>)]| {
            let views = stored.iter().map(|(name, shape, bytes)| {
                (name.clone(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
            });
            fs::write(source.join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
        };
        save(&stored);
        import(&source, &out, &ImportOptions::default()).unwrap();
        fs::remove_dir_all(&out).unwrap();
        for (i, (name, shape, _)) in list.iter().enumerate() {
            let (value, shown) = BAD[random.below(BAD.len())];
            let (len, cols) = (shape.iter().product::<usize>(), *shape.last().unwrap());
            let at = random.below(len);
            let mut broken = stored.clone();
            let change = number(value);
            broken[i].2[at * change.len()..][..change.len()].copy_from_slice(&change);
            save(&broken);
            let place = match shape.len() {
                1 => format!("element {at} is {shown}"),
                _ => format!("row {}, column {} is {shown}", at / cols, at % cols),
            };
            let options = ImportOptions::default();
            let error = import(&source, &out, &options).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(&place), "{dtype:?} {name} {place}: {error}");
            assert!(!out.exists());
            let error = EvalModel::open_with(&source, &options, &[]).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(&place), "{dtype:?} {name} {place}: {error}");
        }
    }
}

/// Finite weights whose products are beyond f32: what comes of them is no number, in both runs with the same
/// bits.
#[test]
fn products_beyond_the_range_are_neither_measured_nor_verified() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("m.gguf"), File::in_f32(dir.path()));
    let mut bytes = file.bytes.clone();
    for (name, first, count) in [("output_norm.weight", 0, 256), ("output.weight", 5 * 256, 256)] {
        let begin = file.start + file.tensor(name).offset as usize + 4 * first;
        for word in bytes[begin..begin + 4 * count].chunks_exact_mut(4) {
            word.copy_from_slice(&1e30f32.to_le_bytes());
        }
    }
    fs::write(&path, bytes).unwrap();

    let expected = |error: String| {
        assert!(error.contains("token 5") && error.contains("position") && error.contains("f32"), "{error}");
    };
    // The engine, and the training forward of what it imports.
    let checkpoint = dir.path().join("ck");
    import(&path, &checkpoint, &ImportOptions::default()).unwrap();
    let model = Arc::new(Model::open(&path).unwrap());
    let mut session = Session::new(Arc::clone(&model), 8).unwrap();
    let error = session.forward(&[1, 2, 3], LogitsRequest::Last).unwrap_err();
    assert!(matches!(error, InferError::NotFinite { position: 2, .. }), "{error}");
    expected(error.to_string());
    assert!(session.is_empty(), "nothing of the pass is kept");
    session.forward(&[1, 2, 3], LogitsRequest::None).unwrap();
    for path in [&path, &checkpoint] {
        let model = EvalModel::open(path).unwrap();
        expected(
            perplexity(&model, TEXT, Scoring::All { window: 8 }, |_, _| Ok(())).unwrap_err().to_string(),
        );
        let scored = [ScoredSequence { ids: vec![1, 2, 3], context: 1 }];
        expected(Scorer::new(&model).unwrap().score(&scored).unwrap_err().to_string());
        let writing = GreedyOptions { max_tokens: 2, stop: Vec::new() };
        expected(generate_greedy(&model, &[vec![1, 2]], &writing, |_, _| Ok(())).unwrap_err().1.to_string());
    }
    let side = |path: &Path| EvalModel::open(path).unwrap();
    for pair in [[&path, &path], [&checkpoint, &path], [&checkpoint, &checkpoint]] {
        let options = VerifyOptions { ids: vec![1, 2, 3], greedy_tokens: 2, logit_bound: f32::INFINITY };
        expected(verify(side(pair[0]), side(pair[1]), &options).unwrap_err().to_string());
    }
}

/// A loss so large that its exponential is infinite is no perplexity.
#[test]
fn a_perplexity_that_is_no_number_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("m.gguf"), File::in_f32(dir.path()));
    let norm = [1e6f32.to_le_bytes(); 256].concat();
    fs::write(&path, file.with("output_norm.weight", 0, &norm)).unwrap();
    let model = EvalModel::open(&path).unwrap();
    let error = perplexity(&model, TEXT, Scoring::All { window: 8 }, |_, _| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "perplexity is inf: expected a finite number");
}
