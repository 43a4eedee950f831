//! What a plan says of memory, against what the engine allocates.

mod counting;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use counting::counted;
use tempfile::TempDir;
use tritforge_config::{ActivationQuant, Granularity, ModelConfig, WeightQuant};
use tritforge_deploy::{Isa, Plan, Request, Source, Target, plan};
use tritforge_export::{ExportOptions, default_packing, synth_gguf};
use tritforge_infer::{LogitsRequest, Model, SequenceInput, Session, step};
use tritforge_kernels::DenseType;

const CONTEXT: usize = 640;
const CONCURRENCY: usize = 3;

fn tiny() -> ModelConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/tiny.toml");
    let config = ModelConfig::from_toml(&fs::read_to_string(path).unwrap()).unwrap();
    ModelConfig { max_position_embeddings: 1024, ..config }
}

/// A target with the instruction set of this machine.
fn target(dir: &Path, memory: u64) -> Target {
    let path = dir.join("here.toml");
    let text = format!(
        "cores = 2\nmemory = {memory}\nbandwidth = 10\nisa = \"{}\"\nconcurrency = {CONCURRENCY}\ncontext = {CONTEXT}\n",
        Isa::here()
    );
    fs::write(&path, text).unwrap();
    Target::named(path.to_str().unwrap()).unwrap()
}

fn shapes() -> Vec<(&'static str, ModelConfig, DenseType)> {
    let tiny = tiny();
    let untied = ModelConfig { tie_word_embeddings: false, use_sub_norm: false, ..tiny.clone() };
    vec![
        ("tied, Q8_0", tiny.clone(), DenseType::Q8_0),
        ("tied, F16", tiny.clone(), DenseType::F16),
        ("untied, Q8_0", untied.clone(), DenseType::Q8_0),
        ("untied, F32, norms of heads", ModelConfig { use_qk_norm: true, ..untied.clone() }, DenseType::F32),
        ("a scale a row", ModelConfig { granularity: Granularity::Row, ..tiny.clone() }, DenseType::Q8_0),
        ("groups", ModelConfig { granularity: Granularity::Group(64), ..tiny.clone() }, DenseType::Q8_0),
        (
            "ternary embedding",
            ModelConfig {
                ternary_embedding: Some(Granularity::Row),
                granularity: Granularity::Row,
                ..tiny.clone()
            },
            DenseType::Q8_0,
        ),
        (
            "heads of 48",
            ModelConfig { head_dim: 48, num_attention_heads: 16, ..untied.clone() },
            DenseType::F16,
        ),
        (
            "full precision",
            ModelConfig { weights: WeightQuant::None, activations: ActivationQuant::None, ..untied },
            DenseType::F16,
        ),
        ("a large vocabulary", ModelConfig { vocab_size: 30_000, ..tiny }, DenseType::Q8_0),
    ]
}

fn planned(dir: &Path, path: &Path) -> Plan {
    plan(&Source::open(path).unwrap(), &target(dir, 1 << 30), Request::default()).unwrap()
}

#[test]
fn memory_is_what_the_engine_allocates() {
    for (name, config, embeddings) in shapes() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("model.gguf");
        let options =
            ExportOptions { packing: default_packing(&config), embeddings, ..ExportOptions::default() };
        synth_gguf(&config, &path, &options, 1, None).unwrap();
        let plan = planned(dir.path(), &path);
        // The first use makes the threads.
        drop(Model::open(&path).unwrap());

        let (model, loaded, loading) = counted(|| Arc::new(Model::open(&path).unwrap()));
        let memory = model.memory();
        assert_eq!(
            plan.memory.weights as usize,
            memory.weight_bytes + memory.rearranged_head_bytes,
            "{name}: weights"
        );
        assert_eq!(plan.memory.mapped as usize, memory.resident_file_bytes, "{name}: mapped");
        // Beside weights and positions there are norms, metadata and the tokenizer, far below what is set aside for them.
        let (weights, process) =
            ((plan.memory.weights + plan.memory.rope) as usize, plan.memory.process as usize);
        assert!((weights..weights + process).contains(&loaded), "{name}: {loaded} loaded, {weights} planned");
        assert!(loading <= plan.memory.loading as usize, "{name}: {loading} while loading");

        // The largest passes: prompts in chunks, then all requests at once, their caches full.
        let run = || {
            let mut sessions: Vec<Session> =
                (0..CONCURRENCY).map(|_| Session::new(Arc::clone(&model), CONTEXT).unwrap()).collect();
            for session in &mut sessions {
                session.forward(&vec![1; CONTEXT - 1], LogitsRequest::Last).unwrap();
            }
            let parts = sessions.iter_mut();
            let mut parts: Vec<SequenceInput<'_>> = parts
                .map(|session| SequenceInput { session, ids: &[2], request: LogitsRequest::Last })
                .collect();
            step(&mut parts).unwrap();
            sessions
        };
        // On a thread of its own, so that its buffers are new.
        let (sessions, _, peak) = counted(|| std::thread::scope(|scope| scope.spawn(run).join().unwrap()));
        let kv: usize = sessions.iter().map(Session::kv_bytes).sum();
        assert_eq!(plan.memory.kv as usize, kv, "{name}: keys and values");
        let workspace = peak - kv;
        let expected = plan.memory.workspace as usize;
        // Scratch of the kernels comes on top, and not all buffers are there at once.
        assert!(
            (expected * 9 / 10..expected * 12 / 10).contains(&workspace),
            "{name}: {workspace} of buffers, {expected} planned"
        );
    }
}
