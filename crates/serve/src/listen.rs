//! The accept loop: a bounded number of connections, each with time limits, and an end that comes within its
//! deadline.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::middleware::AddExtension;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::Layer as _;

use crate::ServeOptions;
use crate::connection::{Socket, client_left, linger};
use crate::guard::ClientAddress;

/// Bytes that a connection buffers of a request that is not read yet, its headers included.
const READ_BUFFER: usize = 32 << 10;
/// Open files that connections leave to everything else.
#[cfg(unix)]
const SPARE_FILES: usize = 28;
/// Connections over the limit that may be told so at once; further ones are closed without a word.
const REFUSALS: usize = 8;

const REFUSAL: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n",
    "connection: close\r\ncontent-length: 129\r\n\r\n",
    r#"{"error":{"message":"too many connections are open: try again","#,
    r#""type":"server_error","param":null,"code":"too_many_connections"}}"#,
);

/// Connections that may be open: as asked for, and as the limit on open files allows.
fn most_connections(asked: usize) -> usize {
    #[cfg(unix)]
    {
        if let Some(files) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            let files = usize::try_from(files).unwrap_or(usize::MAX);
            return asked.min(files.saturating_sub(SPARE_FILES)).max(1);
        }
    }
    asked.max(1)
}

/// Serves until `shutdown` resolves; then running requests have [`ServeOptions::shutdown_timeout`] to end.
/// Connections that are still open after that are closed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: &ServeOptions,
    shutdown: impl Future<Output = ()>,
) {
    let places =
        Arc::new(Semaphore::new(most_connections(options.max_connections).min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let encrypted = options.tls.is_some();
    let (closing, closed) = watch::channel(());
    let mut connections = JoinSet::new();
    // First `/ready` says that the service drains, so that whoever balances load sends nothing more; then no
    // more connections are accepted.
    let ended = async {
        shutdown.await;
        options.draining.store(true, Ordering::Relaxed);
        tokio::time::sleep(options.drain_delay).await;
    };
    let mut ended = std::pin::pin!(ended);
    loop {
        let accepted = tokio::select! {
            () = &mut ended => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // The client has left already, or no file is free: others may end meanwhile.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let router = Extension(ClientAddress(peer.ip())).layer(router.clone());
            let connection = connection(stream, router, options, closed.clone());
            connections.spawn(async move {
                connection.await;
                drop(place);
            });
        } else if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
            connections.spawn(async move {
                // Without a handshake there is nothing to say.
                if !encrypted {
                    let _ = stream.try_write(REFUSAL.as_bytes());
                }
                linger(&stream).await;
                drop(place);
            });
        }
    }
    drop(listener);
    drop(closing);
    let drained = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(options.shutdown_timeout, drained).await;
    connections.abort_all();
}

/// One connection, from its first byte to its last.
fn connection(
    stream: TcpStream,
    router: AddExtension<Router, ClientAddress>,
    options: &ServeOptions,
    closed: watch::Receiver<()>,
) -> impl Future<Output = ()> + use<> {
    let (header_timeout, write_timeout) = (options.header_timeout, options.write_timeout);
    let tls = options.tls.clone();
    async move {
        // Tokens are small and wanted at once.
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let socket = Socket::new(Arc::clone(&stream), write_timeout);
        let ended = match tls {
            None => requests(socket, &stream, router, header_timeout, closed).await,
            Some(tls) => {
                let handshake = tokio::time::timeout(header_timeout, tls.acceptor().accept(socket));
                let accepted = tokio::select! {
                    accepted = handshake => accepted,
                    () = client_left(&stream) => return,
                };
                match accepted {
                    Ok(Ok(secured)) => requests(secured, &stream, router, header_timeout, closed).await,
                    // Whoever speaks something else, or too slowly.
                    Ok(Err(_)) | Err(_) => true,
                }
            }
        };
        if ended {
            linger(&stream).await;
        }
    }
}

/// Answers the requests of a connection. False if its client has left.
async fn requests(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    stream: &TcpStream,
    router: AddExtension<Router, ClientAddress>,
    header_timeout: Duration,
    mut closed: watch::Receiver<()>,
) -> bool {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(READ_BUFFER)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let mut open = true;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return true,
            () = client_left(stream) => return false,
            _ = closed.changed(), if open => {
                open = false;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_is_a_whole_answer() {
        let (head, body) = REFUSAL.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len()))
                || head.ends_with(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
