//! The handles that a plugin's futures work with.

use std::fmt;
use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::call::{self, Call, CallError, CallResponse};
use super::exchange::{Handle, Shared};
use super::executor::{Executor, Waiting};
use super::grpc::{self, GrpcCall, GrpcError, GrpcStream};
use super::host::{Active, Direction};
use super::{Body, Sleep};
use crate::host::{Header, HostError};
use crate::{HeaderMap, Host, LocalResponse, MapType, Queue};

/// A host call that failed answers the request with an empty 500.
impl From<HostError> for LocalResponse {
    fn from(_: HostError) -> Self {
        Self::new(500).details("host_call_failed")
    }
}

/// A request whose headers are here and have not gone on.
pub struct Request {
    shared: Rc<Shared>,
    context: u32,
}

/// A response whose headers are here and have not gone on: the upstream's, or a local one of a later filter.
pub struct Response {
    shared: Rc<Shared>,
}

/// A request's body; the headers have gone on.
#[derive(Debug)]
pub struct RequestBody(Body);

/// What a plugin does beside its streams.
pub struct Root(());

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("context", &self.context).finish_non_exhaustive()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").finish_non_exhaustive()
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").finish_non_exhaustive()
    }
}

impl Root {
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Makes this plugin the one that takes from the queue `name`, as [`Queue::register`] does.
    ///
    /// ```
    /// # use plugwright_sdk::{HostError, Root};
    /// # async fn start(root: Root) -> Result<(), HostError> {
    /// let mut jobs = root.queue("jobs")?;
    /// loop {
    ///     let job = jobs.next().await?;
    ///     root.host().info(&String::from_utf8_lossy(&job));
    /// }
    /// # }
    /// # use plugwright_sdk::Host;
    /// ```
    pub fn queue(&self, name: &str) -> Result<QueueReceiver, HostError> {
        Queue::register(&mut Active, name).map(QueueReceiver)
    }
}

/// The end of a queue that is taken from.
#[derive(Debug)]
pub struct QueueReceiver(Queue);

impl QueueReceiver {
    /// Waits for the next value.
    pub async fn next(&mut self) -> Result<Vec<u8>, HostError> {
        poll_fn(|cx| match self.0.pop(&mut Active) {
            Ok(Some(value)) => Poll::Ready(Ok(value)),
            Ok(None) => {
                if let Some(executor) = Executor::current() {
                    executor.await_queue(self.0.token(), cx.waker());
                }
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        })
        .await
    }

    /// The queue itself.
    pub fn queue(&self) -> Queue {
        self.0
    }
}

/// The trailers of a request or a response, which have not gone on. [`Body::trailers`] waits for them.
///
/// ```
/// # use plugwright_sdk::testing::{Proxy, get, response};
/// # use plugwright_sdk::{Answer, AsyncPlugin, ConfigError, Host, Request};
/// # struct Sum;
/// # impl AsyncPlugin for Sum {
/// #     type Config = serde::de::IgnoredAny;
/// #     fn configure(_: Self::Config, _: &mut impl Host) -> Result<Self, ConfigError> { Ok(Sum) }
/// async fn on_request(&self, request: Request) -> Answer {
///     let mut body = request.forward().await.into_body();
///     let mut length = 0;
///     while let Some(chunk) = body.chunk().await? {
///         length += chunk.len();
///     }
///     body.trailers().await?.set_header("x-length", &length.to_string())?;
///     Ok(())
/// }
/// # }
/// # let mut proxy = Proxy::<Sum>::new("{}").unwrap().upstream(response(200).body("four"));
/// # assert_eq!(proxy.send(get("/")).response().unwrap().trailer_lines(), ["x-length: 4"]);
/// ```
#[derive(Debug)]
pub struct Trailers(MapType);

impl Trailers {
    pub(super) fn new(map: MapType) -> Self {
        Self(map)
    }
}

macro_rules! anywhere {
    ($handle:ty) => {
        impl $handle {
            /// Makes a gRPC call to the proxy's cluster `cluster`, and waits for its answer: one message each way.
            pub async fn grpc_call(&self, cluster: &str, call: GrpcCall) -> Result<Vec<u8>, GrpcError> {
                grpc::call(cluster, call).await
            }

            /// Opens a gRPC stream to the proxy's cluster `cluster`.
            pub fn grpc_stream(&self, cluster: &str, call: &GrpcCall) -> Result<GrpcStream, GrpcError> {
                grpc::open(cluster, call)
            }

            /// Sends an HTTP request to the proxy's cluster `cluster`, and waits for the whole response.
            pub async fn call(&self, cluster: &str, call: Call) -> Result<CallResponse, CallError> {
                call::call(cluster, call).await
            }

            /// Waits. Proxies count in milliseconds, and late rather than early.
            pub fn sleep(&self, duration: Duration) -> Sleep {
                Sleep::new(duration)
            }

            /// The proxy, for everything that does not wait: properties, the log, the time.
            pub fn host(&self) -> impl Host + use<> {
                Active
            }
        }
    };
}

pub(crate) use anywhere;

anywhere!(Request);
anywhere!(Response);
anywhere!(RequestBody);
anywhere!(Root);

macro_rules! headers {
    ($handle:ty, $this:pat => $map:expr) => {
        impl $handle {
            fn map(&self) -> MapType {
                let $this = self;
                $map
            }

            /// All headers, in order, without copies.
            pub fn header_map(&self) -> Result<HeaderMap, HostError> {
                Active.header_map(self.map())
            }

            /// All headers, in order.
            pub fn headers(&self) -> Result<Vec<Header>, HostError> {
                Active.headers(self.map())
            }

            /// The first header called `name`, in any case; none when there is none or it is not UTF-8.
            pub fn header(&self, name: &str) -> Option<String> {
                Active.header(self.map(), name).ok().flatten().and_then(|value| String::from_utf8(value).ok())
            }

            /// The values of all headers called `name`, in order.
            pub fn header_values(&self, name: &str) -> Result<Vec<Vec<u8>>, HostError> {
                Active.header_values(self.map(), name)
            }

            /// Puts one header in the place of all called `name`.
            pub fn set_header(&mut self, name: &str, value: &str) -> Result<(), HostError> {
                Active.replace_header(self.map(), name, value)
            }

            /// Adds a header beside those of the same name.
            pub fn add_header(&mut self, name: &str, value: &str) -> Result<(), HostError> {
                Active.add_header(self.map(), name, value)
            }

            /// Removes all headers called `name`.
            pub fn remove_header(&mut self, name: &str) -> Result<(), HostError> {
                Active.remove_header(self.map(), name)
            }
        }
    };
}

headers!(Request, _ => MapType::RequestHeaders);
headers!(Response, _ => MapType::ResponseHeaders);
headers!(Trailers, Self(map) => *map);

impl Request {
    pub(super) fn new(Handle { context, shared }: Handle) -> Self {
        Self { shared, context }
    }

    /// `:method`
    pub fn method(&self) -> String {
        self.header(":method").unwrap_or_default()
    }

    /// `:path`, query included.
    pub fn path(&self) -> String {
        self.header(":path").unwrap_or_default()
    }

    /// `:authority`
    pub fn authority(&self) -> String {
        self.header(":authority").unwrap_or_default()
    }

    /// Whether there is no body.
    pub fn is_end(&self) -> bool {
        self.shared.request.ended.get()
    }

    /// Lets the request go on and waits for the response's headers.
    pub async fn forward(self) -> Response {
        respond(self.shared).await
    }

    /// Lets the headers go on, to read the body. From then on an answer of the plugin's own makes the proxy break off
    /// what it has begun upstream.
    pub fn into_body(self) -> RequestBody {
        RequestBody(Body::new(&self.shared, Direction::Request))
    }
}

impl RequestBody {
    /// Lets the rest go on and waits for the response's headers.
    pub async fn forward(self) -> Response {
        respond(self.0.shared()).await
    }
}

impl Deref for RequestBody {
    type Target = Body;

    fn deref(&self) -> &Body {
        &self.0
    }
}

impl DerefMut for RequestBody {
    fn deref_mut(&mut self) -> &mut Body {
        &mut self.0
    }
}

impl Response {
    /// The status code; 0 when there is none.
    pub fn status(&self) -> u16 {
        self.header(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Whether there is no body.
    pub fn is_end(&self) -> bool {
        self.shared.response.ended.get()
    }

    /// Lets the headers go on, to read the body. From then on an answer of the plugin's own breaks the response off.
    pub fn into_body(self) -> Body {
        Body::new(&self.shared, Direction::Response)
    }
}

async fn respond(shared: Rc<Shared>) -> Response {
    poll_fn(|cx| {
        if shared.answered.get() {
            return Poll::Ready(());
        }
        shared.wait(Waiting::Response, cx.waker());
        Poll::Pending
    })
    .await;
    Response { shared }
}
