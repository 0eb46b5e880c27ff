//! A connection in memory that can be reset, as a TCP connection can.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// One end. Dropping it ends both directions; what the other end has not read stays readable.
#[derive(Debug)]
pub struct Pipe {
    inner: DuplexStream,
    is_reset: Rc<Cell<bool>>,
}

impl Pipe {
    /// Two ends, with room for so many bytes on the way.
    pub fn pair(size: usize) -> (Self, Self) {
        let (one, other) = tokio::io::duplex(size);
        let is_reset = Rc::new(Cell::new(false));
        (Self { inner: one, is_reset: is_reset.clone() }, Self { inner: other, is_reset })
    }

    /// Resets the connection: the other end reads an error once it has read what was sent.
    pub fn reset(self) {
        self.is_reset.set(true);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let is_end = buffer.filled().len() == before && buffer.remaining() > 0;
        Poll::Ready(if is_end && self.is_reset.get() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) })
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
