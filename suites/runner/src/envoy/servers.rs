//! Servers of a chain suite on loopback sockets, which answer what the test's stage says.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use harness::offline::{Answer, Message, Reply};
use http::{HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

/// So long after half of a body the connection is closed: what was written is on its way then.
const HALFWAY: Duration = Duration::from_millis(50);

/// What belongs to a connection and not to a request.
const HOP_BY_HOP: &[&str] = &["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Starts a server. What it is asked is answered by `answer`; none: the connection is closed.
pub(crate) async fn start(answer: impl Fn(&Message) -> Option<Reply> + 'static) -> Result<SocketAddr, String> {
    let failed = |error: io::Error| format!("failed to listen on the loopback address: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let answer = Rc::new(answer);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // What is written is there at once.
            let _ = stream.set_nodelay(true);
            let answer = answer.clone();
            let service = service_fn(move |request| one(answer.clone(), request));
            let serving = hyper::server::conn::http1::Builder::new()
                .auto_date_header(false)
                .serve_connection(TokioIo::new(stream), service);
            tokio::task::spawn_local(async move {
                // It ends with an error where a test wants it closed.
                let _ = serving.await;
            });
        }
    });
    Ok(address)
}

/// Starts a server of whatever is spoken: `accept` takes its connections.
pub(crate) async fn accept(accept: impl Fn(TcpStream) + 'static) -> Result<SocketAddr, String> {
    let failed = |error: io::Error| format!("failed to listen on the loopback address: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // What is written is there at once.
            let _ = stream.set_nodelay(true);
            accept(stream);
        }
    });
    Ok(address)
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> Result<SocketAddr, String> {
    let failed = |error: io::Error| format!("failed to find a free port: {error}");
    TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).map_err(failed)
}

async fn one<A: Fn(&Message) -> Option<Reply>>(
    answer: Rc<A>,
    request: http::Request<Incoming>,
) -> Result<http::Response<Sent>, io::Error> {
    let closed = || io::Error::from(io::ErrorKind::ConnectionAborted);
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| closed())?;
    let trailers = body.trailers().map(pairs).unwrap_or_default();
    let text = |bytes: &[u8]| bytes.to_vec();
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let host = parts.headers.get(http::header::HOST).map(|host| host.as_bytes().to_vec()).unwrap_or_default();
    let mut headers = vec![
        (text(b":method"), text(parts.method.as_str().as_bytes())),
        (text(b":path"), text(path.as_bytes())),
        (text(b":authority"), host),
    ];
    headers.extend(pairs(&parts.headers).into_iter().filter(|(name, _)| name != b"host"));
    let message = Message { headers, body: body.to_bytes().to_vec(), trailers };
    let reply = answer(&message).ok_or_else(closed)?;
    tokio::time::sleep(reply.delay).await;
    let (message, whole) = match reply.answer {
        // Where nobody is there is no server.
        Answer::Closed | Answer::Refused => return Err(closed()),
        Answer::Whole(message) => (message, true),
        Answer::BrokenOff(message) => (message, false),
    };
    let mut response = http::Response::builder();
    for (name, value) in &message.headers {
        if name == b":status" {
            response = response.status(value.as_slice());
        } else if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            response = response.header(name, value);
        }
    }
    response.body(Sent::new(message.body, whole)).map_err(|_| closed())
}

pub(super) fn pairs(map: &http::HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
    let kept = map.iter().filter(|(name, _)| !HOP_BY_HOP.contains(&name.as_str()));
    kept.map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// A body, or half of one.
struct Sent {
    data: Option<Bytes>,
    length: u64,
    then_close: Option<Pin<Box<Sleep>>>,
}

impl Sent {
    fn new(mut body: Vec<u8>, whole: bool) -> Self {
        let length = body.len() as u64;
        if !whole {
            body.truncate(body.len() / 2);
        }
        let then_close = (!whole).then(|| Box::pin(tokio::time::sleep(HALFWAY)));
        Self { data: Some(Bytes::from(body)).filter(|data| !data.is_empty()), length, then_close }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match &mut self.then_close {
            None => Poll::Ready(None),
            Some(sleep) => {
                ready!(sleep.as_mut().poll(cx));
                Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionAborted))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.then_close.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
