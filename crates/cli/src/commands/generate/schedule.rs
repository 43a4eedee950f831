//! Continuous batching: many prompts share each pass over the weights; one that ends makes room for one that
//! waits.

use std::sync::Arc;

use anyhow::Result;
use tritforge_infer::{Finish, KvType, Model, PREFILL_CHUNK, step};

use super::request::Request;
use super::sequence::{Outcome, Sequence};

/// What sequences may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Prompts that run at once.
    pub(super) parallel: usize,
    /// Most tokens of a prompt and its continuation.
    pub(super) context: usize,
    /// How caches store keys and values.
    pub(super) kv: KvType,
}

/// Runs all requests, `limits.parallel` at a time, and hands each outcome over under its request's index as
/// soon as it is there. After `stopped` says so, the running ones are handed over as cancelled, and no more
/// are begun.
pub(super) fn run<'a>(
    model: &'a Arc<Model>,
    requests: &[(usize, &'a Request)],
    limits: Limits,
    stopped: impl Fn() -> bool,
    mut done: impl FnMut(usize, Outcome) -> Result<()>,
) -> Result<()> {
    let mut waiting = requests.iter();
    let mut running: Vec<Sequence<'a>> = Vec::new();
    loop {
        while running.len() < limits.parallel {
            let Some((index, request)) = waiting.next() else { break };
            running.push(Sequence::new(*index, request, model, limits)?);
        }
        if running.is_empty() {
            return Ok(());
        }
        if stopped() {
            for sequence in running {
                done(sequence.index, sequence.finish(Finish::Cancelled)?)?;
            }
            return Ok(());
        }
        for (index, outcome) in pass(&mut running)? {
            done(index, outcome)?;
        }
    }
}

/// One pass over the weights: a token of each sequence that decodes, and of the prompts as much as makes a
/// chunk. Returns the sequences that ended by it.
fn pass(running: &mut Vec<Sequence<'_>>) -> Result<Vec<(usize, Outcome)>> {
    let decoding = running.iter().filter(|sequence| sequence.waiting() == 1).count();
    let mut room = PREFILL_CHUNK.saturating_sub(decoding).max(1);
    let mut taking = Vec::new();
    let mut parts = Vec::new();
    for (place, sequence) in running.iter_mut().enumerate() {
        let most = match sequence.waiting() {
            1 => 1,
            waiting => {
                let most = waiting.min(room);
                room -= most;
                most
            }
        };
        if most > 0 {
            taking.push(place);
            parts.push(sequence.part(most));
        }
    }
    let logits = step(&mut parts)?;
    drop(parts);
    let mut ends = Vec::new();
    for (place, logits) in taking.into_iter().zip(&logits) {
        if !logits.is_empty()
            && let Some(finish) = running[place].advance(logits)?
        {
            ends.push((place, finish));
        }
    }
    // From the back, so that the places before stay what they are.
    let mut outcomes = Vec::new();
    for (place, finish) in ends.into_iter().rev() {
        let sequence = running.remove(place);
        outcomes.push((sequence.index, sequence.finish(finish)?));
    }
    Ok(outcomes)
}
