//! Embeddings of texts: their hidden states behind the final norm, pooled to one vector.

use std::sync::Arc;

use crate::step::{SequenceInput, hidden_states};
use crate::{InferError, Model, PREFILL_CHUNK, ScaledAdapter, Session};

/// How the states of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// That of the last token, which alone has seen the whole text.
    Last,
}

/// A text on its way.
struct Text<'a> {
    ids: &'a [u32],
    session: Session,
    /// Sum of the states so far in f64, or the last one.
    pooled: Vec<f64>,
}

/// The vectors of texts `[hidden_size]`, in their order, not normalized. Short texts share passes; each gets the bits
/// that it gets alone. `go_on` is asked before each pass; none if it ends them.
///
/// # Errors
/// If a text has no tokens, an unknown one, or more than the context; as [`hidden_states`].
pub fn embed(
    model: &Arc<Model>,
    texts: &[Vec<u32>],
    pooling: Pooling,
    adapters: &Arc<[ScaledAdapter]>,
    mut go_on: impl FnMut() -> bool,
) -> Result<Option<Vec<Vec<f32>>>, InferError> {
    let mut vectors = Vec::with_capacity(texts.len());
    let mut rest = texts;
    while !rest.is_empty() {
        // As many as fit a pass, at least one.
        let mut tokens = 0;
        let fit = |text: &&Vec<u32>| {
            tokens += text.len();
            tokens <= PREFILL_CHUNK
        };
        let count = rest.iter().take_while(fit).count().max(1);
        let (group, after) = rest.split_at(count);
        rest = after;
        let mut group =
            group.iter().map(|ids| Text::new(model, ids, adapters)).collect::<Result<Vec<_>, _>>()?;
        // More than one pass only where a text is longer than one.
        loop {
            let mut parts: Vec<SequenceInput<'_>> = Vec::new();
            for Text { ids, session, .. } in &mut group {
                let begin = session.len();
                let end = ids.len().min(begin + PREFILL_CHUNK);
                let ids = &ids[begin..end];
                parts.push(SequenceInput { session, ids, request: crate::LogitsRequest::None });
            }
            if !go_on() {
                return Ok(None);
            }
            let states = hidden_states(&mut parts)?;
            drop(parts);
            for (text, states) in group.iter_mut().zip(states) {
                text.add(&states, pooling);
            }
            if group.iter().all(|text| text.session.len() == text.ids.len()) {
                break;
            }
        }
        vectors.extend(group.into_iter().map(|text| text.vector(pooling)));
    }
    Ok(Some(vectors))
}

impl<'a> Text<'a> {
    fn new(model: &Arc<Model>, ids: &'a [u32], adapters: &Arc<[ScaledAdapter]>) -> Result<Self, InferError> {
        let mut session = Session::new(Arc::clone(model), model.config().max_position_embeddings)?;
        session.set_adapters(Arc::clone(adapters));
        session.check(ids)?;
        Ok(Self { ids, session, pooled: vec![0.0; model.config().hidden_size] })
    }

    /// Takes the states of further tokens.
    fn add(&mut self, states: &[f32], pooling: Pooling) {
        let width = self.pooled.len();
        match pooling {
            // Token after token, so that the sum does not depend on the passes.
            Pooling::Mean => {
                for state in states.chunks_exact(width) {
                    self.pooled.iter_mut().zip(state).for_each(|(sum, x)| *sum += f64::from(*x));
                }
            }
            Pooling::Last => {
                let last = &states[states.len() - width..];
                self.pooled.iter_mut().zip(last).for_each(|(kept, x)| *kept = f64::from(*x));
            }
        }
    }

    fn vector(self, pooling: Pooling) -> Vec<f32> {
        let count = match pooling {
            Pooling::Mean => self.ids.len() as f64,
            Pooling::Last => 1.0,
        };
        self.pooled.into_iter().map(|sum| (sum / count) as f32).collect()
    }
}
