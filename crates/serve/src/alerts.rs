//! Alerts: a value of the snapshots that is beyond a threshold for a while is reported, and its return too.
//!
//! ```toml
//! [[alerts]]
//! name = "slow"
//! metric = "latency_p95"
//! above = 10.0            # or below
//! for = 60                # seconds, 0 if it is left out
//! severity = "critical"   # "info", "warning" (the default), "critical"
//! ```

use serde::{Deserialize, Serialize};

use crate::history::Snapshot;
use crate::webhook::Webhook;

/// Alerts of a service at most.
const MOST: usize = 100;

/// How bad it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Info,
    #[default]
    Warning,
    Critical,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    metric: String,
    above: Option<f64>,
    below: Option<f64>,
    #[serde(default, rename = "for")]
    seconds: u64,
    #[serde(default)]
    severity: Severity,
}

/// A threshold, and whether it is crossed.
#[derive(Debug)]
struct Alert {
    name: String,
    metric: String,
    threshold: f64,
    /// Whether values above it are meant, and not those below.
    above: bool,
    seconds: u64,
    severity: Severity,
    /// Since when the value has been beyond it, in Unix time.
    since: Option<u64>,
    firing: bool,
}

/// What an alert says when it begins and when it is over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Notice {
    alert: String,
    /// `firing` or `resolved`.
    state: &'static str,
    severity: &'static str,
    metric: String,
    /// The value now; none if there is none any more.
    value: Option<f64>,
    /// `above` or `below`.
    condition: &'static str,
    threshold: f64,
    /// Unix time, in seconds.
    time: u64,
    /// Seconds for which the value has been beyond the threshold.
    seconds: u64,
}

/// The alerts of a service.
#[derive(Debug, Default)]
pub struct Alerts {
    alerts: Vec<Alert>,
    webhook: Option<Webhook>,
}

impl Alerts {
    /// Reads entries of `[[alerts]]`. `webhook` gets what they say, beside the log.
    ///
    /// # Errors
    /// If one is wrong.
    pub fn new(entries: Vec<toml::Value>, webhook: Option<Webhook>) -> Result<Self, String> {
        if entries.len() > MOST {
            return Err(format!("{} alerts; expected at most {MOST}", entries.len()));
        }
        let mut alerts: Vec<Alert> = Vec::with_capacity(entries.len());
        for (i, entry) in entries.into_iter().enumerate() {
            let alert = Alert::new(entry).map_err(|message| format!("alert {}: {message}", i + 1))?;
            if alerts.iter().any(|other| other.name == alert.name) {
                return Err(format!("alert {}: there are two of the name {:?}", i + 1, alert.name));
            }
            alerts.push(alert);
        }
        Ok(Self { alerts, webhook })
    }

    /// Starts to post, if there is a place for it; to be called once.
    pub(crate) fn start(&mut self) {
        if let Some(webhook) = &mut self.webhook {
            webhook.start();
        }
    }

    /// Looks at a snapshot.
    pub(crate) fn observe(&mut self, snapshot: &Snapshot) {
        let values = snapshot.values();
        for alert in &mut self.alerts {
            let value = values.iter().find(|(name, _)| *name == alert.metric).and_then(|(_, value)| *value);
            let Some(notice) = alert.observe(value, snapshot.time) else { continue };
            let Notice { alert, state, severity, metric, condition, threshold, .. } = &notice;
            let shown = value.map_or("none".to_string(), |value| value.to_string());
            // Below a warning the log shows nothing.
            log::warn!("alert {alert:?} ({severity}) {state}: {metric} = {shown} ({condition} {threshold})");
            if let Some(webhook) = &self.webhook {
                webhook.send(notice);
            }
        }
    }

    /// The names of those that are on, with their severity.
    pub(crate) fn firing(&self) -> Vec<(String, String)> {
        let firing = self.alerts.iter().filter(|alert| alert.firing);
        firing.map(|alert| (alert.name.clone(), alert.severity.name().to_string())).collect()
    }
}

impl Alert {
    fn new(entry: toml::Value) -> Result<Self, String> {
        let entry: Entry = entry.try_into().map_err(|e: toml::de::Error| e.message().to_string())?;
        let (threshold, above) = match (entry.above, entry.below) {
            (Some(above), None) => (above, true),
            (None, Some(below)) => (below, false),
            _ => return Err("expected one of above and below".to_string()),
        };
        if !threshold.is_finite() {
            return Err(format!("threshold {threshold}; expected a finite number"));
        }
        let names: Vec<&str> = Snapshot::empty().values().into_iter().skip(1).map(|(name, _)| name).collect();
        if !names.contains(&entry.metric.as_str()) {
            return Err(format!("unknown metric {:?}; expected one of {}", entry.metric, names.join(", ")));
        }
        let name = entry.name.unwrap_or_else(|| {
            format!("{} {} {threshold}", entry.metric, if above { "above" } else { "below" })
        });
        if name.trim().is_empty() || name.len() > 200 || name.contains(char::is_control) {
            return Err("expected a name of 1 to 200 bytes without control characters".to_string());
        }
        let Entry { metric, seconds, severity, .. } = entry;
        Ok(Self { name, metric, threshold, above, seconds, severity, since: None, firing: false })
    }

    /// Takes a value, none if there is none, at a Unix time; says so if the alert begins or is over.
    fn observe(&mut self, value: Option<f64>, time: u64) -> Option<Notice> {
        let beyond = value
            .is_some_and(|value| if self.above { value > self.threshold } else { value < self.threshold });
        let since = *self.since.get_or_insert(time);
        let lasted = time.saturating_sub(since);
        if !beyond {
            self.since = None;
        }
        let firing = beyond && (self.firing || lasted >= self.seconds);
        if std::mem::replace(&mut self.firing, firing) == firing {
            return None;
        }
        Some(Notice {
            alert: self.name.clone(),
            state: if firing { "firing" } else { "resolved" },
            severity: self.severity.name(),
            metric: self.metric.clone(),
            value,
            condition: if self.above { "above" } else { "below" },
            threshold: self.threshold,
            time,
            seconds: lasted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<toml::Value> {
        let table: toml::Table = toml::from_str(text).unwrap();
        table["alerts"].as_array().unwrap().clone()
    }

    fn one(text: &str) -> Result<Alerts, String> {
        Alerts::new(entries(&format!("[[alerts]]\n{text}")), None)
    }

    #[test]
    fn an_alert_begins_after_its_time_and_is_over_once() {
        let mut alerts =
            one("name = \"slow\"\nmetric = \"latency_p95\"\nabove = 2\nfor = 20\nseverity = \"critical\"")
                .unwrap();
        let alert = &mut alerts.alerts[0];
        let mut said = Vec::new();
        for (time, value) in [
            (0, Some(3.0)),
            (10, Some(3.0)),
            // Not for long enough.
            (20, Some(1.0)),
            (30, Some(2.5)),
            (40, Some(9.0)),
            (50, Some(2.1)),
            (60, Some(4.0)),
            // At the threshold it is not beyond it; without requests there is nothing to be slow.
            (70, Some(2.0)),
            (80, Some(3.0)),
            (90, None),
            (100, Some(3.0)),
            (120, Some(3.0)),
            (130, None),
        ] {
            if let Some(notice) = alert.observe(value, time) {
                said.push((notice.time, notice.state, notice.seconds, notice.value));
            }
        }
        assert_eq!(
            said,
            [
                (50, "firing", 20, Some(2.1)),
                (70, "resolved", 40, Some(2.0)),
                (120, "firing", 20, Some(3.0)),
                (130, "resolved", 30, None)
            ]
        );
    }

    #[test]
    fn below_is_the_other_side() {
        let mut alerts = one("metric = \"tokens_per_second\"\nbelow = 1.5").unwrap();
        let mut snapshot = Snapshot { tokens_per_second: 2.0, ..Snapshot::empty() };
        alerts.observe(&snapshot);
        assert!(alerts.firing().is_empty());
        snapshot.tokens_per_second = 1.0;
        alerts.observe(&snapshot);
        let expected = ("tokens_per_second below 1.5".to_string(), "warning".to_string());
        assert_eq!(alerts.firing(), [expected]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("above = 1", "metric"),
            ("metric = \"speed\"\nabove = 1", "unknown metric \"speed\"; expected one of memory_bytes,"),
            ("metric = \"time\"\nabove = 1", "unknown metric \"time\""),
            ("metric = \"waiting\"", "one of above and below"),
            ("metric = \"waiting\"\nabove = 1\nbelow = 2", "one of above and below"),
            ("metric = \"waiting\"\nabove = inf", "finite"),
            ("metric = \"waiting\"\nabove = 1\nseverity = \"bad\"", "bad"),
            ("metric = \"waiting\"\nabove = 1\nfor = -1", "-1"),
            ("metric = \"waiting\"\nabove = 1\nabout = 1", "about"),
            ("metric = \"waiting\"\nabove = 1\nname = \"\"", "1 to 200 bytes"),
        ] {
            let message = one(text).unwrap_err();
            assert!(message.contains(expected) && message.starts_with("alert 1: "), "{message}");
        }
        let two = "[[alerts]]\nmetric = \"waiting\"\nabove = 1\n".repeat(2);
        assert!(Alerts::new(entries(&two), None).unwrap_err().contains("two of the name"));
    }
}
