//! What becomes of a request's fields: jobs for the engine, one a choice, in the order of their numbers.

use tritforge_infer::{Finish, GenerateOptions, Sampling};

use crate::adapters::Adapters;
use crate::engine::{Job, Prompt};
use crate::error::ApiError;
use crate::request::{Endpoint, Object, Request, TextOrIds};

/// Tokens that a completion without `max_tokens` gets at most, as OpenAI's. An answer in a chat goes on to
/// the end of the context.
const DEFAULT_MAX_TOKENS: usize = 16;

/// The jobs of a parsed request, one per choice, and how to answer them.
#[derive(Debug)]
pub(crate) struct CompletionJobs {
    /// Each prompt `best_of` times.
    pub(crate) jobs: Vec<Job>,
    /// Choices of each prompt.
    pub(crate) n: usize,
    /// Jobs of each prompt, of which the best become its choices.
    pub(crate) best_of: usize,
    /// Whether the choices have log-probabilities.
    pub(crate) logprobs: bool,
    /// The model's name that the answer gives.
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// Whether a stream ends with the usage.
    pub(crate) include_usage: bool,
}

/// The jobs of a request, with the adapters that it names.
pub(crate) fn completion_jobs(
    endpoint: Endpoint,
    body: &Object,
    adapters: &Adapters,
) -> Result<CompletionJobs, ApiError> {
    let request = Request::read(endpoint, body, defaults(endpoint))?;
    let (model, adapters) = adapters.of_request(request.model.as_deref(), request.lora.as_deref())?;
    let prompts: Vec<Prompt> = if endpoint == Endpoint::Chat {
        vec![Prompt::Chat(request.messages)]
    } else {
        let prompt = |prompt| match prompt {
            TextOrIds::Text(text) => Prompt::Text(text),
            TextOrIds::Ids(ids) => Prompt::Ids(ids),
        };
        request.prompts.into_iter().map(prompt).collect()
    };
    let seeded = body.0.get("seed").is_some_and(|seed| !seed.is_null());
    let mut jobs = Vec::with_capacity(prompts.len() * request.best_of);
    for prompt in prompts {
        for number in 0..request.best_of {
            let mut options = request.options.clone();
            // To find the best ones.
            if request.best_of > request.n {
                options.logprobs = options.logprobs.or(Some(0));
            }
            // The first choice, and every prompt of a list, is what it is alone.
            options.sampling.seed = options.sampling.seed.wrapping_add(number as u64);
            let deterministic = seeded || options.sampling.temperature == 0.0;
            let (prompt, adapters) = (prompt.clone(), adapters.clone());
            jobs.push(Job { prompt, options, echo: request.echo, adapters, arrived: None, deterministic });
        }
    }
    Ok(CompletionJobs {
        jobs,
        n: request.n,
        best_of: request.best_of,
        logprobs: request.options.logprobs.is_some(),
        model,
        stream: request.stream,
        include_usage: request.include_usage,
    })
}

/// What OpenAI's reference says for fields that are not given.
fn defaults(endpoint: Endpoint) -> GenerateOptions {
    let max_tokens = if endpoint == Endpoint::Chat { usize::MAX } else { DEFAULT_MAX_TOKENS };
    let sampling = Sampling { temperature: 1.0, seed: seed_of_now(), ..Sampling::default() };
    GenerateOptions { max_tokens, sampling, ..GenerateOptions::default() }
}

/// A request without a seed wants another text each time.
fn seed_of_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

/// OpenAI's word for the end of a text.
pub(crate) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Eos | Finish::Stop => "stop",
        Finish::Length | Finish::ContextFull | Finish::Cancelled => "length",
        Finish::Withheld => "content_filter",
    }
}
