//! What a service counts, for Prometheus: everything here is atomic, so that counting never waits.
//!
//! Every family is named after Tritforge; those that vLLM has as well are shown a second time under vLLM's name,
//! so that dashboards and load balancers made for it work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use tritforge_infer::Proposals;

/// The media type of the text format.
pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names of vLLM for families of ours with the same meaning and labels.
const VLLM: &[(&str, &str)] = &[
    ("tritforge_requests_running", "vllm:num_requests_running"),
    ("tritforge_requests_waiting", "vllm:num_requests_waiting"),
    ("tritforge_kv_cache_usage_ratio", "vllm:kv_cache_usage_perc"),
    // Of versions before 0.10.
    ("tritforge_kv_cache_usage_ratio", "vllm:gpu_cache_usage_perc"),
    ("tritforge_prefix_cache_query_tokens_total", "vllm:prefix_cache_queries_total"),
    ("tritforge_prefix_cache_hit_tokens_total", "vllm:prefix_cache_hits_total"),
    ("tritforge_draft_proposed_tokens_total", "vllm:spec_decode_num_draft_tokens_total"),
    ("tritforge_draft_accepted_tokens_total", "vllm:spec_decode_num_accepted_tokens_total"),
    ("tritforge_prompt_tokens_total", "vllm:prompt_tokens_total"),
    ("tritforge_generation_tokens_total", "vllm:generation_tokens_total"),
    ("tritforge_generations_total", "vllm:request_success_total"),
    ("tritforge_queue_time_seconds", "vllm:request_queue_time_seconds"),
    ("tritforge_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"),
    ("tritforge_inter_token_latency_seconds", "vllm:inter_token_latency_seconds"),
    // Of versions before 0.11.
    ("tritforge_inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    ("tritforge_request_duration_seconds", "vllm:e2e_request_latency_seconds"),
];

/// Upper bounds in seconds of what a request waits for.
const REQUEST_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0,
];
/// Upper bounds in seconds of the time between two tokens.
const TOKEN_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
];

/// Why a generation ended, as vLLM says it.
const REASONS: &[&str] = &["stop", "length", "content_filter", "abort", "error"];

/// Tokens that were proposed, and those of them that came.
#[derive(Debug)]
pub(crate) struct ProposalCounters {
    pub(crate) proposed: IntCounter,
    pub(crate) accepted: IntCounter,
}

impl ProposalCounters {
    /// Counts those of a generation that has ended.
    pub(crate) fn count(&self, Proposals { proposed, accepted }: Proposals) {
        self.proposed.inc_by(proposed as u64);
        self.accepted.inc_by(accepted as u64);
    }
}

/// The metrics of one model's service.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Answers, by `endpoint` and `code`.
    pub(crate) http_requests: IntCounterVec,
    /// Generations that have ended, by `finished_reason`.
    pub(crate) generations: IntCounterVec,
    /// Prompts and answers in which a content filter has found something, by `filter`, `where` and `action`.
    pub(crate) filtered: IntCounterVec,
    pub(crate) running: IntGauge,
    pub(crate) waiting: IntGauge,
    pub(crate) prompt_tokens: IntCounter,
    pub(crate) generation_tokens: IntCounter,
    pub(crate) prefix_queries: IntCounter,
    pub(crate) prefix_hits: IntCounter,
    pub(crate) prefix_query_tokens: IntCounter,
    pub(crate) prefix_hit_tokens: IntCounter,
    /// Of prompt look-up, and of a draft.
    pub(crate) lookup: ProposalCounters,
    pub(crate) draft: ProposalCounters,
    pub(crate) response_queries: IntCounter,
    pub(crate) response_hits: IntCounter,
    pub(crate) response_bytes: IntGauge,
    pub(crate) kv_bytes: IntGauge,
    kv_limit: IntGauge,
    kv_usage: Gauge,
    pub(crate) adapters: IntGauge,
    pub(crate) queue_time: Histogram,
    pub(crate) time_to_first_token: Histogram,
    pub(crate) inter_token_latency: Histogram,
    pub(crate) request_duration: Histogram,
    /// Bytes of the keys and values of one full context; 0 for an engine without any.
    pub(crate) kv_context_bytes: AtomicU64,
    /// Bytes that the operator allows for them; 0 if that is not said.
    pub(crate) kv_memory: AtomicU64,
}

impl Metrics {
    /// All of them at zero, with the label `model_name`.
    pub(crate) fn new(model: &str) -> Self {
        let labels = [("model_name".to_string(), model.to_string())].into_iter().collect();
        // Neither this nor what follows can fail: names, labels and bounds are constants, all of them valid and
        // different.
        let registry = Registry::new_custom(None, Some(labels)).expect("a valid label");
        let r = &registry;
        let counter = |name, help| register(r, IntCounter::new(name, help));
        let gauge = |name, help| register(r, IntGauge::new(name, help));
        let by = |name, help, labels| register(r, IntCounterVec::new(Opts::new(name, help), labels));
        let histogram = |name, help, buckets: &[f64]| {
            register(r, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
        };
        let generations = by(
            "tritforge_generations_total",
            "Generations that have ended, by the reason: stop, length, content_filter, abort, error.",
            &["finished_reason"],
        );
        for reason in REASONS {
            generations.with_label_values(&[*reason]);
        }
        Self {
            http_requests: by(
                "tritforge_http_requests_total",
                "Requests that have been answered, by path and status code.",
                &["endpoint", "code"],
            ),
            generations,
            filtered: by(
                "tritforge_content_filtered_total",
                "Prompts and answers in which a content filter has found something.",
                &["filter", "where", "action"],
            ),
            running: gauge("tritforge_requests_running", "Requests whose text is being generated."),
            waiting: gauge("tritforge_requests_waiting", "Requests that wait for their turn."),
            prompt_tokens: counter("tritforge_prompt_tokens_total", "Tokens of prompts."),
            generation_tokens: counter("tritforge_generation_tokens_total", "Tokens generated."),
            prefix_queries: counter(
                "tritforge_prefix_cache_queries_total",
                "Prompts that were looked up in the prefix cache.",
            ),
            prefix_hits: counter(
                "tritforge_prefix_cache_hits_total",
                "Prompts of which the prefix cache had a part.",
            ),
            prefix_query_tokens: counter(
                "tritforge_prefix_cache_query_tokens_total",
                "Tokens of the prompts that were looked up in the prefix cache.",
            ),
            prefix_hit_tokens: counter(
                "tritforge_prefix_cache_hit_tokens_total",
                "Tokens of prompts that came from the prefix cache.",
            ),
            lookup: ProposalCounters {
                proposed: counter(
                    "tritforge_lookup_proposed_tokens_total",
                    "Tokens that prompt look-up proposed, of generations that have ended.",
                ),
                accepted: counter("tritforge_lookup_accepted_tokens_total", "Those of them that came."),
            },
            draft: ProposalCounters {
                proposed: counter(
                    "tritforge_draft_proposed_tokens_total",
                    "Tokens that the draft model proposed, of generations that have ended.",
                ),
                accepted: counter("tritforge_draft_accepted_tokens_total", "Those of them that came."),
            },
            response_queries: counter(
                "tritforge_response_cache_queries_total",
                "Requests that were looked up in the response cache.",
            ),
            response_hits: counter(
                "tritforge_response_cache_hits_total",
                "Requests that were answered from the response cache.",
            ),
            response_bytes: gauge("tritforge_response_cache_bytes", "Bytes that the response cache takes."),
            kv_bytes: gauge("tritforge_kv_cache_bytes", "Bytes that keys and values take."),
            kv_limit: gauge("tritforge_kv_cache_limit_bytes", "Bytes that keys and values can take."),
            kv_usage: register(
                r,
                Gauge::new(
                    "tritforge_kv_cache_usage_ratio",
                    "Share of the memory for keys and values that is in use, 0 to 1.",
                ),
            ),
            adapters: gauge("tritforge_lora_adapters_loaded", "Adapters that are loaded."),
            queue_time: histogram(
                "tritforge_queue_time_seconds",
                "Time that a request waited for its turn.",
                REQUEST_BUCKETS,
            ),
            time_to_first_token: histogram(
                "tritforge_time_to_first_token_seconds",
                "Time from a request's arrival to its first token.",
                REQUEST_BUCKETS,
            ),
            inter_token_latency: histogram(
                "tritforge_inter_token_latency_seconds",
                "Time between two tokens of a request.",
                TOKEN_BUCKETS,
            ),
            request_duration: histogram(
                "tritforge_request_duration_seconds",
                "Time from a request's arrival to the end of its generation.",
                REQUEST_BUCKETS,
            ),
            kv_context_bytes: AtomicU64::new(0),
            kv_memory: AtomicU64::new(0),
            registry,
        }
    }

    /// Sets the memory that keys and values can take: those of so many full contexts.
    pub(crate) fn set_kv_limit(&self, contexts: usize) {
        let allowed =
            Some(self.kv_memory.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0).unwrap_or(u64::MAX);
        let limit =
            self.kv_context_bytes.load(Ordering::Relaxed).saturating_mul(contexts as u64).min(allowed);
        self.kv_limit.set(limit.try_into().unwrap_or(i64::MAX));
        let used = self.kv_bytes.get() as f64;
        self.kv_usage.set(if limit == 0 { 0.0 } else { (used / limit as f64).min(1.0) });
    }

    /// Share of the memory for keys and values that is in use.
    pub(crate) fn kv_usage(&self) -> f64 {
        self.kv_usage.get()
    }

    /// All families in Prometheus' text format.
    ///
    /// # Errors
    /// Those of the encoder.
    pub(crate) fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        for (ours, theirs) in VLLM {
            if let Some(family) = families.iter().find(|family| family.name() == *ours) {
                let mut alias = family.clone();
                alias.set_name((*theirs).to_string());
                families.push(alias);
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("a valid metric");
    registry.register(Box::new(collector.clone())).expect("a metric of its own");
    collector
}

/// What a generation has been counted for.
#[derive(Debug)]
pub(crate) struct Progress {
    /// When its request arrived, if its first token is the request's first.
    arrived: Option<Instant>,
    /// When its last token came.
    last: Instant,
    /// Whether its prompt has been counted.
    prompt: bool,
    generated: usize,
}

impl Progress {
    pub(crate) fn new(arrived: Option<Instant>) -> Self {
        Self { arrived, last: Instant::now(), prompt: false, generated: 0 }
    }

    /// Counts what is new of a generation whose prompt has been run.
    pub(crate) fn count(
        &mut self,
        metrics: &Metrics,
        (prompt, cached, generated): (usize, usize, usize),
        now: Instant,
    ) {
        if !self.prompt {
            self.prompt = true;
            metrics.prompt_tokens.inc_by(prompt as u64);
            metrics.prefix_queries.inc();
            metrics.prefix_query_tokens.inc_by(prompt as u64);
            if cached > 0 {
                metrics.prefix_hits.inc();
                metrics.prefix_hit_tokens.inc_by(cached as u64);
            }
            if let Some(arrived) = self.arrived {
                metrics.time_to_first_token.observe(seconds(now - arrived));
            }
            self.last = now;
        }
        let new = generated.saturating_sub(self.generated);
        if new == 0 {
            return;
        }
        if self.generated > 0 {
            metrics.inter_token_latency.observe(seconds(now - self.last));
        }
        metrics.generation_tokens.inc_by(new as u64);
        (self.generated, self.last) = (generated, now);
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_of_vllm_has_one_of_ours() {
        let metrics = Metrics::new("a \"model\"");
        metrics.http_requests.with_label_values(&["/health", "200"]).inc();
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for (ours, theirs) in VLLM {
            for name in [ours, theirs] {
                assert!(text.contains(&format!("# TYPE {name} ")), "{name}: {text}");
            }
        }
        let right =
            r#"tritforge_http_requests_total{code="200",endpoint="/health",model_name="a \"model\""} 1"#;
        assert!(text.contains(right), "{text}");
    }

    #[test]
    fn a_generation_is_counted_once() {
        let metrics = Metrics::new("m");
        let now = Instant::now();
        let mut progress = Progress::new(Some(now));
        for generated in [1, 1, 2, 3] {
            progress.count(&metrics, (10, 4, generated), now + Duration::from_millis(generated as u64));
        }
        assert_eq!((metrics.prompt_tokens.get(), metrics.generation_tokens.get()), (10, 3));
        assert_eq!((metrics.prefix_queries.get(), metrics.prefix_hits.get()), (1, 1));
        assert_eq!(metrics.prefix_hit_tokens.get(), 4);
        assert_eq!(metrics.time_to_first_token.get_sample_count(), 1);
        assert_eq!(metrics.inter_token_latency.get_sample_count(), 2);
        assert!((metrics.inter_token_latency.get_sample_sum() - 0.002).abs() < 1e-9);
    }
}
