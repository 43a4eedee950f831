//! Answers that are kept: a request that has to get the same answer as one before gets it without the engine.
//!
//! Only jobs whose answer is determined are looked up: greedy ones, and those with a seed of the client's. A key is
//! all that the answer depends on: the adapters with their scales, the prompt, and how to go on.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use lru::LruCache;
use sha2::{Digest as _, Sha256};
use tritforge_infer::{Adapter, GenerateOptions};

use crate::engine::{Job, Outcome, TokenLogprob};

/// Bytes that an entry takes beside its text and tokens.
const ENTRY_BYTES: usize = 256;

/// What a job got.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) tokens: Vec<TokenLogprob>,
    pub(crate) outcome: Outcome,
}

impl Answer {
    fn bytes(&self) -> usize {
        let top = |(bytes, _): &(Vec<u8>, f32)| size_of::<(Vec<u8>, f32)>() + bytes.len();
        let token = |token: &TokenLogprob| {
            size_of::<TokenLogprob>() + token.bytes.len() + token.top.iter().map(top).sum::<usize>()
        };
        ENTRY_BYTES + self.text.len() + self.tokens.iter().map(token).sum::<usize>()
    }
}

/// What an answer depends on, by its hash.
type Key = [u8; 32];

#[derive(Debug)]
struct Entry {
    answer: Arc<Answer>,
    bytes: usize,
    /// As long as these are held, no other adapter can have the address by which the key knows one, even after it
    /// is unloaded.
    _adapters: Vec<Weak<Adapter>>,
}

/// Answers up to a sum of bytes; those that were asked for least recently go first.
#[derive(Debug)]
pub(crate) struct ResponseCache {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    entries: LruCache<Key, Entry>,
    bytes: usize,
}

impl ResponseCache {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, table: Mutex::new(Table { entries: LruCache::unbounded(), bytes: 0 }) }
    }

    /// The answer that a job got before.
    pub(crate) fn get(&self, job: &Job) -> Option<Arc<Answer>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entries.get(&key(job)).map(|entry| Arc::clone(&entry.answer))
    }

    /// Keeps a job's answer, unless it is larger than all that may be kept.
    pub(crate) fn put(&self, job: &Job, answer: Answer) {
        let bytes = answer.bytes();
        if bytes > self.limit {
            return;
        }
        let adapters = job.adapters.iter().map(|scaled| Arc::downgrade(&scaled.adapter)).collect();
        let entry = Entry { answer: Arc::new(answer), bytes, _adapters: adapters };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.bytes += bytes;
        if let Some(before) = table.entries.put(key(job), entry) {
            table.bytes -= before.bytes;
        }
        while table.bytes > self.limit {
            let Some((_, oldest)) = table.entries.pop_lru() else { break };
            table.bytes -= oldest.bytes;
        }
    }

    /// Bytes of all answers that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

/// The hash of what a job's answer depends on.
fn key(job: &Job) -> Key {
    let adapters: Vec<_> =
        (job.adapters.iter()).map(|scaled| (Arc::as_ptr(&scaled.adapter), scaled.scale.to_bits())).collect();
    let mut options: GenerateOptions = job.options.clone();
    if options.sampling.temperature == 0.0 {
        options.sampling.seed = 0;
    }
    // Every field takes part, and different values are written differently.
    let Job { prompt, suffix, echo, grammar, tools, template_arguments, .. } = job;
    let all = format!(
        "{adapters:?} {prompt:?} {suffix:?} {echo} {grammar:?} {tools:?} {template_arguments:?} {options:?}"
    );
    Sha256::digest(all.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use tritforge_infer::{Finish, Grammar, Sampling};

    use super::*;
    use crate::engine::Prompt;
    use crate::request::NamedGrammar;

    fn job(prompt: &str, temperature: f32, seed: u64) -> Job {
        let sampling = Sampling { temperature, seed, ..Sampling::default() };
        let options = GenerateOptions { sampling, ..GenerateOptions::default() };
        Job { deterministic: true, ..Job::new(Prompt::Text(prompt.to_string()), options) }
    }

    fn answer(text: &str) -> Answer {
        let outcome = Outcome { finish: Finish::Eos, prompt_tokens: 1, completion_tokens: 2 };
        Answer { text: text.to_string(), tokens: Vec::new(), outcome }
    }

    #[test]
    fn whatever_changes_an_answer_is_in_the_key() {
        let cache = ResponseCache::new(1 << 20);
        cache.put(&job("a", 0.0, 1), answer("greedy"));
        cache.put(&job("a", 0.7, 1), answer("seeded"));
        // A greedy answer does not depend on the seed.
        assert_eq!(cache.get(&job("a", 0.0, 2)).unwrap().text, "greedy");
        assert_eq!(cache.get(&job("a", 0.7, 1)).unwrap().text, "seeded");
        let mut others = vec![job("b", 0.0, 1), job("a", 0.7, 2), job("a", 0.700_000_1, 1)];
        let mut changed = |change: &dyn Fn(&mut Job)| {
            let mut other = job("a", 0.0, 1);
            change(&mut other);
            others.push(other);
        };
        changed(&|job| job.echo = true);
        for grammar in [Grammar::JsonObject, Grammar::Regex("a".to_string()), Grammar::Regex("b".to_string())]
        {
            changed(&|job| {
                job.grammar = Some(NamedGrammar { param: "regex".to_string(), grammar: grammar.clone() });
            });
        }
        changed(&|job| job.suffix = Some("b".to_string()));
        changed(&|job| job.tools = Arc::from([serde_json::Value::Null]));
        changed(&|job| {
            let thinks = ("enable_thinking".to_string(), serde_json::Value::Bool(true));
            job.template_arguments = Arc::new([thinks].into_iter().collect());
        });
        changed(&|job| job.prompt = Prompt::Ids(vec![97]));
        changed(&|job| job.options.max_tokens += 1);
        changed(&|job| job.options.min_tokens += 1);
        changed(&|job| job.options.stop = vec!["x".to_string()]);
        changed(&|job| job.options.logprobs = Some(0));
        changed(&|job| job.options.ignore_eos = true);
        changed(&|job| job.options.stop_ids = vec![3]);
        changed(&|job| job.options.sampling.frequency_penalty = 0.5);
        changed(&|job| job.options.sampling.logit_bias.extend([(3, 1.0)]));
        for other in others {
            assert_eq!(cache.get(&other), None, "{other:?}");
        }
    }

    #[test]
    fn the_least_recent_answers_go_first() {
        let cache = ResponseCache::new(3 * (ENTRY_BYTES + 100));
        let text = "x".repeat(100);
        for prompt in ["a", "b", "c"] {
            cache.put(&job(prompt, 0.0, 0), answer(&text));
        }
        assert!(cache.get(&job("a", 0.0, 0)).is_some());
        cache.put(&job("d", 0.0, 0), answer(&text));
        cache.put(&job("d", 0.0, 0), answer(&text));
        assert_eq!(cache.bytes(), 3 * (ENTRY_BYTES + 100));
        for (prompt, kept) in [("a", true), ("b", false), ("c", true), ("d", true)] {
            assert_eq!(cache.get(&job(prompt, 0.0, 0)).is_some(), kept, "{prompt}");
        }
        cache.put(&job("e", 0.0, 0), answer(&"x".repeat(10_000)));
        assert!(cache.get(&job("e", 0.0, 0)).is_none() && cache.get(&job("a", 0.0, 0)).is_some());
    }
}
