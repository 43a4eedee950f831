//! Recipes of a few steps that begin from the model of the project's own recipe.

/// Eight steps from `runs/tiny`, two evaluations and a checkpoint at each, with what `sections` has: the sections that are tested.
pub(crate) fn on_base(name: &str, lr: &str, sections: &str) -> String {
    format!(
        r#"
[run]
name = "{name}"
seed = 5
[model]
base = "runs/tiny"
[data]
train = ["text.txt"]
seq_len = 32
[optim]
lr = {lr}
warmup_steps = 1
[train]
steps = 8
batch_size = 2
gradient_accumulation = 2
eval_every = 4
keep_last = 3
log_every = 1
[sample]
tokens = 0
{sections}"#
    )
}
