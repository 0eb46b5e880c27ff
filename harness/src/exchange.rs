//! Drives one request: between the client's connection, the stream in the filter chain, and the upstream.
//!
//! The driver is a future that lives first in hyper's service call and then in the response's body, so that a client
//! that goes away drops it, which ends the stream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame as HttpFrame, SizeHint};
use hyper::{Request, Response, StatusCode, Version};
use mesh::model::ProxyKind;

use crate::admission::{self, Edge, Rejection, RequestIds, admit};
use crate::builtin::remote;
use crate::header_map::HeaderMap;
use crate::log::{RequestSummary, Sink};
use crate::nature::Nature;
use crate::network;
use crate::stream::state::{Direction, LocalReply, ProxyFacts, SERVER, StreamState, VIA_UPSTREAM};
use crate::stream::{Frame, Stream, flags};
use crate::trace;
use crate::upstream::{Event as UpstreamEvent, Exchange, Failure, Upstream};
use crate::worker::WorkerFilter;

/// What all requests of a worker share.
pub(crate) struct Site {
    pub(crate) filters: Vec<WorkerFilter>,
    /// Filters that see connections, before HTTP or TCP.
    pub(crate) network: Vec<network::Filter>,
    pub(crate) terminal: network::Terminal,
    pub(crate) upstream: Upstream,
    pub(crate) proxy: Arc<ProxyFacts>,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) idle_timeout: Duration,
    pub(crate) request_ids: RequestIds,
    /// What the time is.
    pub(crate) nature: Arc<dyn Nature>,
    /// The identity that every client is taken to have proven with mTLS.
    pub(crate) peer: Option<Arc<str>>,
    /// What of streams is recorded, when anything is.
    pub(crate) trace: Option<Rc<trace::Start>>,
}

impl Site {
    /// What records a stream that begins, if it is to be recorded.
    pub(crate) fn recording(&self, state: &StreamState) -> Option<Box<trace::Recording>> {
        self.trace.as_ref().map(|start| trace::Recording::new(start.clone(), state))
    }

    /// No network filter is in front of HTTP.
    pub(crate) fn is_http_alone(&self) -> bool {
        self.network.is_empty() && matches!(self.terminal, network::Terminal::Http)
    }
}

/// One client connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) source: Option<SocketAddr>,
    pub(crate) destination: Option<SocketAddr>,
    /// What the network filters in front of HTTP keep of it.
    pub(crate) state: Option<Rc<RefCell<StreamState>>>,
}

impl Connection {
    /// The same for what is behind network filters.
    pub(crate) fn within(self, state: &Rc<RefCell<StreamState>>) -> Self {
        Self { state: Some(state.clone()), ..self }
    }
}

/// The stream was reset: the connection is to be closed.
#[derive(Debug, thiserror::Error)]
#[error("stream reset")]
pub(crate) struct StreamReset;

/// What the driver has produced and hyper has not taken.
#[derive(Default)]
struct Outlet {
    head: Option<Response<()>>,
    frames: VecDeque<HttpFrame<Bytes>>,
    reset: bool,
    ended: bool,
    /// There is no body at all, or some of it has been taken.
    known: bool,
}

type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// The response's body: the driver goes on in it.
pub(crate) struct ExchangeBody {
    driver: Option<Driver>,
    outlet: Rc<RefCell<Outlet>>,
    /// Hyper has been given the time to write what it has before it hears that the stream is reset.
    flushed: bool,
}

/// Serves one request.
pub(crate) async fn serve<B: Body<Data = Bytes> + Unpin + 'static>(
    site: Rc<Site>,
    connection: Connection,
    request: Request<B>,
) -> Result<Response<ExchangeBody>, StreamReset> {
    let outlet = Rc::new(RefCell::new(Outlet::default()));
    let mut driver: Driver = Box::pin(drive(site, connection, request, outlet.clone()));
    let head = poll_fn(|cx| {
        let ended = driver.as_mut().poll(cx).is_ready();
        let mut out = outlet.borrow_mut();
        match out.head.take() {
            Some(head) => Poll::Ready(Some((head, ended))),
            None if ended || out.reset => Poll::Ready(None),
            None => Poll::Pending,
        }
    });
    let (head, ended) = head.await.ok_or(StreamReset)?;
    Ok(head.map(|()| ExchangeBody { driver: (!ended).then_some(driver), outlet, flushed: false }))
}

impl Body for ExchangeBody {
    type Data = Bytes;
    type Error = StreamReset;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<HttpFrame<Bytes>, StreamReset>>> {
        loop {
            let taken = self.outlet.borrow_mut().frames.pop_front();
            if let Some(frame) = taken {
                self.outlet.borrow_mut().known = true;
                // Hyper drops a body once it has as much as content-length says: see whether the end follows first.
                if self.outlet.borrow().is_drained() {
                    self.advance(cx);
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            let (reset, ended) = (self.outlet.borrow().reset, self.outlet.borrow().ended);
            if reset || (self.driver.is_none() && !ended) {
                if !std::mem::replace(&mut self.flushed, true) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                return Poll::Ready(Some(Err(StreamReset)));
            }
            if ended {
                return Poll::Ready(None);
            }
            self.advance(cx);
            if self.driver.is_some() && self.outlet.borrow().is_drained() {
                return Poll::Pending;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let out = self.outlet.borrow();
        // A body that turns out to have no content is one all the same, and Envoy writes it so.
        out.known && out.ended && out.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

impl ExchangeBody {
    fn advance(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
    }
}

impl Outlet {
    fn is_drained(&self) -> bool {
        self.frames.is_empty() && self.head.is_none() && !self.reset && !self.ended
    }
}

enum Event {
    Client(Option<HttpFrame<Bytes>>),
    /// The request broke off.
    Gone,
    Upstream(UpstreamEvent),
    Woken,
    Idle,
}

impl Event {
    fn of_client<E>(frame: Option<Result<HttpFrame<Bytes>, E>>) -> Self {
        frame.transpose().map_or(Self::Gone, Self::Client)
    }

    /// The upstream begins to answer, or never will.
    fn is_answer(&self) -> bool {
        matches!(self, Self::Upstream(UpstreamEvent::Headers { .. } | UpstreamEvent::Failed(_)))
    }
}

async fn drive<B: Body<Data = Bytes> + Unpin>(
    site: Rc<Site>,
    connection: Connection,
    request: Request<B>,
    outlet: Rc<RefCell<Outlet>>,
) {
    let (parts, mut body) = request.into_parts();
    let http2 = parts.version == Version::HTTP_2;
    let mut request_ended = body.is_end_stream();
    let gateway = site.proxy.kind == Some(ProxyKind::Gateway);
    let edge = Edge { gateway, peer: connection.source.map(|source| source.ip()) };
    let (headers, rejected) = admit(&parts, edge, &site.request_ids);
    let mut state = StreamState::new(site.proxy.clone(), &connection);
    state.protocol = admission::protocol(parts.version);
    state.started_at = site.nature.now();
    state.remote = remote::address(gateway, connection.source, &headers);
    state.peer.clone_from(&site.peer);
    state.request_headers = headers;
    state.admitted = true;
    state.trace = site.recording(&state);
    // A request that is merely for nothing that there is leaves the connection as it was.
    let refused = rejected.as_ref().is_some_and(|rejection| !rejection.is_not_found());
    if let Some(Rejection::Reset(details)) = rejected {
        outlet.borrow_mut().reset = true;
        return report_unseen(&site, &state, details);
    }
    let mut stream = Stream::new(state, &site.filters, site.sink.clone());
    // Envoy says so before the filters have their say.
    let mut arrived = None;
    if !http2 && !request_ended && expects_continue(&parts) {
        arrived = ask_for(&mut body).await;
    }
    match rejected {
        Some(Rejection::Reply(reply) | Rejection::Early(reply)) => stream.send_local_reply(None, reply),
        _ => stream.request_headers(request_ended),
    }
    let mut exchange: Option<Exchange> = None;
    // What has ended is not asked again: a filter may hold the response long after that.
    let mut upstream_ended = false;
    // An answer that waits for what the client has sent already, and how much of that.
    let (mut held, mut catching_up) = (None, 16);
    loop {
        stream.process_pending();
        while let Some(frame) = stream.next_upstream() {
            to_upstream(&site, &mut stream, &mut exchange, frame);
        }
        while let Some(frame) = stream.next_downstream() {
            to_client(&stream, &outlet, frame, http2, refused || !request_ended);
        }
        if stream.response_ended() {
            stream.finish();
            return;
        }
        // Hyper polls the driver again once it has taken what is in the outlet.
        poll_fn(|_| if outlet.borrow().is_drained() { Poll::Ready(()) } else { Poll::Pending }).await;
        let mut event = match arrived.take().or_else(|| held.take()) {
            Some(event) => event,
            None => next_event(&site, &stream, &mut body, request_ended, &mut exchange, upstream_ended).await,
        };
        // Envoy reads what has come of a request before it looks at the upstream; whether that was all of it decides
        // about the connection.
        if !http2 && !request_ended && event.is_answer() && stream.wants_data(Direction::Request) && catching_up > 0 {
            catching_up -= 1;
            if let Some(more) = ask_for(&mut body).await {
                held = Some(std::mem::replace(&mut event, more));
            }
        }
        match event {
            Event::Woken => {}
            Event::Idle => {
                let status = if request_ended { 504 } else { 408 };
                stream.state_mut().flags |= flags::STREAM_IDLE_TIMEOUT;
                stream.send_local_reply(None, LocalReply::new(status, "stream timeout", "stream_idle_timeout"));
            }
            Event::Client(None) => {
                request_ended = true;
                stream.request_data(Bytes::new(), true);
            }
            Event::Client(Some(frame)) => match frame.into_data() {
                Ok(bytes) => {
                    // HTTP/2 can say in the same frame that it is the last, HTTP/1.1 says so after it.
                    request_ended = http2 && body.is_end_stream();
                    stream.request_data(bytes, request_ended);
                }
                // On HTTP/1.1 Envoy drops trailers unless it is told otherwise, and Istio does not tell it.
                Err(_) if !http2 => {
                    request_ended = true;
                    stream.request_data(Bytes::new(), true);
                }
                Err(frame) => {
                    request_ended = true;
                    match trailers_of(frame, parts.version) {
                        Ok(trailers) => stream.request_trailers(trailers),
                        Err(Rejection::Reply(reply) | Rejection::Early(reply)) => stream.send_local_reply(None, reply),
                        Err(Rejection::Reset(details)) => stream.reset(details),
                    }
                }
            },
            // The client is gone: what it cannot receive is not computed.
            Event::Gone => return,
            Event::Upstream(event) => {
                upstream_ended = matches!(
                    event,
                    UpstreamEvent::Headers { end: true, .. }
                        | UpstreamEvent::Trailers(_)
                        | UpstreamEvent::End
                        | UpstreamEvent::Failed(_)
                );
                from_upstream(&mut stream, exchange.as_mut(), event);
            }
        }
    }
}

fn trailers_of(frame: HttpFrame<Bytes>, version: Version) -> Result<HeaderMap, Rejection> {
    let mut trailers = HeaderMap::default();
    match frame.into_trailers().map(|received| trailers.extend_from_http(&received)) {
        Ok(Err(_)) => Err(admission::too_large(version)),
        _ => Ok(trailers),
    }
}

fn expects_continue(parts: &http::request::Parts) -> bool {
    parts.headers.get(http::header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Wants the body and lets the connection have its turn, in which hyper says `100 Continue`. What arrived meanwhile.
async fn ask_for<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Option<Event> {
    let mut asked = false;
    poll_fn(|cx| {
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            return Poll::Ready(Some(Event::of_client(frame)));
        }
        if std::mem::replace(&mut asked, true) {
            return Poll::Ready(None);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

async fn next_event<B: Body<Data = Bytes> + Unpin>(
    site: &Site,
    stream: &Stream,
    body: &mut B,
    request_ended: bool,
    exchange: &mut Option<Exchange>,
    upstream_ended: bool,
) -> Event {
    let idle = tokio::time::sleep(site.idle_timeout);
    let mut idle = std::pin::pin!(idle);
    poll_fn(|cx| {
        {
            let mut state = stream.state_mut();
            if std::mem::take(&mut state.woken) {
                return Poll::Ready(Event::Woken);
            }
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
        }
        if let Some(exchange) = exchange
            && !upstream_ended
            && stream.wants_data(Direction::Response)
            && let Poll::Ready(event) = exchange.poll_event(cx)
        {
            return Poll::Ready(Event::Upstream(event));
        }
        let room = exchange.as_ref().is_none_or(|exchange| exchange.poll_room(cx).is_ready());
        if !request_ended
            && !stream.request_stopped()
            && room
            && stream.wants_data(Direction::Request)
            && let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx)
        {
            return Poll::Ready(Event::of_client(frame));
        }
        idle.as_mut().poll(cx).map(|()| Event::Idle)
    })
    .await
}

fn to_upstream(site: &Site, stream: &mut Stream, exchange: &mut Option<Exchange>, frame: Frame) {
    match frame {
        Frame::Headers { end } => {
            let started = site.upstream.start(&stream.state().request_headers, end);
            match started {
                Ok(started) => *exchange = Some(started),
                Err(failure) => upstream_failed(stream, failure),
            }
        }
        Frame::Data { bytes, end } => {
            let wrong = exchange.as_ref().filter(|_| end).and_then(|exchange| exchange.wrong_length(bytes.len()));
            if let Some((promised, sent)) = wrong {
                stream.wrong_length(Direction::Request, promised, sent);
                if sent < promised {
                    *exchange = None;
                    return upstream_failed(stream, Failure::Request);
                }
            }
            if let Some(exchange) = exchange {
                exchange.data(bytes, end);
            }
        }
        Frame::Trailers(trailers) => {
            if let Some(exchange) = exchange {
                exchange.trailers(trailers);
            }
        }
        Frame::Reset => {}
    }
}

/// A request that no filter hears of.
fn report_unseen(site: &Site, state: &StreamState, details: &str) {
    site.sink.request(&RequestSummary {
        method: state.method(),
        path: state.path(),
        status: None,
        answered_by: None,
        details,
        duration: state.started.elapsed(),
    });
    if let Some(mut recording) = site.recording(state) {
        recording.reset(details);
        let outcome = trace::Outcome { kind: trace::Subject::Request, status: None, answered_by: None };
        site.sink.trace(&recording.finish(state, &outcome));
    }
}

fn from_upstream(stream: &mut Stream, exchange: Option<&mut Exchange>, event: UpstreamEvent) {
    match event {
        UpstreamEvent::Headers { headers, end } => {
            let details = exchange.as_ref().map_or(VIA_UPSTREAM, |exchange| exchange.details());
            stream.state_mut().upstream = exchange.and_then(|exchange| exchange.peer());
            stream.response_headers(headers, details, end);
        }
        UpstreamEvent::Data(bytes) => {
            let end = exchange.is_some_and(Exchange::ended_with_data);
            stream.response_data(bytes, end);
        }
        UpstreamEvent::Trailers(trailers) => stream.response_trailers(trailers),
        UpstreamEvent::End => stream.response_data(Bytes::new(), true),
        UpstreamEvent::Failed(failure) => upstream_failed(stream, failure),
    }
}

fn upstream_failed(stream: &mut Stream, failure: Failure) {
    let begun = stream.state().response_headers.is_some();
    {
        let mut state = stream.state_mut();
        state.flags |= failure.flags();
        state.transport_failure = failure.transport();
    }
    if begun {
        stream.reset(&failure.details(true));
    } else {
        stream.send_local_reply(None, LocalReply::new(503, failure.message(), failure.details(false)));
    }
}

/// `close`: the answer ends the connection, since the request was refused or has not come to its end.
fn to_client(stream: &Stream, outlet: &RefCell<Outlet>, frame: Frame, http2: bool, close: bool) {
    let mut out = outlet.borrow_mut();
    match frame {
        Frame::Headers { end } => match head(&stream.state(), close && !http2) {
            Some(head) => {
                out.head = Some(head);
                (out.ended, out.known) = (end, end);
            }
            None => out.reset = true,
        },
        Frame::Data { bytes, end } => {
            if !bytes.is_empty() {
                out.frames.push_back(HttpFrame::data(bytes));
            }
            out.ended |= end;
        }
        Frame::Trailers(trailers) => {
            // On HTTP/1.1 Envoy drops them, as it does those of requests.
            if http2 && let Ok(trailers) = trailers.to_http() {
                out.frames.push_back(HttpFrame::trailers(trailers));
            }
            out.ended = true;
        }
        Frame::Reset => out.reset = true,
    }
}

fn head(state: &StreamState, close: bool) -> Option<Response<()>> {
    let headers = state.response_headers.as_ref()?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(state.status()?).ok()?;
    *response.headers_mut() = headers.to_http().ok()?;
    let headers = response.headers_mut();
    headers.insert(http::header::SERVER, http::HeaderValue::from_static(SERVER));
    let phrase = state.reason_phrase.clone().and_then(|phrase| hyper::ext::ReasonPhrase::try_from(phrase).ok());
    if close || state.drain {
        headers.insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    if let Some(phrase) = phrase {
        response.extensions_mut().insert(phrase);
    }
    Some(response)
}
