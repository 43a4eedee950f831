//! Greedy text: what tasks with open answers ask of a model.
//!
//! A file writes several texts at once, each with the bits that it gets alone: every weight is read once for
//! all of them. A checkpoint has no cache and runs the whole sequence again for every token, one text after
//! the other.

use std::ops::ControlFlow;
use std::sync::Arc;

use tritforge_infer::{GenerateOptions, KvType, Model, Scheduler, SchedulerOptions, Sequence, Vocabulary};
use tritforge_model::Decoder;
use tritforge_support::counted;

use crate::finite::finite;
use crate::{EvalError, EvalModel};

/// Texts that a file writes at once.
const PARALLEL: usize = 8;

/// When a text ends, beside the tokens that end a generation ([`tritforge_text::Tokenizer::end_ids`]) and the
/// end of the context.
#[derive(Debug, Clone)]
pub struct GreedyOptions {
    /// Most tokens.
    pub max_tokens: usize,
    /// Strings that end it; they are not part of it.
    pub stop: Vec<String>,
}

/// Writes a text after each prompt, always the most probable token, of equals the first; special tokens are
/// no part of it. `done` gets the number of the prompt and its text as soon as it has ended, which need not
/// be in order.
///
/// # Errors
/// If a prompt is empty or longer than the context, or `done` fails; with the number of a prompt that was
/// being worked on.
pub fn generate_greedy(
    model: &EvalModel,
    prompts: &[Vec<u32>],
    options: &GreedyOptions,
    mut done: impl FnMut(usize, String) -> Result<(), EvalError>,
) -> Result<(), (usize, EvalError)> {
    let context = model.config().max_position_embeddings;
    let tokenizer = model.text_tokenizer().map_err(|error| (0, error))?;
    let end_ids = tokenizer.end_ids();
    let vocabulary = Vocabulary { tokenizer, end_ids: &end_ids, size: model.config().vocab_size };
    let options = GenerateOptions {
        max_tokens: options.max_tokens,
        stop: options.stop.clone(),
        skip_special_tokens: true,
        // Rows beyond the tokenizer's vocabulary are padding that no text can contain.
        suppress_ids: (tokenizer.vocab_size()..vocabulary.size).map(|id| id as u32).collect(),
        ..GenerateOptions::default()
    };
    let sequence = |prompt: &[u32]| {
        if prompt.is_empty() || prompt.len() > context {
            let message = format!("a prompt of {}: expected 1 to {context}", counted(prompt.len(), "token"));
            return Err(EvalError::Input(message));
        }
        Ok(Sequence::new(vocabulary, prompt, options.clone(), 0..context)?)
    };
    let sequences = prompts.iter().enumerate().map(|(number, prompt)| match sequence(prompt) {
        Ok(sequence) => Ok((number, sequence)),
        Err(error) => Err((number, error)),
    });
    match model {
        EvalModel::Deployed(model) => at_once(model, sequences, &mut done),
        EvalModel::Trained { decoder, .. } => {
            for sequence in sequences {
                let (number, sequence) = sequence?;
                let text = alone(decoder, sequence);
                text.and_then(|text| done(number, text)).map_err(|error| (number, error))?;
            }
            Ok(())
        }
    }
}

/// The text of a checkpoint.
fn alone(decoder: &Decoder, mut sequence: Sequence<'_>) -> Result<String, EvalError> {
    loop {
        let ids = sequence.ids();
        let last = ids.len() - 1;
        let logits = decoder.logits_of_rows(ids, 1, &[last])?;
        let logits = finite(logits, decoder.config().vocab_size, last)?;
        let ended = sequence.accept(sequence.waiting(), &logits, |_| ControlFlow::Continue(()))?;
        if let Some(finish) = ended {
            return Ok(sequence.finish(finish, |_| ControlFlow::Continue(()))?.text);
        }
    }
}

/// The texts of a file.
fn at_once<'m>(
    model: &'m Arc<Model>,
    sequences: impl Iterator<Item = Result<(usize, Sequence<'m>), (usize, EvalError)>>,
    done: &mut impl FnMut(usize, String) -> Result<(), EvalError>,
) -> Result<(), (usize, EvalError)> {
    let options = SchedulerOptions { kv: KvType::F32, ..SchedulerOptions::of(model, PARALLEL) };
    let mut scheduler = Scheduler::new(model, options).map_err(|error| (0, error.into()))?;
    scheduler.run(
        sequences,
        || false,
        |number, generation| {
            let written = generation.map_err(EvalError::from).and_then(|one| done(number, one.text));
            written.map_err(|error| (number, error))
        },
    )
}
