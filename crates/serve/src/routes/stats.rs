//! `GET /v1/stats?hours=1&format=json`: the snapshots of the last hours, for whoever may read the metrics.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;

use super::Service;
use crate::error::ApiError;
use crate::history::Snapshot;
use crate::openapi::{Body, JSON, Operation};

/// Hours that a history has.
const MOST_HOURS: f64 = 24.0;

pub(super) const OPERATIONS: &[Operation] = &[Operation::get(
    "/v1/stats",
    "operation",
    "Snapshots of the last hours (hours, 0 to 24; format, json or csv).",
    &[(JSON, Body::Any), ("text/csv", Body::Text)],
)];

pub(super) fn routes() -> Router<Service> {
    Router::new().route("/v1/stats", get(stats))
}

/// How the snapshots are written.
#[derive(Debug, PartialEq)]
enum Format {
    Json,
    Csv,
}

/// What a query asks for: hours, and a format.
fn query(uri: &Uri) -> Result<(f64, Format), ApiError> {
    let invalid = |param, message: String| ApiError::Invalid { message, param: Some(param) };
    let (mut hours, mut format) = (1.0, Format::Json);
    for part in uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=').unwrap_or((part, "")) {
            ("hours", text) => {
                let number: Option<f64> =
                    text.parse().ok().filter(|hours| (0.0..=MOST_HOURS).contains(hours));
                let message = || format!("hours = {text:?}: expected a number from 0 to {MOST_HOURS}");
                hours = number.ok_or_else(|| invalid("hours", message()))?;
            }
            ("format", "json") => format = Format::Json,
            ("format", "csv") => format = Format::Csv,
            ("format", text) => {
                return Err(invalid("format", format!("format = {text:?}: expected json or csv")));
            }
            (name, _) => {
                return Err(invalid(
                    "query",
                    format!("unknown parameter {name:?}: expected hours and format"),
                ));
            }
        }
    }
    Ok((hours, format))
}

async fn stats(State(service): State<Service>, uri: Uri) -> Result<Response, ApiError> {
    let message = || "this service keeps no history".to_string();
    let history = service.history.as_ref().ok_or_else(|| ApiError::NotFound {
        message: message(),
        param: None,
        code: Some("not_found"),
    })?;
    let (hours, format) = query(&uri)?;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let snapshots = history.since(now.saturating_sub((hours * 3600.0) as u64));
    if format == Format::Csv {
        let media_type = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
        return Ok((media_type, csv(&snapshots)).into_response());
    }
    let firing = history.firing();
    let alerts = firing.iter().map(|(name, severity)| json!({ "name": name, "severity": severity }));
    Ok(Json(json!({
        "model": service.jobs.model(),
        "interval_seconds": history.interval(),
        "energy": history.energy_source(),
        "alerts": alerts.collect::<Vec<_>>(),
        "snapshots": snapshots,
    }))
    .into_response())
}

/// A line of names and one for each snapshot (RFC 4180); what is absent is empty.
fn csv(snapshots: &[Snapshot]) -> String {
    let names: Vec<&str> = Snapshot::empty().values().into_iter().map(|(name, _)| name).collect();
    let mut text = names.join(",") + "\r\n";
    for snapshot in snapshots {
        let values = snapshot.values().into_iter();
        let values: Vec<String> =
            values.map(|(_, value)| value.map_or(String::new(), |value| value.to_string())).collect();
        text.push_str(&(values.join(",") + "\r\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_or_named() {
        let read = |text: &str| query(&format!("/v1/stats{text}").parse().unwrap());
        assert_eq!(read("").unwrap(), (1.0, Format::Json));
        assert_eq!(read("?hours=0.5&format=csv").unwrap(), (0.5, Format::Csv));
        for (text, param) in [
            ("?hours=25", "hours"),
            ("?hours=-1", "hours"),
            ("?hours=NaN", "hours"),
            ("?hours=", "hours"),
            ("?format=xml", "format"),
            ("?days=1", "query"),
        ] {
            match read(text) {
                Err(ApiError::Invalid { param: Some(found), .. }) => assert_eq!(found, param, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_line_has_what_there_is() {
        let snapshot =
            Snapshot { time: 1_700_000_000, kv_usage: 0.25, latency_p50: Some(1e-3), ..Snapshot::empty() };
        let text = csv(&[snapshot]);
        let lines: Vec<Vec<&str>> =
            text.split_terminator("\r\n").map(|line| line.split(',').collect()).collect();
        assert_eq!((lines.len(), lines[0].len()), (2, lines[1].len()));
        for (name, value) in
            [("time", "1700000000"), ("kv_usage", "0.25"), ("latency_p50", "0.001"), ("watts", "")]
        {
            let at = lines[0].iter().position(|found| *found == name).unwrap();
            assert_eq!(lines[1][at], value, "{name}");
        }
    }
}
