//! What a test says and hears: a JSON document a line, bytes as characters of Latin-1, times in nanoseconds.

use std::path::PathBuf;
use std::time::Duration;

use harness::offline::{Answer, GrpcEnd, GrpcReply, GrpcRequest, Headers, Message, Outcome, Reply};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize)]
pub(crate) struct Heard {
    /// Since the Unix epoch.
    pub(crate) time: u64,
    pub(crate) says: Command,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Start {
    pub(crate) module: PathBuf,
    pub(crate) configuration: String,
    pub(crate) network: bool,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) seed: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command {
    Start(Box<Start>),
    Send {
        request: Wire,
        upstream: Wire,
        /// Nanoseconds after which the client leaves.
        patience: Option<u64>,
    },
    Pass {
        nanoseconds: u64,
    },
    Connect {},
    Downstream {
        bytes: String,
        end: bool,
    },
    Upstream {
        bytes: String,
        end: bool,
    },
    Close {},
    Metric {
        name: String,
    },
    End {},
    /// The answer to [`Event::Call`].
    Reply(Option<WireReply>),
    /// The answer to [`Event::Grpc`].
    GrpcReply(WireGrpcReply),
    /// The answer to [`Event::HasGrpc`].
    Has(bool),
}

#[derive(Debug, Serialize)]
pub(crate) struct Says {
    /// Since the Unix epoch.
    pub(crate) time: u64,
    pub(crate) logs: Vec<(u32, String)>,
    pub(crate) event: Event,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    Started {},
    Refused { error: String },
    Done {},
    Exchange { forwarded: Option<Wire>, response: Option<Wire>, details: String },
    Passed { to_upstream: String, to_client: String, closed: bool },
    Value(Option<u64>),
    Call { cluster: String, request: Wire },
    HasGrpc { cluster: String },
    Grpc { cluster: String, request: WireGrpcRequest },
}

type WireHeaders = Vec<(String, String)>;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Wire {
    headers: WireHeaders,
    body: String,
    trailers: WireHeaders,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireReply {
    delay: u64,
    message: Option<Wire>,
}

#[derive(Debug, Serialize)]
pub(crate) struct WireGrpcRequest {
    service: String,
    method: String,
    metadata: WireHeaders,
    message: Option<String>,
    end: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireGrpcReply {
    delay: u64,
    metadata: WireHeaders,
    messages: Vec<String>,
    trailers: WireHeaders,
    status: Option<(u32, String)>,
}

pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The bytes again. A character that is no byte is one that the other side did not mean.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

fn to_wire(headers: &Headers) -> WireHeaders {
    headers.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn from_wire(headers: &WireHeaders) -> Headers {
    headers.iter().map(|(name, value)| (bytes(name), bytes(value))).collect()
}

impl From<&Message> for Wire {
    fn from(message: &Message) -> Self {
        let (headers, trailers) = (to_wire(&message.headers), to_wire(&message.trailers));
        Self { headers, body: text(&message.body), trailers }
    }
}

impl From<Wire> for Message {
    fn from(wire: Wire) -> Self {
        let (headers, trailers) = (from_wire(&wire.headers), from_wire(&wire.trailers));
        Self { headers, body: bytes(&wire.body), trailers }
    }
}

impl From<&Outcome> for Event {
    fn from(outcome: &Outcome) -> Self {
        Self::Exchange {
            forwarded: outcome.forwarded.as_ref().map(Wire::from),
            response: outcome.response.as_ref().map(Wire::from),
            details: outcome.details.clone(),
        }
    }
}

impl From<WireReply> for Reply {
    fn from(wire: WireReply) -> Self {
        let answer =
            wire.message.map_or_else(|| Answer::BrokenOff(Message::default()), |wire| Answer::Whole(wire.into()));
        Self { delay: Duration::from_nanos(wire.delay), answer }
    }
}

impl From<&GrpcRequest> for WireGrpcRequest {
    fn from(request: &GrpcRequest) -> Self {
        let path = request.path.trim_start_matches('/');
        let (service, method) = path.split_once('/').unwrap_or((path, ""));
        Self {
            service: service.to_owned(),
            method: method.to_owned(),
            metadata: to_wire(&request.metadata),
            message: request.message.as_deref().map(text),
            end: request.end,
        }
    }
}

impl From<WireGrpcReply> for GrpcReply {
    fn from(wire: WireGrpcReply) -> Self {
        Self {
            delay: Duration::from_nanos(wire.delay),
            metadata: Some(from_wire(&wire.metadata)),
            messages: wire.messages.iter().map(|message| bytes(message)).collect(),
            trailers: from_wire(&wire.trailers),
            end: wire.status.map_or(GrpcEnd::WithClient, |(status, text)| GrpcEnd::Status(status, text)),
        }
    }
}
