//! A client's connection: a socket whose writes have a time limit, and that notices when the client has left.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How often a connection is asked whether its client has left.
const PRESENCE_CHECK: Duration = Duration::from_millis(200);
/// How long a closed connection goes on reading, so that the client can read an answer that came before its
/// request ended.
const LINGER: Duration = Duration::from_secs(1);

/// A shared socket. A write that makes no progress for a while fails, so that a client that does not read
/// cannot hold an answer for ever.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    write_timeout: Duration,
    /// Running while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(crate) fn new(stream: Arc<TcpStream>, write_timeout: Duration) -> Self {
        Self { stream, write_timeout, stalled: None }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(buf.initialize_unfilled()) {
                Ok(n) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if this.stream.poll_write_ready(cx)?.is_pending() {
                let timeout = this.write_timeout;
                let stalled = this.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(stalled.as_mut().poll_unpin(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            match this.stream.try_write(bytes) {
                Ok(n) => {
                    this.stalled = None;
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A client that is gone needs no goodbye.
        let _ = shut_down(&self.stream);
        Poll::Ready(Ok(()))
    }
}

fn shut_down(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write)
}

/// Resolves when the client has closed its side, even if bytes that it sent before have not been read: a
/// client that pipelines requests leaves some. Twice in a row, so that a request that came whole just before
/// the end is answered first if that takes no time.
pub(crate) async fn client_left(stream: &TcpStream) {
    let mut seen = false;
    loop {
        tokio::time::sleep_until(Instant::now() + PRESENCE_CHECK).await;
        let closed = match stream.ready(Interest::READABLE).now_or_never() {
            Some(Ok(readiness)) => readiness.is_read_closed(),
            Some(Err(_)) => true,
            None => false,
        };
        if seen && closed {
            return;
        }
        seen = closed;
    }
}

/// Closes a connection so that what was written arrives: closing a socket with unread bytes would reset it,
/// and the client might never see the answer.
pub(crate) async fn linger(stream: &TcpStream) {
    let _ = shut_down(stream);
    let drain = async {
        let mut bytes = [0; 4096];
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut bytes) {
                Ok(1..) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}
