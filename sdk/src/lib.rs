//! Write proxy-wasm plugins for Envoy and Istio: typed configuration, a host to talk to, tests without wasm.
//!
//! A plugin is a type that implements [`Plugin`]; [`register!`] makes it the module's. Its logic sees the proxy only
//! through the [`Host`] trait, so that the same code runs in a module and in a test on [`testing::Proxy`]:
//!
//! ```
//! use plugwright_sdk::testing::{Proxy, get};
//! use plugwright_sdk::{ConfigError, Flow, Host, LocalResponse, MapType, Plugin};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     header: String,
//! }
//!
//! /// Lets only requests pass that carry a certain header.
//! struct Gate(String);
//!
//! impl Plugin for Gate {
//!     type Config = Config;
//!
//!     fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
//!         if !plugwright_sdk::is_token(&config.header) {
//!             return Err(ConfigError::new("is not a header's name").field("header"));
//!         }
//!         Ok(Gate(config.header))
//!     }
//!
//!     fn on_request_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
//!         match host.header(MapType::RequestHeaders, &self.0) {
//!             Ok(Some(_)) => Flow::Continue,
//!             _ => Flow::Respond(LocalResponse::new(403).details("gate_closed")),
//!         }
//!     }
//! }
//!
//! plugwright_sdk::register!(Gate);
//!
//! let mut proxy = Proxy::<Gate>::new(r#"{"header": "x-key"}"#).unwrap();
//! assert_eq!(proxy.send(get("/")).status(), 403);
//! assert_eq!(proxy.send(get("/").header("x-key", "1")).status(), 200);
//!
//! let error = Proxy::<Gate>::new(r#"{"header": ""}"#).unwrap_err();
//! assert_eq!(error.to_string(), "header: is not a header's name");
//! ```
//!
//! A configuration that [`Plugin::configure`] refuses is logged at error level and rejected by the proxy. A panic is
//! logged at critical level and fails every stream of the worker, so a plugin must have none that a request can reach.

mod asynchronous;
mod config;
mod field;
mod headers;
mod host;
mod json;
#[cfg(feature = "log")]
pub mod logger;
mod metric;
mod network;
mod plugin;
pub mod property;
mod queue;
mod shared_data;
mod wire;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod guest;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub use proxy_wasm;
#[cfg(not(target_family = "wasm"))]
pub use schemars;

pub use asynchronous::{
    Answer, AsyncNetworkPlugin, AsyncPlugin, Body, BodyError, Call, CallError, CallResponse, Connection, Data,
    GrpcCall, GrpcError, GrpcStream, Latch, QueueReceiver, Request, RequestBody, Response, Root, Sleep, Trailers,
};
pub use config::ConfigError;
pub use field::{is_field_value, is_token, quoted};
pub use headers::HeaderMap;
pub use host::{BufferType, Header, Host, HostError, LogLevel, MapType, MetricType};
pub use metric::{Counter, Gauge, Histogram};
pub use network::{Close, NetworkFlow, NetworkPlugin, Peer};
pub use plugin::{Flow, LocalResponse, Plugin};
pub use property::PropertyError;
pub use queue::Queue;
pub use shared_data::{SharedData, SharedDataError};

/// Makes a plugin the one that the module runs, under any root id: `register!(MyPlugin)` a [`Plugin`],
/// `register!(async MyPlugin)` an [`AsyncPlugin`], `register!(network MyPlugin)` a [`NetworkPlugin`], and
/// `register!(async network MyPlugin)` an [`AsyncNetworkPlugin`].
///
/// Call it once, in the crate that is built as a `cdylib`. On other targets than wasm it only checks the type.
#[macro_export]
macro_rules! register {
    (async network $plugin:ty) => {
        $crate::register!(@ $plugin, AsyncNetworkPlugin, start_async_network);
    };
    (async $plugin:ty) => {
        $crate::register!(@ $plugin, AsyncPlugin, start_async);
    };
    (network $plugin:ty) => {
        $crate::register!(@ $plugin, NetworkPlugin, start_network);
    };
    (@ $plugin:ty, $trait:ident, $start:ident) => {
        #[cfg(target_family = "wasm")]
        type PlugwrightPlugin = $plugin;

        #[cfg(target_family = "wasm")]
        mod plugwright_module {
            #![allow(unsafe_code, missing_docs, unreachable_pub, reason = "proxy-wasm writes the entry point")]
            $crate::proxy_wasm::main! {{ $crate::guest::$start::<super::PlugwrightPlugin>(); }}
        }

        const _: fn() = || {
            fn is_plugin<P: $crate::$trait>() {}
            is_plugin::<$plugin>();
        };
    };
    ($plugin:ty) => {
        $crate::register!(@ $plugin, Plugin, start);
    };
}
