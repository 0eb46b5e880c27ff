//! Plugins that wait: for a call's response, for a body, for a moment.

mod body;
mod call;
pub(crate) mod exchange;
mod executor;
mod grpc;
mod host;
mod latch;
mod network;
mod stream;
mod time;

use std::future::Future;
use std::rc::Rc;

use serde::de::DeserializeOwned;

pub use self::body::{Body, BodyError};
pub use self::call::{Call, CallError, CallResponse};
pub(crate) use self::executor::{Executor, Task};
pub use self::grpc::{GrpcCall, GrpcError, GrpcStream};
#[cfg(feature = "log")]
pub(crate) use self::host::Active;
pub(crate) use self::host::{AsyncHost, CalloutEvent, Direction, GrpcTarget, Received};
pub use self::latch::Latch;
pub use self::network::{AsyncNetworkPlugin, Connection, Data};
pub(crate) use self::network::{connection_future, load as load_network, root_future as network_root_future};
pub use self::stream::{QueueReceiver, Request, RequestBody, Response, Root, Trailers};
pub use self::time::Sleep;

use crate::{ConfigError, Flow, Host, LocalResponse, json};

/// Lets the stream go on, or answers it here.
pub type Answer = Result<(), LocalResponse>;

/// Handles the streams of one plugin configuration, each in a future of its own.
///
/// A request's future may wait for as long as it likes: the request is held meanwhile, and the worker goes on with
/// others. When the client goes away the future is dropped where it stands. Nothing runs in the background but what
/// [`start`](Self::start) does.
///
/// ```
/// use plugwright_sdk::testing::{AsyncProxy, get, response};
/// use plugwright_sdk::{Answer, AsyncPlugin, Call, ConfigError, Host, LocalResponse, Request};
///
/// /// Asks a policy server about each request.
/// struct Ask;
///
/// impl AsyncPlugin for Ask {
///     type Config = serde::de::IgnoredAny;
///
///     fn configure(_: Self::Config, _: &mut impl Host) -> Result<Self, ConfigError> {
///         Ok(Ask)
///     }
///
///     async fn on_request(&self, mut request: Request) -> Answer {
///         let path = request.path();
///         let verdict = request.call("policy", Call::get("policy.example", &path)).await?;
///         if verdict.status() != 200 {
///             return Err(LocalResponse::new(403));
///         }
///         request.set_header("x-policy", "asked")?;
///         let mut response = request.forward().await;
///         response.set_header("x-policy", "asked")?;
///         Ok(())
///     }
/// }
///
/// plugwright_sdk::register!(async Ask);
///
/// let mut proxy = AsyncProxy::<Ask>::new("{}")
///     .unwrap()
///     .cluster("policy", |call| response(if call.values(":path") == ["/open"] { 200 } else { 403 }));
/// assert_eq!(proxy.send(get("/open")).status(), 200);
/// assert_eq!(proxy.send(get("/closed")).status(), 403);
/// ```
#[expect(async_fn_in_trait, reason = "a VM has one thread, so that futures need not be Send")]
pub trait AsyncPlugin: Sized + 'static {
    /// As [`Plugin::Config`](crate::Plugin::Config).
    type Config: DeserializeOwned;

    /// As [`Plugin::configure`](crate::Plugin::configure).
    fn configure(config: Self::Config, host: &mut impl Host) -> Result<Self, ConfigError>;

    /// As [`Plugin::unconfigured`](crate::Plugin::unconfigured).
    fn unconfigured(host: &mut impl Host) -> Result<Self, ConfigError> {
        Self::configure(json::from_slice(b"{}")?, host)
    }

    /// Handles a stream from its request's headers on. The request goes on when the future is ready, or when it is
    /// [forwarded](Request::forward) or its [body](Request::into_body) is asked for.
    async fn on_request(&self, request: Request) -> Answer {
        let _ = request;
        Ok(())
    }

    /// Runs beside all streams, from the configuration on: to fetch what they need and to refresh it. Requests that come
    /// meanwhile are not held unless `on_request` waits for something that this sets.
    async fn start(&self, root: Root) {
        let _ = root;
    }

    /// Is called when a stream is over, however it ended; all its header maps can be read.
    fn on_log(&self, host: &mut impl Host) {
        let _ = host;
    }
}

/// Builds a plugin from the bytes that the host holds for it.
pub(crate) fn load<P: AsyncPlugin>(configuration: &[u8], host: &mut impl Host) -> Result<Rc<P>, ConfigError> {
    let plugin = if configuration.is_empty() {
        P::unconfigured(host)
    } else {
        P::configure(json::from_slice(configuration)?, host)
    };
    plugin.map(Rc::new)
}

/// The future of a stream, which owns its plugin.
pub(crate) fn stream_future<P: AsyncPlugin>(
    plugin: &Rc<P>,
    handle: exchange::Handle,
) -> impl Future<Output = Flow> + use<P> + 'static {
    let plugin = Rc::clone(plugin);
    let request = Request::new(handle);
    async move { plugin.on_request(request).await.map_or_else(Flow::Respond, |()| Flow::Continue) }
}

/// The future beside the streams.
pub(crate) fn root_future<P: AsyncPlugin>(plugin: &Rc<P>, root: Root) -> impl Future<Output = ()> + use<P> + 'static {
    let plugin = Rc::clone(plugin);
    async move { plugin.start(root).await }
}
