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

mod active;
mod clock;
mod connection;
mod grpc;
mod guest;
mod host;
mod message;
mod native;
mod protocol;
mod proxy;
mod remote;
mod schema;
mod shared;
mod table;
mod waits;

pub(crate) use self::active::Active;
pub use self::clock::Clock;
pub use self::connection::Connection;
pub use self::grpc::{GrpcReply, GrpcRequest};
pub use self::guest::Testable;
pub use self::host::InMemoryHost;
pub use self::message::{Message, get, post, request, response};
pub use self::proxy::{Proxy, Setup};
pub use self::schema::{check_schema, schema};
pub use self::table::{check_config_table, config_table};
pub use self::waits::Reply;

/// The proxy for plugins that wait: the same as for all others.
pub type AsyncProxy<P> = Proxy<P>;

/// What passed a connection's filters since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Passed {
    to_upstream: Vec<u8>,
    to_client: Vec<u8>,
    closed: bool,
}

impl Passed {
    fn closed() -> Self {
        Self { closed: true, ..Self::default() }
    }
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
