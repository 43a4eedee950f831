//! What a service has done up to a moment, and what it did between two of them.

use std::time::{Duration, Instant};

use prometheus::core::{Collector as _, Metric as _};
use prometheus::{Histogram, IntCounterVec};

use super::Snapshot;
use crate::metrics::Metrics;
use crate::routes::page;

/// Counters, as they are at a moment.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    at: Instant,
    /// Time that the process has had on all processors.
    cpu: Option<Duration>,
    /// Energy that the machine has taken, in joules.
    joules: Option<f64>,
    tokens: u64,
    prompt_tokens: u64,
    answers: u64,
    /// Of these the ones with a status of 500 and above.
    failed: u64,
    prefix: [u64; 2],
    responses: [u64; 2],
    lookup: [u64; 2],
    draft: [u64; 2],
    duration: Buckets,
    first_token: Buckets,
}

/// A histogram: upper bounds, and how many observations are not above each.
type Buckets = Vec<(f64, u64)>;

impl Reading {
    pub(super) fn now(metrics: &Metrics, joules: Option<f64>) -> Self {
        let (answers, failed) = answers(&metrics.http_requests);
        Self {
            at: Instant::now(),
            cpu: cpu_time(),
            joules,
            tokens: metrics.generation_tokens.get(),
            prompt_tokens: metrics.prompt_tokens.get(),
            answers,
            failed,
            prefix: [metrics.prefix_hit_tokens.get(), metrics.prefix_query_tokens.get()],
            responses: [metrics.response_hits.get(), metrics.response_queries.get()],
            lookup: [metrics.lookup.accepted.get(), metrics.lookup.proposed.get()],
            draft: [metrics.draft.accepted.get(), metrics.draft.proposed.get()],
            duration: buckets(&metrics.request_duration),
            first_token: buckets(&metrics.time_to_first_token),
        }
    }

    /// What has been done since an earlier reading, at a Unix time.
    pub(super) fn since(&self, before: &Self, metrics: &Metrics, time: u64) -> Snapshot {
        let seconds = (self.at - before.at).as_secs_f64().max(1e-3);
        let rate = |count: u64| count as f64 / seconds;
        let share = |now: [u64; 2], before: [u64; 2]| {
            let [part, whole] = [now[0] - before[0], now[1] - before[1]];
            (whole > 0).then(|| part as f64 / whole as f64)
        };
        let tokens = self.tokens - before.tokens;
        let joules = self.joules.zip(before.joules).map(|(now, before)| now - before);
        let answers = self.answers - before.answers;
        let cpu = self.cpu.zip(before.cpu).map(|(now, before)| now.saturating_sub(before).as_secs_f64());
        Snapshot {
            time,
            memory_bytes: tritforge_machine::resident().map(|resident| resident.now),
            cpu_percent: cpu.map(|cpu| 100.0 * cpu / seconds),
            tokens_per_second: rate(tokens),
            prompt_tokens_per_second: rate(self.prompt_tokens - before.prompt_tokens),
            running: metrics.running.get(),
            waiting: metrics.waiting.get(),
            requests_per_second: rate(answers),
            error_rate: share([self.failed, self.answers], [before.failed, before.answers]),
            kv_usage: metrics.kv_usage(),
            prefix_hit_rate: share(self.prefix, before.prefix),
            response_hit_rate: share(self.responses, before.responses),
            lookup_acceptance: share(self.lookup, before.lookup),
            draft_acceptance: share(self.draft, before.draft),
            first_token_p50: quantile(&before.first_token, &self.first_token, 0.5),
            first_token_p95: quantile(&before.first_token, &self.first_token, 0.95),
            latency_p50: quantile(&before.duration, &self.duration, 0.5),
            latency_p95: quantile(&before.duration, &self.duration, 0.95),
            watts: joules.map(|joules| joules / seconds),
            joules_per_token: joules.filter(|_| tokens > 0).map(|joules| joules / tokens as f64),
        }
    }
}

/// Processor time of the process, of all its threads; none where the system does not say (it is Linux that does).
fn cpu_time() -> Option<Duration> {
    ticks(&std::fs::read_to_string("/proc/self/stat").ok()?).map(|ticks| Duration::from_millis(10 * ticks))
}

/// User and system time in a line of `/proc/PID/stat`, in hundredths of a second, which Linux has here on every machine that
/// this runs on. The name of the process, in parentheses, may have any characters.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Answers to requests that ask for something, and how many of them failed here: neither the page's own files nor what
/// watches the service.
fn answers(requests: &IntCounterVec) -> (u64, u64) {
    let (mut all, mut failed) = (0, 0);
    for family in requests.collect() {
        for metric in family.get_metric() {
            let label = |name: &str| metric.get_label().iter().find(|label| label.name() == name);
            let endpoint = label("endpoint").map_or("", |label| label.value());
            if page::PATHS.contains(&endpoint)
                || ["/metrics", "/health", "/ready", "/v1/stats"].contains(&endpoint)
            {
                continue;
            }
            let count = metric.get_counter().get_value() as u64;
            all += count;
            failed += if label("code").is_some_and(|code| code.value().starts_with('5')) { count } else { 0 };
        }
    }
    (all, failed)
}

fn buckets(histogram: &Histogram) -> Buckets {
    let metric = histogram.metric();
    let histogram = metric.get_histogram();
    let mut buckets: Buckets = histogram
        .get_bucket()
        .iter()
        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
        .collect();
    // The last one has no bound.
    buckets.retain(|(bound, _)| bound.is_finite());
    buckets.push((f64::INFINITY, histogram.get_sample_count()));
    buckets
}

/// A quantile of what was observed between two readings, linear within a bucket as Prometheus' `histogram_quantile`.
fn quantile(before: &Buckets, now: &Buckets, q: f64) -> Option<f64> {
    let counts =
        now.iter().zip(before).map(|((bound, now), (_, before))| (*bound, now.saturating_sub(*before)));
    let counts: Vec<(f64, u64)> = counts.collect();
    let total = counts.last().map_or(0, |(_, count)| *count);
    if total == 0 {
        return None;
    }
    let rank = q * total as f64;
    let (mut low, mut below) = (0.0, 0);
    for (bound, count) in counts {
        if count as f64 >= rank {
            if bound.is_infinite() {
                return Some(low);
            }
            let inside = (count - below) as f64;
            return Some(if inside == 0.0 {
                bound
            } else {
                low + (bound - low) * (rank - below as f64) / inside
            });
        }
        (low, below) = (bound, count);
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use tritforge_infer::Proposals;

    use super::*;

    #[test]
    fn processor_time_is_read() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 25 99 98 20 0 8";
        assert_eq!(ticks(stat), Some(175));
        assert_eq!(ticks("12 (a) S 1"), None);
    }

    #[test]
    fn a_snapshot_is_what_happened_between_two_readings() {
        let metrics = Metrics::new("m");
        metrics.generation_tokens.inc_by(1000);
        metrics.request_duration.observe(100.0);
        metrics.http_requests.with_label_values(&["/v1/completions", "500"]).inc();
        let mut before = Reading::now(&metrics, Some(10.0));
        metrics.generation_tokens.inc_by(50);
        metrics.prompt_tokens.inc_by(20);
        metrics.prefix_query_tokens.inc_by(20);
        metrics.prefix_hit_tokens.inc_by(5);
        metrics.draft.count(Proposals { proposed: 40, accepted: 30 });
        for seconds in [0.3, 0.3, 0.3, 7.0] {
            metrics.request_duration.observe(seconds);
        }
        for (endpoint, code, count) in [
            ("/v1/completions", "200", 6),
            ("/v1/completions", "503", 2),
            ("/metrics", "500", 9),
            ("/", "200", 9),
        ] {
            metrics.http_requests.with_label_values(&[endpoint, code]).inc_by(count);
        }
        let mut now = Reading::now(&metrics, Some(35.0));
        // Ten seconds later, four of them on a processor.
        before.at = now.at - Duration::from_secs(10);
        before.cpu = Some(Duration::from_secs(1));
        now.cpu = Some(Duration::from_secs(5));
        let snapshot = now.since(&before, &metrics, 7);
        let near =
            |found: f64, right: f64| assert!((found - right).abs() < 1e-9, "{found} {right}: {snapshot:?}");
        near(snapshot.tokens_per_second, 5.0);
        near(snapshot.prompt_tokens_per_second, 2.0);
        near(snapshot.requests_per_second, 0.8);
        near(snapshot.error_rate.unwrap(), 0.25);
        near(snapshot.prefix_hit_rate.unwrap(), 0.25);
        near(snapshot.draft_acceptance.unwrap(), 0.75);
        assert_eq!(snapshot.lookup_acceptance, None);
        near(snapshot.cpu_percent.unwrap(), 40.0);
        near(snapshot.watts.unwrap(), 2.5);
        near(snapshot.joules_per_token.unwrap(), 0.5);
        // Three of four are between 0.25 and 0.5: the second of them is two thirds of the way.
        near(snapshot.latency_p50.unwrap(), 0.25 + 0.25 * 2.0 / 3.0);
        // The fourth is between 5 and 7.5.
        near(snapshot.latency_p95.unwrap(), 5.0 + 2.5 * 0.8);
        assert_eq!((snapshot.first_token_p50, snapshot.response_hit_rate, snapshot.time), (None, None, 7));
        let idle = now.since(&now.clone(), &metrics, 8);
        assert_eq!((idle.error_rate, idle.joules_per_token, idle.latency_p50), (None, None, None));
    }
}
