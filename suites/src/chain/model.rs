//! A chain suite as it is written.
//!
//! The types are the format: `docs/chain-test.schema.json` is made from them, and their documentation is what an editor
//! shows.

mod connection;
mod grpc;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::units::{Span, Time};
pub use connection::{
    ClientExpectation, Closer, Connection, ConnectionExpectation, Side, Step, StepExpectation, TcpUpstreamExpectation,
};
pub use grpc::{GrpcAnswer, GrpcBackend, GrpcCalloutExpectation, GrpcDrop, GrpcEnd, GrpcRoute, GrpcStatus, GrpcWhen};

/// The version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The only one there is.
    #[serde(rename = "plugwright.dev/v1alpha1")]
    V1Alpha1,
}

/// What the document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// Exchanges through a whole chain.
    ChainTest,
}

/// Exchanges through the filter chain that resources make, and what is expected of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChainTest {
    /// `plugwright.dev/v1alpha1`
    pub api_version: ApiVersion,
    /// `ChainTest`
    pub kind: Kind,
    /// What the suite is called.
    #[serde(default)]
    pub metadata: Metadata,
    /// Files and folders of resources, relative to the suite.
    #[serde(default)]
    pub resources: Vec<PathBuf>,
    /// The pod, workload or Gateway to be, `NAMESPACE/NAME`; by default the one that the resources themselves name.
    pub workload: Option<String>,
    /// Istio's root namespace, whose extensions count for every namespace; by default `istio-system`.
    pub root_namespace: Option<String>,
    /// Where the modules of the resources' urls are. A url that is not listed is fetched.
    #[serde(default)]
    pub images: Vec<Image>,
    /// The proxy's node in Envoy's JSON form, which plugins read as `xds.node`.
    pub node: Option<serde_json::Map<String, Value>>,
    /// The proxy's environment, for variables with `valueFrom: HOST`.
    #[serde(default)]
    pub env: Vec<Variable>,
    /// What time it is when a test begins; by default 2026-01-01T00:00:00Z.
    pub clock: Option<Time>,
    /// Where the randomness that plugins see begins; by default 0.
    pub seed: Option<u64>,
    /// Whether each test has VMs of its own.
    #[serde(default)]
    pub isolation: Isolation,
    /// The least severe log line that is kept.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Texts that `${NAME}` stands for, in requests, answers and expectations.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Clusters that filters may call.
    #[serde(default)]
    pub clusters: Vec<Cluster>,
    /// What is behind the chain; by default an echo that answers with the request as JSON.
    pub upstream: Option<Backend>,
    /// The tests, one after another.
    pub tests: Vec<Test>,
}

/// What a suite is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Its name, for a file that has several.
    pub name: Option<String>,
}

/// Where a url's module is: one of `plugin`, `module` and `reference`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// The url, as the resource has it.
    pub url: String,
    /// A plugin of the workspace, by name; it is built.
    pub plugin: Option<String>,
    /// A module's file, relative to the suite.
    pub module: Option<PathBuf>,
    /// An image: `oci:DIR:NAME`, with the folder relative to the suite, or a registry's.
    pub reference: Option<String>,
}

/// A variable of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What a test shares with those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// Nothing: VMs, shared data, metrics, clock and scripts begin anew.
    #[default]
    Test,
    /// Everything but the scripts: the suite has one proxy.
    Suite,
}

/// How severe a log line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are all there is to say")]
pub enum LogLevel {
    Trace,
    Debug,
    #[default]
    Info,
    Warning,
    Error,
    Critical,
}

impl LogLevel {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// A cluster that filters may call, and what it answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// Its name, such as `outbound|80||auth.default.svc.cluster.local`.
    pub name: String,
    /// Hosts that are the same server, for documents that the proxy fetches by URL: `jwksUri`, and a provider's
    /// metadata. With a port, if the URL has one.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// What it answers, one after another; the last again and again.
    #[serde(default)]
    pub answers: Vec<Answer>,
    /// What it answers to some requests; the first route that matches counts.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// What it answers to gRPC calls: a cluster speaks gRPC, or HTTP with `answers` and `routes`.
    pub grpc: Option<GrpcBackend>,
    /// Nobody is there: connections are refused.
    #[serde(default)]
    pub unreachable: bool,
}

/// A server, and what it answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backend {
    /// What it answers, one after another; the last again and again.
    #[serde(default)]
    pub answers: Vec<Answer>,
    /// What it answers to some requests; the first route that matches counts.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// What is answered to some requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The method.
    pub method: Option<String>,
    /// The path without its query.
    pub path: Option<String>,
    /// An expression for the whole path without its query.
    pub path_regex: Option<String>,
    /// What is answered, one after another; the last again and again.
    pub answers: Vec<Answer>,
}

/// What a server does with a request: a response, an echo, or none of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// How long it takes.
    pub delay: Option<Span>,
    /// The response's status; by default 200.
    pub status: Option<u16>,
    /// The response's headers. `content-length` need not be among them.
    #[serde(default)]
    pub headers: Vec<Header>,
    /// The response's body.
    pub body: Option<Content>,
    /// Answers with the request as JSON: method, path, authority, headers, body.
    #[serde(default)]
    pub echo: bool,
    /// Closes the connection.
    pub drop: Option<Drop>,
}

/// When a server closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Drop {
    /// Instead of a response.
    BeforeResponse,
    /// After the response's headers and half of its body.
    AfterHeaders,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// Its name, in any case.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A body, or bytes: one of the fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Content {
    /// Text, in which `${NAME}` is replaced.
    pub text: Option<String>,
    /// A value that is written as JSON, in whose texts `${NAME}` is replaced.
    pub json: Option<Value>,
    /// A file, relative to the suite, as it is.
    pub file: Option<PathBuf>,
    /// Bytes, in base64.
    pub base64: Option<String>,
    /// Bytes, as pairs of hexadecimal digits; blanks between them count for nothing.
    pub hex: Option<String>,
}

/// Requests one after another, and what is expected of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// Other resources than the suite's.
    pub resources: Option<Vec<PathBuf>>,
    /// Another workload than the suite's.
    pub workload: Option<String>,
    /// Clusters beside the suite's, or in the place of those with the same names.
    #[serde(default)]
    pub clusters: Vec<Cluster>,
    /// Another upstream than the suite's.
    pub upstream: Option<Backend>,
    /// Whether cookies are kept from response to request, as a browser keeps them.
    #[serde(default)]
    pub cookie_jar: bool,
    /// Why it is not run in a real Envoy with `--envoy`, which shows this.
    pub not_on_envoy: Option<String>,
    /// The requests.
    #[serde(default)]
    pub requests: Vec<Request>,
    /// TCP connections in the place of requests: they go through the network chain, to a TCP upstream.
    #[serde(default)]
    pub connections: Vec<Connection>,
    /// What is expected of the whole of it.
    pub expect: Option<TestExpectation>,
}

/// A request on a connection of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// How much later than the one before it is sent. The time jumps, and all that is due in it happens.
    pub advance: Option<Span>,
    /// The method; by default GET.
    #[serde(default = "get")]
    pub method: String,
    /// Path and query; by default `/`.
    #[serde(default = "root")]
    pub path: String,
    /// The authority; by default `example.com`.
    #[serde(default = "host")]
    pub host: String,
    /// Headers, in order.
    #[serde(default)]
    pub headers: Vec<Header>,
    /// The body.
    pub body: Option<Content>,
    /// What is kept of the response for the requests after it.
    #[serde(default)]
    pub capture: Vec<Capture>,
    /// What is expected.
    pub expect: Option<Expectation>,
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

fn host() -> String {
    "example.com".to_owned()
}

/// A part of a response that gets a name: one of `header`, `cookie`, `jsonPointer` and `bodyRegex`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capture {
    /// `${NAME}` stands for it from then on.
    pub name: String,
    /// A header's first value.
    pub header: Option<String>,
    /// The value of a cookie that the response sets.
    pub cookie: Option<String>,
    /// A text or number in a JSON body (RFC 6901).
    pub json_pointer: Option<String>,
    /// What an expression's first group, or all of it, finds in the body.
    pub body_regex: Option<String>,
    /// With `header` or `cookie`: what an expression's first group, or all of it, finds in the value.
    pub regex: Option<String>,
}

/// What is expected of one request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// Of what the client got.
    pub response: Option<ResponseExpectation>,
    /// Of what the upstream saw.
    pub upstream: Option<UpstreamExpectation>,
    /// All calls to clusters since the request before, in order. An empty list: there was none.
    pub callouts: Option<Vec<CalloutExpectation>>,
    /// Of log lines since the request before.
    #[serde(default)]
    pub logs: Vec<LogExpectation>,
}

/// What is expected of a response.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResponseExpectation {
    /// The status.
    pub status: Option<u16>,
    /// Envoy's response code details, such as `via_upstream`.
    pub details: Option<String>,
    /// Headers.
    #[serde(default)]
    pub headers: Vec<HeaderExpectation>,
    /// The body.
    pub body: Option<BodyExpectation>,
    /// The connection was closed before the response was complete.
    #[serde(default)]
    pub broken_off: bool,
}

/// What is expected of the values of one header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderExpectation {
    /// The header's name, in any case.
    pub name: String,
    /// One value is this.
    pub exact: Option<String>,
    /// One value matches this expression, from its beginning to its end.
    pub regex: Option<String>,
    /// One value has this in it.
    pub contains: Option<String>,
    /// All values, in order.
    pub values: Option<Vec<String>>,
    /// Whether there is such a header.
    pub present: Option<bool>,
}

/// What is expected of a body, or of bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BodyExpectation {
    /// It is this text.
    pub exact: Option<String>,
    /// It matches this expression, from its beginning to its end.
    pub regex: Option<String>,
    /// It has this in it.
    pub contains: Option<String>,
    /// It is JSON and says this.
    pub json: Option<Value>,
    /// It is JSON and says at least this: other members of objects are passed over.
    pub json_includes: Option<Value>,
    /// It is these bytes, in base64.
    pub base64: Option<String>,
    /// It is these bytes, as pairs of hexadecimal digits.
    pub hex: Option<String>,
    /// Whether it is empty.
    pub empty: Option<bool>,
}

/// What is expected of what the upstream saw of the request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamExpectation {
    /// Whether the request got there at all.
    pub reached: Option<bool>,
    /// The method.
    pub method: Option<String>,
    /// Path and query.
    pub path: Option<String>,
    /// Headers. `:authority` is what HTTP/1.1 has as `host`.
    #[serde(default)]
    pub headers: Vec<HeaderExpectation>,
    /// The body.
    pub body: Option<BodyExpectation>,
}

/// What is expected of a call to a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CalloutExpectation {
    /// The cluster's name.
    pub cluster: String,
    /// The method.
    pub method: Option<String>,
    /// Path and query.
    pub path: Option<String>,
    /// Headers. `:authority` is what HTTP/1.1 has as `host`.
    #[serde(default)]
    pub headers: Vec<HeaderExpectation>,
    /// The body.
    pub body: Option<BodyExpectation>,
    /// Of a gRPC call, which has this in the place of the others.
    pub grpc: Option<GrpcCalloutExpectation>,
}

/// What is expected of log lines: that there is one like this, or, with `count`, so many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogExpectation {
    /// Of this severity.
    pub level: Option<LogLevel>,
    /// Of the extension with this name; a script has none in its lines.
    pub plugin: Option<String>,
    /// The message is this.
    pub exact: Option<String>,
    /// The message matches this expression, from its beginning to its end.
    pub regex: Option<String>,
    /// The message has this in it.
    pub contains: Option<String>,
    /// How many; 0: none.
    pub count: Option<usize>,
}

/// What is expected of a whole test.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestExpectation {
    /// The chain, as the first line of `explain` has it: `-> a -> istio.authn -> router`.
    pub chain: Option<String>,
    /// The network chain in front of an HTTP chain: `-> a -> http_connection_manager`.
    pub in_front: Option<String>,
    /// Of all log lines.
    #[serde(default)]
    pub logs: Vec<LogExpectation>,
    /// Of metrics, at the end.
    #[serde(default)]
    pub metrics: Vec<MetricExpectation>,
    /// Hazards that are met, by name. Any other fails the test.
    #[serde(default)]
    pub hazards: Vec<String>,
}

/// What is expected of a metric: `value`, `atLeast` or `absent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricExpectation {
    /// Its name, as the plugin or Istio has it.
    pub name: String,
    /// Labels that it has among others.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The sum of all that have these labels.
    pub value: Option<u64>,
    /// The same, at least.
    pub at_least: Option<u64>,
    /// There is none.
    #[serde(default)]
    pub absent: bool,
}
