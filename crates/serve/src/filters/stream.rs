//! A pattern over a text that comes in pieces: what cannot be a part of a match any more is handed on, and nothing else.
//!
//! The leftmost-first semantics are those of the `regex` crate. From each position in turn, an NFA (Thompson's
//! construction) runs over what is there. If it comes to its end before the text does, the position is decided: there is a
//! match, or its character is free. If the text ends first, everything from there on waits for more. A match takes at most
//! [`LONGEST_MATCH`] bytes, so that no more than that is ever held back.

use regex_automata::nfa::thompson::{Compiler, Config, NFA, State, WhichCaptures};
use regex_automata::util::look::Look;
use regex_automata::util::primitives::StateID;

/// Bytes of a match in a text that comes in pieces; a longer one ends there.
pub(super) const LONGEST_MATCH: usize = 1024;
/// Bytes that a compiled pattern may take.
pub(super) const LARGEST_PATTERN: usize = 1 << 20;

/// A pattern, ready to be run from one position.
#[derive(Debug)]
pub(super) struct Automaton {
    nfa: NFA,
    /// Bytes with which a match can begin.
    first: [bool; 256],
}

/// What is found at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A match that ends here.
    Match(usize),
    Nothing,
    /// More text decides.
    Undecided,
}

impl Automaton {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// If it is no pattern, too large, or matches a text of length 0, which is everywhere.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let config = Config::new().which_captures(WhichCaptures::None).nfa_size_limit(Some(LARGEST_PATTERN));
        let nfa = Compiler::new().configure(config).build(pattern).map_err(|e| e.to_string())?;
        let mut threads = Threads::new(&nfa);
        threads.enter_any(&nfa, nfa.start_anchored());
        let mut first = [false; 256];
        for &id in &threads.order {
            if let State::Match { .. } = nfa.state(id) {
                return Err("it matches the empty text, which is everywhere".to_string());
            }
            for byte in 0..=u8::MAX {
                first[usize::from(byte)] |= next(nfa.state(id), byte).is_some();
            }
        }
        Ok(Self { nfa, first })
    }

    /// What is at a position of `text`, the last byte of which is the text's last one if `last`.
    fn at(&self, threads: &mut Threads, text: &[u8], start: usize, last: bool) -> Found {
        if text.get(start).is_some_and(|byte| !self.first[usize::from(*byte)]) {
            return Found::Nothing;
        }
        let window = start.saturating_add(LONGEST_MATCH);
        let mut best = Found::Nothing;
        let mut at = start;
        threads.clear();
        if !threads.enter(&self.nfa, self.nfa.start_anchored(), text, at, last) {
            return Found::Undecided;
        }
        loop {
            // Of threads behind one that matches none is preferred to it.
            let is_match = |id: &StateID| matches!(self.nfa.state(*id), State::Match { .. });
            if let Some(matched) = threads.order.iter().position(is_match) {
                best = Found::Match(at);
                threads.order.truncate(matched);
            }
            if threads.order.is_empty() || at == window {
                return best;
            }
            let Some(&byte) = text.get(at) else {
                return if last { best } else { Found::Undecided };
            };
            at += 1;
            std::mem::swap(&mut threads.order, &mut threads.before);
            threads.clear();
            for i in 0..threads.before.len() {
                let state = self.nfa.state(threads.before[i]);
                if let Some(id) = next(state, byte)
                    && !threads.enter(&self.nfa, id, text, at, last)
                {
                    return Found::Undecided;
                }
            }
        }
    }
}

/// Where a byte leads.
fn next(state: &State, byte: u8) -> Option<StateID> {
    match state {
        State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
        State::Sparse(transitions) => transitions.matches_byte(byte),
        State::Dense(transitions) => transitions.matches_byte(byte),
        _ => None,
    }
}

/// Whether what comes behind a position has no part in an assertion.
fn looks_back(look: Look) -> bool {
    matches!(look, Look::Start | Look::StartLF | Look::WordStartHalfAscii | Look::WordStartHalfUnicode)
}

/// The states that an NFA is in, the preferred ones first.
#[derive(Debug)]
struct Threads {
    order: Vec<StateID>,
    before: Vec<StateID>,
    stack: Vec<StateID>,
    /// For each state the step in which it was entered last.
    seen: Vec<u32>,
    step: u32,
}

impl Threads {
    fn new(nfa: &NFA) -> Self {
        Self {
            order: Vec::new(),
            before: Vec::new(),
            stack: Vec::new(),
            seen: vec![0; nfa.states().len()],
            step: 1,
        }
    }

    fn clear(&mut self) {
        self.order.clear();
        self.step = self.step.wrapping_add(1);
        if self.step == 0 {
            self.seen.fill(0);
            self.step = 1;
        }
    }

    /// Enters a state and all that it leads to without a byte. False if more text decides where that is.
    fn enter(&mut self, nfa: &NFA, id: StateID, text: &[u8], at: usize, last: bool) -> bool {
        self.follow(nfa, id, |look| {
            let known = last || at < text.len() || looks_back(look);
            known.then(|| nfa.look_matcher().matches(look, text, at))
        })
    }

    /// The same, as if all assertions were true.
    fn enter_any(&mut self, nfa: &NFA, id: StateID) {
        self.follow(nfa, id, |_| Some(true));
    }

    fn follow(&mut self, nfa: &NFA, id: StateID, holds: impl Fn(Look) -> Option<bool>) -> bool {
        self.stack.clear();
        self.stack.push(id);
        while let Some(id) = self.stack.pop() {
            if std::mem::replace(&mut self.seen[id.as_usize()], self.step) == self.step {
                continue;
            }
            match nfa.state(id) {
                State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) | State::Match { .. } => {
                    self.order.push(id);
                }
                State::Look { look, next } => match holds(*look) {
                    Some(true) => self.stack.push(*next),
                    Some(false) => {}
                    None => return false,
                },
                State::Union { alternates } => self.stack.extend(alternates.iter().rev()),
                State::BinaryUnion { alt1, alt2 } => self.stack.extend([*alt2, *alt1]),
                State::Capture { next, .. } => self.stack.push(*next),
                State::Fail => {}
            }
        }
        true
    }
}

/// A text that goes through a pattern.
#[derive(Debug)]
pub(super) struct Stream {
    threads: Threads,
    /// The last character that was decided, which assertions may look at, and what is held back.
    text: String,
    /// Bytes of `text` that are decided.
    decided: usize,
}

impl Stream {
    pub(super) fn new(automaton: &Automaton) -> Self {
        Self { threads: Threads::new(&automaton.nfa), text: String::new(), decided: 0 }
    }

    /// Takes a piece, the text's end if `last`, and appends to `out` what is free now. `replace` is asked for what goes in
    /// the place of a match; without an answer the text ends before it, and this returns true.
    pub(super) fn push<'r>(
        &mut self,
        automaton: &Automaton,
        piece: &str,
        last: bool,
        out: &mut String,
        mut replace: impl FnMut() -> Option<&'r str>,
    ) -> bool {
        self.text.push_str(piece);
        let mut free = self.decided;
        while self.decided < self.text.len() {
            match automaton.at(&mut self.threads, self.text.as_bytes(), self.decided, last) {
                Found::Undecided => break,
                Found::Nothing => {
                    let rest = &self.text[self.decided..];
                    self.decided += rest.chars().next().map_or(rest.len(), char::len_utf8);
                }
                Found::Match(end) => {
                    out.push_str(&self.text[free..self.decided]);
                    let Some(text) = replace() else { return true };
                    out.push_str(text);
                    (self.decided, free) = (end, end);
                }
            }
        }
        out.push_str(&self.text[free..self.decided]);
        // One character is enough for what assertions look back at.
        let keep = self.text[..self.decided].chars().next_back().map_or(0, char::len_utf8);
        self.text.drain(..self.decided - keep);
        self.decided = keep;
        false
    }

    /// Bytes that are held back.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.text.len() - self.decided
    }
}
