//! An in-memory proxy for plugin tests: a request goes in, a response comes out, the log is kept.
//!
//! ```
//! # use plugwright_sdk::{ConfigError, Flow, Host, MapType, Plugin};
//! # struct Tag;
//! # impl Plugin for Tag {
//! #     type Config = Option<()>;
//! #     fn configure(_: Option<()>, _: &mut impl Host) -> Result<Self, ConfigError> { Ok(Tag) }
//! #     fn on_request_headers(&self, host: &mut impl Host, _: bool) -> Flow {
//! #         host.add_header(MapType::RequestHeaders, "x-tag", "1").unwrap();
//! #         Flow::Continue
//! #     }
//! # }
//! use plugwright_sdk::testing::{Proxy, post};
//!
//! let mut proxy = Proxy::<Tag>::new("null").unwrap();
//! let exchange = proxy.send(post("/orders").header("host", "shop.example").body("{}"));
//! assert_eq!(exchange.forwarded().unwrap().values("x-tag"), ["1"]);
//! assert_eq!(exchange.status(), 200);
//! ```
//!
//! It follows Envoy where a plugin would notice: a map or buffer is available in its own phase only, names are kept in
//! lower case, a body comes as a chunk and then an empty end, a paused body accumulates, and a local response passes
//! the sender's own response callbacks.

mod asynchronous;
mod clock;
mod host;
mod message;
mod schema;
mod waits;

pub(crate) use self::asynchronous::Active;
pub use self::asynchronous::AsyncProxy;
pub use self::clock::Clock;
pub use self::host::InMemoryHost;
pub use self::message::{Message, get, post, request, response};
pub use self::schema::{check_schema, schema};
pub use self::waits::Reply;

use self::host::Phase;
use crate::plugin::{load, settle};
use crate::{BufferType, ConfigError, Flow, LogLevel, Plugin};

/// Runs one plugin before an upstream whose response the test sets.
pub struct Proxy<P> {
    plugin: P,
    host: InMemoryHost,
    upstream: Message,
}

// A plugin holds secrets and need not be printable.
impl<P> std::fmt::Debug for Proxy<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("host", &self.host).finish_non_exhaustive()
    }
}

impl<P: Plugin> Proxy<P> {
    /// Configures the plugin with these bytes; no bytes are no configuration.
    pub fn new(configuration: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        Self::on(InMemoryHost::default(), configuration)
    }

    /// Configures the plugin on a host that the test has prepared with properties, environment or time.
    pub fn on(mut host: InMemoryHost, configuration: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let plugin = load(configuration.as_ref(), &mut host)?;
        Ok(Self { plugin, host, upstream: response(200) })
    }

    /// Sets what the upstream answers from now on; at first it is an empty 200.
    #[must_use]
    pub fn upstream(mut self, response: Message) -> Self {
        self.upstream = response;
        self
    }

    /// Sends one request through the plugin to the upstream, and the response back.
    pub fn send(&mut self, request: Message) -> Exchange {
        let Self { plugin, host, upstream } = self;
        host.begin(request, upstream.clone());
        let forwarded = pass(
            host,
            [Phase::RequestHeaders, Phase::RequestBody],
            |host, end| plugin.on_request_headers(host, end),
            |host, size, end| plugin.on_request_body(host, size, end),
        )
        .then(|| host.request.clone());
        let local = host.local.take().filter(|_| !host.reset);
        let from_request = local.is_some();
        if let Some(local) = &local {
            host.response = message::from_local(local);
        }
        let mut details = local.map(|local| local.details);
        let mut answered = from_request || forwarded.is_some();
        if answered {
            answered = pass(
                host,
                [Phase::ResponseHeaders, Phase::ResponseBody],
                |host, end| plugin.on_response_headers(host, end),
                |host, size, end| plugin.on_response_body(host, size, end),
            );
            if let Some(local) = host.local.take() {
                host.response = message::from_local(&local);
                details = Some(local.details);
                answered = true;
            }
        }
        host.phase = Phase::Idle;
        let response = (answered && !host.reset).then(|| host.response.clone());
        Exchange { forwarded, response, details: details.unwrap_or_default(), calls: Vec::new() }
    }

    /// Returns what the plugin logged since it was configured.
    pub fn logs(&self) -> Vec<(LogLevel, String)> {
        self.host.logs()
    }
}

/// Runs the callbacks of one direction; true when the message came through.
fn pass(
    host: &mut InMemoryHost,
    [headers, body]: [Phase; 2],
    on_headers: impl FnOnce(&mut InMemoryHost, bool) -> Flow,
    mut on_body: impl FnMut(&mut InMemoryHost, usize, bool) -> Flow,
) -> bool {
    host.phase = headers;
    let buffer = if body == Phase::RequestBody { BufferType::RequestBody } else { BufferType::ResponseBody };
    let chunk = host.take_body(buffer);
    let flow = on_headers(host, chunk.is_empty());
    if !settle(flow, host) {
        return false;
    }
    if chunk.is_empty() {
        return true;
    }
    host.phase = body;
    host.buffer = chunk;
    let flow = on_body(host, host.buffer.len(), false);
    let mut passed = Vec::new();
    if settle(flow, host) {
        passed = std::mem::take(&mut host.buffer);
    } else if host.local.is_some() || host.reset {
        return false;
    }
    let flow = on_body(host, host.buffer.len(), true);
    if !settle(flow, host) {
        return false;
    }
    passed.append(&mut host.buffer);
    host.put_body(buffer, passed);
    true
}

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    forwarded: Option<Message>,
    response: Option<Message>,
    details: String,
    calls: Vec<(String, Message)>,
}

impl Exchange {
    /// Returns the request as the upstream got it, or none when it did not get there.
    pub fn forwarded(&self) -> Option<&Message> {
        self.forwarded.as_ref()
    }

    /// Returns the calls that were made meanwhile, each with its cluster.
    pub fn calls(&self) -> &[(String, Message)] {
        &self.calls
    }

    /// Returns the response as the client got it, or none when the stream is held or was reset.
    pub fn response(&self) -> Option<&Message> {
        self.response.as_ref()
    }

    /// Returns the response's status code, or 0 when there is no response.
    pub fn status(&self) -> u16 {
        let status = self.response().and_then(|response| response.values(":status").first()?.parse().ok());
        status.unwrap_or(0)
    }

    /// Returns the values of a response header, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.response().map(|response| response.values(name)).unwrap_or_default()
    }

    /// Returns the details of the local response, or nothing when the upstream answered.
    pub fn details(&self) -> &str {
        &self.details
    }
}

#[cfg(test)]
#[path = "testing_tests.rs"]
mod tests;
