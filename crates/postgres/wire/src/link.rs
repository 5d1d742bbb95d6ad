//! Moves bytes between a socket and the core. All state is in `self`, so every future may be
//! dropped at any time.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::{Error, Protocol};

/// Room for a read: a piece of WAL is at most 128 KiB.
const READ_BYTES: usize = 256 << 10;
const READ_BYTES_MIN: usize = 32 << 10;

/// A connection of any kind.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

pub(crate) struct Link {
    socket: Box<dyn Socket>,
    /// Bytes lie in the TLS layer.
    unflushed: bool,
}

impl Link {
    pub(crate) fn new(socket: Box<dyn Socket>) -> Self {
        Self { socket, unflushed: false }
    }

    /// Waits for bytes of the server; meanwhile sends what is to be sent.
    pub(crate) async fn receive(&mut self, protocol: &mut Protocol) -> Result<(), Error> {
        let mut failed = None;
        poll_fn(|context| {
            if failed.is_none()
                && let Poll::Ready(Err(error)) = self.poll_send(context, protocol)
            {
                failed = Some(error);
            }
            // A server that hangs up has often said why: that is read first.
            match self.poll_read(context, protocol) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(protocol.closed())),
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(lost(error))),
                Poll::Pending => match failed.take() {
                    Some(error) => Poll::Ready(Err(lost(error))),
                    None => Poll::Pending,
                },
            }
        })
        .await
    }

    /// Sends what the socket takes without waiting.
    pub(crate) async fn send_now(&mut self, protocol: &mut Protocol) -> Result<(), Error> {
        poll_fn(|context| match self.poll_send(context, protocol) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(lost(error))),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        })
        .await
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        protocol: &mut Protocol,
    ) -> Poll<io::Result<()>> {
        loop {
            let bytes = protocol.outbox();
            if bytes.is_empty() {
                break;
            }
            let sent = ready!(Pin::new(&mut self.socket).poll_write(context, bytes))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            protocol.sent(sent);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        protocol: &mut Protocol,
    ) -> Poll<io::Result<usize>> {
        let inbox = protocol.inbox();
        if inbox.capacity() - inbox.len() < READ_BYTES_MIN {
            inbox.reserve(READ_BYTES);
        }
        pin!(self.socket.read_buf(inbox)).poll(context)
    }
}

fn lost(source: io::Error) -> Error {
    Error::Io { step: "the connection was lost", source }
}
