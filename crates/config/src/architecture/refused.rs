//! Architectures whose blocks the engine does not compute, and why. Any other unknown name is refused too,
//! without a reason.
//!
//! Sources: `src/models` of llama.cpp, `modeling_*.py` of transformers 5.23.

/// Names, as `general.architecture` and `model_type` spell them, and what is different in these models.
const REFUSED: [(&[&str], &str); 7] = [
    (&["gemma"], "the embedding is multiplied by √hidden_size and the gate is GELU"),
    (
        &["gemma2"],
        "the embedding is multiplied by √hidden_size, the gate is GELU, scores and logits are capped, and norms \
         follow the attention and the feed-forward network",
    ),
    (
        &["gemma3", "gemma3_text"],
        "the embedding is multiplied by √hidden_size, the gate is GELU, most blocks have a sliding window, and \
         norms follow the attention and the feed-forward network",
    ),
    (&["phi3"], "queries, keys and values are one matrix, and so are gate and up-projection"),
    (
        &["qwen2moe", "qwen2_moe", "qwen3moe", "qwen3_moe", "mixtral"],
        "the feed-forward network is a mixture of experts",
    ),
    (
        &["qwen3next", "qwen3_next", "qwen35", "qwen3_5"],
        "most blocks have linear attention (gated delta rule)",
    ),
    (&["mamba", "mamba2"], "blocks are state-space models without attention"),
];

/// Why models of this name are not supported, if it is known.
pub(crate) fn reason(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(names, _)| names.contains(&name)).map(|(_, reason)| *reason)
}
