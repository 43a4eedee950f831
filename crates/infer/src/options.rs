//! What to generate and how.

use tritforge_constrain::Constraint;
use tritforge_text::TurnEnd;

use crate::{InferError, Model, Sampling};

/// What to generate and how.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How to choose each token.
    pub sampling: Sampling,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// Go on after a token that ends the generation; those in `stop_ids` still end it.
    pub ignore_eos: bool,
    /// Fewest tokens to generate: before, no token that ends the text is chosen, and stop strings are not
    /// looked for.
    pub min_tokens: usize,
    /// Tokens that end the text, whatever `ignore_eos` says; they are not part of it.
    pub stop_ids: Vec<u32>,
    /// The log-probability of each token, and of so many of the most probable ones in its place.
    pub logprobs: Option<usize>,
    /// The same of the prompt's tokens but the first. They come with the first tokens of the text, before them. The
    /// whole prompt is run for that, whatever is in the cache.
    pub prompt_logprobs: Option<usize>,
    /// Tokens that end the text beside the model's own ([`crate::Model::end_ids`]).
    pub end_ids: Vec<u32>,
    /// Tokens that are never chosen.
    pub suppress_ids: Vec<u32>,
    /// What the text is to fit ([`Model::constraint`]). It ends where nothing can be added; before, a token that
    /// ends the text is chosen only where the text may end.
    pub constraint: Option<Constraint>,
    /// Special tokens are no part of the text. One that bears the name of a stop string still ends it.
    pub skip_special_tokens: bool,
    /// White space that a chat template writes after an answer: before the token that ends the text it is not
    /// part of it. A stop string has to begin with it.
    pub closing: String,
}

impl GenerateOptions {
    /// Ends the text where a chat template ends an answer.
    pub fn end_turn(&mut self, end: TurnEnd) {
        self.end_ids.extend(end.token);
        self.stop.extend(end.stop);
        self.closing = end.closing;
    }

    /// Whether every token that the options name is one of `model`.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check(&self, model: &Model) -> Result<(), InferError> {
        self.check_ids(model.config().vocab_size)
    }

    /// Whether every token that the options name is one of so many.
    pub(crate) fn check_ids(&self, vocab_size: usize) -> Result<(), InferError> {
        let bias = self.sampling.logit_bias.keys().map(|id| ("logit_bias", *id));
        let stop = self.stop_ids.iter().map(|id| ("stop_token_ids", *id));
        match bias.chain(stop).find(|(_, id)| *id as usize >= vocab_size) {
            None => Ok(()),
            Some((option, id)) => Err(InferError::Option {
                option,
                found: format!("token {id}, of a vocabulary of {vocab_size}"),
                expected: "ids of the vocabulary",
            }),
        }
    }
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 128,
            sampling: Sampling::default(),
            stop: Vec::new(),
            ignore_eos: false,
            min_tokens: 0,
            stop_ids: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            end_ids: Vec::new(),
            suppress_ids: Vec::new(),
            constraint: None,
            skip_special_tokens: false,
            closing: String::new(),
        }
    }
}
