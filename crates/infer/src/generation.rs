//! What comes of a prompt.

use std::time::Duration;

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model gave a token that ends the generation.
    Eos,
    /// A stop string came, or the text is all that [`crate::GenerateOptions::constraint`] wants.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The context is full.
    ContextFull,
    /// The callback asked for the end, or whoever runs the sequence did.
    Cancelled,
    /// A filter of whoever runs the sequence withholds the rest of its text.
    Withheld,
}

/// Tokens that were proposed, not chosen, and looked at in one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proposals {
    /// How many the model looked at.
    pub proposed: usize,
    /// How many of them are part of the text.
    pub accepted: usize,
}

impl std::ops::AddAssign for Proposals {
    fn add_assign(&mut self, other: Self) {
        self.proposed += other.proposed;
        self.accepted += other.accepted;
    }
}

/// What came of a prompt.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The text.
    pub text: String,
    /// The tokens, without the one that ended the text.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were not run, because their keys and values were in the cache.
    pub cached_tokens: usize,
    /// What [`crate::GenerateOptions::prompt_lookup`] proposed.
    pub lookup: Proposals,
    /// What a draft proposed ([`crate::Session::set_draft`]).
    pub draft: Proposals,
    /// Time from the beginning to the first token.
    pub prefill: Duration,
    /// Time from the first token to the last.
    pub decode: Duration,
}

impl Generation {
    /// Prompt tokens a second.
    pub fn prefill_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prefill.as_secs_f64()
    }

    /// Generated tokens a second, the first one aside; 0 if there was no second one.
    pub fn decode_rate(&self) -> f64 {
        match self.tokens.len() {
            0 | 1 => 0.0,
            n => (n - 1) as f64 / self.decode.as_secs_f64(),
        }
    }
}
