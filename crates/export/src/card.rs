//! The model card: what the model is, how it was trained, what was measured, how to load it.

use std::fmt::Write as _;

use tritforge_checkpoint::Checkpoint;
use tritforge_config::{ModelConfig, WeightQuant};

use crate::HuggingFaceOptions;

/// The text of `README.md`. Nothing stands in it that is not in the checkpoint.
pub(crate) fn model_card(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    options: &HuggingFaceOptions,
) -> String {
    let ternary = config.weights != WeightQuant::None;
    let parameters = config.parameters();
    let mut card = String::from("---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n");
    card += if ternary { "- bitnet\n- ternary\n- tritforge\n---\n" } else { "- tritforge\n---\n" };
    let what = match (ternary, options.packed) {
        (false, _) => "full-precision weights",
        (true, true) => "packed ternary weights with one scale per tensor, and int8 activations",
        (true, false) => {
            "latent weights of a ternary model, which are quantized on loading, and int8 activations"
        }
    };
    // Writing to a string cannot fail.
    let _ = write!(
        card,
        "\n# {}\n\nA decoder with {} parameters, {} of them in its projections: {what}.\n\n| | |\n|---|---|\n",
        options.name,
        parameters.total(),
        parameters.projections,
    );
    let rows = [
        ("layers", config.num_hidden_layers),
        ("hidden size", config.hidden_size),
        ("feed-forward size", config.intermediate_size),
        ("heads", config.num_attention_heads),
        ("key/value heads", config.num_key_value_heads),
        ("vocabulary", config.vocab_size),
        ("context", config.max_position_embeddings),
    ];
    for (name, value) in rows {
        let _ = writeln!(card, "| {name} | {value} |");
    }
    card += "\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             tokenizer = AutoTokenizer.from_pretrained(PATH)\nmodel = AutoModelForCausalLM.from_pretrained(PATH)\n```\n";
    for (title, file, language) in [("Training", "training.json", "json"), ("Recipe", "recipe.toml", "toml")]
    {
        let text = checkpoint.has(file).then(|| checkpoint.file(file).ok()).flatten();
        if let Some(text) = text.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()) {
            let _ = write!(card, "\n## {title}\n\n```{language}\n{}\n```\n", text.trim_end());
        }
    }
    card
}
