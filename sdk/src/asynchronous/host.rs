//! What a plugin that waits needs of the proxy beyond [`Host`], and which proxy that is.

use std::time::Duration;

use crate::HeaderMap;
use crate::host::{Host, HostError};

/// One half of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// An HTTP request.
    Request,
    /// An HTTP response.
    Response,
    /// What a connection's client sends.
    Downstream,
}

/// What became of a callout. Numbers are sizes; what they are the sizes of is read while the callback runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CalloutEvent {
    Response {
        headers: usize,
        body_size: usize,
        trailers: usize,
    },
    /// The one message of a call, which ends it.
    GrpcAnswer {
        size: usize,
    },
    GrpcMetadata,
    GrpcMessage {
        size: usize,
    },
    GrpcTrailers,
    GrpcClose {
        status: u32,
    },
}

/// Whom a gRPC call is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrpcTarget<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) service: &'a str,
    pub(crate) method: &'a str,
    pub(crate) metadata: &'a [(String, Vec<u8>)],
}

/// A response's headers, body and trailers.
pub(crate) type Received = (HeaderMap, Vec<u8>, HeaderMap);

/// The calls that only waiting plugins make.
pub(crate) trait AsyncHost: Host {
    /// Sends an HTTP request to a cluster; its response comes under the number returned.
    fn http_call(
        &mut self,
        cluster: &str,
        headers: &[(String, String)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<u32, HostError>;

    /// Reads the response of the call that the running callback is about; none when it broke off.
    fn call_response(&self, headers: usize, body_size: usize, trailers: usize) -> Option<Received>;

    /// Makes a gRPC call with one message each way.
    fn grpc_call(&mut self, target: GrpcTarget<'_>, message: &[u8], timeout: Duration) -> Result<u32, HostError>;

    /// Opens a gRPC stream.
    fn grpc_stream(&mut self, target: GrpcTarget<'_>) -> Result<u32, HostError>;

    /// Sends a message on a gRPC stream.
    fn grpc_send(&mut self, token: u32, message: &[u8]) -> Result<(), HostError>;

    /// Ends this side of a gRPC stream.
    fn grpc_close(&mut self, token: u32) -> Result<(), HostError>;

    /// Ends a gRPC stream; nothing comes of it any more.
    fn grpc_cancel(&mut self, token: u32);

    /// Reads the message that the running callback is about.
    fn grpc_message(&self, size: usize) -> Result<Vec<u8>, HostError>;

    /// Reads the metadata that the running callback is about.
    fn grpc_metadata(&self, trailing: bool) -> Result<HeaderMap, HostError>;

    /// Reads the text of the status that the running callback is about.
    fn grpc_status_message(&self) -> String;

    /// Calls the root context back after this long, again and again; zero is never.
    fn set_tick_period(&mut self, period: Duration);

    /// Makes host calls act on another context.
    fn set_context(&mut self, context: u32);

    /// Lets a held direction of the stream go on.
    fn resume(&mut self, direction: Direction);
}

#[cfg(target_family = "wasm")]
pub(crate) use crate::guest::hostcalls::Proxy as Active;
#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::Active;
