//! Which callbacks a module has, for those who only want to know.

use super::{HeadersCallback, Vm};

impl Vm {
    /// Whether the module has this callback of a stream.
    pub(crate) fn has(&self, callback: &str) -> bool {
        let callbacks = &self.callbacks;
        match callback {
            "proxy_on_request_headers" => !matches!(callbacks.request_headers, HeadersCallback::Absent),
            "proxy_on_request_body" => callbacks.request_body.is_some(),
            "proxy_on_request_trailers" => callbacks.request_trailers.is_some(),
            "proxy_on_response_headers" => !matches!(callbacks.response_headers, HeadersCallback::Absent),
            "proxy_on_response_body" => callbacks.response_body.is_some(),
            "proxy_on_response_trailers" => callbacks.response_trailers.is_some(),
            "proxy_on_log" => callbacks.log.is_some(),
            "proxy_on_done" => callbacks.done.is_some() || callbacks.delete.is_some(),
            name => callbacks.network.has(name),
        }
    }
}
