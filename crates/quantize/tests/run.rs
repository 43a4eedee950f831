//! The conversion of a small model: what it gains on rounding, that it goes on after an end at any window, and what it
//! refuses.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tritforge_checkpoint::{MODEL, TensorView, Writer};
use tritforge_config::{ActivationQuant, Granularity, ModelConfig, WeightQuant};
use tritforge_export::{ImportOptions, LoadedModel};
use tritforge_model::Decoder;
use tritforge_quantize::{Calibration, Event, Options, Report, quantize};

/// A checkpoint in full precision.
fn source(dir: &Path) -> LoadedModel {
    let config = ModelConfig {
        vocab_size: 61,
        hidden_size: 64,
        intermediate_size: 128,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        max_position_embeddings: 32,
        initializer_range: 0.15,
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..ModelConfig::default()
    };
    let model = Decoder::init(&config, 5).unwrap();
    let path = dir.join("plain");
    let mut writer = Writer::create(&path).unwrap();
    writer.write_config(&config).unwrap();
    let values: Vec<_> = model.parameters().iter().map(|p| (p, p.tensor.read())).collect();
    let views: Vec<_> =
        values.iter().map(|(p, values)| TensorView::new(&p.name, p.tensor.dims(), values)).collect();
    writer.write_tensors(MODEL, &views).unwrap();
    writer.commit().unwrap();
    LoadedModel::open(&path, &ImportOptions::default()).unwrap()
}

fn calibration() -> Calibration {
    let ids = (0..16 * 16u64).map(|i| (i * i * 2_654_435_761 / 97 % 61) as u32).collect();
    Calibration { ids, length: 16 }
}

fn options() -> Options {
    Options { granularity: Granularity::Group(64), window: 2, epochs: 6, ..Options::default() }
}

fn run(model: &LoadedModel, out: &Path, options: &Options) -> Report {
    quantize(model, &calibration(), out, options, &mut |_| ()).unwrap()
}

fn weights(dir: &Path) -> Vec<u8> {
    fs::read(dir.join(MODEL)).unwrap()
}

#[test]
fn training_brings_the_states_nearer_and_the_result_is_a_ternary_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let model = source(dir.path());
    let (rounded, trained) = (dir.path().join("rounded"), dir.path().join("trained"));
    let before = run(&model, &rounded, &Options { epochs: 0, ..options() });
    let after = run(&model, &trained, &options());
    assert_eq!(
        before.windows.iter().map(|w| (w.first, w.last)).collect::<Vec<_>>(),
        [(0, 1), (1, 2), (2, 3)]
    );
    for (rounded, trained) in before.windows.iter().zip(&after.windows) {
        assert_eq!(rounded.before, rounded.after);
        assert!(trained.after < 0.8 * rounded.after, "{trained:?} {rounded:?}");
        assert!(trained.after < trained.before, "{trained:?}");
    }
    assert!(!dir.path().join("trained.partial").exists());

    // Rounding moves nothing: the latent weights are the model's own.
    let found = LoadedModel::open(&rounded, &ImportOptions::default()).unwrap();
    assert_eq!(found.config().weights, WeightQuant::Absmean);
    assert_eq!(found.config().granularity, Granularity::Group(64));
    for (name, shape) in model.tensors() {
        assert_eq!(found.values(name, shape).unwrap(), model.values(name, shape).unwrap(), "{name}");
    }
    // Training moves blocks and nothing else.
    let found = LoadedModel::open(&trained, &ImportOptions::default()).unwrap();
    for (name, shape) in model.tensors() {
        let moved = found.values(name, shape).unwrap() != model.values(name, shape).unwrap();
        assert_eq!(moved, name.starts_with("model.layers."), "{name}");
    }
}

#[test]
fn a_conversion_that_ends_early_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let model = source(dir.path());
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let expected = run(&model, &whole, &options());
    for window in 0..3 {
        // Ends within the window, after as many as were finished by the calls before.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            quantize(&model, &calibration(), &parts, &options(), &mut |event| match event {
                Event::Step { blocks, done: 3, .. } if blocks.start == window => panic!("ended"),
                _ => {}
            })
        }));
        assert!(ended.is_err(), "{window}");
        assert!(!parts.exists());
    }
    // Without what the window before left of the next, it does not begin that anew in silence.
    let ahead = dir.path().join("parts.partial/ahead-0001.safetensors");
    let aside = dir.path().join("aside");
    fs::rename(&ahead, &aside).unwrap();
    let error = quantize(&model, &calibration(), &parts, &options(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("ahead-0001.safetensors"), "{error}");
    fs::rename(&aside, &ahead).unwrap();
    let mut earlier = Vec::new();
    let found = quantize(&model, &calibration(), &parts, &options(), &mut |event| {
        if let Event::Window { earlier: is, .. } = event {
            earlier.push(is);
        }
    });
    assert_eq!(found.unwrap(), expected);
    assert_eq!(earlier, [true, true, false]);
    assert_eq!(weights(&parts), weights(&whole));

    // With other settings nothing goes on.
    let others = dir.path().join("others");
    let other = Options { learning_rate: 0.01, ..options() };
    let ended = catch_unwind(AssertUnwindSafe(|| {
        quantize(&model, &calibration(), &others, &other, &mut |_| panic!("ended"))
    }));
    assert!(ended.is_err());
    let error = quantize(&model, &calibration(), &others, &options(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("others.partial") && error.contains("learning_rate was 0.01"), "{error}");
}

#[test]
fn models_and_options_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = source(dir.path());
    let out = dir.path().join("out");
    let fails = |model: &LoadedModel, options: &Options| {
        let error = quantize(model, &calibration(), &out, options, &mut |_| ()).unwrap_err().to_string();
        assert!(!out.exists() && !dir.path().join("out.partial").exists(), "{error}");
        error
    };
    let error = fails(&model, &Options { granularity: Granularity::Group(128), ..options() });
    assert!(error.contains("--granularity") && error.contains("q_proj"), "{error}");
    let ternary = dir.path().join("ternary");
    run(&model, &ternary, &Options { epochs: 0, ..options() });
    let ternary = LoadedModel::open(&ternary, &ImportOptions::default()).unwrap();
    let error = fails(&ternary, &options());
    assert!(error.contains("latent weights of a ternary model already"), "{error}");
}
