//! A text that the model writes at an evaluation, chosen by candle's `LogitsProcessor`.

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};
use tritforge_model::Decoder;
use tritforge_text::Message;

use crate::TrainError;
use crate::prepare::Prepared;
use crate::recipe::Recipe;

/// Continues the recipe's prompt. There is no cache: the whole sequence runs again for every token, which is
/// cheap enough for the few tokens of a sample. The seed is fixed, so that samples of different steps can be
/// compared.
pub(crate) fn sample(model: &Decoder, prepared: &Prepared, recipe: &Recipe) -> Result<String, TrainError> {
    let options = &recipe.sample;
    if options.tokens == 0 {
        return Ok(String::new());
    }
    let tokenizer = &prepared.tokenizer;
    let sampling = match options {
        o if o.temperature == 0.0 => Sampling::ArgMax,
        o if o.top_k > 0 => Sampling::TopKThenTopP { k: o.top_k, p: o.top_p, temperature: o.temperature },
        o => Sampling::TopP { p: o.top_p, temperature: o.temperature },
    };
    let mut processor = LogitsProcessor::from_sampling(recipe.run.seed, sampling);
    let vocab = model.config().vocab_size;
    let known = tokenizer.vocab_size();
    let longest = model.config().max_position_embeddings;
    let template = prepared.data.template();
    let mut ids = match template {
        // A model that learns answers is asked in the way it was taught.
        Some(template) => tokenizer.encode_chat(template, &[Message::new("user", &options.prompt)])?,
        None => tokenizer.encode(&options.prompt, tokenizer.adds_bos())?,
    };
    if ids.is_empty() {
        // Any token begins a text; the tokenizer's own beginning is best.
        ids.push(tokenizer.bos().unwrap_or(0));
    }
    let mut ends = tokenizer.end_ids();
    let turn = template.map(|template| tokenizer.turn_end(template)).unwrap_or_default();
    ends.extend(turn.token);
    let prompt = ids.len();
    // What stands behind the answer, which ends with it.
    let mut rest = String::new();
    for _ in 0..options.tokens {
        let window = &ids[ids.len().saturating_sub(longest)..];
        let logits = model.logits(window, 1, None)?;
        // Rows beyond the tokenizer's vocabulary are padding that no text can contain.
        let last = &logits[logits.len() - vocab..][..known.min(vocab)];
        let id = processor.sample(&Tensor::from_slice(last, last.len(), &Device::Cpu)?)?;
        if ends.contains(&id) {
            rest = turn.closing;
            break;
        }
        ids.push(id);
        if let Some(stop) = &turn.stop {
            let answer = tokenizer.decode(&ids[prompt..])?;
            if let Some(at) = answer.find(stop) {
                rest = answer[at..].to_string();
                break;
            }
        }
    }
    ids.retain(|id| !tokenizer.is_special(*id));
    let text = tokenizer.decode(&ids)?;
    Ok(text.strip_suffix(&rest).unwrap_or(&text).to_string())
}
