//! What becomes of a request's fields: jobs for the engine, one a choice, in the order of their numbers.

use std::sync::Arc;

use serde_json::Value;
use tritforge_infer::{Finish, GenerateOptions, Sampling};

use crate::engine::{Job, Prompt};
use crate::error::ApiError;
use crate::jobs::Jobs;
use crate::request::{Endpoint, NamedGrammar, Object, Request, RequestError, TextOrIds, ToolChoice, Tools};
use crate::tool_calls::{self, Calling};

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
    /// How the choices call tools, if there are some.
    pub(crate) calling: Option<Calling>,
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
    service: &Jobs,
) -> Result<CompletionJobs, ApiError> {
    let mut request = Request::read(endpoint, body, defaults(endpoint))?;
    let (calling, tools) = match request.tools.take() {
        None => (None, Vec::new()),
        Some(tools) => {
            let (calling, grammar) = calling(&tools, service)?;
            request.grammar = request.grammar.or(grammar);
            (Some(calling), tools.functions.into_iter().map(|function| function.spec).collect())
        }
    };
    let tools: Arc<[Value]> = tools.into();
    let template_arguments = Arc::new(request.template_arguments);
    let (model, adapters) =
        service.adapters().of_request(request.model.as_deref(), request.lora.as_deref())?;
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
            options.prompt_lookup = service.prompt_lookup;
            if request.echo {
                options.prompt_logprobs = options.logprobs;
            }
            // To find the best ones.
            if request.best_of > request.n {
                options.logprobs = options.logprobs.or(Some(0));
            }
            // The first choice, and every prompt of a list, is what it is alone.
            options.sampling.seed = options.sampling.seed.wrapping_add(number as u64);
            let deterministic = seeded || options.sampling.temperature == 0.0;
            jobs.push(Job {
                prompt: prompt.clone(),
                options,
                grammar: request.grammar.clone(),
                tools: Arc::clone(&tools),
                template_arguments: Arc::clone(&template_arguments),
                suffix: request.suffix.clone(),
                echo: request.echo,
                adapters: adapters.clone(),
                arrived: None,
                deterministic,
            });
        }
    }
    Ok(CompletionJobs {
        jobs,
        n: request.n,
        best_of: request.best_of,
        logprobs: request.options.logprobs.is_some(),
        calling,
        model,
        stream: request.stream,
        include_usage: request.include_usage,
    })
}

/// How the model calls a request's tools, and the grammar of calls that the request demands.
fn calling(tools: &Tools, service: &Jobs) -> Result<(Calling, Option<NamedGrammar>), ApiError> {
    let Some(format) = service.tool_format() else {
        let message = "tools: the model's chat template knows no tools, or writes their calls in a form that is not \
                       known; if the model was trained on them, start the service with --tool-format";
        return Err(RequestError::new("tools", message).into());
    };
    let grammar = match tools.choice {
        ToolChoice::Auto => None,
        ToolChoice::Required | ToolChoice::Named(_) => {
            Some(tool_calls::grammar(format, tools, service.text()?.0.tokenizer()))
        }
    };
    let names = tools.functions.iter().map(|function| function.name.clone()).collect();
    Ok((Calling { format, names }, grammar))
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
