//! What runs on a device: logits.

pub(crate) mod decoding;

use std::path::Path;
use std::sync::Arc;

use tritforge_config::{ActivationQuant, AttentionBias, Granularity, HiddenAct, ModelConfig, Rotation};
use tritforge_export::{ExportOptions, synth_gguf};
use tritforge_infer::{
    Adapter, Device, LogitsRequest, Model, Placed, Pooling, ScaledAdapter, SequenceInput, Session, embed,
    step,
};
use tritforge_kernels::{DenseType, KvType};
use tritforge_kernels_cuda::CACHE_TYPES;
use tritforge_ternary::Packing;

use crate::common::{CONTEXT, bits, config, f32s, full_precision, tokens, write, write_adapter};

/// The model of a file on the CPU and on the GPU.
fn both(path: &Path) -> [Arc<Model>; 2] {
    let cpu = Model::open(path).unwrap();
    let mut gpu = Model::open(path).unwrap();
    let placed = gpu.run_on(Device::Cuda(0)).unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(placed, Placed::Gpu(_)), "{placed:?}");
    [cpu, gpu].map(Arc::new)
}

fn sessions(models: &[Arc<Model>; 2], kv: KvType) -> [Session; 2] {
    models.each_ref().map(|model| Session::with_kv(Arc::clone(model), CONTEXT, kv).unwrap())
}

/// A prompt, then tokens one at a time.
#[track_caller]
fn check(path: &Path, what: &str) {
    let models = both(path);
    let mut sessions = sessions(&models, KvType::F16);
    for ids in [tokens(11, 1), tokens(1, 2), tokens(2, 3), tokens(1, 4)] {
        let [cpu, gpu] =
            sessions.each_mut().map(|session| session.forward(&ids, LogitsRequest::All).unwrap());
        assert_eq!(bits(&gpu), bits(&cpu), "{what}, {} tokens", ids.len());
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn every_packing_and_granularity() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let mut written = 0;
    for granularity in [
        Granularity::Tensor,
        Granularity::Row,
        Granularity::Group(64),
        Granularity::Group(128),
        Granularity::Group(256),
    ] {
        for packing in Packing::ALL {
            let config = ModelConfig { granularity, num_hidden_layers: 1, ..config() };
            let options = ExportOptions { packing, ..ExportOptions::default() };
            // Not every packing has room for the scales of every granularity.
            if synth_gguf(&config, &path, &options, 1, None).is_ok() {
                written += 1;
                check(&path, &format!("{packing:?}, {granularity}"));
            }
        }
    }
    assert!(written >= 29, "{written} files");
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn every_kind_of_model() {
    let base = || ModelConfig { num_hidden_layers: 1, ..config() };
    let llama = || ModelConfig { use_sub_norm: false, hidden_act: HiddenAct::Silu, ..base() };
    let kinds = [
        ("SiLU", ModelConfig { hidden_act: HiddenAct::Silu, ..base() }),
        ("ReLU", ModelConfig { hidden_act: HiddenAct::Relu, ..base() }),
        ("GELU", ModelConfig { hidden_act: HiddenAct::Gelu, ..base() }),
        ("GELU by tanh", ModelConfig { hidden_act: HiddenAct::GeluTanh, ..base() }),
        ("4-bit activations", ModelConfig { activations: ActivationQuant::Int4, ..base() }),
        ("rotated inputs", ModelConfig { rotation: Rotation::Hadamard, ..base() }),
        ("a part of the inputs", ModelConfig { activation_top_k: Some(0.4), ..base() }),
        ("norms of projections", ModelConfig { projection_norms: true, ..base() }),
        (
            "all of BitNet v2",
            ModelConfig {
                activations: ActivationQuant::Int4,
                rotation: Rotation::Hadamard,
                projection_norms: true,
                intermediate_size: 768,
                ..base()
            },
        ),
        ("no sub-norms", llama()),
        ("norms of heads", ModelConfig { use_qk_norm: true, ..llama() }),
        ("biases", ModelConfig { attention_bias: AttentionBias::Qkv, ..llama() }),
        ("a head of its own", ModelConfig { tie_word_embeddings: false, ..llama() }),
        ("one key head", ModelConfig { num_key_value_heads: 1, ..base() }),
        ("wide", ModelConfig { intermediate_size: 2304, ..base() }),
    ];
    for (what, config) in kinds {
        let (_dir, path) = write(&config, &ExportOptions::default());
        check(&path, what);
    }
    for ty in DenseType::ALL {
        let (_dir, path) = write(&base(), &ExportOptions { embeddings: ty, ..ExportOptions::default() });
        check(&path, &format!("embeddings of {}", ty.name()));
        let config = ModelConfig { num_hidden_layers: 1, ..full_precision() };
        let (_dir, path) = write(&config, &ExportOptions { linears: ty, ..f32s() });
        check(&path, &format!("full precision of {}", ty.name()));
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn ternary_embeddings_and_heads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    for granularity in [Granularity::Tensor, Granularity::Row, Granularity::Group(64)] {
        for tied in [true, false] {
            let config = ModelConfig {
                tie_word_embeddings: tied,
                ternary_embedding: Some(granularity),
                ternary_head: (!tied).then_some(granularity),
                granularity,
                num_hidden_layers: 1,
                use_sub_norm: false,
                hidden_act: HiddenAct::Silu,
                ..config()
            };
            // The first packing that has room for the scales.
            let packing = tritforge_export::default_packing(&config);
            let options = ExportOptions { packing, ..ExportOptions::default() };
            synth_gguf(&config, &path, &options, 1, None).unwrap();
            check(&path, &format!("a ternary embedding, {granularity}, tied: {tied}"));
        }
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn q8_0_is_refused() {
    let (_dir, path) = write(&config(), &ExportOptions::default());
    let [cpu, gpu] = both(&path);
    assert!(Session::with_kv(cpu, CONTEXT, KvType::Q8_0).is_ok());
    let error = Session::with_kv(gpu, CONTEXT, KvType::Q8_0).unwrap_err().to_string();
    assert!(error.contains("q8_0, of a model on a GPU") && error.contains("f16 or f32"), "{error}");
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn prompts_in_any_split() {
    let (_dir, path) = write(&config(), &ExportOptions::default());
    let models = both(&path);
    let ids = tokens(60, 1);
    for kv in CACHE_TYPES {
        let [mut cpu, _] = sessions(&models, kv);
        let whole = cpu.forward(&ids, LogitsRequest::All).unwrap();
        for split in [&[60][..], &[1, 30, 8, 1, 20], &[9, 51]] {
            let [_, mut gpu] = sessions(&models, kv);
            let (mut rest, mut logits) = (ids.as_slice(), Vec::new());
            for count in split {
                logits.extend(gpu.forward(&rest[..*count], LogitsRequest::All).unwrap());
                rest = &rest[*count..];
            }
            assert_eq!(bits(&logits), bits(&whole), "{kv}, {split:?}");
        }
        let [_, mut gpu] = sessions(&models, kv);
        let last = gpu.forward(&ids, LogitsRequest::Last).unwrap();
        assert_eq!(bits(&last), bits(&whole[59 * 257..]), "{kv}");
        assert!(gpu.forward(&[5], LogitsRequest::None).unwrap().is_empty());
        assert!(gpu.kv_bytes() > 0);
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn batches_and_what_is_forgotten() {
    let (_dir, path) = write(&config(), &ExportOptions::default());
    let models = both(&path);
    let all: [Vec<Vec<u32>>; 2] = models.each_ref().map(|model| {
        let mut sessions: Vec<Session> =
            (0..3).map(|_| Session::new(Arc::clone(model), CONTEXT).unwrap()).collect();
        let mut logits = Vec::new();
        let mut pass = |sessions: &mut [Session], ids: [Vec<u32>; 3]| {
            let mut parts: Vec<SequenceInput<'_>> = (sessions.iter_mut().zip(&ids))
                .enumerate()
                .map(|(i, (session, ids))| {
                    let request = [LogitsRequest::All, LogitsRequest::Last, LogitsRequest::None][i];
                    SequenceInput { session, ids, request }
                })
                .collect();
            logits.extend(step(&mut parts).unwrap().iter().map(|logits| bits(logits)));
        };
        pass(&mut sessions, [tokens(4, 1), tokens(13, 2), tokens(1, 3)]);
        pass(&mut sessions, [tokens(1, 4), tokens(1, 5), tokens(1, 6)]);
        sessions[1].truncate(7);
        // A clone shares what neither changes.
        sessions[2] = sessions[1].clone();
        pass(&mut sessions, [tokens(1, 7), tokens(2, 8), tokens(3, 9)]);
        pass(&mut sessions, [tokens(9, 7), tokens(1, 8), tokens(1, 9)]);
        sessions.swap(0, 2);
        pass(&mut sessions, [tokens(2, 7), tokens(1, 8), tokens(1, 9)]);
        logits
    });
    let [cpu, gpu] = all;
    assert_eq!(cpu, gpu);
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn adapters_of_some_sequences() {
    let (dir, path) = write(&config(), &ExportOptions::default());
    let file = dir.path().join("adapter.gguf");
    let models = both(&path);
    write_adapter(&file, &models[0], |_, _| {});
    let [cpu, gpu] = models.each_ref().map(|model| {
        let adapter = Arc::new(Adapter::open(&file, model).unwrap());
        let scaled = |scale| ScaledAdapter { adapter: Arc::clone(&adapter), scale };
        let mut sessions: Vec<Session> =
            (0..3).map(|_| Session::new(Arc::clone(model), CONTEXT).unwrap()).collect();
        sessions[1].set_adapters([scaled(0.5)]);
        sessions[2].set_adapters([scaled(1.0), scaled(-0.25)]);
        let mut logits = Vec::new();
        for counts in [[3, 2, 11], [1, 1, 1]] {
            let ids = counts.map(|count| tokens(count, 5));
            let mut parts: Vec<SequenceInput<'_>> = (sessions.iter_mut().zip(&ids))
                .map(|(session, ids)| SequenceInput { session, ids, request: LogitsRequest::All })
                .collect();
            logits.extend(step(&mut parts).unwrap().iter().map(|logits| bits(logits)));
        }
        logits
    });
    assert!(cpu == gpu && cpu[3] != cpu[4] && cpu[4] != cpu[5]);
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn what_observers_see() {
    let rows = ModelConfig { granularity: Granularity::Row, ..config() };
    let bitnet_v2 = ModelConfig {
        activations: ActivationQuant::Int4,
        rotation: Rotation::Hadamard,
        activation_top_k: Some(0.6),
        ternary_embedding: Some(Granularity::Row),
        ..rows.clone()
    };
    for (config, products) in [(rows, 2 * 7), (bitnet_v2, 2 * 7 + 1)] {
        let packing = tritforge_export::default_packing(&config);
        let (_dir, path) = write(&config, &ExportOptions { packing, ..ExportOptions::default() });
        let models = both(&path);
        let ids = tokens(5, 1);
        let [cpu, gpu] = sessions(&models, KvType::F32).map(|mut session| {
            let mut seen = Vec::new();
            let logits = session.forward_observed(&ids, LogitsRequest::Last, &mut |step| {
                seen.push((step.layer, step.projection, step.input.clone(), step.sums.to_vec()));
            });
            let (more, states) = session.forward_with_states(&ids, LogitsRequest::Last, 1).unwrap();
            (bits(&logits.unwrap()), seen, bits(&more), states.map(|state| bits(&state)))
        });
        assert_eq!(cpu.1.len(), products);
        assert!(cpu == gpu);
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn hidden_states_of_texts() {
    let (_dir, path) = write(&config(), &ExportOptions::default());
    let models = both(&path);
    let texts = [tokens(9, 1), tokens(1, 2), tokens(30, 3)];
    for pooling in [Pooling::Mean, Pooling::Last] {
        let [cpu, gpu] = models.each_ref().map(|model| {
            let vectors = embed(model, &texts, pooling, &model.adapters(), || true).unwrap().unwrap();
            vectors.iter().map(|vector| bits(vector)).collect::<Vec<_>>()
        });
        assert!(cpu == gpu && cpu.len() == 3);
    }
}

#[test]
#[ignore = "needs a GPU or the stand-in for its driver"]
fn errors_leave_a_session_as_it_was() {
    let (_dir, path) = write(&config(), &ExportOptions::default());
    let mut model = Model::open(&path).unwrap();
    let error = model.run_on(Device::Cuda(99)).unwrap_err().to_string();
    assert!(error.contains("device cuda:99: there is no GPU 99"), "{error}");
    assert!(matches!(model.run_on(Device::Auto), Ok(Placed::Gpu(_))));
    let model = Arc::new(model);
    let mut first = Session::with_kv(Arc::clone(&model), CONTEXT, KvType::F16).unwrap();
    let mut second = Session::with_kv(Arc::clone(&model), CONTEXT, KvType::F32).unwrap();
    let mut parts = [&mut first, &mut second].map(|session| SequenceInput {
        session,
        ids: &[1],
        request: LogitsRequest::Last,
    });
    let error = step(&mut parts).unwrap_err().to_string();
    assert!(error.contains("f16 and f32 in one pass"), "{error}");
    assert!(first.is_empty() && first.forward(&[1, 2], LogitsRequest::Last).is_ok());
}
