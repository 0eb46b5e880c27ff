//! gRPC clusters as they are written: what they answer, and what they are expected to be asked.

use std::borrow::Cow;
use std::fmt;

use mesh::nearest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{BodyExpectation, Content, Header, HeaderExpectation};
use crate::chain::units::Span;

/// A gRPC server, and what it answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcBackend {
    /// What it answers to calls, one after another; the last again and again.
    #[serde(default)]
    pub answers: Vec<GrpcAnswer>,
    /// What it answers to some calls; the first route that matches counts.
    #[serde(default)]
    pub routes: Vec<GrpcRoute>,
}

/// What is answered to some calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRoute {
    /// The service, with its package: `score.v1.Scores`.
    pub service: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// What is answered, one after another; the last again and again.
    pub answers: Vec<GrpcAnswer>,
}

/// What a server does with a call or stream: metadata and messages, then a status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcAnswer {
    /// What of the client's has to be there before it is answered; by default the first message.
    #[serde(default)]
    pub when: GrpcWhen,
    /// How long it takes from then on.
    pub delay: Option<Span>,
    /// Initial metadata. Without, and without messages, the answer is its end alone, in which there is no initial
    /// metadata.
    #[serde(default)]
    pub initial_metadata: Vec<Header>,
    /// Messages, in order: one is the answer to a call.
    #[serde(default)]
    pub messages: Vec<Content>,
    /// When the server ends the stream; by default once its messages are sent.
    #[serde(default)]
    pub end: GrpcEnd,
    /// The status at its end, by name or number; by default OK.
    pub status: Option<GrpcStatus>,
    /// The text beside the status.
    pub status_message: Option<String>,
    /// Trailing metadata, beside the status.
    #[serde(default)]
    pub trailing_metadata: Vec<Header>,
    /// Closes the connection in the place of an end.
    pub drop: Option<GrpcDrop>,
}

/// What of the client's a server waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GrpcWhen {
    /// The call itself.
    Started,
    /// The first message, or the client's end.
    #[default]
    Asked,
    /// The client's end, and so all of its messages.
    Ended,
}

/// When a server ends a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GrpcEnd {
    /// Once its messages are sent.
    #[default]
    AtOnce,
    /// When the client has ended its side.
    WithClient,
    /// Never.
    Never,
}

/// When a server closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GrpcDrop {
    /// Instead of an answer.
    BeforeResponse,
    /// After its messages, without a status.
    AfterMessages,
}

/// What is expected of a gRPC call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcCalloutExpectation {
    /// The service, with its package.
    pub service: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// Initial metadata.
    #[serde(default)]
    pub metadata: Vec<HeaderExpectation>,
    /// All messages since the request before, in order. An empty list: there was none.
    pub messages: Option<Vec<BodyExpectation>>,
    /// Whether the client has ended its side.
    pub ended: Option<bool>,
}

/// A gRPC status: its number is its place among the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcStatus(u8);

/// Names of the statuses, in the order of their numbers.
const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl GrpcStatus {
    /// Of a method that there is not.
    pub const UNIMPLEMENTED: Self = Self(12);

    /// The number.
    pub fn code(self) -> u32 {
        self.0.into()
    }
}

impl Default for GrpcStatus {
    /// OK
    fn default() -> Self {
        Self(0)
    }
}

impl Serialize for GrpcStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for GrpcStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = GrpcStatus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status of gRPC, by name or number")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<GrpcStatus, E> {
                let known = u8::try_from(number).ok().filter(|number| usize::from(*number) < STATUSES.len());
                known
                    .map(GrpcStatus)
                    .ok_or_else(|| E::custom(format!("{number} is no status of gRPC, which are 0 to 16")))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<GrpcStatus, E> {
                self.visit_u64(u64::try_from(number).unwrap_or(u64::MAX))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<GrpcStatus, E> {
                let place = STATUSES.iter().position(|known| *known == name).and_then(|place| u8::try_from(place).ok());
                place.map(GrpcStatus).ok_or_else(|| {
                    let meant = nearest(name, &STATUSES).map(|name| format!(", did you mean `{name}`?"));
                    E::custom(format!("`{name}` is no status of gRPC{}", meant.unwrap_or_default()))
                })
            }
        }
        deserializer.deserialize_any(Written)
    }
}

impl JsonSchema for GrpcStatus {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "GrpcStatus".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"enum": STATUSES}, {"type": "integer", "minimum": 0, "maximum": STATUSES.len() - 1}]})
    }
}
