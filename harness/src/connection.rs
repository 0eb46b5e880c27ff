//! One client connection: which HTTP it speaks, its limits, its end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::Either;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::exchange::{Connection, StreamReset, serve};
use crate::page::Page;
use crate::reload::Current;

/// What every HTTP/2 connection begins with, and no HTTP/1.1 request does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_BUFFERED: usize = 128 << 10;
/// Above Envoy's limit of 100, so that it is answered as Envoy answers it and not by the codec.
const MAX_PARSED_HEADERS: usize = 256;
const MAX_HTTP2_HEADER_BYTES: u32 = 128 << 10;
/// Envoy's advice for proxies that face strangers.
const MAX_CONCURRENT_STREAMS: u32 = 100;
/// Streams that a client opened and reset before they were looked at; one more and the connection is closed.
const MAX_RESET_STREAMS: usize = 20;
/// Streams that were reset for the client's errors; one more and the connection is closed.
const MAX_ERROR_RESETS: usize = 100;
/// How much of uploads is taken ahead of the filters, for one stream and for a connection.
const WINDOWS: (u32, u32) = (256 << 10, 1 << 20);
const MAX_SEND_BUFFER: usize = 256 << 10;

/// Serves HTTP/1.1 or HTTP/2 until the client or, after the requests in flight, a shutdown ends it.
pub(crate) async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    current: Current,
    page: Option<Page>,
    connection: Connection,
    stream: S,
    mut on_shutdown: watch::Receiver<bool>,
) {
    // It is the same for all chains of a server.
    let idle_timeout = current.get().idle_timeout;
    let mut io = ClientIo::new(stream, idle_timeout);
    let detected = tokio::select! {
        detected = tokio::time::timeout(HEADER_READ_TIMEOUT, io.detect()) => detected,
        _ = on_shutdown.wait_for(|shutdown| *shutdown) => return,
    };
    let Ok(Ok(is_http2)) = detected else { return };
    let service = service_fn(|request| {
        let page = page.as_ref().and_then(|page| page.answer(connection.source, &request));
        let served = page.is_none().then(|| serve(current.get(), connection.clone(), request));
        async move {
            match (served, page) {
                (Some(served), _) => served.await.map(|response| response.map(Either::Left)),
                (None, Some(page)) => Ok(page.map(Either::Right)),
                (None, None) => Err(StreamReset),
            }
        }
    });
    // A connection's failure is the client's to see; the streams' own ends have been reported.
    if is_http2 {
        let mut builder = http2::Builder::new(StreamExecutor { patience: idle_timeout * 2 });
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
            .max_local_error_reset_streams(MAX_ERROR_RESETS)
            .max_header_list_size(MAX_HTTP2_HEADER_BYTES)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_send_buf_size(MAX_SEND_BUFFER);
        let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            _ = served.as_mut() => return,
            _ = on_shutdown.wait_for(|shutdown| *shutdown) => served.as_mut().graceful_shutdown(),
        }
        let _ = served.await;
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_headers(MAX_PARSED_HEADERS)
            .max_buf_size(MAX_BUFFERED);
        let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            _ = served.as_mut() => return,
            _ = on_shutdown.wait_for(|shutdown| *shutdown) => served.as_mut().graceful_shutdown(),
        }
        let _ = served.await;
    }
}

/// Runs HTTP/2 streams, and resets those whose client takes nothing of what is ready for it.
///
/// A stream that waits for anything else is polled when its own idle timeout is over, which is sooner.
#[derive(Debug, Clone, Copy)]
struct StreamExecutor {
    patience: Duration,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let (patience, mut stream) = (self.patience, Box::pin(stream));
        let mut stalled = Box::pin(tokio::time::sleep(patience));
        tokio::task::spawn_local(std::future::poll_fn(move |cx| {
            let expired = stalled.is_elapsed();
            if stream.as_mut().poll(cx).is_ready() || expired {
                return Poll::Ready(());
            }
            stalled.as_mut().reset(Instant::now() + patience);
            // Registers the task; a timer that was just set is not over.
            stalled.as_mut().poll(cx)
        }));
    }
}

/// The client's bytes, those that were read to see what they are included, and an end to waiting for a client that
/// does not read.
struct ClientIo<S> {
    stream: S,
    peeked: [u8; PREFACE.len()],
    /// Which of `peeked` have been read from the client and not yet by the codec.
    unread: std::ops::Range<usize>,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientIo<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self { stream, peeked: [0; PREFACE.len()], unread: 0..0, patience, stalled: None }
    }

    /// Whether the client begins as HTTP/2 does; reads no more than it takes to tell.
    async fn detect(&mut self) -> io::Result<bool> {
        while self.unread.end < PREFACE.len() && PREFACE.starts_with(&self.peeked[self.unread.clone()]) {
            let read = self.stream.read(&mut self.peeked[self.unread.end..]).await?;
            if read == 0 {
                break;
            }
            self.unread.end += read;
        }
        Ok(self.peeked[self.unread.clone()] == *PREFACE)
    }

    /// Fails when writing has made no progress for as long as a stream may idle.
    fn watched<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.unread.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let now = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.peeked[this.unread.start..this.unread.start + now]);
        this.unread.start += now;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watched(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watched(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
