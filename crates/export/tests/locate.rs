//! What a path names: every kind of model, and things that are none. Whoever opens a model goes this way.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tritforge_checkpoint::{Checkpoint, MODEL, step_dir};
use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_export::{
    ExportOptions, HuggingFaceOptions, ImportOptions, LoadedModel, Located, ModelFormat, export_hugging_face,
    gguf_file, import, inspect, locate, open_checkpoint, synth_checkpoint, synth_gguf,
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 257,
        hidden_size: 64,
        intermediate_size: 96,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 32,
        max_position_embeddings: 32,
        use_sub_norm: false,
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..ModelConfig::default()
    }
}

/// The same model as a checkpoint, in a run of two steps, as a GGUF file and in Hugging Face's layout.
fn models() -> (TempDir, [PathBuf; 4]) {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let made = [at("checkpoint"), at("run"), at("model.gguf"), at("layout")];
    for dir in [made[0].clone(), step_dir(&made[1], 5), step_dir(&made[1], 40)] {
        fs::create_dir_all(dir.parent().unwrap()).unwrap();
        synth_checkpoint(&config(), &dir, 7, None).unwrap();
    }
    synth_gguf(&config(), &made[2], &ExportOptions::default(), 7, None).unwrap();
    let checkpoint = Checkpoint::open(&made[0]).unwrap();
    let options = HuggingFaceOptions { packed: false, bf16: false, name: "model".to_string() };
    export_hugging_face(&checkpoint, &made[3], &options).unwrap();
    (temp, made)
}

/// Why a path is not opened.
fn refused(path: &Path) -> String {
    locate(path).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn every_kind_of_model_is_found_and_opened() {
    let (temp, [checkpoint, run, gguf, layout]) = models();
    let open = |path: &Path| LoadedModel::open(path, &ImportOptions::default()).unwrap();
    let newest = step_dir(&run, 40);
    let weights = layout.join(MODEL);
    for (path, format, place) in [
        (&checkpoint, ModelFormat::Checkpoint, &checkpoint),
        (&run, ModelFormat::Checkpoint, &newest),
        (&gguf, ModelFormat::Gguf, &gguf),
        (&layout, ModelFormat::HuggingFace, &layout),
        (&weights, ModelFormat::HuggingFace, &weights),
    ] {
        let model = open(path);
        assert_eq!((model.format(), model.path()), (format, place.as_path()));
        assert_eq!((model.config().hidden_size, model.adapters().len()), (64, 0));
        assert!(model.has("model.norm.weight") && !model.has("model.norm.bias"));
        assert!(model.files().iter().all(|file| file.is_file()), "{path:?}: {:?}", model.files());
        assert!(!inspect(path, &ImportOptions::default(), false).unwrap().tensors.is_empty());
    }
    // The name need not say it.
    let nameless = temp.path().join("model");
    fs::copy(&gguf, &nameless).unwrap();
    assert!(matches!(locate(&nameless).unwrap(), Located::Gguf(path) if path == nameless));
    let nameless = layout.join("weights");
    fs::copy(&weights, &nameless).unwrap();
    assert!(matches!(locate(&nameless).unwrap(), Located::HuggingFace(path) if path == nameless));
}

#[test]
fn an_adapter_is_found_and_stands_on_its_base() {
    let (adapter, base) = (golden("lora_llama"), golden("llama_tiny"));
    assert!(matches!(locate(&adapter).unwrap(), Located::Adapter(_)));
    // By itself it stands on the base that it names.
    let temp = tempfile::tempdir().unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(adapter.join(name), temp.path().join(name)).unwrap();
    }
    let named = fs::read_to_string(adapter.join("adapter_config.json")).unwrap();
    let named = named.replace("\"llama_tiny\"", &serde_json::json!(base).to_string());
    fs::write(temp.path().join("adapter_config.json"), named).unwrap();
    let model = LoadedModel::open(temp.path(), &ImportOptions::default()).unwrap();
    assert_eq!((model.path(), model.adapters().len()), (base.as_path(), 1));
    let adapters = [(adapter.clone(), 0.5), (adapter.clone(), 1.0)];
    let model = LoadedModel::open_with(&base, &ImportOptions::default(), &adapters).unwrap();
    assert_eq!(model.adapters().len(), 2);
    let (one, two) = (&adapters[1..], &adapters[..]);
    let logits = |adapters: &[(PathBuf, f32)]| {
        let model = LoadedModel::open_with(&base, &ImportOptions::default(), adapters).unwrap();
        model.decoder().unwrap().logits(&[1, 2, 3], 1, None).unwrap()
    };
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(apart(&logits(&[]), &logits(one)) > 1e-3);
    // Half of it twice is all of it.
    let halves = [(adapter.clone(), 0.5), (adapter.clone(), 0.5)];
    assert!(apart(&logits(&halves), &logits(one)) < 1e-4);
    assert!(apart(&logits(two), &logits(one)) > 1e-3);
    // What looks at one model's tensors has no use for them.
    let error = model.bare().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("an adapter, which is no model by itself"), "{error}");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        assert!(refused(&adapter.join(name)).contains("one of the two files of an adapter"));
    }
}

#[test]
fn what_is_no_model_is_told_with_what_would_be_right() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let write = |name: &str, bytes: &[u8]| {
        fs::write(at(name), bytes).unwrap();
        refused(&at(name))
    };
    let all = "expected a checkpoint, a run directory, a GGUF file, a Hugging Face directory or an adapter";
    let place = temp.path().display();
    let error = refused(&at("nowhere"));
    assert_eq!(error, format!("{place}/nowhere: no such file or directory: {all}"));
    assert_eq!(write("empty", b""), format!("{place}/empty: an empty file: {all}"));
    let error = write("notes.txt", b"Once \xff upon a time");
    let found = "a file that begins with \"Once \\xff up\", neither GGUF nor safetensors";
    assert_eq!(error, format!("{place}/notes.txt: {found}: {all}"));
    assert!(write("pytorch_model.bin", b"PK\x03\x04 and so on").contains("a pickle file"));

    let dir = at("dir");
    fs::create_dir(&dir).unwrap();
    let error = refused(&dir);
    assert!(error.contains("no manifest.json (a checkpoint), no step-N"), "{error}");
    fs::write(dir.join("model.gguf"), b"GGUF").unwrap();
    assert!(refused(&dir).contains("model.gguf: give that file instead"));
    let run = at("runs/one");
    synth_checkpoint(&config(), &step_dir(&run, 3), 7, None).unwrap();
    let expected = format!("no model itself, but {} is one: give that directory", run.display());
    assert!(refused(&at("runs")).ends_with(&expected));
}

#[test]
fn a_run_without_a_whole_checkpoint_says_what_is_wrong_with_the_newest() {
    let (_temp, [_, run, ..]) = models();
    for step in [5, 40] {
        fs::write(step_dir(&run, step).join(MODEL), b"cut off").unwrap();
    }
    let error = refused(&run);
    assert!(error.contains("a run directory without a whole checkpoint"), "{error}");
    assert!(error.contains("step-000040/model.safetensors: 7 bytes"), "{error}");
}

#[test]
fn where_one_kind_is_wanted_another_is_told_with_the_way_to_it() {
    let (_temp, [checkpoint, run, gguf, layout]) = models();
    let adapter = golden("lora_llama");
    assert_eq!(open_checkpoint(&run).unwrap().dir(), step_dir(&run, 40));
    assert_eq!(gguf_file(&gguf).unwrap(), gguf);
    let no_checkpoint = |path: &Path| open_checkpoint(path).map(|_| ()).unwrap_err().to_string();
    let no_gguf = |path: &Path| gguf_file(path).unwrap_err().to_string();
    assert!(
        no_checkpoint(Path::new("no"))
            .ends_with("no such file or directory: expected a checkpoint or a run directory")
    );
    assert!(no_gguf(Path::new("no")).ends_with("no such file or directory: expected a GGUF file"));
    for (error, found, way) in [
        (no_checkpoint(&gguf), "a GGUF file", "tritforge import"),
        (no_checkpoint(&layout), "layout of Hugging Face", "tritforge import"),
        (no_checkpoint(&adapter), "an adapter", "tritforge merge"),
        (no_gguf(&checkpoint), "a checkpoint", "tritforge export"),
        (no_gguf(&run), "a checkpoint", "tritforge export"),
        (no_gguf(&layout), "layout of Hugging Face", "tritforge import"),
        (no_gguf(&adapter), "an adapter", "--lora"),
    ] {
        assert!(error.contains(found) && error.contains(way), "{error}");
    }
    let out = run.join("imported");
    let error = import(&checkpoint, &out, &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("a checkpoint already") && !out.exists(), "{error}");
}
