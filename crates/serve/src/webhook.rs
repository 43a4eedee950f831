//! Where alerts are posted to, on a thread of its own, so that nothing waits for whoever listens there.

use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use axum::http::{Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy};

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
    sender: SyncSender<Notice>,
    /// Until [`Webhook::start`].
    receiver: Option<(Place, Receiver<Notice>)>,
}

/// An address, and what asks there.
#[derive(Debug)]
struct Place {
    url: String,
    /// Its host, as the log shows it: a path may be a secret.
    host: String,
    agent: Agent,
}

impl Webhook {
    /// The place of a URL, `http://` or `https://HOST[:PORT][/PATH]`. A server with TLS has a certificate of one of
    /// `authorities`, a file in PEM, or of one that Mozilla trusts if there is no file.
    ///
    /// # Errors
    /// If it is another kind of URL, the file cannot be read, or has no certificate in it.
    pub fn new(url: &str, authorities: Option<&Path>) -> Result<Self, String> {
        let expected = "expected http:// or https://HOST:PORT/PATH";
        let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split(['/', '?', '#']).next();
        if authority.is_some_and(|authority| authority.contains('@')) {
            // It is not shown: there may be a password in it.
            return Err(format!("the URL has a name or a password in it; {expected}"));
        }
        let shown = if url.contains('@') { "the URL".to_string() } else { format!("{url:?}") };
        let uri: Uri = url.parse().map_err(|e| format!("{shown}: {e}; {expected}"))?;
        let name = uri.host().unwrap_or_default();
        let port = uri.authority().and_then(|all| all.as_str().strip_prefix(name)).unwrap_or_default();
        let ported =
            port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
        if !matches!(uri.scheme_str(), Some("http" | "https")) || name.is_empty() || !ported {
            return Err(format!("{shown}: {expected}"));
        }
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let here = name == "localhost" || address.is_ok_and(|address| address.is_loopback());
        let mut tls = TlsConfig::builder();
        if let Some(file) = authorities {
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates(file)?));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            // What is on this machine is reached without one.
            .proxy(if here { None } else { Proxy::try_from_env() })
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            // A notice that is sent on would arrive as another kind of request.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("tritforge/", env!("CARGO_PKG_VERSION")))
            .build();
        let (sender, receiver) = sync_channel(WAITING);
        let host = authority.unwrap_or_default().to_string();
        let place = Place { url: url.to_string(), host, agent: config.into() };
        Ok(Self { sender, receiver: Some((place, receiver)) })
    }

    /// Starts the thread that posts, which ends with the process; to be called once.
    pub(crate) fn start(&mut self) {
        let Some((place, receiver)) = self.receiver.take() else { return };
        let host = place.host.clone();
        let posts = move || receiver.iter().for_each(|notice| place.deliver(&notice));
        if let Err(error) = std::thread::Builder::new().name("webhook".to_string()).spawn(posts) {
            log::warn!("webhook at {host}: no thread can be started: {error}; alerts are not posted");
        }
    }

    /// Has a notice posted, some time.
    pub(crate) fn send(&self, notice: Notice) {
        if self.sender.try_send(notice).is_err() {
            log::warn!("an alert is not posted: {WAITING} others wait for the webhook");
        }
    }
}

/// The certificates in a file.
fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let shown = file.display();
    let pem = std::fs::read(file)
        .map_err(|e| format!("{shown}: cannot read the authorities that the webhook trusts: {e}"))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item.map_err(|e| format!("{shown}: {e}; expected certificates in PEM"))? {
            PemItem::Certificate(certificate) => found.push(certificate),
            _ => return Err(format!("{shown}: found a private key; expected certificates in PEM")),
        }
    }
    if found.is_empty() {
        return Err(format!("{shown}: no certificate in it; expected certificates in PEM"));
    }
    Ok(found)
}

impl Place {
    /// Posts a notice, again if that fails.
    fn deliver(&self, notice: &Notice) {
        let host = &self.host;
        let Ok(body) = serde_json::to_string(notice) else { return };
        let mut waits = RETRIES.iter();
        while let Err(error) = self.post(&body) {
            let Some(wait) = waits.next() else {
                log::warn!("webhook at {host}: an alert cannot be posted: {error}; it is given up");
                return;
            };
            log::debug!("webhook at {host}: an alert cannot be posted: {error}; again in {wait} s");
            std::thread::sleep(Duration::from_secs(*wait));
        }
    }

    fn post(&self, body: &str) -> Result<(), String> {
        let request = self.agent.post(&self.url).header(header::CONTENT_TYPE, "application/json");
        let status = request.send(body).map_err(|e| e.to_string())?.status();
        if status.is_success() { Ok(()) } else { Err(format!("status {status}")) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;

    use rcgen::generate_simple_self_signed;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::*;

    #[test]
    fn places_are_urls_of_http() {
        for url in [
            "http://localhost:9000/alerts?x=1",
            "http://127.0.0.1",
            "http://[::1]:80/",
            "https://example.com/",
        ] {
            assert!(Webhook::new(url, None).is_ok(), "{url}");
        }
        for url in [
            "localhost:9000",
            "/alerts",
            "",
            "ftp://x/",
            "http://",
            "http://a b/",
            "http://x:port/",
            "http://x:99999/",
            "https://user:hunter2@x/",
            "https://user:hun/ter2@x/",
        ] {
            let message = Webhook::new(url, None).unwrap_err();
            assert!(message.contains("expected http:// or https://HOST:PORT/PATH"), "{url}: {message}");
            assert!(!message.contains("ter2"), "{message}");
        }
    }

    /// The first line of a request and its last of one connection with TLS; none if there was no handshake.
    fn answer(listener: &TcpListener, config: &Arc<ServerConfig>) -> Option<(String, String)> {
        let (stream, _) = listener.accept().unwrap();
        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        let mut first = String::new();
        reader.read_line(&mut first).ok()?;
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line).unwrap() > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        std::io::Read::read_exact(&mut reader, &mut body).unwrap();
        write!(reader.get_mut(), "HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        Some((first, String::from_utf8(body).unwrap()))
    }

    #[test]
    fn a_server_with_tls_is_one_that_the_file_of_authorities_knows() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let made = generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
        std::fs::write(&file, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let (listener, config) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(config));
        let url = format!("https://localhost:{}/alerts", listener.local_addr().unwrap().port());
        let server = std::thread::spawn(move || [(); 2].map(|()| answer(&listener, &config)));

        let known = Webhook::new(&url, Some(&file)).unwrap();
        known.receiver.unwrap().0.post("{\"alert\":1}").unwrap();
        let unknown = Webhook::new(&url, None).unwrap();
        assert!(unknown.receiver.unwrap().0.post("{}").unwrap_err().contains("certificate"));
        let [first, second] = server.join().unwrap();
        assert_eq!(first.unwrap(), ("POST /alerts HTTP/1.1\r\n".to_string(), "{\"alert\":1}".to_string()));
        assert_eq!(second, None);

        for (text, expected) in
            [("", "no certificate in it"), (&made.signing_key.serialize_pem(), "found a private key")]
        {
            std::fs::write(&file, text).unwrap();
            let message = Webhook::new(&url, Some(&file)).unwrap_err();
            assert!(message.contains("ca.pem") && message.contains(expected), "{message}");
        }
        let missing = dir.path().join("missing.pem");
        assert!(Webhook::new(&url, Some(&missing)).unwrap_err().contains("missing.pem"));
    }
}
