//! TLS with a certificate of its own: what is served is what is served without, and the files may change.

mod common;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::generate_simple_self_signed;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tritforge_infer::Finish;
use tritforge_serve::{Engine, Outcome, ServeOptions, Tls, router, serve};

/// A certificate of `localhost` and its key, as PEM.
fn pair() -> (String, String) {
    let made = generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Both in files.
fn files(certificate: &str, key: &str) -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("cert.pem"), dir.path().join("key.pem")];
    fs::write(&paths[0], certificate).unwrap();
    fs::write(&paths[1], key).unwrap();
    let [certificate, key] = paths;
    (dir, certificate, key)
}

async fn start(tls: Arc<Tls>) -> (SocketAddr, oneshot::Sender<()>) {
    let engine = Engine::new("tls", |_, on_text| {
        for word in ["one ", "two ", "three"] {
            let _ = on_text(word.into());
        }
        Ok(Outcome { finish: Finish::Eos, prompt_tokens: 1, completion_tokens: 3 })
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options =
        ServeOptions { tls: Some(tls), header_timeout: Duration::from_secs(1), ..ServeOptions::default() };
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        serve(listener, router(engine, &options), &options, stopped).await;
    });
    (address, stop)
}

/// A connection that trusts one certificate alone.
async fn connect(
    address: SocketAddr,
    trusted: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

/// The whole answer to a request on a connection, which ends as TLS says it must.
async fn ask(mut stream: TlsStream<TcpStream>, stream_it: bool) -> String {
    let body = format!(r#"{{"prompt": "a", "stream": {stream_it}}}"#);
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        common::COMPLETIONS,
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn both_versions_serve_whole_and_streamed_answers() {
    let (certificate, key) = pair();
    let (_dir, certificate_path, key_path) = files(&certificate, &key);
    let (address, _stop) = start(Arc::new(Tls::open(&certificate_path, &key_path).unwrap())).await;
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let stream = connect(address, &certificate, &[version]).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
        let answer = ask(stream, false).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("one two three"), "{answer}");
        let answer = ask(connect(address, &certificate, &[version]).await.unwrap(), true).await;
        assert!(answer.contains("three") && answer.contains("data: [DONE]"), "{answer}");
    }
    // Who does not know the certificate is not connected.
    assert!(connect(address, &pair().0, &[&TLS13]).await.is_err());
}

#[tokio::test]
async fn what_is_no_tls_or_never_comes_is_closed() {
    let (certificate, key) = pair();
    let (_dir, certificate_path, key_path) = files(&certificate, &key);
    let (address, _stop) = start(Arc::new(Tls::open(&certificate_path, &key_path).unwrap())).await;
    for sent in ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", ""] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The one who is silent is closed after the time that a request's head may take.
        let closed = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
        let _ = closed.expect("the connection is closed");
        assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    }
    let answer = ask(connect(address, &certificate, &[&TLS13]).await.unwrap(), false).await;
    assert!(answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let (first, key) = pair();
    let (_dir, certificate_path, key_path) = files(&first, &key);
    let tls = Arc::new(Tls::open(&certificate_path, &key_path).unwrap());
    let (address, _stop) = start(Arc::clone(&tls)).await;
    let open = connect(address, &first, &[&TLS13]).await.unwrap();
    let (second, key) = pair();
    fs::write(&certificate_path, &second).unwrap();
    // Half of a change is no change.
    assert!(tls.reload().unwrap_err().to_string().contains("does not belong"));
    assert!(connect(address, &second, &[&TLS13]).await.is_err());
    fs::write(&key_path, &key).unwrap();
    tls.reload().unwrap();
    assert!(connect(address, &first, &[&TLS13]).await.is_err());
    assert!(ask(connect(address, &second, &[&TLS13]).await.unwrap(), false).await.contains("200 OK"));
    assert!(ask(open, false).await.contains("200 OK"));
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let (certificate, key) = pair();
    let (other, _) = pair();
    let damaged = certificate.replacen("MII", "MIJ", 1);
    let not_base64 = certificate.replacen("MII", "!!!", 1);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (certificate, key, file, expected) in [
        (certificate.as_str(), "", "key.pem", "no private key"),
        ("", key.as_str(), "cert.pem", "no certificate"),
        (key.as_str(), key.as_str(), "cert.pem", "no certificate"),
        (certificate.as_str(), certificate.as_str(), "key.pem", "no private key"),
        (certificate.as_str(), encrypted, "key.pem", "encrypted"),
        (other.as_str(), key.as_str(), "key.pem", "does not belong to the certificate"),
        (damaged.as_str(), key.as_str(), "cert.pem", "damaged"),
        (not_base64.as_str(), key.as_str(), "cert.pem", "not a certificate in PEM"),
    ] {
        let (_dir, certificate, key) = files(certificate, key);
        let message = Tls::open(&certificate, &key).unwrap_err().to_string();
        assert!(message.contains(file) && message.contains(expected), "{expected}: {message}");
    }
    let (_dir, certificate, key) = files(&certificate, &key);
    let absent = key.with_file_name("absent.pem");
    for (certificate, key) in [(&absent, &key), (&certificate, &absent)] {
        let message = Tls::open(certificate, key).unwrap_err().to_string();
        assert!(message.contains("absent.pem") && message.contains("cannot read"), "{message}");
    }
}
