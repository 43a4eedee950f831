//! NaN and infinity in a checkpoint, and numbers that are none only in the type that they are exported to.

use std::fs;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};
use tritforge_checkpoint::{Checkpoint, MODEL, Tensors};
use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_export::{
    ExportOptions, HuggingFaceOptions, ImportOptions, export_gguf, export_hugging_face, import, synth_gguf,
};
use tritforge_gguf::Gguf;
use tritforge_kernels::DenseType;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 257,
        hidden_size: 256,
        intermediate_size: 256,
        num_hidden_layers: 1,
        tie_word_embeddings: false,
        use_sub_norm: false,
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..ModelConfig::default()
    }
}

/// A checkpoint of f32 numbers.
fn checkpoint(dir: &Path) -> std::path::PathBuf {
    let (gguf, out) = (dir.join("m.gguf"), dir.join("ck"));
    let options =
        ExportOptions { linears: DenseType::F32, embeddings: DenseType::F32, ..ExportOptions::default() };
    synth_gguf(&config(), &gguf, &options, 3, None).unwrap();
    import(&gguf, &out, &ImportOptions::default()).unwrap();
    out
}

/// Sets an element of a tensor, and the manifest's checksum: the checkpoint is whole, its number is what it
/// is.
fn set(checkpoint: &Path, tensor: &str, index: usize, value: f32) {
    let path = checkpoint.join(MODEL);
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let begin = json[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + begin + 4 * index..][..4].copy_from_slice(&value.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let sha256: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    let file = checkpoint.join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    manifest["files"][MODEL] = json!({"bytes": bytes.len(), "sha256": sha256});
    fs::write(&file, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn to_hf(bf16: bool) -> HuggingFaceOptions {
    HuggingFaceOptions { packed: false, bf16, name: "m".to_string() }
}

#[test]
fn a_checkpoint_that_holds_one_is_not_exported() {
    let dir = tempfile::tempdir().unwrap();
    let path = checkpoint(dir.path());
    let names: Vec<String> = Tensors::open(&path.join(MODEL))
        .unwrap()
        .list()
        .unwrap()
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    let sound = fs::read(path.join(MODEL)).unwrap();
    for (i, name) in names.iter().enumerate() {
        let (value, shown) = [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")][i % 3];
        let index = 7 * i;
        set(&path, name, index, value);
        let opened = Checkpoint::open(&path).unwrap();
        let place = match name.contains("norm") {
            true => format!("element {index} is {shown}"),
            false => format!("row {}, column {} is {shown}", index / 256, index % 256),
        };
        let (gguf, hf) = (dir.path().join("out.gguf"), dir.path().join("out.hf"));
        let errors = [
            export_gguf(&opened, &gguf, &ExportOptions::default()).unwrap_err().to_string(),
            export_hugging_face(&opened, &hf, &to_hf(false)).unwrap_err().to_string(),
            export_hugging_face(&opened, &hf, &to_hf(true)).unwrap_err().to_string(),
        ];
        for error in errors {
            assert!(error.contains(name.as_str()) && error.contains(&place), "{name} {place}: {error}");
        }
        assert!(!gguf.exists() && !hf.exists(), "nothing is left");
        fs::write(path.join(MODEL), &sound).unwrap();
    }
}

#[test]
fn a_number_too_large_for_its_type_is_named_with_types_that_hold_it() {
    let dir = tempfile::tempdir().unwrap();
    let up = "model.layers.0.mlp.up_proj.weight";
    let out = dir.path().join("out.gguf");
    // The largest f16 is 65504; a Q8_0 scale is the largest of 32 numbers over 127, a Q6_K scale of 256 about
    // the same.
    for (ty, value) in [
        (DenseType::F16, 70_000.0),
        (DenseType::F16, -3e38),
        (DenseType::Q8_0, 1e8),
        (DenseType::Q6K, 1e9),
        (DenseType::Bf16, f32::MAX),
    ] {
        let place = tempfile::tempdir().unwrap();
        let path = checkpoint(place.path());
        set(&path, up, 3 * 256 + 5, value);
        let opened = Checkpoint::open(&path).unwrap();
        let options = ExportOptions { linears: ty, embeddings: DenseType::F32, ..ExportOptions::default() };
        let error = export_gguf(&opened, &out, &options).unwrap_err().to_string();
        assert!(error.contains(up) && error.contains("row 3, column "), "{ty:?}: {error}");
        assert!(error.contains(ty.name()) && error.contains("f32"), "{ty:?}: {error}");
        assert!(!out.exists());
        let f32s = ExportOptions { linears: DenseType::F32, ..options };
        export_gguf(&opened, &out, &f32s).unwrap();
        assert!(Gguf::open(&out).is_ok());
        fs::remove_file(&out).unwrap();
        let hf = place.path().join("hf");
        if ty == DenseType::Bf16 {
            let error = export_hugging_face(&opened, &hf, &to_hf(true)).unwrap_err().to_string();
            assert!(
                error.contains(up) && error.contains("row 3, column 5") && error.contains("bf16"),
                "{error}"
            );
        }
        export_hugging_face(&opened, &hf, &to_hf(false)).unwrap();
    }
    // What they do hold.
    let path = checkpoint(dir.path());
    set(&path, up, 5, 65_504.0);
    let options =
        ExportOptions { linears: DenseType::F16, embeddings: DenseType::F32, ..ExportOptions::default() };
    export_gguf(&Checkpoint::open(&path).unwrap(), &out, &options).unwrap();
}
