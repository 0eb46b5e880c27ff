//! Envoy's response flags: bits of the property `response.flags`.

/// `UR`: the upstream reset the stream.
pub(crate) const UPSTREAM_REMOTE_RESET: u64 = 1 << 4;
/// `UF`: no connection to the upstream.
pub(crate) const UPSTREAM_CONNECTION_FAILURE: u64 = 1 << 5;
/// `UC`: the upstream closed the connection.
pub(crate) const UPSTREAM_CONNECTION_TERMINATION: u64 = 1 << 6;
/// `UH`: the upstream's name has no address.
pub(crate) const NO_HEALTHY_UPSTREAM: u64 = 1 << 1;
/// `NR`: no route.
pub(crate) const NO_ROUTE: u64 = 1 << 8;
/// `DC`: the client closed the connection.
pub(crate) const DOWNSTREAM_CONNECTION_TERMINATION: u64 = 1 << 14;
/// `SI`: nothing happened for too long.
pub(crate) const STREAM_IDLE_TIMEOUT: u64 = 1 << 16;
/// `UPE`: the upstream's answer is no HTTP.
pub(crate) const UPSTREAM_PROTOCOL_ERROR: u64 = 1 << 23;
