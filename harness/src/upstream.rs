//! Where the router sends requests: an HTTP/1.1 server over kept-alive connections, or the built-in echo.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::body::{self, QueueBody, Writer};
use crate::echo::Echo;
use crate::header_map::HeaderMap;

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_IDLE: usize = 128;

/// What a worker sends requests to.
#[derive(Clone)]
pub(crate) enum Upstream {
    Echo,
    Http(Pool),
}

/// Idle connections to one server.
#[derive(Clone)]
pub(crate) struct Pool {
    authority: Rc<str>,
    idle: Rc<RefCell<Vec<SendRequest<QueueBody>>>>,
}

/// Why there is no response, in Envoy's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Connect,
    ConnectTimeout,
    Terminated,
    /// The request cannot be written as HTTP/1.1.
    Request,
}

impl Failure {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Connect => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::Terminated => "connection termination",
            Self::Request => "protocol error",
        }
    }

    /// The body of the router's answer.
    pub(crate) fn message(self) -> String {
        format!("upstream connect error or disconnect/reset before headers. reset reason: {}", self.reason())
    }

    /// The response code details of the router's answer.
    pub(crate) fn details(self) -> String {
        format!("upstream_reset_before_response_started{{{}}}", self.reason().replace(' ', "_"))
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

type Sent = Result<(Response<Incoming>, SendRequest<QueueBody>), Failure>;

/// One request in flight.
pub(crate) enum Exchange {
    Echo {
        echo: Echo,
        complete: bool,
        answer: Option<Bytes>,
        headers_sent: bool,
    },
    Http {
        pool: Pool,
        writer: Writer,
        /// What content-length promises, and what has been sent.
        length: (Option<u64>, u64),
        sending: Option<Pin<Box<dyn Future<Output = Sent>>>>,
        response: Option<(Incoming, SendRequest<QueueBody>)>,
        started: Instant,
    },
}

impl Upstream {
    pub(crate) fn http(authority: &str) -> Self {
        Self::Http(Pool { authority: authority.into(), idle: Rc::default() })
    }

    /// Sends a request's headers; `end` when nothing follows.
    pub(crate) fn start(&self, headers: &HeaderMap, end: bool) -> Result<Exchange, Failure> {
        let pool = match self {
            Self::Echo => {
                let echo = Echo::new(headers.clone());
                return Ok(Exchange::Echo { echo, complete: end, answer: None, headers_sent: false });
            }
            Self::Http(pool) => pool.clone(),
        };
        let length = (headers.text("content-length").and_then(|length| length.parse().ok()), 0);
        let (writer, body) = body::queue(end);
        let request = request(headers, body, end).ok_or(Failure::Request)?;
        let sending = Box::pin(pool.clone().send(request));
        Ok(Exchange::Http { pool, writer, length, sending: Some(sending), response: None, started: Instant::now() })
    }
}

fn request(headers: &HeaderMap, body: QueueBody, end: bool) -> Option<Request<QueueBody>> {
    let mut request = Request::new(body);
    *request.method_mut() = headers.text(":method")?.parse().ok()?;
    *request.uri_mut() = headers.text(":path")?.parse::<Uri>().ok()?;
    *request.headers_mut() = headers.to_http().ok()?;
    if let Some(authority) = headers.get(b":authority") {
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_bytes(authority).ok()?);
    }
    // Envoy's codec says so for every method that could have had a body.
    let bodiless = ["GET", "HEAD", "DELETE", "CONNECT", "TRACE"].contains(&request.method().as_str());
    if end && !bodiless && !request.headers().contains_key(http::header::CONTENT_LENGTH) {
        request.headers_mut().insert(http::header::CONTENT_LENGTH, http::HeaderValue::from_static("0"));
    }
    Some(request)
}

impl Pool {
    async fn send(self, mut request: Request<QueueBody>) -> Sent {
        loop {
            let idle = self.idle.borrow_mut().pop();
            let Some(mut sender) = idle else { break };
            if sender.is_closed() || sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                // The server closed the connection before it took the request: try the next one.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failure::Terminated),
                },
            }
        }
        let mut sender = self.connect().await?;
        match sender.try_send_request(request).await {
            Ok(response) => Ok((response, sender)),
            Err(_) => Err(Failure::Terminated),
        }
    }

    async fn connect(&self) -> Result<SendRequest<QueueBody>, Failure> {
        let connecting = TcpStream::connect(&*self.authority);
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Err(_) => return Err(Failure::ConnectTimeout),
            Ok(Err(_)) => return Err(Failure::Connect),
            Ok(Ok(stream)) => stream,
        };
        // Latency only; a socket that refuses it still works.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Connect)?;
        tokio::task::spawn_local(async move {
            // Its failure reaches whoever waits for the response.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn keep(&self, sender: SendRequest<QueueBody>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE && !sender.is_closed() {
            idle.push(sender);
        }
    }
}

impl Exchange {
    pub(crate) fn data(&mut self, bytes: Bytes, end: bool) {
        match self {
            Self::Echo { echo, complete, .. } => {
                echo.data(&bytes);
                *complete |= end;
            }
            Self::Http { writer, length, .. } => {
                length.1 += bytes.len() as u64;
                writer.push((!bytes.is_empty()).then(|| Frame::data(bytes)), end);
            }
        }
    }

    /// What content-length promised, and what would be sent if the body ended after `more` bytes, when they differ.
    /// Envoy sends it so and corrupts or hangs the connection.
    pub(crate) fn wrong_length(&self, more: usize) -> Option<(u64, u64)> {
        match self {
            Self::Http { length: (Some(promised), sent), .. } if *promised != sent + more as u64 => {
                Some((*promised, sent + more as u64))
            }
            _ => None,
        }
    }

    pub(crate) fn trailers(&mut self, trailers: HeaderMap) {
        match self {
            Self::Echo { echo, complete, .. } => {
                echo.trailers(trailers);
                *complete = true;
            }
            // Trailers that cannot be written are left out; the body is still complete.
            Self::Http { writer, .. } => writer.push(trailers.to_http().ok().map(Frame::trailers), true),
        }
    }

    /// Ready when more of the request can be taken.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Echo { .. } => Poll::Ready(()),
            Self::Http { writer, .. } => writer.poll_room(cx),
        }
    }

    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match self {
            Self::Echo { complete: false, .. } => Poll::Pending,
            Self::Echo { echo, headers_sent: headers_sent @ false, answer, .. } => {
                *headers_sent = true;
                let body = echo.answer();
                let mut headers = HeaderMap::default();
                for (name, value) in [
                    (":status", "200"),
                    ("content-type", "application/json"),
                    ("content-length", &body.len().to_string()),
                ] {
                    // Three short headers fit any map.
                    let _ = headers.add(name.as_bytes(), value.as_bytes());
                }
                *answer = Some(body);
                Poll::Ready(Event::Headers { headers, end: echo.is_head() })
            }
            Self::Echo { answer, complete, .. } => Poll::Ready(match answer.take() {
                Some(body) => Event::Data(body),
                None => {
                    // Nothing comes after the end.
                    *complete = false;
                    Event::End
                }
            }),
            Self::Http { sending: Some(sending), response, started, .. } => {
                let sent = ready!(sending.as_mut().poll(cx));
                let (received, sender) = match sent {
                    Ok(received) => received,
                    Err(failure) => return Poll::Ready(Event::Failed(failure)),
                };
                let elapsed = started.elapsed().as_millis();
                let (parts, body) = received.into_parts();
                let end = body.is_end_stream();
                *response = Some((body, sender));
                let event = match response_headers(&parts, elapsed) {
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
                    Some(Err(_)) => return Poll::Ready(Event::Failed(Failure::Terminated)),
                    Some(Ok(frame)) => frame,
                };
                match frame.into_data() {
                    Ok(bytes) => Poll::Ready(Event::Data(bytes)),
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
            && let Some((_, sender)) = response.take()
            && writer.ended()
        {
            pool.keep(sender);
        }
    }
}

pub(crate) fn response_headers(parts: &http::response::Parts, elapsed_ms: u128) -> Option<HeaderMap> {
    let mut headers = HeaderMap::default();
    headers.add(b":status", parts.status.as_str().as_bytes()).ok()?;
    headers.extend_from_http(&parts.headers).ok()?;
    headers.replace(b"x-envoy-upstream-service-time", elapsed_ms.to_string().as_bytes()).ok()?;
    Some(headers)
}
