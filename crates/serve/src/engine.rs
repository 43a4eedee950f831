//! The boundary to the engine: one function from a job to text.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use tritforge_infer::{
    Draft, Finish, GenerateOptions, InferError, KvType, Model, ScaledAdapter, Session, TokenLogprobs,
};
use tritforge_support::counted;
use tritforge_text::{
    ChatTemplate, EncodeOptions, Message, TemplateInputs, TextError, Tokenizer, ToolFormat,
};

use crate::adapters::{AdapterError, Adapters};
use crate::metrics::Metrics;
use crate::prompt_limit::PromptLimit;
use crate::request::NamedGrammar;
use crate::worker::{KvOptions, Worker};

/// What to continue.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// A text; the names of special tokens in it are these tokens.
    Text(String),
    /// Tokens.
    Ids(Vec<u32>),
    /// A conversation, to be answered.
    Chat(Vec<Message>),
}

/// A request to the engine.
#[derive(Debug, Clone)]
pub struct Job {
    /// What to continue.
    pub prompt: Prompt,
    /// How.
    pub options: GenerateOptions,
    /// What the text is to fit; the engine compiles it for its vocabulary.
    pub grammar: Option<NamedGrammar>,
    /// The functions that the answer may call, in OpenAI's form.
    pub tools: Arc<[serde_json::Value]>,
    /// Variables of the chat template, which go before those that it has.
    pub template_arguments: Arc<serde_json::Map<String, serde_json::Value>>,
    /// What stands behind the text, which is to be filled in.
    pub suffix: Option<String>,
    /// Whether the text begins with the prompt's.
    pub echo: bool,
    /// The adapters that take part; the job keeps them, whatever becomes of the service's.
    pub adapters: Arc<[ScaledAdapter]>,
    /// When the request arrived whose first token is this job's; none for its further choices.
    pub arrived: Option<Instant>,
    /// Whether the same job gets the same answer: it is greedy, or the client gave its seed.
    pub deterministic: bool,
}

impl Job {
    /// A prompt to be continued by the model itself, without anything else.
    pub fn new(prompt: Prompt, options: GenerateOptions) -> Self {
        Self {
            prompt,
            options,
            grammar: None,
            tools: Arc::from([]),
            template_arguments: Arc::default(),
            suffix: None,
            echo: false,
            adapters: Arc::from([]),
            arrived: None,
            deterministic: false,
        }
    }
}

/// What came of a job; the text has gone to the callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The request cannot be served as it is.
    #[error("{0}")]
    Invalid(String),
    /// A field of it cannot be served as it is.
    #[error("{message}")]
    Field {
        /// The field.
        param: String,
        /// What is wrong with it.
        message: String,
    },
    /// The prompt is longer than the context.
    #[error("{0}")]
    ContextLength(String),
    /// The engine failed.
    #[error("{0}")]
    Failed(String),
}

impl From<InferError> for JobError {
    fn from(error: InferError) -> Self {
        let message = error.to_string();
        match error {
            InferError::ContextFull { used, asked, context } => JobError::ContextLength(format!(
                "the prompt has {} and the context has room for {context}: use a shorter prompt",
                counted(used + asked, "token")
            )),
            // What only a request decides.
            InferError::EmptyPrompt
            | InferError::Token { .. }
            | InferError::NothingToChoose
            | InferError::Constraint(_)
            | InferError::Option { .. } => JobError::Invalid(message),
            InferError::Logit { .. }
            | InferError::Gguf { .. }
            | InferError::Config { .. }
            | InferError::Tensor { .. }
            | InferError::Adapter { .. }
            | InferError::Draft { .. }
            | InferError::AdapterFiles(_)
            | InferError::Ternary { .. }
            | InferError::NotFinite { .. }
            | InferError::Device { .. }
            | InferError::Text(_) => JobError::Failed(message),
        }
    }
}

impl From<TextError> for JobError {
    fn from(error: TextError) -> Self {
        JobError::Invalid(error.to_string())
    }
}

/// A token with its log-probability.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// Its text, which may be a part of a character.
    pub bytes: Vec<u8>,
    /// ln of its probability; none of the first token of a prompt.
    pub logprob: Option<f32>,
    /// The most probable tokens in its place, most probable first.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// A piece of the answer.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Text; none where the job only asks whether to go on.
    pub text: &'a str,
    /// Its tokens, where the options ask for log-probabilities.
    pub tokens: &'a [TokenLogprob],
}

impl<'a> From<&'a str> for Piece<'a> {
    fn from(text: &'a str) -> Self {
        Self { text, tokens: &[] }
    }
}

/// Called with each piece of the answer, and without text wherever the job could end; may end the job.
pub type OnText<'a> = dyn FnMut(Piece<'_>) -> ControlFlow<()> + 'a;

/// What serves a job.
type Run = dyn Fn(&Job, &mut OnText<'_>) -> Result<Outcome, JobError> + Send + Sync;

/// A model under its name. Clones share it.
#[derive(Clone)]
pub struct Engine {
    /// The name that requests and answers give.
    pub name: String,
    adapters: Arc<Adapters>,
    metrics: Arc<Metrics>,
    /// What turns texts into tokens; an engine of its own has none.
    text: Option<(Arc<Model>, PromptLimit)>,
    /// How the model writes calls of tools; none if that is not known.
    tool_format: Option<ToolFormat>,
    run: Arc<Run>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that serves jobs with a function of its own.
    pub fn new(
        name: impl Into<String>,
        run: impl Fn(&Job, &mut OnText<'_>) -> Result<Outcome, JobError> + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        let (adapters, metrics) = (Adapters::new(&name, None), Metrics::new(&name));
        Self {
            adapters: Arc::new(adapters),
            metrics: Arc::new(metrics),
            text: None,
            tool_format: None,
            name,
            run: Arc::new(run),
        }
    }

    /// A GGUF model, which runs on a thread of its own: the jobs that run at the same time share each pass over
    /// its weights, and each gets what it gets alone. A model without a chat template cannot answer
    /// conversations. Adapters that are on the model are on by default.
    ///
    /// # Errors
    /// If the model has more adapters than a service holds.
    pub fn of(model: &Arc<Model>) -> Result<Self, AdapterError> {
        Self::with_draft(model, None, KvOptions::default())
    }

    /// Bytes of keys and values with which a model can be served: those of the shortest sequence that takes any.
    pub fn least_kv_memory(model: &Model, kv: KvType) -> usize {
        Session::kv_bytes_of(model, kv, 1)
    }

    /// [`Engine::of`] with options for the keys and values, and with a draft, which proposes tokens to all requests; its keys
    /// and values count, so that at least those of the shortest sequence of both models are needed. Answers are the same
    /// with and without a draft.
    ///
    /// # Errors
    /// As [`Engine::of`].
    pub fn with_draft(
        model: &Arc<Model>,
        draft: Option<Draft>,
        cache: KvOptions,
    ) -> Result<Self, AdapterError> {
        let name = model.gguf().metadata().get_str("general.name").unwrap_or("tritforge").to_string();
        let adapters = Adapters::new(&name, Some(Arc::clone(model)));
        for scaled in model.adapters().iter() {
            adapters.add(&adapters.free_name(scaled.adapter.path()), scaled.clone(), true)?;
        }
        let model = Arc::clone(model);
        let metrics = Arc::new(Metrics::new(&name));
        let worker = Worker::start(&model, draft, &metrics, cache);
        let limit = PromptLimit::of(&model, worker.context());
        let text = Some((Arc::clone(&model), limit));
        // A template that cannot be read is an error of the conversations that need it.
        let tool_format = model.tokenizer().chat_template().ok().flatten().and_then(|t| ToolFormat::of(&t));
        let engine = Self::new(name, move |job, on_text| {
            let tokenizer = model.tokenizer();
            limit.check(job)?;
            let mut options = job.options.clone();
            if let Some(NamedGrammar { param, grammar }) = &job.grammar {
                let wrong = |e: InferError| JobError::Field {
                    param: param.clone(),
                    message: format!("{param}: {e}"),
                };
                options.constraint = Some(model.constraint(grammar).map_err(wrong)?);
            }
            let prompt = match (&job.prompt, &job.suffix) {
                (Prompt::Text(text), Some(suffix)) => fill_in(tokenizer, text, suffix)?,
                (Prompt::Text(text), None) => {
                    let how = EncodeOptions { add_bos: tokenizer.adds_bos(), parse_special: true };
                    tokenizer.encode_with(text, how)?
                }
                (Prompt::Ids(ids), _) => ids.clone(),
                (Prompt::Chat(messages), _) => {
                    let template = chat_template(tokenizer)?;
                    options.end_turn(tokenizer.turn_end(&template));
                    let arguments = Some(&*job.template_arguments);
                    let inputs = TemplateInputs { tools: &job.tools, arguments };
                    tokenizer.encode_chat_with(&template, messages, inputs)?
                }
            };
            let fits = !prompt.is_empty() && prompt.len() <= worker.context();
            // One that does not fit gets its error before any text.
            let mut echo = None;
            if job.echo && fits {
                let text = match &job.prompt {
                    Prompt::Text(text) => text.clone(),
                    Prompt::Ids(_) | Prompt::Chat(_) => tokenizer.decode(&prompt)?,
                };
                match options.prompt_logprobs {
                    None => drop(on_text(Piece::from(text.as_str()))),
                    // With its tokens, which are known when the prompt has been run.
                    Some(_) => echo = Some((text, first_token(tokenizer, &job.prompt, &prompt)?)),
                }
            }
            let mut failed = None;
            let adapters = Arc::clone(&job.adapters);
            let generation = worker.generate(prompt, options, adapters, job.arrived, |piece| {
                let tokens = piece.tokens.iter().map(|token| with_bytes(tokenizer, token));
                match tokens.collect::<Result<Vec<_>, _>>() {
                    Ok(tokens) if !tokens.is_empty() && echo.is_some() => {
                        let (text, first) = echo.take().unwrap_or_default();
                        let tokens: Vec<TokenLogprob> = first.into_iter().chain(tokens).collect();
                        on_text(Piece { text: &(text + piece.text), tokens: &tokens })
                    }
                    Ok(tokens) => on_text(Piece { text: piece.text, tokens: &tokens }),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
            // A prompt of one token, and nothing behind it.
            if let Some((text, first)) = echo {
                let _ = on_text(Piece { text: &text, tokens: &first.into_iter().collect::<Vec<_>>() });
            }
            if let Some(error) = failed {
                return Err(JobError::Failed(error.to_string()));
            }
            Ok(Outcome {
                finish: generation.finish,
                prompt_tokens: generation.prompt_tokens,
                completion_tokens: generation.tokens.len(),
            })
        });
        Ok(Self { adapters: Arc::new(adapters), metrics, text, tool_format, ..engine })
    }

    /// The engine with another form of calls than its chat template tells.
    #[must_use]
    pub fn with_tool_format(mut self, format: ToolFormat) -> Self {
        self.tool_format = Some(format);
        self
    }

    pub(crate) fn tool_format(&self) -> Option<ToolFormat> {
        self.tool_format
    }

    /// The adapters that requests may have.
    pub fn adapters(&self) -> &Arc<Adapters> {
        &self.adapters
    }

    /// The model, for its tokenizer, and how long its texts may be.
    pub(crate) fn text(&self) -> Option<(Arc<Model>, PromptLimit)> {
        self.text.clone()
    }

    /// What is counted of the service.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn run(&self, job: &Job, on_text: &mut OnText<'_>) -> Result<Outcome, JobError> {
        (self.run)(job, on_text)
    }
}

/// The template of conversations.
pub(crate) fn chat_template(tokenizer: &Tokenizer) -> Result<ChatTemplate, JobError> {
    let template = tokenizer.chat_template().map_err(|e| JobError::Failed(e.to_string()))?;
    template.ok_or_else(|| {
        let message =
            "the model has no chat template, so it was not trained on conversations; use /v1/completions";
        JobError::Invalid(message.to_string())
    })
}

/// The prompt by which the text before a suffix is written.
fn fill_in(tokenizer: &Tokenizer, prefix: &str, suffix: &str) -> Result<Vec<u32>, JobError> {
    tokenizer.encode_fill_in(prefix, suffix)?.ok_or_else(|| JobError::Field {
        param: "suffix".to_string(),
        message: "suffix: the model has no tokens to fill in a text: leave it out".to_string(),
    })
}

/// The first token of a prompt, before which there is nothing that could tell its probability. BOS that was put before a
/// text is not part of it.
fn first_token(
    tokenizer: &Tokenizer,
    prompt: &Prompt,
    ids: &[u32],
) -> Result<Option<TokenLogprob>, JobError> {
    let Some(first) = ids.first() else { return Ok(None) };
    let added = matches!(prompt, Prompt::Text(_)) && tokenizer.bos() == Some(*first) && tokenizer.adds_bos();
    let bytes = if added { Vec::new() } else { tokenizer.bytes(*first)? };
    Ok(Some(TokenLogprob { bytes, logprob: None, top: Vec::new() }))
}

/// A token's log-probabilities with the texts of all tokens.
fn with_bytes(tokenizer: &Tokenizer, token: &TokenLogprobs) -> Result<TokenLogprob, TextError> {
    // Rows beyond the tokenizer's vocabulary are padding without a text.
    let known = |id: u32| (id as usize) < tokenizer.vocab_size();
    let top = token
        .top
        .iter()
        .filter(|(id, _)| known(*id))
        .map(|(id, logprob)| Ok((tokenizer.bytes(*id)?, *logprob)));
    Ok(TokenLogprob {
        bytes: tokenizer.bytes(token.id)?,
        logprob: Some(token.logprob),
        top: top.collect::<Result<_, TextError>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_request_decides_is_the_requests_fault() {
        let damaged = InferError::Tensor {
            path: "model.gguf".into(),
            tensor: "output.weight".to_string(),
            message: "cut short".to_string(),
        };
        assert!(matches!(JobError::from(damaged), JobError::Failed(_)));
        let full = InferError::ContextFull { used: 0, asked: 100, context: 64 };
        assert!(matches!(JobError::from(full), JobError::ContextLength(_)));
        assert!(matches!(JobError::from(InferError::EmptyPrompt), JobError::Invalid(_)));
        assert!(matches!(JobError::from(InferError::Token { id: 9, vocab_size: 4 }), JobError::Invalid(_)));
    }
}
