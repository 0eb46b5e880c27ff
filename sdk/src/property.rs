//! Properties of the stream and the proxy, each in its own type.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Host, HostError};

/// A property's path and the type that the proxy gives it; [`Host::get`] reads it.
///
/// The constants of this module are Envoy's attributes. Others, such as a plugin's own, are made with their path:
///
/// ```
/// use plugwright_sdk::Host;
/// use plugwright_sdk::property::{self, Property};
///
/// const SHARD: Property<i64> = Property::new(&["filter_state", "wasm.shard"]);
///
/// fn place(host: &impl Host) -> Option<i64> {
///     host.get(SHARD).ok().flatten()
/// }
/// # let host = plugwright_sdk::testing::InMemoryHost::default()
/// #     .with_property(&["filter_state", "wasm.shard"], 7_i64.to_le_bytes())
/// #     .with_property(&["source", "address"], "10.0.0.1:5000");
/// # assert_eq!(place(&host), Some(7));
/// # assert_eq!(host.get(property::SOURCE_ADDRESS).unwrap().as_deref(), Some("10.0.0.1:5000"));
/// # assert_eq!(host.get(property::REQUEST_ID).unwrap(), None);
/// ```
pub struct Property<T> {
    path: &'static [&'static str],
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Property<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Property<T> {}

impl<T> fmt::Debug for Property<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path.join("."))
    }
}

impl<T: PropertyValue> Property<T> {
    /// Names a property by the segments of its path.
    pub const fn new(path: &'static [&'static str]) -> Self {
        Self { path, value: PhantomData }
    }

    pub(crate) fn get(self, host: &impl Host) -> Result<Option<T>, PropertyError> {
        let Some(bytes) = host.property(self.path)? else { return Ok(None) };
        T::decode(bytes).map(Some).ok_or(PropertyError::Type { path: self.path })
    }
}

/// Why a property cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertyError {
    /// The proxy refused.
    Host(HostError),
    /// It is there, and of another type.
    Type {
        /// The property's path.
        path: &'static [&'static str],
    },
}

impl From<HostError> for PropertyError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl fmt::Display for PropertyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Type { path } => write!(f, "the property {} is of another type", path.join(".")),
        }
    }
}

impl std::error::Error for PropertyError {}

/// What a property can be read as.
pub trait PropertyValue: Sized {
    /// Reads the proxy's encoding; none when the bytes are not of this type.
    fn decode(bytes: Vec<u8>) -> Option<Self>;
}

impl PropertyValue for Vec<u8> {
    fn decode(bytes: Vec<u8>) -> Option<Self> {
        Some(bytes)
    }
}

impl PropertyValue for String {
    fn decode(bytes: Vec<u8>) -> Option<Self> {
        Self::from_utf8(bytes).ok()
    }
}

impl PropertyValue for bool {
    fn decode(bytes: Vec<u8>) -> Option<Self> {
        match bytes.as_slice() {
            [byte] => Some(*byte != 0),
            _ => None,
        }
    }
}

macro_rules! number {
    ($type:ty) => {
        impl PropertyValue for $type {
            fn decode(bytes: Vec<u8>) -> Option<Self> {
                Some(Self::from_le_bytes(bytes.as_slice().try_into().ok()?))
            }
        }
    };
}

number!(i64);
number!(u64);
number!(f64);

/// A duration; a negative one is none.
impl PropertyValue for Duration {
    fn decode(bytes: Vec<u8>) -> Option<Self> {
        Some(Self::from_nanos(u64::try_from(i64::decode(bytes)?).ok()?))
    }
}

/// A moment, not before the Unix epoch.
impl PropertyValue for SystemTime {
    fn decode(bytes: Vec<u8>) -> Option<Self> {
        UNIX_EPOCH.checked_add(Duration::decode(bytes)?)
    }
}

macro_rules! properties {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $path:expr;)*) => {$(
        $(#[$doc])*
        pub const $name: Property<$type> = Property::new(&$path);
    )*};
}

properties! {
    /// `request.path`, query included. As most of the request's, only while its headers are held, and in `on_log`.
    REQUEST_PATH: String = ["request", "path"];
    /// `request.url_path`, without the query.
    REQUEST_URL_PATH: String = ["request", "url_path"];
    /// `request.host`
    REQUEST_HOST: String = ["request", "host"];
    /// `request.scheme`
    REQUEST_SCHEME: String = ["request", "scheme"];
    /// `request.method`
    REQUEST_METHOD: String = ["request", "method"];
    /// `request.id`, from `x-request-id`.
    REQUEST_ID: String = ["request", "id"];
    /// `request.protocol`, such as `HTTP/1.1`; at any time.
    REQUEST_PROTOCOL: String = ["request", "protocol"];
    /// `request.time`: when the request's first byte came.
    REQUEST_TIME: SystemTime = ["request", "time"];
    /// `request.duration`; in `on_log`.
    REQUEST_DURATION: Duration = ["request", "duration"];
    /// `request.size`: the body's, from `content-length` if there is one.
    REQUEST_SIZE: i64 = ["request", "size"];
    /// `request.total_size`, headers included.
    REQUEST_TOTAL_SIZE: i64 = ["request", "total_size"];
    /// `response.code`; from the response's headers on.
    RESPONSE_CODE: i64 = ["response", "code"];
    /// `response.code_details`
    RESPONSE_CODE_DETAILS: String = ["response", "code_details"];
    /// `response.flags`
    RESPONSE_FLAGS: i64 = ["response", "flags"];
    /// `response.grpc_status`
    RESPONSE_GRPC_STATUS: i64 = ["response", "grpc_status"];
    /// `response.size`
    RESPONSE_SIZE: i64 = ["response", "size"];
    /// `source.address`: the client's, with its port.
    SOURCE_ADDRESS: String = ["source", "address"];
    /// `source.port`
    SOURCE_PORT: i64 = ["source", "port"];
    /// `destination.address`: the proxy's own, with its port.
    DESTINATION_ADDRESS: String = ["destination", "address"];
    /// `destination.port`
    DESTINATION_PORT: i64 = ["destination", "port"];
    /// `connection.id`
    CONNECTION_ID: u64 = ["connection", "id"];
    /// `connection.mtls`
    CONNECTION_MTLS: bool = ["connection", "mtls"];
    /// `connection.requested_server_name`
    CONNECTION_REQUESTED_SERVER_NAME: String = ["connection", "requested_server_name"];
    /// `connection.uri_san_peer_certificate`: the client's SPIFFE identity.
    CONNECTION_URI_SAN_PEER_CERTIFICATE: String = ["connection", "uri_san_peer_certificate"];
    /// `upstream.address`; from the response's headers on.
    UPSTREAM_ADDRESS: String = ["upstream", "address"];
    /// `xds.cluster_name`
    XDS_CLUSTER_NAME: String = ["xds", "cluster_name"];
    /// `xds.route_name`
    XDS_ROUTE_NAME: String = ["xds", "route_name"];
    /// `xds.listener_direction`: 1 inbound, 2 outbound.
    XDS_LISTENER_DIRECTION: i64 = ["xds", "listener_direction"];
    /// `plugin_name`
    PLUGIN_NAME: String = ["plugin_name"];
    /// `plugin_root_id`
    PLUGIN_ROOT_ID: String = ["plugin_root_id"];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::InMemoryHost;

    #[test]
    fn values_come_in_their_types() {
        let number = |value: i64| value.to_le_bytes().to_vec();
        assert_eq!(i64::decode(number(-2)), Some(-2));
        assert_eq!(u64::decode(number(7)), Some(7));
        assert_eq!(f64::decode(1.5_f64.to_le_bytes().to_vec()), Some(1.5));
        assert_eq!(bool::decode(vec![1]), Some(true));
        assert_eq!(Duration::decode(number(1_500_000_000)), Some(Duration::from_millis(1500)));
        assert_eq!(SystemTime::decode(number(1_000_000_000)), Some(UNIX_EPOCH + Duration::from_secs(1)));
    }

    #[test]
    fn another_type_is_an_error_that_names_the_property() {
        let host = InMemoryHost::default().with_property(&["source", "port"], "x");
        let error = host.get(SOURCE_PORT).unwrap_err();
        assert_eq!(error.to_string(), "the property source.port is of another type");
        assert_eq!(Duration::decode((-1_i64).to_le_bytes().to_vec()), None);
        assert_eq!(String::decode(vec![0xff]), None);
        assert_eq!(bool::decode(vec![]), None);
    }
}
