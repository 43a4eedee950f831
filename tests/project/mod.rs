//! A directory with a text and a recipe, and the binary run in it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A real text that stands in the repository.
const TEXT: &str = include_str!("../../LICENSE-APACHE");

/// A model that every packing holds, and a run of seconds.
const RECIPE: &str = r#"
[run]
name = "tiny"
seed = 3
[model]
hidden_size = 256
intermediate_size = 256
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
hidden_act = "silu"
max_position_embeddings = 64
[tokenizer]
kind = "bpe"
vocab_size = 320
[data]
train = ["text.txt"]
held_out = 0.1
split = "contiguous"
seq_len = 32
[optim]
lr = 2e-3
warmup_steps = 4
[train]
steps = 12
batch_size = 2
gradient_accumulation = 2
eval_every = 6
save_every = 2
log_every = 1
[sample]
prompt = "You may "
tokens = 8
"#;

pub(crate) struct Project {
    dir: TempDir,
}

impl Project {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("text.txt"), TEXT).unwrap();
        fs::write(dir.path().join("recipe.toml"), RECIPE).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tritforge"));
        command.args(args).current_dir(self.dir.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs and expects success; returns what was printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?} failed:\n{stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs and expects a clear failure; returns the message.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{args:?} succeeded");
        assert!(!stderr.contains("panicked"), "{args:?} panicked:\n{stderr}");
        stderr
    }
}
