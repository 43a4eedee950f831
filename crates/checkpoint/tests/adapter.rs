//! The files of an adapter as peft writes them: what is refused, by file and tensor.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;
use tritforge_checkpoint::AdapterFiles;
use tritforge_config::{ADAPTER_CONFIG, ADAPTER_MODEL, ModelConfig, Projection};

const RANK: usize = 3;
const CONFIG: &str = r#"{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 6, "base_model_name_or_path": "base",
    "target_modules": ["q_proj", "down_proj"]}"#;
const Q_A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
const Q_B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

/// Type, shape and bytes of each tensor.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn model() -> ModelConfig {
    ModelConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        ..ModelConfig::default()
    }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The tensors of an adapter on queries and down-projections.
fn tensors() -> Tensors {
    let mut tensors = Tensors::new();
    for layer in 0..2 {
        for projection in [Projection::Q, Projection::Down] {
            let [rows, cols] = model().projection_shape(projection);
            let module = format!("base_model.model.model.layers.{layer}.{}", projection.hf_name());
            for (side, shape) in [("lora_A", vec![RANK, cols]), ("lora_B", vec![rows, RANK])] {
                let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32 * 0.01).collect();
                tensors.insert(format!("{module}.{side}.weight"), (Dtype::F32, shape, floats(&values)));
            }
        }
    }
    tensors
}

fn write(dir: &Path, config: &str, tensors: &Tensors) {
    fs::write(dir.join(ADAPTER_CONFIG), config).unwrap();
    let views = tensors
        .iter()
        .map(|(name, (ty, shape, bytes))| (name, TensorView::new(*ty, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &dir.join(ADAPTER_MODEL)).unwrap();
}

/// Reads all matrices of an adapter.
fn read(dir: &Path) -> Result<usize, String> {
    let files = AdapterFiles::open(dir).map_err(|e| e.to_string())?;
    let modules = files.modules(&model()).map_err(|e| e.to_string())?;
    for found in &modules {
        files.matrices(found).map_err(|e| e.to_string())?;
    }
    Ok(modules.len())
}

fn with(change: impl FnOnce(&mut Tensors)) -> Result<usize, String> {
    let (dir, mut tensors) = (TempDir::new().unwrap(), tensors());
    change(&mut tensors);
    write(dir.path(), CONFIG, &tensors);
    read(dir.path())
}

fn renamed(tensors: &mut Tensors, from: &str, to: &str) {
    let tensor = tensors.remove(from).unwrap();
    tensors.insert(to.to_string(), tensor);
}

#[test]
fn matrices_are_read_in_every_type() {
    assert_eq!(with(|_| {}), Ok(4));
    let dir = TempDir::new().unwrap();
    let mut changed = tensors();
    let half: Vec<u8> = [0.5f32, -1.5].iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    changed.insert(Q_A.to_string(), (Dtype::F16, vec![RANK, 16], half.repeat(24)));
    let brain: Vec<u8> = [2.0f32, 0.25].iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
    changed.insert(Q_B.to_string(), (Dtype::BF16, vec![16, RANK], brain.repeat(24)));
    // A state that torch saved has the adapter's name in it.
    renamed(&mut changed, Q_A, &Q_A.replace(".weight", ".default.weight"));
    write(dir.path(), CONFIG, &changed);
    let files = AdapterFiles::open(dir.path()).unwrap();
    let modules = files.modules(&model()).unwrap();
    let [a, b] = files.matrices(&modules[0]).unwrap();
    assert_eq!((&a[..2], &b[..2]), (&[0.5, -1.5][..], &[2.0, 0.25][..]));
    assert_eq!((a.len(), b.len(), modules[0].module.scaling), (48, 48, 2.0));
}

#[test]
fn tensors_that_are_not_an_adapters_are_refused_by_name() {
    type Change = fn(&mut Tensors);
    let faults: [(Change, &[&str]); 15] = [
        (|t| drop(t.remove(Q_B)), &[Q_B, "missing"]),
        (|t| drop(t.remove(Q_A)), &[Q_A, "missing"]),
        (
            |t| t.retain(|name, _| !name.contains("layers.1.mlp")),
            &["layers.1.mlp.down_proj.lora_A", "missing"],
        ),
        (|t| renamed(t, Q_A, &Q_A.replace("layers.0", "layers.2")), &["layers.2", "2 blocks"]),
        (|t| renamed(t, Q_A, &Q_A.replace("layers.0", "layers.00")), &["layers.00", "no projection"]),
        (|t| renamed(t, Q_A, &Q_A.replace("q_proj", "k_proj")), &["q_proj.lora_A", "missing"]),
        (|t| drop(t.insert(Q_A.replace("q_proj", "k_proj"), t[Q_A].clone())), &["k_proj", "target_modules"]),
        (
            |t| drop(t.insert(Q_A.replace(".weight", ".default.weight"), t[Q_A].clone())),
            &["default", "same matrix"],
        ),
        (|t| drop(t.insert(Q_A.replace(".weight", ".bias"), t[Q_A].clone())), &["lora_A.bias"]),
        (
            |t| drop(t.insert(Q_A.replace("lora_A.weight", "lora_magnitude_vector"), t[Q_A].clone())),
            &["magnitude"],
        ),
        (|t| drop(t.insert("base_model.model.lm_head.lora_A.weight".into(), t[Q_A].clone())), &["lm_head"]),
        (
            |t| drop(t.insert("base_model.model.model.embed_tokens.weight".into(), t[Q_A].clone())),
            &["embed_tokens"],
        ),
        (|t| renamed(t, Q_A, Q_A.trim_start_matches("base_model.model.")), &["expected base_model.model."]),
        (|t| t.get_mut(Q_A).unwrap().1 = vec![16, RANK], &[Q_A, "[16, 3]", "[3, 16]"]),
        (
            |t| drop(t.insert(Q_A.into(), (Dtype::U8, vec![RANK, 16], vec![0; 48]))),
            &[Q_A, "U8", "F32, F16 or BF16"],
        ),
    ];
    for (change, named) in faults {
        let message = with(change).unwrap_err();
        for name in named.iter().chain(&[ADAPTER_MODEL]) {
            assert!(message.contains(name), "{named:?}: {message}");
        }
    }
}

#[test]
fn numbers_that_are_none_are_refused_by_element() {
    for (value, written) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let message =
            with(|t| t.get_mut(Q_B).unwrap().2[16..20].copy_from_slice(&value.to_le_bytes())).unwrap_err();
        assert!(message.contains(Q_B) && message.contains(written) && message.contains("row 1"), "{message}");
    }
}

#[test]
fn directories_that_are_no_adapters_say_why() {
    let dir = TempDir::new().unwrap();
    let says = |path: &Path, expected: &str| {
        let message = read(path).unwrap_err();
        assert!(message.contains(expected), "{expected}: {message}");
    };
    says(&dir.path().join("nowhere"), "no such file or directory");
    says(dir.path(), "no adapter in it");
    let named = dir.path().join("default");
    fs::create_dir(&named).unwrap();
    write(&named, CONFIG, &tensors());
    says(dir.path(), "default has one");
    assert_eq!(read(&named), Ok(4));
    says(&named.join(ADAPTER_MODEL), "a file");
    fs::rename(named.join(ADAPTER_CONFIG), named.join("other.json")).unwrap();
    says(&named, "no adapter_config.json");
    fs::rename(named.join("other.json"), named.join(ADAPTER_CONFIG)).unwrap();
    fs::rename(named.join(ADAPTER_MODEL), named.join("adapter_model.bin")).unwrap();
    says(&named, "only adapter_model.bin");
    fs::remove_file(named.join("adapter_model.bin")).unwrap();
    says(&named, "no adapter_model.safetensors");
    fs::write(named.join(ADAPTER_MODEL), "").unwrap();
    says(&named, ADAPTER_MODEL);
    fs::write(named.join(ADAPTER_CONFIG), [0xff, 0xfe]).unwrap();
    says(&named, ADAPTER_CONFIG);
}

#[test]
fn a_base_that_is_not_there_says_how_to_name_it() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &CONFIG.replace("\"base\"", "\"meta-llama/Llama-3.2-1B\""), &tensors());
    let files = AdapterFiles::open(dir.path()).unwrap();
    let message = files.base_path(None).unwrap_err().to_string();
    assert!(message.contains("meta-llama/Llama-3.2-1B") && message.contains("--base"), "{message}");
    assert_eq!(files.base_path(Some(Path::new("here"))).unwrap(), Path::new("here"));
    write(dir.path(), &CONFIG.replace("\"base\"", "null"), &tensors());
    let message = AdapterFiles::open(dir.path()).unwrap().base_path(None).unwrap_err().to_string();
    assert!(message.contains("base_model_name_or_path is missing"), "{message}");
}

#[test]
fn a_model_with_an_adapter_beside_it_is_no_adapter_unless_asked_for() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), CONFIG, &tensors());
    assert!(AdapterFiles::find(dir.path()).unwrap().is_some());
    fs::copy(dir.path().join(ADAPTER_MODEL), dir.path().join("model.safetensors")).unwrap();
    assert!(AdapterFiles::find(dir.path()).unwrap().is_none());
    assert_eq!(read(dir.path()), Ok(4));
}

#[test]
fn damaged_files_never_panic() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), CONFIG, &tensors());
    let whole = fs::read(dir.path().join(ADAPTER_MODEL)).unwrap();
    let mut state = 7u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..400 {
        let (mut bytes, mut config) = (whole.clone(), CONFIG.as_bytes().to_vec());
        match round % 4 {
            0 => bytes.truncate(next(whole.len())),
            1 => bytes[next(1200)] ^= 1 << next(8),
            2 => config.truncate(next(CONFIG.len())),
            _ => {
                let at = next(config.len());
                config[at] ^= 1 << next(8);
            }
        }
        fs::write(dir.path().join(ADAPTER_MODEL), bytes).unwrap();
        fs::write(dir.path().join(ADAPTER_CONFIG), config).unwrap();
        if let Err(message) = read(dir.path()) {
            assert!(message.contains("adapter"), "{message}");
        }
    }
}
