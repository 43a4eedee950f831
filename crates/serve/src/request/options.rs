//! The fields that say how to generate.

use std::collections::BTreeMap;

use serde_json::Value;
use tritforge_infer::{GenerateOptions, InferError};

use super::values::{boolean, display, expected, integer, number, same, text};
use super::{Endpoint, RequestError};

/// The most probable tokens that a position may show.
const MOST_TOP_LOGPROBS: i128 = 20;

pub(super) fn read<'a>(
    endpoint: Endpoint,
    given: &impl Fn(&str) -> Option<&'a Value>,
    mut options: GenerateOptions,
) -> Result<GenerateOptions, RequestError> {
    let whole = i128::from(i64::MAX);
    if let Some((name, value)) = one_of(given, &["max_tokens", "max_completion_tokens", "n_predict"])? {
        // llama.cpp's name knows a number that means no limit.
        let unlimited = name == "n_predict" && same(value, &Value::from(-1));
        options.max_tokens = if unlimited { usize::MAX } else { integer(name, value, 1..=whole)? as usize };
    }
    let sampling = &mut options.sampling;
    for (name, target) in [
        ("temperature", &mut sampling.temperature),
        ("top_p", &mut sampling.top_p),
        ("min_p", &mut sampling.min_p),
        ("frequency_penalty", &mut sampling.frequency_penalty),
        ("presence_penalty", &mut sampling.presence_penalty),
    ] {
        if let Some(value) = given(name) {
            *target = number(name, value)?;
        }
    }
    if let Some((name, value)) = one_of(given, &["repetition_penalty", "repeat_penalty"])? {
        let penalty = number(name, value)?;
        if !(penalty > 0.0 && penalty.is_finite()) {
            let message = format!("{name} = {value}: expected a number above 0; 1 changes nothing");
            return Err(RequestError::new(name, message));
        }
        sampling.repetition_penalty = penalty;
    }
    if let Some(value) = given("top_k") {
        sampling.top_k = integer("top_k", value, -1..=whole)?.max(0) as usize;
    }
    if let Some(value) = given("repeat_last_n") {
        // -1 stands for the whole context.
        let n = integer("repeat_last_n", value, -1..=whole)?;
        sampling.repeat_last_n = usize::try_from(n).unwrap_or(usize::MAX);
    }
    if let Some(value) = given("seed") {
        // A negative seed is a seed too: the one with the same bits.
        let seed = integer("seed", value, i128::from(i64::MIN)..=i128::from(u64::MAX))?;
        sampling.seed = seed as u64;
    }
    if let Some(value) = given("logit_bias") {
        sampling.logit_bias = logit_bias(value)?;
    }
    sampling.validate().map_err(|error| match error {
        InferError::Option { option, .. } => RequestError::new(option, error.to_string()),
        error => RequestError { message: error.to_string(), param: None },
    })?;
    if let Some(value) = given("stop") {
        options.stop = stop(value)?;
    }
    if let Some(value) = given("stop_token_ids") {
        options.stop_ids = ids("stop_token_ids", value)?;
    }
    if let Some(value) = given("ignore_eos") {
        options.ignore_eos = boolean("ignore_eos", value)?;
    }
    if let Some(value) = given("min_tokens") {
        options.min_tokens = integer("min_tokens", value, 0..=whole)? as usize;
        if options.min_tokens > options.max_tokens {
            let message = format!(
                "min_tokens = {}: expected at most max_tokens, {}",
                options.min_tokens, options.max_tokens
            );
            return Err(RequestError::new("min_tokens", message));
        }
    }
    options.logprobs = match endpoint {
        Endpoint::Chat => chat_logprobs(given)?,
        Endpoint::Completions => completion_logprobs(given)?,
        Endpoint::Batch => None,
    };
    Ok(options)
}

/// Of several names for one thing, the one that is given; all that are must say the same.
fn one_of<'a>(
    given: &impl Fn(&str) -> Option<&'a Value>,
    names: &[&'static str],
) -> Result<Option<(&'static str, &'a Value)>, RequestError> {
    let mut found: Option<(&'static str, &'a Value)> = None;
    for name in names {
        let Some(value) = given(name) else { continue };
        match found {
            Some((first, other)) if !same(other, value) => {
                let message = format!(
                    "{first} = {} and {name} = {}: give one of the two",
                    display(other),
                    display(value)
                );
                return Err(RequestError::new(*name, message));
            }
            Some(_) => {}
            None => found = Some((name, value)),
        }
    }
    Ok(found)
}

fn stop(value: &Value) -> Result<Vec<String>, RequestError> {
    let forms = "a string or a list of strings";
    let stops = match value {
        Value::String(stop) => vec![stop.clone()],
        Value::Array(list) => {
            let wrong = |_| expected("stop", value, forms);
            list.iter().map(|item| text("stop", item).map_err(wrong)).collect::<Result<_, _>>()?
        }
        _ => return Err(expected("stop", value, forms)),
    };
    if stops.iter().any(String::is_empty) {
        return Err(RequestError::new("stop", "stop: an empty string would stop immediately"));
    }
    Ok(stops)
}

pub(super) fn ids(name: &'static str, value: &Value) -> Result<Vec<u32>, RequestError> {
    let Value::Array(list) = value else { return Err(expected(name, value, "a list of token ids")) };
    list.iter().map(|id| Ok(integer(name, id, 0..=i128::from(u32::MAX))? as u32)).collect()
}

fn logit_bias(value: &Value) -> Result<BTreeMap<u32, f32>, RequestError> {
    let name = "logit_bias";
    let Value::Object(map) = value else {
        return Err(expected(name, value, "an object from token ids to numbers from -100 to 100"));
    };
    let mut biases = BTreeMap::new();
    for (key, bias) in map {
        let id: u32 =
            key.parse().map_err(|_| RequestError::new(name, format!("{name}: {key:?} is not a token id")))?;
        let bias = number(&format!("{name}.{key}"), bias).map_err(|e| RequestError::new(name, e.message))?;
        if biases.insert(id, bias).is_some() {
            return Err(RequestError::new(name, format!("{name}: token {id} is named twice")));
        }
    }
    Ok(biases)
}

/// `logprobs` and `top_logprobs`.
fn chat_logprobs<'a>(given: &impl Fn(&str) -> Option<&'a Value>) -> Result<Option<usize>, RequestError> {
    let on = given("logprobs").map_or(Ok(false), |value| boolean("logprobs", value))?;
    let top = given("top_logprobs").map(|value| integer("top_logprobs", value, 0..=MOST_TOP_LOGPROBS));
    match top.transpose()? {
        Some(top) if top > 0 && !on => Err(RequestError::new(
            "top_logprobs",
            format!("top_logprobs = {top}: only allowed when logprobs is true"),
        )),
        top => Ok(on.then_some(top.unwrap_or(0) as usize)),
    }
}

/// `logprobs` of completions: a number; false, as some clients send it, is none.
fn completion_logprobs<'a>(
    given: &impl Fn(&str) -> Option<&'a Value>,
) -> Result<Option<usize>, RequestError> {
    match given("logprobs") {
        None | Some(Value::Bool(false)) => Ok(None),
        Some(value) => Ok(Some(integer("logprobs", value, 0..=MOST_TOP_LOGPROBS)? as usize)),
    }
}
