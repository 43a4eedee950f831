//! An answer on its way through all filters.

use std::sync::Arc;

use super::stream::Stream;
use super::{Action, FilterSet};
use crate::metrics::Metrics;

/// The filters of one answer, with what each of them holds back.
#[derive(Debug)]
pub(crate) struct AnswerFilter {
    set: Arc<FilterSet>,
    metrics: Arc<Metrics>,
    /// The number of each filter for answers, whether it has found something, and its text.
    stages: Vec<Stage>,
    blocked: bool,
}

#[derive(Debug)]
struct Stage {
    filter: usize,
    found: bool,
    stream: Stream,
}

impl AnswerFilter {
    /// Filters for a new answer; none if none look at answers.
    pub(crate) fn new(set: &Arc<FilterSet>, metrics: &Arc<Metrics>) -> Option<Self> {
        if !set.has_answers() {
            return None;
        }
        let filters = set.filters.iter().enumerate().filter(|(_, filter)| filter.is_for_answers());
        let stages = filters.map(|(number, filter)| Stage {
            filter: number,
            found: false,
            stream: Stream::new(&filter.automaton),
        });
        let stages = stages.collect();
        Some(Self { set: Arc::clone(set), metrics: Arc::clone(metrics), stages, blocked: false })
    }

    /// Whether the answer has come to something that blocks it; the client gets nothing more.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Takes a piece of the answer, its end if `last`, and gives what the client may have.
    pub(crate) fn push(&mut self, piece: &str, last: bool) -> String {
        let mut text = piece.to_string();
        if self.blocked {
            return String::new();
        }
        // What a filter has left in front of a match that blocks is the end of the text for those behind it.
        let mut last = last;
        for Stage { filter, found, stream } in &mut self.stages {
            let filter = &self.set.filters[*filter];
            let mut out = String::with_capacity(text.len());
            let mut matched = false;
            let replace = || {
                matched = true;
                (filter.action == Action::Redact).then_some(filter.replacement.as_str())
            };
            let ends = stream.push(&filter.automaton, &text, last, &mut out, replace);
            if matched && !std::mem::replace(found, true) {
                let labels = [filter.name.as_str(), "answer", filter.action.name()];
                self.metrics.filtered.with_label_values(&labels).inc();
            }
            self.blocked |= ends;
            last |= ends;
            text = out;
        }
        text
    }
}
