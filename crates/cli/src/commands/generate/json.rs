//! `generate --json`: everything about one generation as an object.

use serde_json::{Value, json};
use tritforge_infer::{Generation, Proposals, Session, TokenLogprobs};
use tritforge_text::Tokenizer;

use super::batch::reason;

/// The object. `tokens` are those of the text with their log-probabilities, where these are asked for; what look-up and a
/// draft proposed is told where they are on.
pub(super) fn object(
    session: &Session,
    prompt: &str,
    generation: &Generation,
    tokens: Option<&[TokenLogprobs]>,
    [lookup, draft]: [bool; 2],
) -> Value {
    let tokenizer = session.model().tokenizer();
    let memory = session.model().memory();
    let mut object = json!({
        "prompt": prompt,
        "text": generation.text,
        "finish_reason": reason(generation.finish),
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generation.tokens.len(),
        "tokens": generation.tokens,
        "seconds": { "prefill": generation.prefill.as_secs_f64(), "decode": generation.decode.as_secs_f64() },
        "tokens_per_second": { "prefill": generation.prefill_rate(), "decode": generation.decode_rate() },
        "memory": {
            "weight_bytes": memory.weight_bytes + memory.rearranged_head_bytes,
            "mapped_bytes": memory.resident_file_bytes,
            "kv_bytes": session.kv_bytes(),
        },
    });
    for (name, on, count) in [("lookup", lookup, generation.lookup), ("draft", draft, generation.draft)] {
        let Proposals { proposed, accepted } = count;
        if on {
            object[name] = json!({ "proposed_tokens": proposed, "accepted_tokens": accepted });
        }
    }
    if let Some(tokens) = tokens {
        object["logprobs"] = tokens.iter().map(|token| logprobs(tokenizer, token)).collect();
    }
    object
}

fn logprobs(tokenizer: &Tokenizer, token: &TokenLogprobs) -> Value {
    let entry = |id: u32, logprob: f32| {
        // Part of a character has no text of its own.
        let bytes = tokenizer.bytes(id).unwrap_or_default();
        json!({ "id": id, "token": String::from_utf8_lossy(&bytes), "bytes": bytes, "logprob": logprob })
    };
    let mut object = entry(token.id, token.logprob);
    object["top"] = token.top.iter().map(|(id, logprob)| entry(*id, *logprob)).collect();
    object
}
