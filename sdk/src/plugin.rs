//! What a plugin is: a configuration type, a way to build it, and callbacks that default to doing nothing.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::{ConfigError, Host, HostError, Queue, json};

/// Handles the streams of one plugin configuration.
///
/// One value serves all streams of a worker, and its callbacks are never run at once. Every callback has a default
/// that lets the stream continue, and a plugin that leaves the body ones alone never copies a body.
pub trait Plugin: Sized + 'static {
    /// The configuration as it is written. Annotate it with `#[serde(deny_unknown_fields)]`: a misspelt field of a
    /// security policy must not pass.
    type Config: DeserializeOwned;

    /// Builds the plugin, or says which field is wrong; the proxy then rejects the configuration.
    fn configure(config: Self::Config, host: &mut impl Host) -> Result<Self, ConfigError>;

    /// Decides what no configuration means; by default the same as `{}`.
    ///
    /// Istio sends no bytes for `pluginConfig: {}` as well as for none, so a plugin cannot tell one from the other.
    fn unconfigured(host: &mut impl Host) -> Result<Self, ConfigError> {
        Self::configure(json::from_slice(b"{}")?, host)
    }

    /// Sees the request's headers; `end_of_stream` when no body follows.
    fn on_request_headers(&self, host: &mut impl Host, end_of_stream: bool) -> Flow {
        let _ = (host, end_of_stream);
        Flow::Continue
    }

    /// Sees `size` bytes of the request's body: one chunk, or all of it up to here after [`Flow::Pause`].
    fn on_request_body(&self, host: &mut impl Host, size: usize, end_of_stream: bool) -> Flow {
        let _ = (host, size, end_of_stream);
        Flow::Continue
    }

    /// Sees the response's headers, also those of a local response that this or a later filter sent.
    fn on_response_headers(&self, host: &mut impl Host, end_of_stream: bool) -> Flow {
        let _ = (host, end_of_stream);
        Flow::Continue
    }

    /// Sees `size` bytes of the response's body: one chunk, or all of it up to here after [`Flow::Pause`].
    fn on_response_body(&self, host: &mut impl Host, size: usize, end_of_stream: bool) -> Flow {
        let _ = (host, size, end_of_stream);
        Flow::Continue
    }

    /// Sees the request's trailers, when there are any.
    fn on_request_trailers(&self, host: &mut impl Host) -> Flow {
        let _ = host;
        Flow::Continue
    }

    /// Sees the response's trailers, when there are any.
    fn on_response_trailers(&self, host: &mut impl Host) -> Flow {
        let _ = host;
        Flow::Continue
    }

    /// Is called when a stream is over, however it ended; all its header maps can be read.
    fn on_log(&self, host: &mut impl Host) {
        let _ = host;
    }

    /// Says how often [`on_tick`](Self::on_tick) is called, in whole milliseconds; by default never.
    ///
    /// Every worker has its own ticks, and Envoy's main thread as well.
    fn tick_period(&self) -> Option<Duration> {
        None
    }

    /// Is called again and again, beside all streams.
    fn on_tick(&self, host: &mut impl Host) {
        let _ = host;
    }

    /// Is called when there is something in a queue that the plugin has [registered](Queue::register).
    fn on_queue_ready(&self, host: &mut impl Host, queue: Queue) {
        let _ = (host, queue);
    }
}

/// Tells the proxy how the stream goes on after a callback.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// On to the next filter.
    Continue,
    /// Held here. A paused body callback gets the next chunk with all before it; it must continue at the end of the
    /// stream.
    Pause,
    /// Ends here with this response in the upstream's stead.
    Respond(LocalResponse),
}

/// A response that the plugin gives in the upstream's stead.
///
/// ```
/// use plugwright_sdk::LocalResponse;
///
/// let denied = LocalResponse::new(403).details("acl_denied").header("x-reason", "not yours").body("no\n");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalResponse {
    /// The status code.
    pub status: u16,
    /// What the access log shows as `response.code_details`; never sent to the client.
    pub details: String,
    /// The headers, in order. Envoy adds `content-length` and, for a body, `content-type: text/plain`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl LocalResponse {
    /// Creates an empty response with this status code, which should be 200 to 599.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Sets what the access log shows; the proxy turns white space into `_`.
    #[must_use]
    pub fn details(mut self, details: &str) -> Self {
        details.clone_into(&mut self.details);
        self
    }

    /// Adds a header. One that HTTP does not allow is left out when the response is sent, and the log says so: Envoy
    /// would let it split the response. With more than 1024 headers, of which Envoy would send none, the stream is reset.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// Builds a plugin from the bytes that the host holds for it.
pub(crate) fn load<P: Plugin>(configuration: &[u8], host: &mut impl Host) -> Result<P, ConfigError> {
    if configuration.is_empty() { P::unconfigured(host) } else { P::configure(json::from_slice(configuration)?, host) }
}

/// Of more headers Envoy would send none.
const MOST_HEADERS: usize = 1024;
const BAD_ARGUMENT: u32 = 2;

/// Carries out what a callback decided; true when the stream goes on.
pub(crate) fn settle(flow: Flow, host: &mut impl Host) -> bool {
    let mut response = match flow {
        Flow::Continue => return true,
        Flow::Pause => return false,
        Flow::Respond(response) => response,
    };
    response.headers.retain(|(name, value)| {
        let allowed = crate::is_token(name) && crate::is_field_value(value);
        if !allowed {
            host.error("local response: left out a header that HTTP forbids");
        }
        allowed
    });
    let sent = if response.headers.len() > MOST_HEADERS {
        Err(HostError::new("proxy_send_local_response", BAD_ARGUMENT))
    } else {
        host.send_local_response(&response)
    };
    // Without its response a denied request must still not go on.
    if !succeeded(host, sent) {
        let reset = host.reset_stream();
        succeeded(host, reset);
    }
    false
}

/// Says in the log what failed. Once in a module, however many calls it is asked about.
pub(crate) fn succeeded(host: &impl Host, result: Result<(), HostError>) -> bool {
    if let Err(error) = result {
        host.error(&error.to_string());
    }
    result.is_ok()
}
