//! Network plugins: those that see connections and bytes, below HTTP.

use serde::de::DeserializeOwned;

use crate::plugin::succeeded;
use crate::{BodyError, CallError, ConfigError, GrpcError, Host, HostError, PropertyError, json};

/// Handles the connections of one plugin configuration.
///
/// ```
/// use plugwright_sdk::testing::Proxy;
/// use plugwright_sdk::{BufferType, Close, ConfigError, Host, NetworkFlow, NetworkPlugin};
///
/// /// Closes connections whose client says something in the clear that it should not.
/// struct Censor;
///
/// impl NetworkPlugin for Censor {
///     type Config = serde::de::IgnoredAny;
///     /// How many bytes the client has sent.
///     type Connection = usize;
///
///     fn configure(_: Self::Config, _: &mut impl Host) -> Result<Self, ConfigError> {
///         Ok(Censor)
///     }
///
///     fn on_downstream_data(&self, sent: &mut usize, host: &mut impl Host, size: usize, _end: bool) -> NetworkFlow {
///         *sent += size;
///         match host.body(BufferType::DownstreamData, 0..size) {
///             Ok(bytes) if !bytes.starts_with(b"PASS ") => NetworkFlow::Continue,
///             _ => NetworkFlow::Close,
///         }
///     }
/// }
///
/// plugwright_sdk::register!(network Censor);
///
/// let mut proxy = Proxy::<Censor>::new("{}").unwrap();
/// let mut connection = proxy.connect();
/// assert_eq!(connection.send("USER me\r\n"), b"USER me\r\n");
/// assert_eq!(connection.send("PASS secret\r\n"), b"");
/// assert!(connection.is_closed());
/// ```
pub trait NetworkPlugin: Sized + 'static {
    /// As [`Plugin::Config`](crate::Plugin::Config).
    type Config: DeserializeOwned;

    /// What is kept of each connection.
    type Connection: Default + 'static;

    /// As [`Plugin::configure`](crate::Plugin::configure).
    fn configure(config: Self::Config, host: &mut impl Host) -> Result<Self, ConfigError>;

    /// As [`Plugin::unconfigured`](crate::Plugin::unconfigured).
    fn unconfigured(host: &mut impl Host) -> Result<Self, ConfigError> {
        Self::configure(json::from_slice(b"{}")?, host)
    }

    /// Sees a connection begin. Pausing keeps it from its upstream until
    /// [`resume_connection`](Host::resume_connection).
    fn on_new_connection(&self, connection: &mut Self::Connection, host: &mut impl Host) -> NetworkFlow {
        let _ = (connection, host);
        NetworkFlow::Continue
    }

    /// Sees `size` bytes that the client sent: new ones, or all of them up to here after a pause.
    fn on_downstream_data(
        &self,
        connection: &mut Self::Connection,
        host: &mut impl Host,
        size: usize,
        end_of_stream: bool,
    ) -> NetworkFlow {
        let _ = (connection, host, size, end_of_stream);
        NetworkFlow::Continue
    }

    /// Sees `size` bytes that the upstream sent: new ones, or all of them up to here after a pause, which only the next
    /// ones end.
    fn on_upstream_data(
        &self,
        connection: &mut Self::Connection,
        host: &mut impl Host,
        size: usize,
        end_of_stream: bool,
    ) -> NetworkFlow {
        let _ = (connection, host, size, end_of_stream);
        NetworkFlow::Continue
    }

    /// Sees the upstream's side end.
    fn on_upstream_close(&self, connection: &mut Self::Connection, host: &mut impl Host, peer: Peer) {
        let _ = (connection, host, peer);
    }

    /// Sees the connection end.
    fn on_downstream_close(&self, connection: &mut Self::Connection, host: &mut impl Host, peer: Peer) {
        let _ = (connection, host, peer);
    }

    /// Is called when a connection is over, after everything else.
    fn on_log(&self, connection: &mut Self::Connection, host: &mut impl Host) {
        let _ = (connection, host);
    }
}

/// Tells the proxy how the connection goes on after a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum NetworkFlow {
    /// On to the next filter.
    Continue,
    /// Held here.
    Pause,
    /// Ends here, once what has passed is written.
    Close,
}

/// Says who ended a connection. The numbers are those of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Peer {
    /// The proxy does not say.
    Unknown = 0,
    /// The proxy itself.
    Local = 1,
    /// The other side.
    Remote = 2,
}

/// Ends a connection. A connection that something failed for is closed: `?` makes this of every error of the SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close;

macro_rules! closes {
    ($($error:ty),*) => {$(
        impl From<$error> for Close {
            fn from(_: $error) -> Self {
                Self
            }
        }
    )*};
}

closes!(HostError, CallError, GrpcError, BodyError, PropertyError);

/// Builds a plugin from the bytes that the host holds for it.
pub(crate) fn load<P: NetworkPlugin>(configuration: &[u8], host: &mut impl Host) -> Result<P, ConfigError> {
    if configuration.is_empty() { P::unconfigured(host) } else { P::configure(json::from_slice(configuration)?, host) }
}

/// Closes a connection, or says in the log why that failed.
pub(crate) fn close(host: &mut impl Host) {
    let closed = host.close_connection();
    succeeded(host, closed);
}

/// Carries out what a callback decided; true when the data goes on.
pub(crate) fn settle(flow: NetworkFlow, host: &mut impl Host) -> bool {
    if flow == NetworkFlow::Close {
        close(host);
    }
    flow == NetworkFlow::Continue
}
