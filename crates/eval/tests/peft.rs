//! Adapters as peft writes them, against models whose weights are W + scaling · B·A, computed here in f64:
//! every way to say which modules have which rank and scaling, in the training forward and in its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;
use tritforge_config::{ADAPTER_CONFIG, ADAPTER_MODEL};
use tritforge_eval::{EvalModel, VerifyOptions, verify};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A llama of two blocks in full precision.
fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/llama_tiny").canonicalize().unwrap()
}

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |view: &TensorView<'_>| {
        view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>()
    };
    parsed.iter().map(|(name, view)| (name.to_string(), (view.shape().to_vec(), values(&view)))).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = tensors
        .iter()
        .map(|(name, (shape, _))| (name, TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// Numbers that look random.
fn drawn(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.4
    };
    (0..n).map(next).collect()
}

/// A directory with an adapter on `modules` (name, rank, scaling) and one with the model that they make of
/// the base.
fn case(keys: &Value, modules: &[(&str, usize, f64)]) -> (TempDir, TempDir) {
    let (adapter, merged) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut config = json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base(), "r": 2, "lora_alpha": 3});
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(adapter.path().join(ADAPTER_CONFIG), config.to_string()).unwrap();
    let (mut weights, mut matrices) = (read(&base().join("model.safetensors")), Tensors::new());
    for (seed, (module, rank, scaling)) in modules.iter().enumerate() {
        let (shape, weight) = weights.get_mut(&format!("model.{module}.weight")).unwrap();
        let (rows, cols) = (shape[0], shape[1]);
        let (a, b) = (drawn(rank * cols, 2 * seed as u64 + 1), drawn(rows * rank, 2 * seed as u64 + 2));
        for row in 0..rows {
            for col in 0..cols {
                let product = |k: usize| f64::from(b[row * rank + k]) * f64::from(a[k * cols + col]);
                let delta = scaling * (0..*rank).map(product).sum::<f64>();
                weight[row * cols + col] = (f64::from(weight[row * cols + col]) + delta) as f32;
            }
        }
        let name = |side: &str| format!("base_model.model.model.{module}.{side}.weight");
        matrices.insert(name("lora_A"), (vec![*rank, cols], a));
        matrices.insert(name("lora_B"), (vec![rows, *rank], b));
    }
    write(&adapter.path().join(ADAPTER_MODEL), &matrices);
    write(&merged.path().join("model.safetensors"), &weights);
    fs::copy(base().join("config.json"), merged.path().join("config.json")).unwrap();
    (adapter, merged)
}

fn difference(a: &Path, b: &Path) -> f32 {
    let open = |path: &Path| EvalModel::open(path).unwrap();
    let ids = (0..48).map(|i| i * 37 % 160).collect();
    let options = VerifyOptions { ids, greedy_tokens: 1, logit_bound: 1e-4 };
    verify(open(a), open(b), &options).unwrap().as_trained.max_difference
}

#[test]
fn base_with_adapter_is_the_model_with_the_sum() {
    let (q0, q1) = ("layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj");
    let (v0, v1) = ("layers.0.self_attn.v_proj", "layers.1.self_attn.v_proj");
    let (d0, d1) = ("layers.0.mlp.down_proj", "layers.1.mlp.down_proj");
    let (root, list) = (2f64.sqrt(), json!(["q_proj", "v_proj"]));
    type Module<'a> = (&'a str, usize, f64);
    let cases: Vec<(Value, Vec<Module<'_>>)> = vec![
        (json!({"target_modules": list}), vec![(q0, 2, 1.5), (q1, 2, 1.5), (v0, 2, 1.5), (v1, 2, 1.5)]),
        (
            json!({"target_modules": list, "use_rslora": true}),
            vec![(q0, 2, 3.0 / root), (q1, 2, 3.0 / root), (v0, 2, 3.0 / root), (v1, 2, 3.0 / root)],
        ),
        (
            json!({"target_modules": list, "rank_pattern": {"v_proj": 5}}),
            vec![(q0, 2, 1.5), (q1, 2, 1.5), (v0, 5, 0.6), (v1, 5, 0.6)],
        ),
        (
            json!({"target_modules": list, "alpha_pattern": {"layers.1.self_attn.*": 8}}),
            vec![(q0, 2, 1.5), (q1, 2, 4.0), (v0, 2, 1.5), (v1, 2, 4.0)],
        ),
        (
            json!({"target_modules": r".*\.[01]\..*(q|down)_proj", "rank_pattern": {"down_proj": 4}, "use_rslora": true}),
            vec![(q0, 2, 3.0 / root), (q1, 2, 3.0 / root), (d0, 4, 1.5), (d1, 4, 1.5)],
        ),
        (json!({"target_modules": list, "layers_to_transform": 1}), vec![(q1, 2, 1.5), (v1, 2, 1.5)]),
        (
            json!({"target_modules": list, "exclude_modules": ["0.self_attn.v_proj"]}),
            vec![(q0, 2, 1.5), (q1, 2, 1.5), (v1, 2, 1.5)],
        ),
        (json!({"target_modules": ["model.layers.1.mlp.down_proj"], "r": 1}), vec![(d1, 1, 3.0)]),
    ];
    for (keys, modules) in cases {
        let (adapter, merged) = case(&keys, &modules);
        let apart = difference(adapter.path(), merged.path());
        assert!(apart < 5e-5, "{keys}: {apart}");
        let untouched = difference(adapter.path(), &base());
        assert!(untouched > 100.0 * apart && untouched > 1e-2, "{keys}: the adapter changes {untouched}");
    }
}

#[test]
fn an_adapter_that_does_not_fit_its_base_is_refused() {
    let (adapter, _) = case(
        &json!({"target_modules": ["q_proj"], "layers_to_transform": [0]}),
        &[("layers.0.self_attn.q_proj", 3, 1.0)],
    );
    let error = EvalModel::open(adapter.path()).unwrap_err().to_string();
    assert!(error.contains("lora_A") && error.contains("[3, 32]") && error.contains("[2, 32]"), "{error}");
}

#[test]
fn files_of_peft_itself_are_read_with_their_base() {
    // Its base_model_name_or_path is "llama_tiny", a name that only --base or its place can give a meaning.
    let golden = base().with_file_name("lora_llama");
    let error = EvalModel::open(&golden).unwrap_err().to_string();
    assert!(error.contains("llama_tiny") && error.contains("--base"), "{error}");
    let dir = TempDir::new().unwrap();
    fs::copy(golden.join(ADAPTER_MODEL), dir.path().join(ADAPTER_MODEL)).unwrap();
    let config = fs::read_to_string(golden.join(ADAPTER_CONFIG)).unwrap();
    let named = config.replace("\"llama_tiny\"", &json!(base()).to_string());
    fs::write(dir.path().join(ADAPTER_CONFIG), named).unwrap();
    assert!(difference(dir.path(), &base()) > 1e-3);
}
