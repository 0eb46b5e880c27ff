//! What happened to one request, or one connection, filter by filter: recorded while it is served, rendered apart.
//!
//! A server with [`Settings`] hands a [`Trace`] of each request to its [`Sink`](crate::log::Sink). Secrets are masked in
//! it already, unless the settings say otherwise: whatever shows a trace need not know of them. [`text`] and [`json`]
//! show one. What a plugin wrote is in a trace as it wrote it, and both escape it.

mod guest;
pub mod json;
pub mod mask;
pub(crate) mod recording;
pub mod text;

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::header_map::HeaderMap;

pub(crate) use guest::Visits;
pub(crate) use recording::{Answer, Outcome, Recording, Start, action};

/// What is recorded.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many bytes of a body that changed are shown; 0: its size only.
    pub excerpt: usize,
    /// Leave credentials as they are.
    pub show_secrets: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { excerpt: 256, show_secrets: false }
    }
}

/// One request, or one connection that network filters saw, from its beginning to its end.
#[derive(Debug, Clone, Serialize)]
pub struct Trace {
    /// The version of the form that [`json`] writes; it grows when a field goes or changes its meaning.
    pub schema: u32,
    /// What it is of.
    pub kind: Subject,
    /// When it began, in RFC 3339 and UTC.
    #[serde(serialize_with = "timestamp")]
    pub started: SystemTime,
    /// The connection's number, as the property `connection.id` has it.
    pub connection: u64,
    /// `HTTP/1.1` and so on; empty for a connection.
    pub protocol: &'static str,
    /// The method as the client sent it; empty for a connection.
    pub method: String,
    /// The authority as the client sent it.
    pub authority: String,
    /// The path as the client sent it, with its query.
    pub path: String,
    /// The status that the client got; none when the stream was reset before, and for connections.
    pub status: Option<u16>,
    /// The filter that answered, or closed the connection.
    pub answered_by: Option<String>,
    /// Envoy's response code details, for example `via_upstream`; of a connection, who closed it.
    pub details: String,
    /// From the first byte to the end.
    #[serde(rename = "took_us", serialize_with = "microseconds")]
    pub took: Duration,
    /// Bytes of the request's body, or of what the client sent.
    pub request_bytes: u64,
    /// Bytes of the response's body as it came, or of what was for the client.
    pub response_bytes: u64,
    /// The filters, in the order in which requests meet them.
    pub filters: Vec<FilterTime>,
    /// The upstream, when it was asked.
    pub upstream: Option<UpstreamTime>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Events beyond the limit, which are not there.
    pub omitted: usize,
}

/// What a trace is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A request.
    Request,
    /// A connection in the network filter chain.
    Connection,
}

/// A filter, and the time that was spent in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FilterTime {
    /// `namespace.name` of an extension, Envoy's or Istio's name of a built-in one.
    pub name: String,
    /// What executes it.
    pub kind: FilterKind,
    /// Its VM had failed and it fails open: traffic passed without it.
    pub skipped: bool,
    /// Time in its callbacks; waiting is not in it.
    #[serde(rename = "self_us", serialize_with = "microseconds")]
    pub took: Duration,
}

/// What executes a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterKind {
    /// A plugin.
    Wasm,
    /// A filter of the proxy's own, Lua's among them.
    Native,
}

/// Times of the upstream, from when the request's headers went to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamTime {
    /// Whom the response came from; none for the built-in echo and while there was no response.
    pub address: Option<String>,
    /// The status of its response.
    pub status: Option<u16>,
    /// Until the response's headers.
    #[serde(rename = "headers_us", serialize_with = "optional_microseconds")]
    pub headers: Option<Duration>,
    /// Until the response's end.
    #[serde(rename = "end_us", serialize_with = "optional_microseconds")]
    pub end: Option<Duration>,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// When, from the beginning.
    #[serde(rename = "at_us", serialize_with = "microseconds")]
    pub at: Duration,
    /// The filter it happened in: its place among [`Trace::filters`].
    pub filter: Option<usize>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// A message's headers are there.
    Message {
        /// Whose they are: `request` or `response`.
        direction: &'static str,
        /// Who sent it: `client`, `upstream` or `proxy`.
        from: &'static str,
        /// The headers, pseudo-headers among them.
        headers: Vec<(String, String)>,
        /// Nothing follows them.
        end_of_stream: bool,
    },
    /// A callback of a filter ran.
    Callback(Callback),
    /// A line was logged.
    Log {
        /// `trace` to `critical`.
        level: &'static str,
        /// The line without its prefix.
        message: String,
    },
    /// A filter called a cluster.
    Callout(Callout),
    /// The request was answered on this side.
    LocalReply {
        /// The status that was asked for.
        status: u32,
        /// Envoy's response code details.
        details: String,
        /// The body.
        body: Content,
    },
    /// A filter did what Envoy answers with a hang, a crash or a broken response.
    Hazard {
        /// The hazard's name.
        kind: &'static str,
        /// The callback, as the module exports it.
        callback: String,
        /// The hostcall, as the module imports it.
        hostcall: Option<String>,
        /// What happened.
        explanation: String,
    },
    /// The stream was broken off.
    Reset {
        /// Envoy's response code details.
        details: String,
    },
}

/// One run of a callback.
#[derive(Debug, Clone, Serialize)]
pub struct Callback {
    /// Its name: for plugins as the module exports it.
    pub callback: &'static str,
    /// The bytes of body or data that it saw.
    pub bytes: Option<usize>,
    /// It was told that nothing follows.
    pub end_of_stream: bool,
    /// What it answered; none for callbacks that answer nothing.
    pub action: Option<&'static str>,
    /// It trapped, and with it the VM.
    pub failed: bool,
    /// How long it ran.
    #[serde(rename = "took_us", serialize_with = "microseconds")]
    pub took: Duration,
    /// What it did to headers and trailers.
    pub headers: Vec<HeaderChange>,
    /// What it did to bodies.
    pub bodies: Vec<BodyChange>,
    /// What happened within.
    pub events: Vec<Event>,
}

/// A header that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeaderChange {
    /// `request_headers`, `request_trailers`, `response_headers` or `response_trailers`.
    pub map: &'static str,
    /// What happened to it.
    pub change: ChangeKind,
    /// Its name, in lower case.
    pub name: String,
    /// Its value before, unless it was added.
    pub from: Option<String>,
    /// Its value after, unless it was removed.
    pub to: Option<String>,
}

/// What happened to a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It is no longer there.
    Removed,
    /// It has another value.
    Changed,
}

/// A body that is not as it was when the callback began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BodyChange {
    /// `request_body`, `response_body`, `downstream_data` or `upstream_data`.
    pub body: &'static str,
    /// Before.
    pub from: Content,
    /// After.
    pub to: Content,
}

/// A body, or as much as there is to see of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Content {
    /// Its size in bytes.
    pub bytes: usize,
    /// Its beginning, when it is text and an excerpt was asked for.
    pub excerpt: Option<String>,
    /// There is more than the excerpt.
    pub cut: bool,
}

/// A call to a cluster.
#[derive(Debug, Clone, Serialize)]
pub struct Callout {
    /// `http`, `grpc_call` or `grpc_stream`.
    pub kind: &'static str,
    /// The cluster's name.
    pub cluster: String,
    /// The method.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// The body's or message's size.
    pub bytes: usize,
    /// The HTTP status of the answer, or the gRPC status at the end.
    pub status: Option<u32>,
    /// From the call to its answer; none when there was none by the end of the request.
    #[serde(rename = "took_us", serialize_with = "optional_microseconds")]
    pub took: Option<Duration>,
    /// Why there is no answer: `refused`, `reset`, `cancelled`, or nothing while the request ended first.
    pub failure: Option<&'static str>,
    #[serde(skip)]
    pub(crate) token: CallToken,
}

/// A call while it is under way: whose it is, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallToken {
    /// Of the filter at this place, by the token that it got.
    Wasm(usize, u32),
    Lua(u64),
    None,
}

impl Callout {
    /// A call that begins now.
    pub(crate) fn new(kind: &'static str, cluster: &str, headers: &HeaderMap, bytes: usize) -> Self {
        let text = |name| headers.text(name).unwrap_or_default().to_owned();
        Self {
            kind,
            cluster: cluster.to_owned(),
            method: text(":method"),
            path: text(":path"),
            bytes,
            status: None,
            took: None,
            failure: None,
            token: CallToken::None,
        }
    }
}

fn timestamp<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text::rfc3339(*time))
}

fn microseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // To a tenth: callbacks take single microseconds.
    #[expect(clippy::cast_precision_loss, reason = "a duration of 2^53 tenths of a microsecond is 28 years")]
    let tenths = (duration.as_nanos() / 100) as f64;
    serializer.serialize_f64(tenths / 10.0)
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn optional_microseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => microseconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}
