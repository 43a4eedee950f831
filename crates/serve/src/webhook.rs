//! Where alerts are posted to: plain HTTP, on a task of its own, so that nothing waits for whoever listens there.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::alerts::Notice;

/// Notices that may wait; further ones are lost, which the log says.
const WAITING: usize = 64;
/// Time that one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Seconds to wait before each further attempt.
const RETRIES: [u64; 4] = [1, 4, 16, 60];

/// A place to post to.
#[derive(Debug)]
pub struct Webhook {
    sender: mpsc::Sender<Notice>,
    /// Until [`Webhook::start`].
    receiver: Option<(Uri, mpsc::Receiver<Notice>)>,
}

impl Webhook {
    /// The place of a URL, `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// If it is another kind of URL.
    pub fn new(url: &str) -> Result<Self, String> {
        let expected = "expected http://HOST:PORT/PATH; for https put a proxy on this machine in between";
        let uri: Uri = url.parse().map_err(|e| format!("{url:?}: {e}; {expected}"))?;
        let named = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) || named {
            return Err(format!("{url:?}: {expected}"));
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        Ok(Self { sender, receiver: Some((uri, receiver)) })
    }

    /// Starts the task that posts; to be called once, within a runtime.
    pub(crate) fn start(&mut self) {
        if let Some((uri, mut receiver)) = self.receiver.take() {
            tokio::spawn(async move {
                while let Some(notice) = receiver.recv().await {
                    deliver(&uri, &notice).await;
                }
            });
        }
    }

    /// Has a notice posted, some time.
    pub(crate) fn send(&self, notice: Notice) {
        if self.sender.try_send(notice).is_err() {
            log::warn!("an alert is not posted: {WAITING} others wait for the webhook");
        }
    }
}

/// Posts a notice, again if that fails.
async fn deliver(uri: &Uri, notice: &Notice) {
    let Ok(body) = serde_json::to_string(notice) else { return };
    let mut waits = RETRIES.iter();
    loop {
        let error = match tokio::time::timeout(TIMEOUT, post(uri, body.clone())).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
        };
        let Some(wait) = waits.next() else {
            log::warn!("{uri}: an alert cannot be posted: {error}; it is given up");
            return;
        };
        log::debug!("{uri}: an alert cannot be posted: {error}; again in {wait} s");
        tokio::time::sleep(Duration::from_secs(*wait)).await;
    }
}

async fn post(uri: &Uri, body: String) -> Result<(), String> {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let stream =
        TcpStream::connect((address, uri.port_u16().unwrap_or(80))).await.map_err(|e| e.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, uri.authority().map_or(host, |authority| authority.as_str()))
        .header(header::USER_AGENT, concat!("tritforge/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Body::from(body))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string());
    connection.abort();
    let status = response?.status();
    if status.is_success() { Ok(()) } else { Err(format!("status {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_is_a_place() {
        for url in ["http://localhost:9000/alerts?x=1", "http://127.0.0.1", "http://[::1]:80/"] {
            assert!(Webhook::new(url).is_ok(), "{url}");
        }
        for url in [
            "https://example.com/",
            "localhost:9000",
            "/alerts",
            "",
            "ftp://x/",
            "http://",
            "http://a b/",
            "http://user:word@x/",
        ] {
            let message = Webhook::new(url).unwrap_err();
            assert!(message.contains("expected http://HOST:PORT/PATH"), "{url}: {message}");
        }
    }
}
