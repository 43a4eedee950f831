//! A llama of one block with random weights, as a checkpoint, a GGUF file and in Hugging Face's layout.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value as Json;
use tritforge_gguf::{Gguf, Metadata, TensorSpec, Writer};

use crate::project::Project;

const SHAPE: &str = r#"
vocab_size = 288
hidden_size = 64
intermediate_size = 96
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 32
max_position_embeddings = 64
initializer_range = 0.3
use_sub_norm = false
tie_word_embeddings = false
weights = "none"
activations = "none"
"#;

/// The model under `c` (checkpoint), `m.gguf` and `hf`.
pub(crate) fn model() -> Project {
    let project = Project::new();
    fs::write(project.path("shape.toml"), SHAPE).unwrap();
    project.ok(&["synth", "shape.toml", "-o", "c", "--checkpoint"]);
    project.ok(&["export", "c", "-o", "m.gguf", "--format", "f32", "--embeddings", "f32"]);
    project.ok(&["export", "c", "-o", "hf", "--format", "hf-f32"]);
    project
}

/// The perplexity of a text, and what was told on standard error.
pub(crate) fn perplexity(project: &Project, args: &[&str]) -> (f64, String) {
    let fixed = ["--text", "text.txt", "--tokens", "120", "--json"];
    let output = project.run(&[&["eval"], args, &fixed].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {told}");
    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
    (json["perplexity"].as_f64().unwrap(), told)
}

/// Asserts that a command fails with a message that has these parts, and without a panic.
pub(crate) fn refused(output: &Output, parts: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {told}", output.status);
    for part in parts {
        assert!(told.contains(part), "{told:?} does not say {part:?}");
    }
}

/// The content of a GGUF file, to be changed and written again.
pub(crate) struct Parts {
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<(TensorSpec, Vec<u8>)>,
}

impl Parts {
    pub(crate) fn read(path: &Path) -> Self {
        let gguf = Gguf::open(path).unwrap();
        let tensors = gguf.tensors().iter().map(|info| {
            let spec = TensorSpec { name: info.name.clone(), dims: info.dims.clone(), ty: info.ty };
            (spec, gguf.data(info).to_vec())
        });
        Self { metadata: gguf.metadata().clone(), tensors: tensors.collect() }
    }

    pub(crate) fn write(&self, path: &Path) {
        let specs = self.tensors.iter().map(|(spec, _)| spec.clone()).collect();
        let mut writer = Writer::create(path, &self.metadata, specs).unwrap();
        for (spec, bytes) in &self.tensors {
            writer.write_tensor(&spec.name, bytes).unwrap();
        }
        writer.finish().unwrap();
    }
}
