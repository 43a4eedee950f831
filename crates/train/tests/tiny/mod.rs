//! Recipes of the smallest model.

use std::path::Path;

/// A recipe of a model of one block that is not quantized, a run into `out`, with what `sections` has.
pub(crate) fn recipe_text(out: &Path, sections: &str) -> String {
    format!(
        r#"
[run]
out = "{}"
[model]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 1
num_attention_heads = 2
[quant]
weights = "none"
activations = "none"
{sections}"#,
        out.display()
    )
}
