//! The table of all fields that a request may have; docs/api.md says it in words.

use serde_json::{Map, Value};

use super::RequestError;
use super::values::{display, same};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// A line of `tritforge generate --batch`.
    Batch,
}

use Endpoint::{Batch, Chat, Completions};

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It takes part.
    Supported,
    /// It changes nothing about the answer, whatever it says.
    None,
    /// These values (JSON) change nothing about the answer; any other is refused. Without values every one is
    /// refused.
    Only(&'static [&'static str]),
}

/// A field.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Where it may stand.
    pub endpoints: &'static [Endpoint],
    /// What becomes of it there.
    pub effect: Effect,
}

const ALL: &[Endpoint] = &[Chat, Completions, Batch];
const SERVICE: &[Endpoint] = &[Chat, Completions];
const REFUSED: Effect = Effect::Only(&[]);

/// All fields; one with different effects has several entries.
pub fn fields() -> impl Iterator<Item = Field> {
    let rows = |rows: &'static [(&'static str, &'static [Endpoint], Effect)]| {
        rows.iter().map(|(name, endpoints, effect)| Field { name, endpoints, effect: *effect })
    };
    rows(SUPPORTED).chain(rows(OPENAI)).chain(rows(VLLM)).chain(rows(LLAMA_CPP))
}

type Row = (&'static str, &'static [Endpoint], Effect);

const SUPPORTED: &[Row] = &[
    ("model", SERVICE, Effect::Supported),
    ("model", &[Batch], REFUSED),
    ("messages", &[Chat, Batch], Effect::Supported),
    ("prompt", &[Completions, Batch], Effect::Supported),
    ("id", &[Batch], Effect::Supported),
    ("lora", SERVICE, Effect::Supported),
    ("lora", &[Batch], REFUSED),
    ("max_tokens", ALL, Effect::Supported),
    ("max_completion_tokens", &[Chat, Batch], Effect::Supported),
    ("n_predict", ALL, Effect::Supported),
    ("min_tokens", ALL, Effect::Supported),
    ("temperature", ALL, Effect::Supported),
    ("top_p", ALL, Effect::Supported),
    ("top_k", ALL, Effect::Supported),
    ("min_p", ALL, Effect::Supported),
    ("frequency_penalty", ALL, Effect::Supported),
    ("presence_penalty", ALL, Effect::Supported),
    ("repetition_penalty", ALL, Effect::Supported),
    ("repeat_penalty", ALL, Effect::Supported),
    ("repeat_last_n", ALL, Effect::Supported),
    ("logit_bias", ALL, Effect::Supported),
    ("seed", ALL, Effect::Supported),
    ("stop", ALL, Effect::Supported),
    ("stop_token_ids", ALL, Effect::Supported),
    ("ignore_eos", ALL, Effect::Supported),
    ("response_format", ALL, Effect::Supported),
    ("json_schema", ALL, Effect::Supported),
    ("grammar", ALL, Effect::Supported),
    ("regex", ALL, Effect::Supported),
    ("guided_json", ALL, Effect::Supported),
    ("guided_regex", ALL, Effect::Supported),
    ("guided_choice", ALL, Effect::Supported),
    ("guided_grammar", ALL, Effect::Supported),
    ("structured_outputs", ALL, Effect::Supported),
    ("tools", &[Chat], Effect::Supported),
    ("tool_choice", &[Chat], Effect::Supported),
    ("parallel_tool_calls", &[Chat], Effect::Supported),
    ("chat_template_kwargs", &[Chat, Batch], Effect::Supported),
    ("n", SERVICE, Effect::Supported),
    ("n", &[Batch], Effect::Only(&["1"])),
    ("best_of", &[Completions], Effect::Supported),
    ("best_of", &[Batch], Effect::Only(&["1"])),
    ("stream", SERVICE, Effect::Supported),
    ("stream", &[Batch], Effect::Only(&["false"])),
    ("stream_options", SERVICE, Effect::Supported),
    ("stream_options", &[Batch], REFUSED),
    ("logprobs", SERVICE, Effect::Supported),
    ("logprobs", &[Batch], Effect::Only(&["false"])),
    ("top_logprobs", &[Chat], Effect::Supported),
    ("top_logprobs", &[Batch], Effect::Only(&["0"])),
    ("suffix", &[Completions], Effect::Supported),
    ("echo", &[Completions], Effect::Supported),
    ("echo", &[Chat, Batch], Effect::Only(&["false"])),
];

/// The rest of OpenAI's reference.
const OPENAI: &[Row] = &[
    ("user", ALL, Effect::None),
    ("metadata", &[Chat, Batch], Effect::None),
    ("safety_identifier", &[Chat, Batch], Effect::None),
    ("prompt_cache_key", &[Chat, Batch], Effect::None),
    ("prompt_cache_retention", &[Chat, Batch], Effect::None),
    ("service_tier", &[Chat, Batch], Effect::None),
    ("parallel_tool_calls", &[Batch], Effect::None),
    ("store", &[Chat, Batch], Effect::Only(&["false"])),
    ("tools", &[Batch], Effect::Only(&["[]"])),
    ("tool_choice", &[Batch], Effect::Only(&["\"none\"", "\"auto\""])),
    ("functions", &[Chat, Batch], Effect::Only(&["[]"])),
    ("function_call", &[Chat, Batch], Effect::Only(&["\"none\"", "\"auto\""])),
    ("modalities", &[Chat, Batch], Effect::Only(&["[\"text\"]"])),
    ("audio", &[Chat, Batch], REFUSED),
    ("prediction", &[Chat, Batch], REFUSED),
    ("reasoning_effort", &[Chat, Batch], Effect::Only(&["\"none\""])),
    ("verbosity", &[Chat, Batch], Effect::Only(&["\"medium\""])),
    ("web_search_options", &[Chat, Batch], REFUSED),
    ("suffix", &[Batch], Effect::Only(&["\"\""])),
];

/// vLLM's extensions.
const VLLM: &[Row] = &[
    ("request_id", ALL, Effect::None),
    ("cache_salt", ALL, Effect::None),
    ("priority", ALL, Effect::Only(&["0"])),
    ("use_beam_search", ALL, Effect::Only(&["false"])),
    ("length_penalty", ALL, Effect::Only(&["1"])),
    ("include_stop_str_in_output", ALL, Effect::Only(&["false"])),
    // Special tokens that do not end a text stand in it.
    ("skip_special_tokens", ALL, Effect::Only(&["false"])),
    ("spaces_between_special_tokens", ALL, Effect::Only(&["true"])),
    ("truncate_prompt_tokens", ALL, REFUSED),
    ("prompt_logprobs", ALL, REFUSED),
    ("allowed_token_ids", ALL, REFUSED),
    ("bad_words", ALL, Effect::Only(&["[]"])),
    ("add_special_tokens", &[Completions], Effect::Only(&["true"])),
    ("add_special_tokens", &[Chat, Batch], REFUSED),
    ("add_generation_prompt", &[Chat, Batch], Effect::Only(&["true"])),
    ("continue_final_message", &[Chat, Batch], Effect::Only(&["false"])),
    ("documents", &[Chat, Batch], Effect::Only(&["[]"])),
    ("chat_template", &[Chat, Batch], REFUSED),
    ("mm_processor_kwargs", &[Chat, Batch], Effect::Only(&["{}"])),
    ("guided_decoding_backend", ALL, REFUSED),
    ("guided_whitespace_pattern", ALL, REFUSED),
    ("structural_tag", ALL, REFUSED),
    ("logits_processors", ALL, Effect::Only(&["[]"])),
    ("return_tokens_as_token_ids", ALL, Effect::Only(&["false"])),
    ("return_token_ids", ALL, Effect::Only(&["false"])),
    ("include_reasoning", &[Chat, Batch], Effect::Only(&["true"])),
    ("prompt_embeds", &[Completions, Batch], REFUSED),
    ("kv_transfer_params", ALL, REFUSED),
    ("vllm_xargs", ALL, Effect::Only(&["{}"])),
];

/// llama.cpp's extensions. A parameter of a sampler that is off has no effect.
const LLAMA_CPP: &[Row] = &[
    ("cache_prompt", ALL, Effect::None),
    ("id_slot", ALL, Effect::None),
    ("n_cache_reuse", ALL, Effect::None),
    ("backend_sampling", ALL, Effect::None),
    ("n_cmpl", ALL, Effect::Only(&["1"])),
    // The context is never shifted.
    ("n_keep", ALL, Effect::None),
    ("n_discard", ALL, Effect::None),
    ("min_keep", ALL, Effect::Only(&["0", "1"])),
    ("n_indent", ALL, Effect::Only(&["0"])),
    ("n_probs", ALL, Effect::Only(&["0"])),
    ("post_sampling_probs", ALL, Effect::Only(&["false"])),
    ("t_max_prompt_ms", ALL, Effect::Only(&["0", "-1"])),
    ("t_max_predict_ms", ALL, Effect::Only(&["0", "-1"])),
    ("response_fields", ALL, Effect::Only(&["[]"])),
    ("return_tokens", ALL, Effect::Only(&["false"])),
    ("return_progress", ALL, Effect::Only(&["false"])),
    ("timings_per_token", ALL, Effect::Only(&["false"])),
    ("grammar_lazy", ALL, Effect::Only(&["false"])),
    ("grammar_triggers", ALL, Effect::Only(&["[]"])),
    ("preserved_tokens", ALL, Effect::Only(&["[]"])),
    ("samplers", ALL, REFUSED),
    ("typical_p", ALL, Effect::Only(&["1"])),
    ("tfs_z", ALL, Effect::Only(&["1"])),
    ("top_n_sigma", ALL, Effect::Only(&["0", "-1"])),
    ("dynatemp_range", ALL, Effect::Only(&["0"])),
    ("dynatemp_exponent", ALL, Effect::None),
    ("xtc_probability", ALL, Effect::Only(&["0"])),
    ("xtc_threshold", ALL, Effect::None),
    ("mirostat", ALL, Effect::Only(&["0"])),
    ("mirostat_tau", ALL, Effect::None),
    ("mirostat_eta", ALL, Effect::None),
    ("dry_multiplier", ALL, Effect::Only(&["0"])),
    ("dry_base", ALL, Effect::None),
    ("dry_allowed_length", ALL, Effect::None),
    ("dry_penalty_last_n", ALL, Effect::None),
    ("dry_sequence_breakers", ALL, Effect::None),
    ("penalty_prompt", ALL, REFUSED),
    ("image_data", ALL, Effect::Only(&["[]"])),
    ("multimodal_data", ALL, Effect::Only(&["[]"])),
    ("reasoning_format", &[Chat, Batch], Effect::Only(&["\"none\""])),
    ("thinking_forced_open", &[Chat, Batch], Effect::Only(&["false"])),
];

/// Whether every field of an object is known where it stands and asks for nothing that there is not.
pub(super) fn check(endpoint: Endpoint, object: &Map<String, Value>) -> Result<(), RequestError> {
    for (name, value) in object {
        let found = fields().find(|field| field.name == name && field.endpoints.contains(&endpoint));
        let Some(Field { effect, .. }) = found else {
            return Err(RequestError::new(name, format!("Unrecognized request argument supplied: {name}")));
        };
        let Effect::Only(neutral) = effect else { continue };
        if value.is_null() || neutral.iter().any(|text| is(value, text)) {
            continue;
        }
        let value = display(value);
        let message = match neutral {
            [] => format!("{name} is not supported: leave it out"),
            neutral => {
                format!("{name} = {value} is not supported: leave it out, or give {}", neutral.join(" or "))
            }
        };
        return Err(RequestError::new(name, message));
    }
    Ok(())
}

fn is(value: &Value, text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|neutral| same(value, &neutral))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_table_are_json_and_no_field_stands_twice() {
        let all: Vec<Field> = fields().collect();
        for (i, field) in all.iter().enumerate() {
            if let Effect::Only(values) = field.effect {
                assert!(values.iter().all(|text| serde_json::from_str::<Value>(text).is_ok()), "{field:?}");
            }
            for other in &all[..i] {
                let shared = field.endpoints.iter().any(|endpoint| other.endpoints.contains(endpoint));
                assert!(field.name != other.name || !shared, "{field:?} and {other:?}");
            }
        }
    }

    #[test]
    fn the_documentation_has_every_field_and_no_other() {
        let docs = include_str!("../../../../docs/api.md");
        let documented: Vec<&str> = docs
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .flat_map(|row| row.split(" | ").next().unwrap_or_default().split(", "))
            .map(|name| name.trim_matches([' ', '`']))
            .collect();
        for field in fields() {
            assert!(documented.contains(&field.name), "docs/api.md lacks {}", field.name);
        }
        for name in documented {
            assert!(fields().any(|field| field.name == name), "docs/api.md has {name}, which is no field");
        }
    }
}
