//! Plans as a whole: what fits, what is said where it does not, the file of options.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tritforge_config::ModelConfig;
use tritforge_deploy::{BUILT_IN, DeployError, Request, Source, Target, plan, serve_toml};
use tritforge_export::{ExportOptions, synth_checkpoint, synth_gguf};
use tritforge_kernels::{DenseType, KvType};

fn tiny() -> ModelConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/tiny.toml");
    ModelConfig::from_toml(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A model in a file, with embeddings of this type.
fn model(dir: &Path, embeddings: DenseType) -> PathBuf {
    let path = dir.join("model.gguf");
    synth_gguf(&tiny(), &path, &ExportOptions { embeddings, ..ExportOptions::default() }, 1, None).unwrap();
    path
}

#[test]
fn every_built_in_target_has_a_plan_and_its_options_are_a_file() {
    let dir = TempDir::new().unwrap();
    let source = Source::open(&model(dir.path(), DenseType::Q8_0)).unwrap();
    for (name, ..) in BUILT_IN {
        let plan = plan(&source, &Target::named(name).unwrap(), Request::default()).unwrap();
        // The model has 512 positions, all targets ask for more.
        assert_eq!(plan.context, 512, "{name}");
        assert!(plan.notes.iter().any(|note| note.contains("the model has 512")), "{name}: {:?}", plan.notes);
        let text = serve_toml(&plan).unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table["kv-memory"].as_integer(), Some(plan.memory.kv as i64), "{name}");
        assert_eq!(table["concurrency"].as_integer(), Some(plan.concurrency as i64), "{name}");
        assert_eq!(table["threads"].as_integer(), Some(plan.target.cores as i64), "{name}");
        // What does not depend on the model is the preset's.
        assert!(table.contains_key("timeout"), "{name}");
        assert_eq!(table.contains_key("alerts"), *name == "server");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_does() {
    let dir = TempDir::new().unwrap();
    let source = Source::open(&model(dir.path(), DenseType::F32)).unwrap();
    let target = Target::named("edge").unwrap();
    let full = plan(&source, &target, Request::default()).unwrap();
    let with = |memory: u64, context: Option<usize>, concurrency: Option<usize>| {
        plan(&source, &target, Request { memory: Some(memory), context, concurrency, ..Request::default() })
    };
    // All that it takes is enough, and one byte less is not.
    assert!(with(full.peak, None, None).is_ok());
    let message = with(full.peak - 1, None, None).unwrap_err().to_string();
    for way in ["--context 256", "--concurrency 3", "embeddings q8_0", "a target with"] {
        assert!(message.contains(way), "{message}");
    }
    // What it says would fit does.
    assert!(with(full.peak - 1, Some(256), None).is_ok());
    assert!(with(full.peak - 1, None, Some(3)).is_ok());
    let quantized = TempDir::new().unwrap();
    let quantized = Source::open(&model(quantized.path(), DenseType::Q8_0)).unwrap();
    let request = Request { memory: Some(full.peak - 1), ..Request::default() };
    assert!(plan(&quantized, &target, request).is_ok());
    // Too small for anything.
    let error = with(1 << 20, None, None).unwrap_err();
    assert!(matches!(error, DeployError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("a smaller model"), "{error}");
}

#[test]
fn what_the_model_cannot_is_refused() {
    let dir = TempDir::new().unwrap();
    let source = Source::open(&model(dir.path(), DenseType::Q8_0)).unwrap();
    let target = Target::named("server").unwrap();
    let ask = |request: Request| plan(&source, &target, request).unwrap_err().to_string();
    let message = ask(Request { context: Some(513), ..Request::default() });
    assert!(message.contains("--context 513: expected 1 to 512"), "{message}");
    let message = ask(Request { concurrency: Some(257), ..Request::default() });
    assert!(message.contains("--concurrency 257: expected 1 to 256"), "{message}");
}

#[test]
fn a_checkpoint_is_planned_as_the_file_that_export_makes_of_it() {
    let dir = TempDir::new().unwrap();
    let checkpoint = dir.path().join("tiny");
    synth_checkpoint(&tiny(), &checkpoint, 1, None).unwrap();
    let planned = Source::open(&checkpoint).unwrap();
    let export = planned.export.clone().unwrap();
    assert!(export.contains("-o tiny.gguf --format tq2_0 --embeddings q8_0"), "{export}");
    let file = Source::open(&model(dir.path(), DenseType::Q8_0)).unwrap();
    let target = Target::named("mobile").unwrap();
    let [a, b] = [&planned, &file].map(|source| plan(source, &target, Request::default()).unwrap());
    let weights = |plan: &tritforge_deploy::Plan| (plan.memory.weights, plan.memory.mapped, plan.memory.kv);
    assert_eq!(weights(&a), weights(&b));
    assert_eq!(a.speed, b.speed);
}

#[test]
fn the_bound_on_speed_is_bytes_over_bandwidth() {
    let dir = TempDir::new().unwrap();
    let source = Source::open(&model(dir.path(), DenseType::Q8_0)).unwrap();
    let target = Target::named("edge").unwrap();
    let plan = plan(&source, &target, Request { context: Some(512), ..Request::default() }).unwrap();
    // 2-bit projections of a tiny model, [256, 256] twice, [128, 256] twice, three of 256 × 768, four blocks; 8.5-bit head.
    let projections = 4 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 256 * 768) / 4;
    let head = 4096 * 256 / 32 * 34;
    assert_eq!(plan.speed.weight_bytes, projections + head);
    // Half of 512 positions, keys and values of two heads of 64 in f16, four blocks.
    let kv = 256 * 2 * 2 * 64 * 2 * 4;
    assert_eq!(plan.speed.kv_bytes, kv);
    let in_q8_0 = Request { context: Some(512), kv: Some(KvType::Q8_0), ..Request::default() };
    let in_q8_0 = tritforge_deploy::plan(&source, &target, in_q8_0).unwrap();
    // A byte instead of two, and a scale of two bytes for each 32.
    assert_eq!(in_q8_0.speed.kv_bytes * 64, kv * 34);
    assert_eq!(in_q8_0.memory.kv * 64, plan.memory.kv * 34);
    let one = 8.5e9 / (projections + head + kv) as f64;
    assert!((plan.speed.one / one - 1.0).abs() < 1e-12);
    let all = 4.0 * 8.5e9 / (projections + head + 4 * kv) as f64;
    assert!((plan.speed.all / all - 1.0).abs() < 1e-12);
}
