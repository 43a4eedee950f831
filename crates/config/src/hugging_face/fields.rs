//! Which fields of a `config.json` have no effect, and which change the computation unless they have one
//! value.
//!
//! A field on neither list, and not read, is named in [`super::HuggingFaceConfig::unknown`]. The lists are in
//! `docs/formats.md` too.

use serde_json::{Map, Value};

use crate::ConfigError;

/// Fields that change nothing of what a trained model computes: where it comes from, how it was trained, how
/// text is generated with it (`generation_config.json` has the same), and what classes of `transformers`
/// return.
pub(super) const NO_EFFECT: [&str; 89] = [
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "custom_pipelines",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "max_window_layers",
    "min_length",
    "model_type",
    "name",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "sliding_window",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "tokenizer_model_max_length",
    "tokenizer_padding_side",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_mrope",
    "use_return_dict",
    "vocab_file",
    "_unsloth_fast",
    "_from_model_config",
    "original_num_hidden_layers",
    "torch_compile",
    "mlp_dropout",
];

/// The value with which a model is computed as without the field.
#[derive(Clone, Copy)]
pub(super) enum Neutral {
    /// Null, false, 0, or an empty list or object.
    Nothing,
    /// 1, or nothing: a factor.
    One,
}

/// Fields of models that are related to those here, which the engine does not compute.
pub(super) const CHANGES: [(&str, Neutral); 65] = [
    ("add_cross_attention", Neutral::Nothing),
    ("alibi", Neutral::Nothing),
    ("is_encoder_decoder", Neutral::Nothing),
    ("rope_local_base_freq", Neutral::Nothing),
    ("attention_chunk_size", Neutral::Nothing),
    ("attention_multiplier", Neutral::Nothing),
    ("attention_out_bias", Neutral::Nothing),
    ("attn_logit_softcapping", Neutral::Nothing),
    ("attn_temperature_tuning", Neutral::Nothing),
    ("clip_qkv", Neutral::Nothing),
    ("compression_config", Neutral::Nothing),
    ("conv_L_cache", Neutral::Nothing),
    ("dim_model_base", Neutral::Nothing),
    ("embedding_multiplier", Neutral::One),
    ("embedding_size", Neutral::Nothing),
    ("final_logit_softcapping", Neutral::Nothing),
    ("first_k_dense_replace", Neutral::Nothing),
    ("head_bias", Neutral::Nothing),
    ("kv_lora_rank", Neutral::Nothing),
    ("layer_norm_bias", Neutral::Nothing),
    ("lm_head_bias", Neutral::Nothing),
    ("lm_head_multiplier", Neutral::One),
    ("logit_scale", Neutral::One),
    ("logits_scaling", Neutral::One),
    ("logits_soft_cap", Neutral::Nothing),
    ("mlp_multipliers", Neutral::Nothing),
    ("moe_intermediate_size", Neutral::Nothing),
    ("mup_base_width", Neutral::Nothing),
    ("mup_embeddings_multiplier", Neutral::One),
    ("mup_width_multiplier", Neutral::One),
    ("n_routed_experts", Neutral::Nothing),
    ("n_shared_experts", Neutral::Nothing),
    ("no_rope_layer_interval", Neutral::Nothing),
    ("no_rope_layers", Neutral::Nothing),
    ("norm_after", Neutral::Nothing),
    ("num_experts", Neutral::Nothing),
    ("num_experts_per_tok", Neutral::Nothing),
    ("num_local_experts", Neutral::Nothing),
    ("num_nextn_predict_layers", Neutral::Nothing),
    ("num_key_value_heads_per_layer", Neutral::Nothing),
    ("num_kv_shared_layers", Neutral::Nothing),
    ("parallel_attn", Neutral::Nothing),
    ("position_embedding_type", Neutral::Nothing),
    ("pruned_heads", Neutral::Nothing),
    ("q_lora_rank", Neutral::Nothing),
    ("qk_layernorm", Neutral::Nothing),
    ("qkv_bias", Neutral::Nothing),
    ("query_pre_attn_scalar", Neutral::Nothing),
    ("residual_multiplier", Neutral::One),
    ("rope_ratio", Neutral::One),
    ("rotary_dim", Neutral::Nothing),
    ("scale_depth", Neutral::Nothing),
    ("scale_emb", Neutral::One),
    ("sliding_window_pattern", Neutral::Nothing),
    ("ssm_config", Neutral::Nothing),
    ("text_config", Neutral::Nothing),
    ("unembedding_bias", Neutral::Nothing),
    ("use_alibi", Neutral::Nothing),
    ("use_bias", Neutral::Nothing),
    ("use_parallel_residual", Neutral::Nothing),
    ("use_qk_norm", Neutral::Nothing),
    ("vision_config", Neutral::Nothing),
    ("audio_config", Neutral::Nothing),
    ("z_loss_head_scale", Neutral::One),
    ("use_qkv_bias", Neutral::Nothing),
];

/// Refuses fields that ask for what the engine does not compute.
pub(super) fn check(fields: &Map<String, Value>) -> Result<(), ConfigError> {
    for (key, neutral) in CHANGES {
        let Some(found) = fields.get(key) else { continue };
        let nothing = match found {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Array(list) => list.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(true) | Value::String(_) => false,
        };
        let (good, expected) = match neutral {
            Neutral::Nothing => (nothing, "no such field"),
            Neutral::One => (found.is_null() || found.as_f64() == Some(1.0), "1, or no such field"),
        };
        if !good {
            return Err(ConfigError::Json(format!("{key} = {found}: not supported; expected {expected}")));
        }
    }
    Ok(())
}
