//! What futures need of the proxy beyond [`Host`], and which proxy that is.

use std::time::Duration;

use crate::host::{Header, Host, HostError};

/// One half of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

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
    fn call_response(&self, headers: usize, body_size: usize) -> Option<(Vec<Header>, Vec<u8>)>;

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
