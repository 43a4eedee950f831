//! Decoding one id at a time without ever showing half a character.

use crate::{TextError, Tokenizer};

/// Decodes ids as they come. The pieces, put together, are what [`Tokenizer::decode`] makes of all ids; of a
/// sentencepiece vocabulary with the space before the first word, which belongs between it and what came
/// before.
///
/// ```
/// use tritforge_text::{SpecialTokens, Tokenizer};
///
/// let tokenizer = Tokenizer::train_bpe(["ab"], 256, &SpecialTokens::none())?;
/// let mut stream = tokenizer.stream();
/// let ids = tokenizer.encode("é!", false)?; // three bytes, three tokens
/// assert_eq!(stream.push(ids[0])?, None);
/// assert_eq!(stream.push(ids[1])?.as_deref(), Some("é"));
/// assert_eq!(stream.push(ids[2])?.as_deref(), Some("!"));
/// assert_eq!(stream.finish()?, None);
/// # Ok::<(), tritforge_text::TextError>(())
/// ```
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Vocabularies whose tokens are bytes: those that begin a character.
    pending: Vec<u8>,
    /// Others: the ids whose text depends on each other, and how many of them are shown.
    ids: Vec<u32>,
    shown: usize,
}

impl<'a> DecodeStream<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, pending: Vec::new(), ids: Vec::new(), shown: 0 }
    }

    /// Takes an id and returns the text that is whole now, if there is any.
    ///
    /// # Errors
    /// If the id is outside the vocabulary.
    pub fn push(&mut self, id: u32) -> Result<Option<String>, TextError> {
        let bytes = self.tokenizer.bytes(id)?;
        if self.tokenizer.spelling.is_bytes() {
            self.pending.extend_from_slice(&bytes);
            return Ok(some(self.take_whole()));
        }
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(None);
        }
        let before = self.tokenizer.decode(&self.ids[..self.shown])?;
        let new = text.strip_prefix(before.as_str()).unwrap_or(&text).to_string();
        // Decoders treat the first token in a special way, so the last ones shown stay as context for the
        // next.
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        Ok(some(new))
    }

    /// Ends the stream and returns what is left: U+FFFD for a character that was not finished.
    ///
    /// # Errors
    /// If the ids cannot be decoded.
    pub fn finish(self) -> Result<Option<String>, TextError> {
        if self.tokenizer.spelling.is_bytes() {
            return Ok(some(String::from_utf8_lossy(&self.pending).into_owned()));
        }
        let text = self.tokenizer.decode(&self.ids)?;
        let before = self.tokenizer.decode(&self.ids[..self.shown])?;
        Ok(some(text.strip_prefix(before.as_str()).unwrap_or(&text).to_string()))
    }

    /// Takes all whole characters out of `pending`, with U+FFFD for each sequence that cannot become one.
    fn take_whole(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            let (valid, error) = match std::str::from_utf8(rest) {
                Ok(valid) => (valid, None),
                Err(error) => {
                    let (valid, _) = rest.split_at(error.valid_up_to());
                    (std::str::from_utf8(valid).unwrap_or_default(), Some(error))
                }
            };
            text.push_str(valid);
            rest = &rest[valid.len()..];
            match error.and_then(|error| error.error_len()) {
                Some(len) => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[len..];
                }
                None => break,
            }
        }
        self.pending = rest.to_vec();
        text
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
