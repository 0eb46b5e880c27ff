//! The proxy's functions for plugins that wait.
#![expect(unsafe_code, reason = "the host's functions take pointers into this module's memory")]

use std::time::Duration;

use super::hostcalls::{DOWNSTREAM, HTTP_REQUEST, Proxy, buffer, bytes_from, done, header_map, proxy_continue_stream};
use crate::HeaderMap;
use crate::asynchronous::{AsyncHost, Direction, GrpcTarget, Received};
use crate::host::HostError;
use crate::plugin::succeeded;

const HTTP_RESPONSE: u32 = 1;
const CALL_RESPONSE_BODY: u32 = 4;
const CALL_RESPONSE_HEADERS: u32 = 6;
const CALL_RESPONSE_TRAILERS: u32 = 7;
const GRPC_MESSAGE: u32 = 5;
const GRPC_METADATA: u32 = 4;
const GRPC_TRAILERS: u32 = 5;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_grpc_send(token: u32, message: *const u8, size: usize, end: u32) -> u32;
    fn proxy_grpc_close(token: u32) -> u32;
    fn proxy_grpc_cancel(token: u32) -> u32;
    fn proxy_get_status(code: *mut u32, message: *mut *mut u8, size: *mut usize) -> u32;
}

fn metadata<'a>(target: &GrpcTarget<'a>) -> Vec<(&'a str, &'a [u8])> {
    target.metadata.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
}

impl AsyncHost for Proxy {
    fn http_call(
        &mut self,
        cluster: &str,
        headers: &[(String, String)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<u32, HostError> {
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // Through proxy-wasm, whose dispatcher must know the call: it panics on the response to one that it does not.
        proxy_wasm::hostcalls::dispatch_http_call(cluster, headers, Some(body), Vec::new(), timeout)
            .map_err(|status| HostError::new("proxy_http_call", status as u32))
    }

    fn call_response(&self, headers: usize, body_size: usize, trailers: usize) -> Option<Received> {
        // No headers at all is how the host says that the response broke off.
        if headers == 0 {
            return None;
        }
        let body = buffer(CALL_RESPONSE_BODY, 0, body_size).ok()?.unwrap_or_default();
        let trailers = if trailers == 0 { HeaderMap::default() } else { header_map(CALL_RESPONSE_TRAILERS).ok()? };
        Some((header_map(CALL_RESPONSE_HEADERS).ok()?, body, trailers))
    }

    fn grpc_call(&mut self, target: GrpcTarget<'_>, message: &[u8], timeout: Duration) -> Result<u32, HostError> {
        let GrpcTarget { cluster, service, method, .. } = target;
        // Through proxy-wasm for the same reason.
        let call = proxy_wasm::hostcalls::dispatch_grpc_call;
        call(cluster, service, method, metadata(&target), Some(message), timeout)
            .map_err(|status| HostError::new("proxy_grpc_call", status as u32))
    }

    fn grpc_stream(&mut self, target: GrpcTarget<'_>) -> Result<u32, HostError> {
        let GrpcTarget { cluster, service, method, .. } = target;
        proxy_wasm::hostcalls::open_grpc_stream(cluster, service, method, metadata(&target))
            .map_err(|status| HostError::new("proxy_grpc_stream", status as u32))
    }

    fn grpc_send(&mut self, token: u32, message: &[u8]) -> Result<(), HostError> {
        // SAFETY: `message` lives through the call.
        done("proxy_grpc_send", unsafe { proxy_grpc_send(token, message.as_ptr(), message.len(), 0) })
    }

    fn grpc_close(&mut self, token: u32) -> Result<(), HostError> {
        // SAFETY: passes a number only.
        done("proxy_grpc_close", unsafe { proxy_grpc_close(token) })
    }

    fn grpc_cancel(&mut self, token: u32) {
        // One that is over already is as good as cancelled.
        // SAFETY: passes a number only.
        let _ = unsafe { proxy_grpc_cancel(token) };
    }

    fn grpc_message(&self, size: usize) -> Result<Vec<u8>, HostError> {
        Ok(buffer(GRPC_MESSAGE, 0, size)?.unwrap_or_default())
    }

    fn grpc_metadata(&self, trailing: bool) -> Result<HeaderMap, HostError> {
        header_map(if trailing { GRPC_TRAILERS } else { GRPC_METADATA })
    }

    fn grpc_status_message(&self) -> String {
        let mut code = 0;
        let message = bytes_from("proxy_get_status", |data, size| {
            // SAFETY: the three out pointers live through the call.
            unsafe { proxy_get_status(&raw mut code, data, size) }
        });
        String::from_utf8(message.ok().flatten().unwrap_or_default()).unwrap_or_default()
    }

    fn set_tick_period(&mut self, period: Duration) {
        let milliseconds = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
        // SAFETY: passes a number only.
        let status = unsafe { proxy_set_tick_period_milliseconds(milliseconds) };
        succeeded(self, done("proxy_set_tick_period_milliseconds", status));
    }

    fn set_context(&mut self, context: u32) {
        // SAFETY: passes a number only.
        let status = unsafe { proxy_set_effective_context(context) };
        succeeded(self, done("proxy_set_effective_context", status));
    }

    fn resume(&mut self, direction: Direction) {
        let stream = match direction {
            Direction::Request => HTTP_REQUEST,
            Direction::Response => HTTP_RESPONSE,
            Direction::Downstream => DOWNSTREAM,
        };
        // SAFETY: passes a number only.
        let status = unsafe { proxy_continue_stream(stream) };
        succeeded(self, done("proxy_continue_stream", status));
    }
}
