//! Tokenizers and chat templates, to and from Hugging Face files and GGUF metadata.
//!
//! A [`Tokenizer`] turns text into token ids and back. It is trained on a corpus ([`Tokenizer::train_bpe`],
//! [`Tokenizer::characters`]), read from a Hugging Face `tokenizer.json`, a sentencepiece model or a tiktoken
//! file ([`Tokenizer::from_file`]), or from the metadata of a GGUF file ([`Tokenizer::from_gguf`]). Whichever
//! way it came, what [`Tokenizer::to_gguf`] writes describes it exactly: the tokenizer that the deployed file
//! holds gives the ids that training saw. What GGUF cannot say is an error, never a guess. A [`ChatTemplate`]
//! turns messages into one prompt, as `transformers` does; [`Tokenizer::encode_turns_with`] turns them into ids to
//! train on, with a mask over what the model is to learn.
//!
//! ```
//! use tritforge_gguf::Metadata;
//! use tritforge_text::{SpecialTokens, Tokenizer};
//!
//! let corpus = ["fn main() { println!(\"hello\"); }", "fn add(a: i32, b: i32) -> i32 { a + b }"];
//! let tokenizer = Tokenizer::train_bpe(corpus, 300, &SpecialTokens::default())?;
//! let ids = tokenizer.encode("fn größe() -> i32 { 1 }", true)?;
//! assert_eq!(Some(ids[0]), tokenizer.bos());
//! assert_eq!(tokenizer.decode(&ids[1..])?, "fn größe() -> i32 { 1 }");
//!
//! // Through a GGUF file and back; the model rounds its vocabulary up to a multiple of 64.
//! let mut metadata = Metadata::new();
//! for (key, value) in tokenizer.to_gguf(tokenizer.vocab_size().next_multiple_of(64))? {
//!     metadata.insert(key, value);
//! }
//! assert_eq!(Tokenizer::from_gguf(&metadata)?.encode("fn größe() -> i32 { 1 }", true)?, ids);
//! # Ok::<(), tritforge_text::TextError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod added;
mod base64;
mod byte_level;
mod characters;
mod chat;
mod directory;
mod encode_chat;
mod end_of_generation;
mod error;
mod fill_in;
mod gguf;
mod gguf_keys;
mod hugging_face;
mod jinja;
mod merges;
mod pre;
mod python;
mod sentencepiece;
mod special;
mod spelling;
mod stream;
mod template_arguments;
mod tiktoken;
mod token_text;
mod tokenizer;
mod tool_format;
mod train;
mod turns;
mod unigram;
mod validate;
mod written;

pub use base64::base64;
pub use chat::{ChatTemplate, Message, Rendered, TemplateInputs};
pub use end_of_generation::TurnEnd;
pub use error::TextError;
pub use special::SpecialTokens;
pub use stream::DecodeStream;
pub use template_arguments::TemplateArguments;
pub use tiktoken::TiktokenPattern;
pub use tokenizer::{EncodeOptions, Tokenizer};
pub use tool_format::ToolFormat;
pub use turns::{Masked, Turn};
