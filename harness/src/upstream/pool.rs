//! Connections to one server: kept-alive ones for HTTP/1.1, one that all requests share for HTTP/2.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, Uri, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::address::{Address, Scheme};
use super::tls::Tls;
use super::{Failure, Peer};
use crate::abi::LogLevel;
use crate::body::QueueBody;
use crate::log::Sink;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_IDLE: usize = 128;
const MAX_HEADER_BYTES: usize = 64 << 10;
/// What a server may send ahead of its reader, for one stream and for a connection.
const WINDOWS: (u32, u32) = (1 << 20, 4 << 20);

/// Runs hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// What all pools of a server dial with.
#[derive(Clone)]
pub(crate) struct Dialer {
    /// There when any of them is `https://`.
    pub(crate) tls: Option<Tls>,
    pub(crate) sink: Arc<dyn Sink>,
}

/// Connections to one server.
#[derive(Clone)]
pub(crate) struct Pool(Rc<Inner>);

struct Inner {
    address: Address,
    dialer: Dialer,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Option<(http2::SendRequest<QueueBody>, Peer)>>,
    /// Held while a connection is opened that others could share.
    opening: Mutex<()>,
    /// The server has chosen HTTP/1.1, so that connections are not shared.
    http1: Cell<bool>,
}

/// An HTTP/1.1 connection and whose it is.
pub(crate) struct Idle {
    sender: http1::SendRequest<QueueBody>,
    peer: Peer,
}

enum Connection {
    Http1(Idle),
    Http2(http2::SendRequest<QueueBody>, Peer),
}

/// A response's head, its body to come, and the connection to give back after it if it is not shared.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(super) peer: Peer,
    pub(super) idle: Option<Idle>,
}

impl Pool {
    pub(crate) fn new(address: Address, dialer: Dialer) -> Self {
        Self(Rc::new(Inner {
            address,
            dialer,
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Mutex::default(),
            http1: Cell::new(false),
        }))
    }

    /// Sends a request, whose target is a path alone. A kept connection that turns out closed costs nothing; one that
    /// was just opened is not tried again.
    pub(crate) async fn send(
        self,
        mut request: Request<QueueBody>,
        authority: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        loop {
            let (connection, fresh) = match self.kept().await {
                Some(kept) => (kept, false),
                None => (self.open().await?, true),
            };
            let (sent, peer, idle) = match connection {
                Connection::Http1(mut idle) => {
                    self.0.for_http1(&mut request, authority.as_ref())?;
                    (idle.sender.try_send_request(request).await, idle.peer, Some(idle))
                }
                Connection::Http2(mut sender, peer) => {
                    self.0.for_http2(&mut request, authority.as_ref())?;
                    (sender.try_send_request(request).await, peer, None)
                }
            };
            match sent {
                Ok(response) => return Ok(Answer { response, peer, idle }),
                Err(error) => request = unsent(error, fresh)?,
            }
        }
    }

    async fn kept(&self) -> Option<Connection> {
        loop {
            let idle = self.0.idle.borrow_mut().pop();
            let Some(mut idle) = idle else { break };
            if !idle.sender.is_closed() && idle.sender.ready().await.is_ok() {
                return Some(Connection::Http1(idle));
            }
        }
        self.0.shared()
    }

    async fn open(&self) -> Result<Connection, Failure> {
        let inner = &*self.0;
        let sharable =
            inner.address.scheme == Scheme::H2c || (inner.address.scheme == Scheme::Https && !inner.http1.get());
        let _one_at_a_time = if sharable { Some(inner.opening.lock().await) } else { None };
        // Whoever held it may have opened what all can use.
        if sharable && let Some(shared) = inner.shared() {
            return Ok(shared);
        }
        tokio::time::timeout(CONNECT_TIMEOUT, inner.connect()).await.unwrap_or(Err(Failure::ConnectTimeout))
    }

    pub(super) fn keep(&self, connection: Idle) {
        let mut idle = self.0.idle.borrow_mut();
        if idle.len() < MAX_IDLE && !connection.sender.is_closed() {
            idle.push(connection);
        }
    }
}

impl Inner {
    fn shared(&self) -> Option<Connection> {
        let mut shared = self.shared.borrow_mut();
        if shared.as_ref().is_some_and(|(sender, _)| sender.is_closed()) {
            *shared = None;
        }
        shared.clone().map(|(sender, peer)| Connection::Http2(sender, peer))
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let stream = dial(&self.address).await?;
        let remote = stream.peer_addr().map_err(|error| Failure::Connect(error.raw_os_error()))?;
        let peer = Peer { remote, local: stream.local_addr().ok() };
        match (self.address.scheme, &self.dialer.tls) {
            (Scheme::Https, None) => Err(Failure::Tls),
            (Scheme::Https, Some(tls)) => {
                let (stream, http2) = tls.connect(&self.address.host, stream).await.map_err(|error| {
                    let line = format!("upstream https://{}: {error}", self.address.authority);
                    self.dialer.sink.log(LogLevel::Warn, &line);
                    Failure::Tls
                })?;
                self.http1.set(!http2);
                if http2 { self.http2(stream, peer).await } else { http1(stream, peer).await }
            }
            (Scheme::H2c, _) => self.http2(stream, peer).await,
            (Scheme::Http | Scheme::Tcp, _) => http1(stream, peer).await,
        }
    }

    async fn http2(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        peer: Peer,
    ) -> Result<Connection, Failure> {
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Failure::Connect(None))?;
        tokio::task::spawn_local(async move {
            // Its failure reaches whoever waits for a response.
            let _ = connection.await;
        });
        *self.shared.borrow_mut() = Some((sender.clone(), peer));
        Ok(Connection::Http2(sender, peer))
    }

    #[expect(clippy::unused_self, reason = "the counterpart of for_http2")]
    fn for_http1(&self, request: &mut Request<QueueBody>, authority: Option<&HeaderValue>) -> Result<(), Failure> {
        *request.version_mut() = Version::HTTP_11;
        // As Envoy does unless it is told otherwise, and Istio does not tell it.
        request.body().drop_trailers();
        if let Some(target) = request.uri().path_and_query() {
            *request.uri_mut() = target.as_str().parse().map_err(|_| Failure::Request)?;
        }
        if let Some(authority) = authority {
            request.headers_mut().insert(HOST, authority.clone());
        }
        Ok(())
    }

    fn for_http2(&self, request: &mut Request<QueueBody>, authority: Option<&HeaderValue>) -> Result<(), Failure> {
        *request.version_mut() = Version::HTTP_2;
        let authority = authority.map_or(self.address.authority.as_bytes(), HeaderValue::as_bytes);
        let scheme = if self.address.scheme == Scheme::Https { "https" } else { "http" };
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build();
        *request.uri_mut() = uri.map_err(|_| Failure::Request)?;
        request.headers_mut().remove(HOST);
        Ok(())
    }
}

/// Opens a connection without anything on it.
pub(crate) async fn dial(address: &Address) -> Result<TcpStream, Failure> {
    let connecting = TcpStream::connect(&*address.authority);
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Err(_) => return Err(Failure::ConnectTimeout),
        // What the system has a number for has failed to connect; the rest, to find an address.
        Ok(Err(error)) if error.raw_os_error().is_none() => return Err(Failure::Unresolved),
        Ok(Err(error)) => return Err(Failure::Connect(error.raw_os_error())),
        Ok(Ok(stream)) => stream,
    };
    // Latency only; a socket that refuses it still works.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, peer: Peer) -> Result<Connection, Failure> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Connect(None))?;
    tokio::task::spawn_local(async move {
        // Its failure reaches whoever waits for the response.
        let _ = connection.await;
    });
    Ok(Connection::Http1(Idle { sender, peer }))
}

/// The request, when the server closed the connection before it took it and another one can be tried.
fn unsent(mut error: TrySendError<Request<QueueBody>>, fresh: bool) -> Result<Request<QueueBody>, Failure> {
    let failure = failure(error.error());
    match error.take_message() {
        Some(request) if !fresh => Ok(request),
        _ => Err(failure),
    }
}

/// What became of a response that broke off: HTTP/1.1 without its end is no HTTP to Envoy.
pub(crate) fn broken(error: &hyper::Error) -> Failure {
    match failure(error) {
        Failure::Terminated => Failure::Request,
        other => other,
    }
}

/// What became of a connection or stream that had no response yet.
pub(super) fn failure(error: &hyper::Error) -> Failure {
    let http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    match http2.map(|error| (error.is_reset(), error.reason())) {
        Some((true, Some(h2::Reason::REFUSED_STREAM))) => Failure::Refused,
        Some((true, _)) => Failure::Reset,
        _ if error.is_parse() => Failure::Request,
        _ => Failure::Terminated,
    }
}
