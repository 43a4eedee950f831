//! TLS 1.2 and 1.3 by rustls, with a certificate and a key from files that are read again when they change.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys, ServerConfig};

use crate::reload;

/// Bytes of a file at most.
const LONGEST_FILE: u64 = 1 << 20;

/// A certificate or a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct TlsError {
    /// The file.
    path: PathBuf,
    /// What was found and expected.
    message: String,
}

/// What connections are encrypted with.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// Reads a certificate, with those between it and its root, and its key, both as PEM.
    ///
    /// # Errors
    /// If one of them cannot be read, is something else, or does not belong to the other.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let current = Arc::new(Current(RwLock::new(Arc::new(read(certificate, key, &provider)?))));
        let wrong = |error: Error| TlsError { path: certificate.to_path_buf(), message: error.to_string() };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { certificate: certificate.to_path_buf(), key: key.to_path_buf(), current, acceptor })
    }

    /// Reads both files again. Connections that are open stay.
    ///
    /// # Errors
    /// As [`Self::open`]; both stay as they were then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = read(&self.certificate, &self.key, self.acceptor.config().crypto_provider())?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Reads the files again whenever one changes, or the process gets SIGHUP. Never returns.
    pub(crate) async fn watch(self: Arc<Self>) {
        let paths = vec![self.certificate.clone(), self.key.clone()];
        let reload = move || self.reload().map_err(|e| e.to_string());
        reload::watch(paths, "the certificate and its key", reload).await;
    }
}

fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = bytes(certificate)?;
    let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| wrong(certificate, format!("not a certificate in PEM: {e}")))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "no certificate; expected PEM (-----BEGIN CERTIFICATE-----)"));
    }
    let text = bytes(key)?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        PemError::NoItemsFound if text.windows(9).any(|part| part == b"ENCRYPTED") => wrong(
            key,
            "the private key is encrypted; expected one without a password (openssl pkey -in KEY -out NEW)",
        ),
        PemError::NoItemsFound => wrong(key, "no private key; expected PEM (-----BEGIN PRIVATE KEY-----)"),
        error => wrong(key, format!("not a private key in PEM: {error}")),
    })?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            wrong(key, format!("the key does not belong to the certificate {}", certificate.display()))
        }
        Error::InvalidCertificate(error) => {
            wrong(certificate, format!("the certificate is damaged: {error:?}"))
        }
        error => wrong(key, format!("the key cannot be used: {error}")),
    })
}

fn wrong(path: &Path, message: impl Into<String>) -> TlsError {
    TlsError { path: path.to_path_buf(), message: message.into() }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    let cannot = |error: std::io::Error| wrong(path, format!("cannot read it: {error}"));
    let length = std::fs::metadata(path).map_err(cannot)?.len();
    if length > LONGEST_FILE {
        return Err(wrong(path, format!("{length} bytes; expected at most {LONGEST_FILE}")));
    }
    std::fs::read(path).map_err(cannot)
}
