//! What a test and the harness's test host say to each other: a JSON document a line, bytes as characters of Latin-1.
//!
//! The host answers each command with one event that ends it, after any number of questions, which the test answers.

use serde::{Deserialize, Serialize};

use super::{GrpcReply, GrpcRequest, Message, Reply};
use crate::host::Header;

/// Nanoseconds since the Unix epoch, or that long.
pub(super) type Nanoseconds = u64;

#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    pub(super) time: Nanoseconds,
    pub(super) says: Says<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Says<'a> {
    Start {
        module: &'a str,
        configuration: String,
        network: bool,
        env: &'a [(String, String)],
        properties: Vec<(String, String)>,
        seed: u64,
    },
    Send {
        request: Wire,
        upstream: Wire,
        /// When the client leaves.
        patience: Option<Nanoseconds>,
    },
    Pass {
        nanoseconds: Nanoseconds,
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
        name: &'a str,
    },
    End {},
    Reply(Option<WireReply>),
    GrpcReply(WireGrpcReply),
    Has(bool),
}

#[derive(Debug, Deserialize)]
pub(super) struct Heard {
    pub(super) time: Nanoseconds,
    pub(super) logs: Vec<(u32, String)>,
    pub(super) event: HeardEvent,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HeardEvent {
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
pub(super) struct Wire {
    headers: WireHeaders,
    body: String,
    trailers: WireHeaders,
}

#[derive(Debug, Serialize)]
pub(super) struct WireReply {
    delay: Nanoseconds,
    message: Option<Wire>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireGrpcRequest {
    service: String,
    method: String,
    metadata: WireHeaders,
    message: Option<String>,
    end: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct WireGrpcReply {
    delay: Nanoseconds,
    metadata: WireHeaders,
    messages: Vec<String>,
    trailers: WireHeaders,
    status: Option<(u32, String)>,
}

pub(super) fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The bytes again. A character that is no byte is one that the other side did not mean.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

fn to_wire(headers: &[Header]) -> WireHeaders {
    headers.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn from_wire(headers: &WireHeaders) -> Vec<Header> {
    headers.iter().map(|(name, value)| (bytes(name), bytes(value))).collect()
}

pub(super) fn nanoseconds(duration: std::time::Duration) -> Nanoseconds {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl From<&Message> for Wire {
    fn from(message: &Message) -> Self {
        let (headers, trailers) = (to_wire(&message.headers), to_wire(&message.trailers));
        Self { headers, body: text(&message.body), trailers }
    }
}

impl From<&Wire> for Message {
    fn from(wire: &Wire) -> Self {
        let (headers, trailers) = (from_wire(&wire.headers), from_wire(&wire.trailers));
        Self { headers, body: bytes(&wire.body), trailers }
    }
}

impl From<&Reply> for WireReply {
    fn from(reply: &Reply) -> Self {
        Self { delay: nanoseconds(reply.delay), message: reply.message.as_ref().map(Wire::from) }
    }
}

impl From<&WireGrpcRequest> for GrpcRequest {
    fn from(wire: &WireGrpcRequest) -> Self {
        Self {
            service: wire.service.clone(),
            method: wire.method.clone(),
            metadata: wire.metadata.iter().map(|(name, value)| (name.clone(), bytes(value))).collect(),
            message: wire.message.as_deref().map(bytes),
            end: wire.end,
        }
    }
}

impl From<&GrpcReply> for WireGrpcReply {
    fn from(reply: &GrpcReply) -> Self {
        Self {
            delay: nanoseconds(reply.delay),
            metadata: to_wire(&reply.metadata),
            messages: reply.messages.iter().map(|message| text(message)).collect(),
            trailers: to_wire(&reply.trailers),
            status: reply.status.clone(),
        }
    }
}
