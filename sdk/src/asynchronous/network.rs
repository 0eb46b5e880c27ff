//! Network plugins that wait.

use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::call::{self, Call, CallError, CallResponse};
use super::exchange::Handle;
use super::grpc::{self, GrpcCall, GrpcError, GrpcStream};
use super::host::{Active, Direction};
use super::stream::anywhere;
use super::{Body, BodyError, Root, Sleep};
use crate::network::{Close, NetworkFlow};
use crate::{ConfigError, Flow, Host, json};

/// Handles the connections of one plugin configuration, each in a future of its own.
///
/// What the client sends is held while the future waits for something else. What the upstream sends cannot be held, as
/// proxies have no way to let it go on: it passes [`on_upstream_data`](Self::on_upstream_data).
///
/// ```
/// use plugwright_sdk::testing::{Proxy, response};
/// use plugwright_sdk::{AsyncNetworkPlugin, Call, Close, ConfigError, Connection, Host, property};
///
/// /// Lets only clients in that a server knows.
/// struct Ask;
///
/// impl AsyncNetworkPlugin for Ask {
///     type Config = serde::de::IgnoredAny;
///
///     fn configure(_: Self::Config, _: &mut impl Host) -> Result<Self, ConfigError> {
///         Ok(Ask)
///     }
///
///     async fn on_connection(&self, connection: Connection) -> Result<(), Close> {
///         let client = connection.host().get(property::SOURCE_ADDRESS)?.unwrap_or_default();
///         let known = connection.call("clients", Call::get("clients", "/").header("x-client", &client)).await?;
///         if known.status() == 200 { Ok(()) } else { Err(Close) }
///     }
/// }
///
/// plugwright_sdk::register!(async network Ask);
///
/// let mut proxy = Proxy::<Ask>::new("{}").unwrap().cluster("clients", |_| response(200));
/// let mut connection = proxy.connect();
/// assert_eq!(connection.send("PING"), b"PING");
/// assert_eq!(connection.reply("PONG"), b"PONG");
/// ```
#[expect(async_fn_in_trait, reason = "a VM has one thread, so that futures need not be Send")]
pub trait AsyncNetworkPlugin: Sized + 'static {
    /// As [`Plugin::Config`](crate::Plugin::Config).
    type Config: DeserializeOwned;

    /// As [`Plugin::configure`](crate::Plugin::configure).
    fn configure(config: Self::Config, host: &mut impl Host) -> Result<Self, ConfigError>;

    /// As [`Plugin::unconfigured`](crate::Plugin::unconfigured).
    fn unconfigured(host: &mut impl Host) -> Result<Self, ConfigError> {
        Self::configure(json::from_slice(b"{}")?, host)
    }

    /// Handles a connection from its beginning on. It goes on when the future is ready, or when its
    /// [data](Connection::into_data) is asked for; until then there is no connection to the upstream.
    async fn on_connection(&self, connection: Connection) -> Result<(), Close>;

    /// Sees `size` bytes that the upstream sent. Pausing keeps them until the next ones come.
    fn on_upstream_data(&self, host: &mut impl Host, size: usize, end_of_stream: bool) -> NetworkFlow {
        let _ = (host, size, end_of_stream);
        NetworkFlow::Continue
    }

    /// As [`AsyncPlugin::start`](crate::AsyncPlugin::start).
    async fn start(&self, root: Root) {
        let _ = root;
    }

    /// Is called when a connection is over.
    fn on_log(&self, host: &mut impl Host) {
        let _ = host;
    }
}

/// A connection that has not gone on: nothing is sent to the upstream.
pub struct Connection(Handle);

/// What a connection's client sends.
pub struct Data(Body);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("context", &self.0.context).finish_non_exhaustive()
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data").finish_non_exhaustive()
    }
}

anywhere!(Connection);
anywhere!(Data);

impl Connection {
    /// Lets the connection begin, to see what the client sends.
    pub fn into_data(self) -> Data {
        Data(Body::new(&self.0.shared, Direction::Downstream))
    }
}

impl Data {
    /// The next bytes, as they arrive; none at the end. Those before go on when these are asked for.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        self.0.chunk().await
    }

    /// Puts `bytes` in the place of what [`chunk`](Self::chunk) returned last.
    pub fn replace(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        self.0.replace(bytes)
    }
}

pub(crate) fn load<P: AsyncNetworkPlugin>(configuration: &[u8], host: &mut impl Host) -> Result<Rc<P>, ConfigError> {
    let plugin = if configuration.is_empty() {
        P::unconfigured(host)
    } else {
        P::configure(json::from_slice(configuration)?, host)
    };
    plugin.map(Rc::new)
}

/// The future of a connection, which owns its plugin.
pub(crate) fn connection_future<P: AsyncNetworkPlugin>(
    plugin: &Rc<P>,
    handle: Handle,
) -> impl Future<Output = Flow> + use<P> + 'static {
    let plugin = Rc::clone(plugin);
    async move {
        match plugin.on_connection(Connection(handle)).await {
            Ok(()) => Flow::Continue,
            Err(Close) => {
                crate::network::close(&mut Active);
                Flow::Pause
            }
        }
    }
}

/// The future beside the connections.
pub(crate) fn root_future<P: AsyncNetworkPlugin>(
    plugin: &Rc<P>,
    root: Root,
) -> impl Future<Output = ()> + use<P> + 'static {
    let plugin = Rc::clone(plugin);
    async move { plugin.start(root).await }
}
