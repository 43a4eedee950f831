//! Grammars made ready for a vocabulary.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::ParserLimits;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{Matcher, ParserFactory};
use lru::LruCache;
use tritforge_text::Tokenizer;

use crate::error::ConstrainError;
use crate::grammar::Grammar;
use crate::progress::Progress;
use crate::vocabulary::trie;

/// Grammars that are kept after they are compiled.
const KEPT: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// States of a grammar's lexer at most, of 1 to 2 KB each; schemas in use have hundreds.
const MOST_LEXER_STATES: usize = 25_000;

/// Compiles grammars for one vocabulary.
pub struct Compiler {
    factory: ParserFactory,
    /// Those compiled before, by what they were compiled from.
    kept: Mutex<LruCache<String, Constraint>>,
}

impl Compiler {
    /// For the first `size` ids of a tokenizer; `end_ids` are those that end a text and are never part of it.
    ///
    /// # Errors
    /// If the tokens' bytes, put together, are not their text, or the vocabulary is too large.
    pub fn new(tokenizer: &Tokenizer, end_ids: &[u32], size: usize) -> Result<Self, ConstrainError> {
        let trie = trie(tokenizer, end_ids, size)?;
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&trie, InferenceCapabilities::default(), &slices)
            .map_err(|error| ConstrainError::Vocabulary(first_part(&error)))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            max_lexer_states: MOST_LEXER_STATES,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self { factory, kept: Mutex::new(LruCache::new(KEPT)) })
    }

    /// A grammar, ready for use; one that was compiled before is the same one.
    ///
    /// # Errors
    /// If it is wrong, too large, or refers to what there is not.
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint, ConstrainError> {
        let source = format!("{grammar:?}");
        // One at a time: what many ask for at once is compiled once.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(constraint) = kept.get(&source) {
            return Ok(constraint.clone());
        }
        let mut matcher = Matcher::new(self.factory.create_parser(grammar.parts()?));
        // Takes nothing, but finds out whether the empty text is all that fits.
        let begun = matcher.consume_tokens(&[]);
        begun
            .map_err(|error| ConstrainError::Grammar { what: grammar.what(), problem: first_part(&error) })?;
        let constraint = Constraint(Arc::new(Compiled {
            source: source.clone(),
            vocabulary: self.factory.tok_env().clone(),
            begin: Mutex::new(matcher),
        }));
        kept.put(source, constraint.clone());
        Ok(constraint)
    }
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").finish_non_exhaustive()
    }
}

/// A grammar, compiled for a vocabulary. Clones share it.
#[derive(Clone)]
pub struct Constraint(Arc<Compiled>);

struct Compiled {
    source: String,
    vocabulary: TokEnv,
    /// The parser before the first token. It is only ever copied.
    begin: Mutex<Matcher>,
}

impl Constraint {
    /// The beginning of a text.
    ///
    /// # Errors
    /// If the parser cannot begin.
    pub fn start(&self) -> Result<Progress, ConstrainError> {
        let begin = self.0.begin.lock().unwrap_or_else(PoisonError::into_inner);
        // A copy of its own, lexer included: what others have read leaves no trace in it.
        Ok(Progress::new(begin.deep_clone(), self.0.vocabulary.clone()))
    }
}

/// Shows what it was compiled from.
impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.source)
    }
}

impl PartialEq for Constraint {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

/// What the parser says, without its state and traces.
pub(crate) fn first_part(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let end =
        ["\n<state>", "\n<non-verbose", "\n<backtrace>"].iter().filter_map(|mark| text.find(mark)).min();
    text[..end.unwrap_or(text.len())].trim().to_string()
}
