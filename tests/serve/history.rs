//! Snapshots, alerts and their webhook, over restarts.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::{PATIENCE, Served, model};

/// The service's stats, once there are so many snapshots.
fn stats(served: &Served, least: usize) -> Value {
    let begin = Instant::now();
    loop {
        let (status, _, body) = served.get("/v1/stats?hours=24");
        assert_eq!(status, 200, "{body}");
        let stats: Value = serde_json::from_str(&body).unwrap();
        if stats["snapshots"].as_array().unwrap().len() >= least {
            return stats;
        }
        assert!(begin.elapsed() < PATIENCE, "{stats}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn snapshots_are_taken_exported_and_there_after_a_restart() {
    let (dir, path) = model();
    let file = dir.path().join("history.json");
    let (model, file_name) = (path.to_str().unwrap().to_string(), file.to_str().unwrap().to_string());
    let keep = tempfile::tempdir().unwrap();
    let args = [&model, "--port", "0", "--history", &file_name, "--history-interval", "1", "--watts", "50"];
    let mut served = Served::run(keep, &args);
    assert!(served.complete().contains("200 OK"));
    let first = stats(&served, 2);
    assert_eq!((&first["interval_seconds"], &first["alerts"]), (&1.into(), &serde_json::json!([])));
    let snapshots = first["snapshots"].as_array().unwrap();
    // The request was in one of them.
    let requests = |snapshots: &[Value]| {
        snapshots.iter().map(|s| s["requests_per_second"].as_f64().unwrap()).sum::<f64>()
    };
    assert!(requests(snapshots) > 0.0, "{first}");
    #[cfg(target_os = "linux")]
    assert!(snapshots[0]["memory_bytes"].as_u64().unwrap() > 1 << 20, "{first}");
    // This machine counts energy itself, or it is an estimate that says so.
    let measured = first["energy"] == "measured";
    assert!(measured || (first["energy"] == "estimate" && snapshots[1]["watts"].as_f64().unwrap() > 49.0));
    let (status, head, csv) = served.get("/v1/stats?format=csv&hours=1");
    assert!(
        status == 200 && head.contains("text/csv") && csv.starts_with("time,memory_bytes,cpu_percent,"),
        "{head}"
    );
    let (status, _, error) = served.get("/v1/stats?hours=100");
    assert!(status == 400 && error.contains("\"hours\""), "{error}");
    let before = stats(&served, 2);
    served.signal("TERM");
    assert_eq!(served.exit_code(), Some(0));
    let served = Served::run(tempfile::tempdir().unwrap(), &args);
    let after = stats(&served, 1);
    let oldest = &before["snapshots"][0];
    assert_eq!(&after["snapshots"][0], oldest);
    // Without a file there is a history as well, of this run alone.
    assert_eq!(Served::start(&[]).get("/v1/stats").0, 200);
    drop((served, dir));
}

#[test]
fn only_an_admin_reads_them() {
    let served = Served::start(&["--api-key", "the-key-of-an-admin"]);
    assert_eq!(served.get("/v1/stats").0, 401);
    let open = Served::start(&["--api-key", "the-key-of-an-admin", "--metrics-access", "public"]);
    assert_eq!(open.get("/v1/stats").0, 200);
}

/// The JSON that comes with the next request, which is answered with a status.
fn next(listener: &TcpListener, status: &str) -> Value {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    write!(reader.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn an_alert_is_posted_again_until_it_arrives_and_resolved() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/alerts", listener.local_addr().unwrap());
    let (dir, path) = model();
    let config = dir.path().join("serve.toml");
    let text = format!(
        "model = {:?}\nport = 0\nhistory-interval = 1\nalert-webhook = {url:?}\n\
         [[alerts]]\nname = \"asked\"\nmetric = \"requests_per_second\"\nabove = 0.01\nseverity = \"critical\"\n",
        path.to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let served = Served::run(dir, &["--config", config.to_str().unwrap()]);
    assert!(served.complete().contains("200 OK"));
    let begin = Instant::now();
    // What failed is posted once more.
    let refused = next(&listener, "500 Internal Server Error");
    let notice = next(&listener, "200 OK");
    assert_eq!(refused, notice);
    for (key, value) in [
        ("alert", Value::from("asked")),
        ("state", "firing".into()),
        ("severity", "critical".into()),
        ("metric", "requests_per_second".into()),
        ("condition", "above".into()),
        ("threshold", 0.01.into()),
    ] {
        assert_eq!(notice[key], value, "{notice}");
    }
    assert!(notice["value"].as_f64().unwrap() > 0.01, "{notice}");
    // Nothing was asked since, but for what watches the service.
    assert_eq!(next(&listener, "204 No Content")["state"], "resolved");
    assert!(begin.elapsed() < PATIENCE);
    assert_eq!(served.get("/health").0, 200);
}

#[test]
fn what_is_wrong_is_named() {
    let (dir, path) = model();
    let config = dir.path().join("serve.toml");
    let bad = dir.path().join("bad.json");
    fs::write(&bad, "{}").unwrap();
    for (text, args, expected) in [
        ("alerts = 1", vec![], "expected [[alerts]]"),
        ("[[alerts]]\nmetric = \"speed\"\nabove = 1", vec![], "unknown metric \"speed\""),
        ("alert-webhook = \"ftp://x/\"", vec![], "expected http:// or https://"),
        ("watts = -1", vec![], "expected watts"),
        ("history-interval = 0", vec![], "--history-interval"),
        ("", vec!["--history", bad.to_str().unwrap()], "not a history"),
    ] {
        fs::write(&config, text).unwrap();
        let ran = Command::new(env!("CARGO_BIN_EXE_tritforge"))
            .args(["serve", path.to_str().unwrap(), "--config", config.to_str().unwrap()])
            .args(args)
            .output()
            .unwrap();
        let message = String::from_utf8(ran.stderr).unwrap();
        assert!(!ran.status.success() && message.contains(expected), "{text}: {message}");
    }
}
