//! MLflow's REST API, version 2.0, as far as a run needs it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Time to connect, and for a whole request.
const CONNECT: Duration = Duration::from_secs(3);
const REQUEST: Duration = Duration::from_secs(8);
/// What a server says of a fault, at most, in characters.
const MESSAGE: usize = 300;

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server cannot be reached or cannot answer now: the same request may succeed later.
    Away(String),
    /// It did not answer this request in time: it may answer a smaller one.
    Slow(String),
    /// The server does not take it, now or later.
    Refused {
        /// The status of the answer.
        status: u16,
        /// MLflow's name for it, as `RESOURCE_DOES_NOT_EXIST`; empty from something that is no MLflow server.
        code: String,
        /// Both in words, with what the server says.
        message: String,
    },
}

impl Fault {
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Away(message) | Self::Slow(message) | Self::Refused { message, .. } => message,
        }
    }

    /// Whether the request may be sent again.
    pub(super) fn passes(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }

    fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }
}

/// A number of a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    pub(super) key: String,
    pub(super) value: f64,
    pub(super) step: u64,
    /// Milliseconds since 1970.
    pub(super) time: u64,
}

/// A server.
pub(super) struct Client {
    agent: ureq::Agent,
    /// What all paths begin with.
    base: String,
    authorization: Option<String>,
}

impl Client {
    /// The server at `url`. `variable` gives what the environment has: a token, or a name and a password, in the variables
    /// in which MLflow's own client looks for them.
    pub(super) fn new(url: &str, variable: impl Fn(&str) -> Option<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(REQUEST))
            .http_status_as_error(false)
            .user_agent(concat!("tritforge/", env!("CARGO_PKG_VERSION")))
            .build();
        // As `mlflow.utils.rest_utils`: a name with a password before a token, and nothing that is empty.
        let given = |name| variable(name).filter(|value| !value.is_empty());
        let basic = given("MLFLOW_TRACKING_USERNAME")
            .zip(given("MLFLOW_TRACKING_PASSWORD"))
            .map(|(name, password)| format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))));
        let token = || given("MLFLOW_TRACKING_TOKEN").map(|token| format!("Bearer {token}"));
        let base = format!("{}/api/2.0/mlflow", url.trim_end_matches('/'));
        Self { agent: config.into(), base, authorization: basic.or_else(token) }
    }

    /// The id of an experiment, which is made if there is none of the name.
    pub(super) fn experiment(&self, name: &str) -> Result<String, Fault> {
        let found = || {
            let answer = self.get("experiments/get-by-name", "experiment_name", name)?;
            if answer["experiment"]["lifecycle_stage"] == "deleted" {
                let message = format!(
                    "the experiment \"{name}\" is deleted: restore it, or give log.mlflow_experiment"
                );
                return Err(Fault::Refused { status: 200, code: String::new(), message });
            }
            text(&answer["experiment"]["experiment_id"], "experiment.experiment_id")
        };
        match found() {
            Err(fault) if fault.is("RESOURCE_DOES_NOT_EXIST") => {
                match self.post("experiments/create", &json!({ "name": name })) {
                    Ok(answer) => text(&answer["experiment_id"], "experiment_id"),
                    // Another run was faster.
                    Err(fault) if fault.is("RESOURCE_ALREADY_EXISTS") => found(),
                    Err(fault) => Err(fault),
                }
            }
            other => other,
        }
    }

    /// Begins a run, and returns its id.
    pub(super) fn create_run(
        &self,
        experiment: &str,
        name: &str,
        time: u64,
        tags: &[(String, String)],
    ) -> Result<String, Fault> {
        let tags: Vec<Value> =
            tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let body = json!({ "experiment_id": experiment, "run_name": name, "start_time": time, "tags": tags });
        let answer = self.post("runs/create", &body)?;
        text(&answer["run"]["info"]["run_id"], "run.info.run_id")
    }

    /// Says how a run is: `RUNNING`, `FINISHED`, `FAILED` or `KILLED`, and when it ended.
    pub(super) fn update_run(&self, run: &str, status: &str, ended: Option<u64>) -> Result<(), Fault> {
        let mut body = json!({ "run_id": run, "status": status });
        if let Some(time) = ended {
            body["end_time"] = json!(time);
        }
        self.post("runs/update", &body).map(drop)
    }

    /// Parameters of a run: 100 at most.
    pub(super) fn log_params(&self, run: &str, params: &[(String, String)]) -> Result<(), Fault> {
        let params: Vec<Value> =
            params.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        self.post("runs/log-batch", &json!({ "run_id": run, "params": params })).map(drop)
    }

    /// Numbers of a run: 1000 at most.
    pub(super) fn log_metrics<'a>(
        &self,
        run: &str,
        points: impl Iterator<Item = &'a Point>,
    ) -> Result<(), Fault> {
        let metric = |point: &Point| json!({ "key": point.key, "value": number(point.value), "timestamp": point.time, "step": point.step });
        let metrics: Vec<Value> = points.map(metric).collect();
        self.post("runs/log-batch", &json!({ "run_id": run, "metrics": metrics })).map(drop)
    }

    fn get(&self, path: &str, key: &str, value: &str) -> Result<Value, Fault> {
        let mut request = self.agent.get(format!("{}/{path}", self.base)).query(key, value);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        answer(path, request.call())
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Fault> {
        let mut request = self.agent.post(format!("{}/{path}", self.base)).content_type("application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        answer(path, request.send(body.to_string()))
    }
}

/// What a server answered, or why it did not.
fn answer(path: &str, sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, Fault> {
    let away = |e: ureq::Error| match e {
        ureq::Error::Timeout(during) if during != ureq::Timeout::Connect => Fault::Slow(e.to_string()),
        e => Fault::Away(e.to_string()),
    };
    let mut response = sent.map_err(away)?;
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_string().map_err(away)?;
    let value: Option<Value> = serde_json::from_str(&body).ok();
    if (200..300).contains(&status) {
        let no_json = || refused(status, "", path, "the answer is not JSON: is this an MLflow server?");
        return value.ok_or_else(no_json);
    }
    let said = |key: &str| value.as_ref().and_then(|v| v[key].as_str()).unwrap_or_default().to_string();
    let (code, message) = (said("error_code"), said("message"));
    let message = if message.is_empty() { body } else { message };
    let named = format!("{path}: HTTP status {status}: {}", shortened(&message));
    match status {
        // Request Timeout, Gateway Timeout.
        408 | 504 => Err(Fault::Slow(named)),
        // Too early, too many requests, a fault of the server or of what is before it.
        425 | 429 | 500.. => Err(Fault::Away(named)),
        _ => Err(refused(status, &code, path, &message)),
    }
}

fn refused(status: u16, code: &str, path: &str, message: &str) -> Fault {
    let named = if code.is_empty() { String::new() } else { format!(", {code}") };
    let message = format!("{path}: HTTP status {status}{named}: {}", shortened(message));
    Fault::Refused { status, code: code.to_string(), message }
}

/// The first line of a text, if it is not too long.
fn shortened(text: &str) -> String {
    text.trim().lines().next().unwrap_or_default().chars().take(MESSAGE).collect()
}

/// A text of an answer that must be there.
fn text(value: &Value, what: &str) -> Result<String, Fault> {
    let found = value.as_str().filter(|text| !text.is_empty()).map(str::to_string);
    found.ok_or_else(|| refused(200, "", what, "missing in the answer: is this an MLflow server?"))
}

/// JSON has no NaN and no infinities; they have names in the JSON of protobuf, by which MLflow reads requests.
fn number(x: f64) -> Value {
    match x {
        x if x.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        x => json!(x),
    }
}
