//! TCP connections as they are written: what the two ends do, and what is expected to come of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BodyExpectation, CalloutExpectation, Content, LogExpectation};
use crate::chain::units::Span;

/// A TCP connection through the network chain, whose two ends are the test's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connection {
    /// How much later than the one before it is opened. The time jumps, and all that is due in it happens.
    pub advance: Option<Span>,
    /// Nobody is there: the upstream refuses the connection.
    #[serde(default)]
    pub unreachable: bool,
    /// What the ends do, one step after another. After the last one the client resets what is still open.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What is expected of all of it.
    pub expect: Option<ConnectionExpectation>,
}

/// What one end does: one of `client`, `upstream`, `end` and `reset`, or nothing. It is over when nothing happens any
/// more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// How much later than the one before it.
    pub advance: Option<Span>,
    /// What the client sends.
    pub client: Option<Content>,
    /// What the upstream sends.
    pub upstream: Option<Content>,
    /// Who sends nothing more, and still receives.
    pub end: Option<Side>,
    /// Who resets the connection: is gone, and receives nothing any more.
    pub reset: Option<Side>,
    /// What is expected to come of it.
    pub expect: Option<StepExpectation>,
}

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// Who connects to the proxy.
    Client,
    /// Whom the proxy connects to.
    Upstream,
}

/// What is expected of one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepExpectation {
    /// Of what came to the client since the step before.
    pub client: Option<BodyExpectation>,
    /// Of what came to the upstream since the step before.
    pub upstream: Option<BodyExpectation>,
    /// Whether the proxy has ended the client's connection by then.
    pub ended: Option<bool>,
}

/// What is expected of a connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionExpectation {
    /// Of the client's end.
    pub client: Option<ClientExpectation>,
    /// Of the upstream's end.
    pub upstream: Option<TcpUpstreamExpectation>,
    /// Who closed it, as the proxy sees it.
    pub closed_by: Option<Closer>,
    /// All calls to clusters since the connection before, in order. An empty list: there was none.
    pub callouts: Option<Vec<CalloutExpectation>>,
    /// Of log lines since the connection before.
    #[serde(default)]
    pub logs: Vec<LogExpectation>,
}

/// What is expected of a connection's client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientExpectation {
    /// Of all that came to it.
    pub received: Option<BodyExpectation>,
    /// Whether the proxy has ended its side by the last step.
    pub ended: Option<bool>,
}

/// What is expected of a connection's upstream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpUpstreamExpectation {
    /// Whether the proxy connected to it at all.
    pub reached: Option<bool>,
    /// Of all that came to it.
    pub received: Option<BodyExpectation>,
    /// Whether the proxy has ended its side by the last step.
    pub ended: Option<bool>,
}

/// Who closed a connection: who has reset it, or ended last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Closer {
    /// The client, in a step or after the last one.
    Client,
    /// The upstream, or that there is none.
    Upstream,
    /// A plugin, which asked for it or failed.
    Plugin,
}
