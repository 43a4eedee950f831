//! Speculative decoding with a draft model (Leviathan, Kalman and Matias 2023): a small model with the same vocabulary runs a few
//! tokens ahead, and the model looks at all of them in one pass. Each is kept only if it is the one that would have
//! been chosen, so that texts and log-probabilities are those without a draft, bit for bit.
//!
//! The draft draws with a copy of the sequence's sampler in its present state: two models that nearly agree on the
//! probabilities then mostly draw the same token at any temperature. Its session follows the text by itself: before it runs on,
//! it forgets what the text does not have, so that nothing has to tell it what was rejected, reused or dropped.

use std::sync::Arc;

use crate::parts::run_parts;
use crate::sequence::Drafter;
use crate::{InferError, Logits, LogitsRequest, Model, Sequence, SequenceInput, Session};

/// The logit of tokens that a draft does not have: none that a model computes is so small.
const ABSENT: f32 = -1e30;
/// Tokens that a draft has to run behind proposals that all came: the last of them, and the one chosen then.
const BEHIND: usize = 2;

/// A model that proposes tokens to another one. Clones share it.
#[derive(Debug, Clone)]
pub struct Draft {
    model: Arc<Model>,
    tokens: usize,
}

impl Draft {
    /// A model that proposes up to `tokens` tokens at once to `target`.
    ///
    /// # Errors
    /// If `tokens` is 0, or the two have other vocabularies; how many rows pad them makes no difference.
    pub fn new(model: Arc<Model>, target: &Model, tokens: usize) -> Result<Self, InferError> {
        if tokens == 0 {
            let found = "0".to_string();
            return Err(InferError::Option { option: "draft_tokens", found, expected: "at least 1" });
        }
        if let Some(message) = difference(&model, target) {
            return Err(InferError::Draft { path: model.path().to_path_buf(), message });
        }
        Ok(Self { model, tokens })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How many tokens it proposes at once at most.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// How a draft's vocabulary differs from the target's.
fn difference(draft: &Model, target: &Model) -> Option<String> {
    let (own, other) = (draft.tokenizer(), target.tokenizer());
    let place = target.path().display();
    let advice = "expected the same vocabulary: take a smaller model with the target's tokenizer";
    let [found, right] = [own, other].map(|tokenizer| tokenizer.vocab_size());
    if found != right {
        return Some(format!("{found} tokens, and {right} in {place}; {advice}"));
    }
    (0..right as u32).find_map(|id| {
        let [found, right] = [own, other].map(|tokenizer| (tokenizer.token(id), tokenizer.is_special(id)));
        let say = |(token, special): (Option<String>, bool)| {
            format!("{:?}{}", token.unwrap_or_default(), if special { " (special)" } else { "" })
        };
        let differ = || {
            format!("token {id} is {}, and {} in {place}; {advice}", say(found.clone()), say(right.clone()))
        };
        (found != right).then(differ)
    })
}

/// The session of a draft, beside that of the model to which it proposes.
#[derive(Debug, Clone)]
pub(crate) struct DraftSession {
    pub(crate) session: Box<Session>,
    /// Tokens at most that are proposed at once.
    tokens: usize,
}

impl DraftSession {
    /// An empty one of at most `context` tokens, or as many as the draft can run: beyond, it proposes none.
    pub(crate) fn of(draft: &Draft, context: usize, kv: crate::KvType) -> Result<Self, InferError> {
        let context = context.min(draft.model.config().max_position_embeddings);
        let mut session = Session::with_kv(Arc::clone(&draft.model), context, kv)?;
        session.set_adapters([]);
        Ok(Self { session: Box::new(session), tokens: draft.tokens })
    }
}

/// A draft on its way.
struct Runner<'a, 'm> {
    sequence: &'a mut Sequence<'m>,
    draft: &'a mut Session,
    /// The tokens to run next; none if it is at its end.
    ids: Vec<u32>,
    /// What chooses by the logits of the last of them; none while the draft catches up.
    drafter: Option<Drafter>,
    error: Option<InferError>,
}

/// Lets the drafts of these sequences' sessions, if they have any, run as far as their sequences, at most so many tokens in all and a few
/// more; those that arrive there propose tokens. Returns what went wrong, for each.
pub(crate) fn propose<'a, 'm: 'a>(
    parts: impl Iterator<Item = (&'a mut Sequence<'m>, &'a mut Session)>,
    mut most: usize,
) -> Vec<Option<InferError>> {
    let mut runners: Vec<Option<Runner<'a, 'm>>> =
        parts.map(|(sequence, session)| Runner::of(sequence, session, &mut most)).collect();
    loop {
        let mut needed = Vec::new();
        let mut inputs = Vec::new();
        for runner in runners.iter_mut().flatten().filter(|runner| !runner.ids.is_empty()) {
            let request = if runner.drafter.is_some() { LogitsRequest::Last } else { LogitsRequest::None };
            needed.push(runner.needed());
            inputs.push(SequenceInput { session: &mut *runner.draft, ids: &runner.ids, request });
        }
        if inputs.is_empty() {
            break;
        }
        let results = run_parts(&mut inputs, &needed);
        let ran = runners.iter_mut().flatten().filter(|runner| !runner.ids.is_empty());
        ran.zip(results).for_each(|(runner, result)| runner.take(result));
    }
    runners.into_iter().map(|runner| runner.and_then(Runner::end)).collect()
}

impl<'a, 'm> Runner<'a, 'm> {
    /// The draft of a session, if it has one that can do something now.
    fn of(sequence: &'a mut Sequence<'m>, session: &'a mut Session, room: &mut usize) -> Option<Self> {
        let begin = session.len().checked_sub(sequence.seen())?;
        let DraftSession { session: draft, tokens } = session.draft.as_mut()?;
        let wanted = sequence.room_for_proposals(*tokens);
        if wanted == 0 {
            return None;
        }
        let whole = [&session.tokens[..begin], sequence.ids()].concat();
        // Rows that only the target has are padding, but may be chosen.
        let unknown = |id: &u32| *id as usize >= draft.model().config().vocab_size;
        if whole.len() > draft.context() || whole.iter().any(unknown) {
            return None;
        }
        let known = draft.reuse_prefix(&whole);
        let goal = if sequence.is_prefilling() { begin + sequence.seen() } else { whole.len() };
        let rest = goal.saturating_sub(known);
        let take = rest.min((*room).max(BEHIND));
        *room = room.saturating_sub(take);
        let arrives = known + take == whole.len();
        // The last one that is proposed is not run.
        let wanted = wanted.min(draft.context() + 1 - whole.len());
        let drafter = arrives.then(|| sequence.drafter(wanted));
        Some(Self { sequence, draft, ids: whole[known..known + take].to_vec(), drafter, error: None })
    }

    /// The logits that the next choice looks at, if it does not look at all.
    fn needed(&self) -> Option<crate::NeededLogits> {
        let size = self.draft.model().config().vocab_size;
        let drafter = self.drafter.as_ref().filter(|_| self.draft.model().runs_on_gpu())?;
        drafter.needed(self.sequence).filter(|_| size == self.sequence.vocabulary().size)
    }

    /// Takes what a pass gave: the next token, or the end.
    fn take(&mut self, result: Result<Logits, InferError>) {
        self.ids.clear();
        match (result, &mut self.drafter) {
            (Err(error), _) => self.error = Some(error),
            (Ok(_), None) => {}
            (Ok(mut logits), Some(drafter)) => {
                if let Logits::All(all) = &mut logits {
                    all.resize(self.sequence.vocabulary().size, ABSENT);
                }
                let id = drafter.choose(self.sequence, logits.among());
                self.ids.extend(id.filter(|_| drafter.wants_more()));
            }
        }
    }

    /// Hands over what was proposed.
    fn end(self) -> Option<InferError> {
        if let (Some(drafter), None) = (self.drafter, &self.error) {
            self.sequence.propose_drafted(&drafter);
        }
        self.error
    }
}
