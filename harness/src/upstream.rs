//! Where the router sends requests: an HTTP server, or the built-in echo.

mod address;
mod pool;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::{Request, Uri};

pub(crate) use address::{Address, Scheme};
pub(crate) use pool::{Dialer, Pool, broken, dial};
pub(crate) use tls::Tls;

use crate::body::{self, QueueBody, Writer};
use crate::echo::{Echo, Fixed};
use crate::header_map::HeaderMap;
use crate::offline;
use crate::stream::flags;
use crate::stream::state::VIA_UPSTREAM;
use pool::{Answer, Idle};
use tokio::time::Instant;

/// The two ends of a connection to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
}

/// What a worker sends requests to.
#[derive(Clone)]
pub(crate) enum Upstream {
    Echo,
    Fixed(Fixed),
    Http(Pool),
    /// In this process.
    Scripted(Rc<dyn offline::Servers>),
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The system's error number, where there is one.
    Connect(Option<i32>),
    /// The server's name has no address.
    Unresolved,
    ConnectTimeout,
    /// The server's certificate was not accepted, or it speaks no TLS.
    Tls,
    Terminated,
    /// The server reset the HTTP/2 stream.
    Reset,
    /// The server has not looked at the request.
    Refused,
    /// The request cannot be written as HTTP, or the answer is none.
    Request,
}

impl Failure {
    /// Envoy's reset reason.
    fn reason(self) -> &'static str {
        match self {
            Self::Connect(_) | Self::Unresolved | Self::Tls => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::Terminated => "connection termination",
            Self::Reset => "remote reset",
            Self::Refused => "remote refused stream reset",
            Self::Request => "protocol error",
        }
    }

    /// The property `upstream.transport_failure_reason`; empty when there is nothing to say.
    pub(crate) fn transport(self) -> String {
        match self {
            Self::Connect(Some(number)) => {
                let error = std::io::Error::from_raw_os_error(number).to_string();
                let text = error.split(" (os error").next().unwrap_or_default();
                format!("delayed connect error: {text}")
            }
            Self::Tls => "TLS_error".to_owned(),
            _ => String::new(),
        }
    }

    /// The body of the router's answer.
    pub(crate) fn message(self) -> String {
        if self == Self::Unresolved {
            return "no healthy upstream".to_owned();
        }
        let reason = self.reason();
        // What the system says is for the details only.
        let transport = if self == Self::Tls { ", transport failure reason: TLS_error" } else { "" };
        format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}{transport}")
    }

    /// The response code details of the router's answer, or of the end that a response comes to which has `begun`.
    pub(crate) fn details(self, begun: bool) -> String {
        if self == Self::Unresolved {
            return "no_healthy_upstream".to_owned();
        }
        let when = if begun { "after" } else { "before" };
        let transport = self.transport();
        let separator = if transport.is_empty() { "" } else { "|" };
        format!("upstream_reset_{when}_response_started{{{}{separator}{transport}}}", self.reason()).replace(' ', "_")
    }

    /// The response's flags.
    pub(crate) fn flags(self) -> u64 {
        match self {
            Self::Connect(_) | Self::ConnectTimeout | Self::Tls => flags::UPSTREAM_CONNECTION_FAILURE,
            Self::Unresolved => flags::NO_HEALTHY_UPSTREAM,
            Self::Terminated => flags::UPSTREAM_CONNECTION_TERMINATION,
            Self::Reset | Self::Refused => flags::UPSTREAM_REMOTE_RESET,
            Self::Request => flags::UPSTREAM_PROTOCOL_ERROR,
        }
    }
}

/// What comes back.
pub(crate) enum Event {
    Headers { headers: HeaderMap, end: bool },
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    Failed(Failure),
}

type Sending = Pin<Box<dyn Future<Output = Result<Answer, Failure>>>>;

/// One request in flight.
pub(crate) enum Exchange {
    Echo {
        echo: Echo,
        complete: bool,
        answer: Option<Bytes>,
        headers_sent: bool,
        ended: bool,
    },
    Scripted(Box<offline::upstream::Exchange>),
    Http {
        pool: Pool,
        writer: Writer,
        /// What content-length promises, and what has been sent.
        length: (Option<u64>, u64),
        sending: Option<Sending>,
        response: Option<(Incoming, Option<Idle>)>,
        peer: Option<Peer>,
        started: Instant,
    },
}

impl Upstream {
    pub(crate) fn new(address: Address, dialer: Dialer) -> Self {
        Self::Http(Pool::new(address, dialer))
    }

    /// Sends a request's headers; `end` when nothing follows.
    pub(crate) fn start(&self, headers: &HeaderMap, end: bool) -> Result<Exchange, Failure> {
        let pool = match self {
            Self::Echo | Self::Fixed(_) => {
                let fixed = if let Self::Fixed(fixed) = self { Some(fixed.clone()) } else { None };
                let echo = Echo::new(headers.clone(), fixed);
                return Ok(Exchange::Echo { echo, complete: end, answer: None, headers_sent: false, ended: false });
            }
            Self::Scripted(servers) => {
                let exchange = offline::upstream::Exchange::start(servers.clone(), headers, end);
                return exchange.map(Box::new).map(Exchange::Scripted).ok_or(Failure::Request);
            }
            Self::Http(pool) => pool.clone(),
        };
        let length = (headers.text("content-length").and_then(|length| length.parse().ok()), 0);
        let (writer, body) = body::queue(end);
        let request = request(headers, body, end).ok_or(Failure::Request)?;
        let authority = match headers.get(b":authority") {
            Some(authority) => Some(HeaderValue::from_bytes(authority).map_err(|_| Failure::Request)?),
            None => None,
        };
        let sending: Sending = Box::pin(pool.clone().send(request, authority));
        let sending = Some(sending);
        Ok(Exchange::Http { pool, writer, length, sending, response: None, peer: None, started: Instant::now() })
    }
}

fn request(headers: &HeaderMap, body: QueueBody, end: bool) -> Option<Request<QueueBody>> {
    let mut request = Request::new(body);
    *request.method_mut() = headers.text(":method")?.parse().ok()?;
    *request.uri_mut() = headers.text(":path")?.parse::<Uri>().ok()?;
    *request.headers_mut() = headers.to_http().ok()?;
    // Envoy's codec says so for every method that could have had a body.
    let bodiless = ["GET", "HEAD", "DELETE", "CONNECT", "TRACE"].contains(&request.method().as_str());
    if end && !bodiless && !request.headers().contains_key(http::header::CONTENT_LENGTH) {
        request.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Some(request)
}

impl Exchange {
    pub(crate) fn data(&mut self, bytes: Bytes, end: bool) {
        match self {
            Self::Echo { echo, complete, .. } => {
                echo.data(&bytes);
                *complete |= end;
            }
            Self::Scripted(exchange) => exchange.data(&bytes, end),
            Self::Http { writer, length, .. } => {
                length.1 += bytes.len() as u64;
                writer.push((!bytes.is_empty()).then(|| Frame::data(bytes)), end);
            }
        }
    }

    /// What content-length promised, and what would be sent if the body ended after `more` bytes, when they differ.
    /// Envoy sends it so and corrupts or hangs the connection.
    pub(crate) fn wrong_length(&self, more: usize) -> Option<(u64, u64)> {
        let (promised, sent) = match self {
            Self::Echo { .. } => return None,
            Self::Http { length, .. } => *length,
            Self::Scripted(exchange) => exchange.length(),
        };
        let sent = sent + more as u64;
        promised.filter(|promised| *promised != sent).map(|promised| (promised, sent))
    }

    pub(crate) fn trailers(&mut self, trailers: HeaderMap) {
        match self {
            Self::Echo { echo, complete, .. } => {
                echo.trailers(trailers);
                *complete = true;
            }
            Self::Scripted(exchange) => exchange.trailers(&trailers),
            // Trailers that cannot be written are left out; the body is still complete.
            Self::Http { writer, .. } => writer.push(trailers.to_http().ok().map(Frame::trailers), true),
        }
    }

    /// Envoy's response code details of its answer.
    pub(crate) fn details(&self) -> &'static str {
        match self {
            Self::Echo { echo, .. } => echo.details(),
            Self::Http { .. } | Self::Scripted(_) => VIA_UPSTREAM,
        }
    }

    /// Whom the response came from, once it has.
    pub(crate) fn peer(&self) -> Option<Peer> {
        match self {
            Self::Echo { .. } | Self::Scripted(_) => None,
            Self::Http { peer, .. } => *peer,
        }
    }

    /// Whether the data just received was the last, as HTTP/2 can say in the same frame. HTTP/1.1 says so after it.
    pub(crate) fn ended_with_data(&mut self) -> bool {
        let ended = matches!(self, Self::Http { response: Some((body, None)), .. } if body.is_end_stream());
        if ended {
            self.release();
        }
        ended
    }

    /// Ready when more of the request can be taken.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Echo { .. } | Self::Scripted(_) => Poll::Ready(()),
            Self::Http { writer, .. } => writer.poll_room(cx),
        }
    }

    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match self {
            Self::Scripted(exchange) => exchange.poll_event(cx),
            Self::Echo { complete: false, .. } => Poll::Pending,
            Self::Echo { echo, headers_sent: headers_sent @ false, answer, .. } => {
                *headers_sent = true;
                let body = echo.answer();
                let mut headers = HeaderMap::default();
                // A response without content has neither type nor length (RFC 9110, section 8.6).
                let has_content = !body.is_empty() && ![204, 304].contains(&echo.status());
                let (status, length) = (echo.status().to_string(), body.len().to_string());
                let all = [(":status", &*status), ("content-type", echo.content_type()), ("content-length", &length)];
                for (name, value) in all.into_iter().take(if has_content { 3 } else { 1 }) {
                    // Three short headers fit any map.
                    let _ = headers.add(name.as_bytes(), value.as_bytes());
                }
                headers.vouch();
                let end = echo.is_head() || !has_content;
                *answer = Some(body);
                Poll::Ready(Event::Headers { headers, end })
            }
            Self::Echo { ended: true, .. } => Poll::Pending,
            Self::Echo { answer, ended, .. } => Poll::Ready(answer.take().map_or_else(
                || {
                    *ended = true;
                    Event::End
                },
                Event::Data,
            )),
            Self::Http { sending: Some(sending), response, peer, started, writer, .. } => {
                let sent = ready!(sending.as_mut().poll(cx));
                let answer = match sent {
                    Ok(answer) => answer,
                    Err(failure) => return Poll::Ready(Event::Failed(failure)),
                };
                let took = writer.ended().then(|| started.elapsed());
                *peer = Some(answer.peer);
                let (parts, body) = answer.response.into_parts();
                let end = body.is_end_stream();
                *response = Some((body, answer.idle));
                let event = match response_headers(&parts, took) {
                    Some(headers) => Event::Headers { headers, end },
                    None => Event::Failed(Failure::Request),
                };
                if let Self::Http { sending, .. } = self {
                    *sending = None;
                }
                if end {
                    self.release();
                }
                Poll::Ready(event)
            }
            Self::Http { response: Some((body, _)), .. } => {
                // Known from content-length before the connection has said so.
                if body.is_end_stream() {
                    self.release();
                    return Poll::Ready(Event::End);
                }
                let frame = match ready!(Pin::new(body).poll_frame(cx)) {
                    None => {
                        self.release();
                        return Poll::Ready(Event::End);
                    }
                    Some(Err(error)) => return Poll::Ready(Event::Failed(broken(&error))),
                    Some(Ok(frame)) => frame,
                };
                match frame.into_data() {
                    Ok(bytes) => Poll::Ready(Event::Data(bytes)),
                    // On HTTP/1.1, where a connection is to be given back, Envoy drops trailers.
                    Err(_) if matches!(self, Self::Http { response: Some((_, Some(_))), .. }) => {
                        self.release();
                        Poll::Ready(Event::End)
                    }
                    Err(frame) => {
                        let mut trailers = HeaderMap::default();
                        let fits = match frame.into_trailers() {
                            Ok(received) => trailers.extend_from_http(&received).is_ok(),
                            Err(_) => true,
                        };
                        self.release();
                        Poll::Ready(if fits { Event::Trailers(trailers) } else { Event::Failed(Failure::Request) })
                    }
                }
            }
            Self::Http { response: None, .. } => Poll::Pending,
        }
    }

    /// Gives the connection back once both directions are complete.
    fn release(&mut self) {
        if let Self::Http { pool, writer, response, .. } = self
            && let Some((_, Some(idle))) = response.take()
            && writer.ended()
        {
            pool.keep(idle);
        }
    }
}

/// A response's headers; `took` is the time since the request, when all of it has been sent.
pub(crate) fn response_headers(parts: &http::response::Parts, took: Option<Duration>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::default();
    headers.add(b":status", parts.status.as_str().as_bytes()).ok()?;
    // As it was sent: what belongs to the connection is left out when the response is written.
    for (name, value) in parts.headers.iter().filter(|(name, _)| *name != "keep-alive") {
        headers.add(name.as_str().as_bytes(), value.as_bytes()).ok()?;
    }
    if let Some(took) = took {
        headers.replace(b"x-envoy-upstream-service-time", took.as_millis().to_string().as_bytes()).ok()?;
    }
    headers.vouch();
    Some(headers)
}
