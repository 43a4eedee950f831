//! How long a request's texts may be, decided before they are tokenized.
//!
//! Tokenizing takes many times the memory of its text. A text of N bytes has at least N / (bytes of the
//! longest token) tokens, so that one far beyond the context can be refused by its length.

use tritforge_infer::Model;

use crate::engine::{Job, JobError, Prompt};

/// Bytes that a token may stand for at least, whatever the vocabulary: normalization can shorten a text.
const LEAST_TOKEN_BYTES: usize = 16;
/// Bytes of all stop strings at most. They are compared with the text at every token.
const STOP_BYTES: usize = 64 << 10;

/// Limits of one model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PromptLimit {
    /// The model's.
    context: usize,
    /// Tokens of a prompt and its continuation at most.
    served: usize,
    token_bytes: usize,
}

impl PromptLimit {
    /// The limits of a model that takes `served` tokens of a prompt and its continuation.
    pub(crate) fn of(model: &Model, served: usize) -> Self {
        let tokenizer = model.tokenizer();
        let longest = (0..tokenizer.vocab_size() as u32)
            .filter_map(|id| tokenizer.bytes(id).ok())
            .map(|bytes| bytes.len())
            .max();
        let context = model.config().max_position_embeddings;
        Self { context, served, token_bytes: longest.unwrap_or(0).max(LEAST_TOKEN_BYTES) }
    }

    /// Tokens of a prompt and its continuation at most.
    pub(crate) fn served(self) -> usize {
        self.served
    }

    /// Whether a text of so many bytes can fit the model.
    pub(crate) fn check_bytes(self, bytes: usize) -> Result<(), JobError> {
        let most = self.context.saturating_mul(self.token_bytes);
        if bytes > most {
            return Err(JobError::ContextLength(format!(
                "the prompt has {bytes} bytes and a token at most {}, so it does not fit in the context of \
                 {} tokens: use a shorter prompt",
                self.token_bytes, self.context
            )));
        }
        Ok(())
    }

    /// Whether a job's texts can fit the model.
    pub(crate) fn check(self, job: &Job) -> Result<(), JobError> {
        let bytes = match &job.prompt {
            Prompt::Text(text) => text.len() + job.suffix.as_ref().map_or(0, String::len),
            // Counted as they are when the session takes them.
            Prompt::Ids(_) => 0,
            Prompt::Chat(messages) => messages.iter().map(|m| m.role.len() + m.content.len()).sum(),
        };
        self.check_bytes(bytes)?;
        let stop: usize = job.options.stop.iter().map(String::len).sum();
        if stop > STOP_BYTES {
            return Err(JobError::Invalid(format!(
                "stop: {stop} bytes in total; expected at most {STOP_BYTES}"
            )));
        }
        Ok(())
    }
}
