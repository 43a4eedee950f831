//! One prompt to its end: prefill, then one token at a time, text handed out as it comes.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::draft::propose;
use crate::{
    GenerateOptions, Generation, InferError, Logits, PREFILL_CHUNK, Piece, Sequence, SequenceInput, Session,
    Vocabulary, step_needed,
};

/// Appends `prompt` to the session and generates. `on_text` gets each piece of text, always whole characters,
/// never part of a stop string. It may end the generation, and is asked often enough to do so in time: with
/// an empty piece before each chunk of the prompt ([`PREFILL_CHUNK`]), and after each token that hands out no
/// text.
///
/// # Errors
/// If the prompt is empty, does not fit the context, or an option is out of range; if the model's logits are
/// not numbers.
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation, InferError> {
    generate_pieces(session, prompt, options, |piece| on_text(piece.text))
}

/// As [`generate`], with the log-probabilities of the tokens.
///
/// # Errors
/// As [`generate`].
pub fn generate_pieces(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
) -> Result<Generation, InferError> {
    let model = Arc::clone(session.model());
    let positions = session.len()..session.context();
    let begin = positions.start;
    let mut sequence = Sequence::new(Vocabulary::of(&model), prompt, options.clone(), positions)?;
    let finish = loop {
        if sequence.is_prefilling() && on_piece(Piece::default()).is_break() {
            break sequence.cancel();
        }
        if let Some(error) =
            propose([(&mut sequence, &mut *session)].into_iter(), PREFILL_CHUNK).pop().flatten()
        {
            return Err(error);
        }
        let (ids, request) = sequence.next_input(PREFILL_CHUNK);
        let ran = ids.len();
        let needed = [model.runs_on_gpu().then(|| sequence.needed()).flatten()];
        let logits = step_needed(&mut [SequenceInput { session: &mut *session, ids, request }], &needed)?;
        let logits = logits.into_iter().next().unwrap_or_else(|| Logits::All(Vec::new()));
        let finish = sequence.accept_logits(ran, &logits, &mut on_piece)?;
        // Tokens that were proposed and did not come.
        if session.len() > begin + sequence.seen() {
            session.truncate(begin + sequence.seen());
        }
        if let Some(finish) = finish {
            break finish;
        }
    };
    sequence.finish(finish, on_piece)
}
