//! Constrained decoding: a grammar says which tokens may come next, so that a text is valid whatever the model is.
//!
//! A [`Grammar`] is what a user gives: a JSON schema, a regular expression, a list of choices or a grammar in
//! Lark's syntax. A [`Compiler`] compiles it for the tokens of one vocabulary, and keeps what it has compiled.
//! A [`Constraint`] is the result, shared by all texts that are to fit it; each begins with a [`Progress`] of its
//! own, which tells the [`Allowed`] tokens and follows those that are chosen.
//!
//! The parser is that of `llguidance` (MIT), an Earley parser over derivatives of regular expressions; nothing of
//! it shows outside of this crate. What a `Progress` allows depends on its grammar and its own tokens alone: no
//! two share a parser's state, so that a text is the same alone and in any company.
//!
//! ```
//! use tritforge_constrain::{Compiler, Grammar};
//! use tritforge_text::{SpecialTokens, Tokenizer};
//!
//! let tokenizer = Tokenizer::train_bpe(["ab"], 256, &SpecialTokens::none())?;
//! let compiler = Compiler::new(&tokenizer, &[], tokenizer.vocab_size())?;
//! let constraint = compiler.compile(&Grammar::Regex("(yes|no)".to_string()))?;
//! let mut progress = constraint.start()?;
//! for id in tokenizer.encode("no", false)? {
//!     assert!(progress.allowed()?.contains(id) && !progress.is_complete());
//!     progress.accept(id)?;
//! }
//! assert!(progress.is_complete());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod bounds;
mod compiler;
mod error;
mod grammar;
mod progress;
mod vocabulary;

pub use compiler::{Compiler, Constraint};
pub use error::ConstrainError;
pub use grammar::{Grammar, literal};
pub use progress::{Allowed, Progress};
