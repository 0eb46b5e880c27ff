//! The trace page's server side: what there is to show, kept within bounds, and the viewers that follow it.
//!
//! The newest traces are kept in a ring. A viewer has a place in it and no queue of its own: one that is slow finds
//! that some are gone, and nobody waits for it. The page is for this machine only, and only under a name of this
//! machine: what another site's script makes a browser ask for (DNS rebinding) is refused.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::future::Future as _;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};

use crate::trace::{Trace, json as trace_json};

pub use page::PATH;

/// Traces that are kept, and how much of memory they may take together and each.
const MOST_TRACES: usize = 300;
const MOST_BYTES: usize = 32 << 20;
const LARGEST_TRACE: usize = 2 << 20;
/// Viewers at a time.
const MOST_VIEWERS: usize = 32;
/// A connection whose other end has gone silently is noticed when this is written.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What the page shows. A clone is the same one.
#[derive(Clone)]
pub struct Page(Arc<Mutex<Shown>>);

struct Shown {
    /// Tells this server from another one at the same address.
    boot: u64,
    /// The number of the first trace of the ring.
    first: u64,
    traces: VecDeque<Bytes>,
    bytes: usize,
    /// What is known by name, as an event, each with the version at which it changed.
    known: BTreeMap<&'static str, (u64, Bytes)>,
    version: u64,
    /// Viewers, and who of them waits.
    viewers: HashMap<u64, Option<Waker>>,
    next_viewer: u64,
    closed: bool,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

impl Page {
    /// A page with nothing on it.
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let boot = u64::try_from(since.as_micros()).unwrap_or_default();
        Self(Arc::new(Mutex::new(Shown {
            boot,
            first: 0,
            traces: VecDeque::new(),
            bytes: 0,
            known: BTreeMap::new(),
            version: 0,
            viewers: HashMap::new(),
            next_viewer: 0,
            closed: false,
        })))
    }

    /// Shows a trace, whose secrets are masked by now.
    pub fn trace(&self, trace: &Trace) {
        let mut line = trace_json::line(trace);
        if line.len() > LARGEST_TRACE {
            let omitted = trace.omitted + trace.events.len();
            line = trace_json::line(&Trace { events: Vec::new(), omitted, ..trace.clone() });
        }
        let mut shown = self.lock();
        let number = shown.first + shown.traces.len() as u64;
        let event = format!("id: {}-{number}\nevent: trace\ndata: {line}\n\n", shown.boot);
        shown.bytes += event.len();
        shown.traces.push_back(event.into());
        while shown.traces.len() > MOST_TRACES || (shown.bytes > MOST_BYTES && shown.traces.len() > 1) {
            let gone = shown.traces.pop_front().map_or(0, |event| event.len());
            shown.bytes -= gone;
            shown.first += 1;
        }
        shown.wake();
    }

    /// Shows what is known by a name, in the place of what was known before: `chain`, `configuration`, `build`, `tests`.
    /// Secrets are the caller's to mask.
    pub fn know(&self, name: &'static str, value: &Value) {
        let event = format!("event: state\ndata: {}\n\n", json!({"name": name, "value": value}));
        let mut shown = self.lock();
        shown.version += 1;
        let version = shown.version;
        shown.known.insert(name, (version, event.into()));
        shown.wake();
    }

    /// Ends what viewers follow.
    pub(crate) fn close(&self) {
        let mut shown = self.lock();
        shown.closed = true;
        shown.wake();
    }

    /// The answer to a request, if it is one for the page.
    pub(crate) fn answer<B>(&self, peer: Option<SocketAddr>, request: &Request<B>) -> Option<Response<PageBody>> {
        let path = request.uri().path();
        let beneath = path.strip_prefix(PATH)?;
        if !beneath.is_empty() && !beneath.starts_with('/') {
            return None;
        }
        if !peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
            return Some(refusal(StatusCode::FORBIDDEN, "this page is for the machine that it is served on\n"));
        }
        if !is_local(request.headers(), request.uri().authority().map(http::uri::Authority::as_str)) {
            return Some(refusal(StatusCode::FORBIDDEN, "this page is served as localhost or 127.0.0.1 only\n"));
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return Some(refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"));
        }
        Some(match beneath {
            "" | "/" => document(),
            "/events" => self.follow(request),
            _ => refusal(StatusCode::NOT_FOUND, "there is nothing here\n"),
        })
    }

    fn follow<B>(&self, request: &Request<B>) -> Response<PageBody> {
        let mut shown = self.lock();
        if shown.viewers.len() >= MOST_VIEWERS {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n");
        }
        let seen = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.split_once('-'));
        let seen = seen.filter(|(boot, _)| *boot == shown.boot.to_string()).and_then(|(_, id)| id.parse::<u64>().ok());
        let end = shown.first + shown.traces.len() as u64;
        let viewer = shown.next_viewer;
        shown.next_viewer += 1;
        shown.viewers.insert(viewer, None);
        let hello = format!("retry: 500\nevent: hello\ndata: {}\n\n", json!({"boot": shown.boot.to_string()}));
        drop(shown);
        let viewer = Viewer {
            page: self.clone(),
            number: viewer,
            hello: Some(hello.into()),
            next: seen.map_or(0, |seen| seen.saturating_add(1)).min(end),
            started: seen.is_some(),
            version: 0,
            heartbeat: Box::pin(tokio::time::sleep(HEARTBEAT)),
        };
        response(StatusCode::OK, "text/event-stream; charset=UTF-8", PageBody::Events(viewer))
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn wake(&mut self) {
        for waker in self.viewers.values_mut().filter_map(Option::take) {
            waker.wake();
        }
    }
}

/// Whether the request is for an address or name that is this machine's alone, whatever DNS says.
fn is_local(headers: &HeaderMap, authority: Option<&str>) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (authority, hosts.next(), hosts.next()) {
        (Some(authority), _, None) => authority,
        (None, Some(host), None) => host.to_str().unwrap_or_default(),
        _ => return false,
    };
    let port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
    let (name, rest) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, rest)) => (address, rest),
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    if !rest.is_empty() && !rest.strip_prefix(':').is_some_and(port) {
        return false;
    }
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn document() -> Response<PageBody> {
    let page::Document { html, policy } = page::live();
    let body = PageBody::Whole(Some(Bytes::from_static(html.as_bytes())));
    let mut response = response(StatusCode::OK, "text/html; charset=UTF-8", body);
    if let Ok(policy) = HeaderValue::from_str(policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn refusal(status: StatusCode, why: &'static str) -> Response<PageBody> {
    response(status, "text/plain; charset=UTF-8", PageBody::Whole(Some(Bytes::from_static(why.as_bytes()))))
}

fn response(status: StatusCode, kind: &'static str, body: PageBody) -> Response<PageBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What is sent: a document, or events without an end.
pub(crate) enum PageBody {
    Whole(Option<Bytes>),
    Events(Viewer),
}

impl Body for PageBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Whole(whole) => whole.take(),
            Self::Events(viewer) => match viewer.poll(cx) {
                Poll::Ready(event) => event,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, Bytes::len) as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// One that follows the page, and how far it has come.
pub(crate) struct Viewer {
    page: Page,
    number: u64,
    hello: Option<Bytes>,
    /// The trace that comes next.
    next: u64,
    /// It has seen some of them: those that it misses are said.
    started: bool,
    version: u64,
    heartbeat: Pin<Box<Sleep>>,
}

impl Viewer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(hello));
        }
        let mut shown = self.page.lock();
        if shown.closed {
            return Poll::Ready(None);
        }
        let newer = shown.known.values().filter(|(version, _)| *version > self.version);
        if let Some((version, event)) = newer.min_by_key(|(version, _)| *version) {
            self.version = *version;
            return Poll::Ready(Some(event.clone()));
        }
        if self.next < shown.first {
            let count = shown.first - self.next;
            self.next = shown.first;
            if self.started {
                let event = format!("event: skipped\ndata: {}\n\n", json!({"count": count}));
                return Poll::Ready(Some(event.into()));
            }
        }
        let place = usize::try_from(self.next - shown.first).unwrap_or(usize::MAX);
        if let Some(event) = shown.traces.get(place) {
            let event = event.clone();
            (self.next, self.started) = (self.next + 1, true);
            return Poll::Ready(Some(event));
        }
        if self.heartbeat.as_mut().poll(cx).is_ready() {
            self.heartbeat.as_mut().reset(Instant::now() + HEARTBEAT);
            // Registers the task; a timer that was just set is not over.
            let _ = self.heartbeat.as_mut().poll(cx);
            shown.viewers.insert(self.number, Some(cx.waker().clone()));
            return Poll::Ready(Some(Bytes::from_static(b":\n\n")));
        }
        shown.viewers.insert(self.number, Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.page.lock().viewers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
