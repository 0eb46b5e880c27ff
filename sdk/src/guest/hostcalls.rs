//! The proxy's functions, each with its status as a `Result`.
//!
//! The proxy-wasm crate has these too, but it panics on a status that it does not expect, such as the 2 that Envoy
//! returns for a map out of its phase, and a panic fails every stream of the VM.
#![expect(unsafe_code, reason = "the host's functions take pointers into this module's memory")]

use std::ops::Range;
use std::ptr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::asynchronous::{AsyncHost, Direction};
use crate::host::{BufferType, Header, Host, HostError, LogLevel, MapType};
use crate::{LocalResponse, wire};

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const PARSE_FAILURE: u32 = 4;
const PLUGIN_CONFIGURATION: u32 = 7;
const HTTP_REQUEST: u32 = 0;
const HTTP_RESPONSE: u32 = 1;
const CALL_RESPONSE_BODY: u32 = 4;
const CALL_RESPONSE_HEADERS: u32 = 6;
/// Leaves the gRPC status to the host, which derives it from the HTTP one.
const NO_GRPC_STATUS: i32 = -1;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_get_property(path: *const u8, size: usize, value: *mut *mut u8, value_size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_get_header_map_pairs(map: u32, pairs: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(map: u32, name: *const u8, size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, size: usize) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, max_size: usize, bytes: *mut *mut u8, size: *mut usize)
    -> u32;
    fn proxy_set_buffer_bytes(buffer: u32, start: usize, size: usize, bytes: *const u8, bytes_size: usize) -> u32;
    fn proxy_close_stream(stream: u32) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn random_get(bytes: *mut u8, size: usize) -> u32;
}

/// Envoy gives no more at once.
const MOST_RANDOM: usize = 65_536;

/// Calls the proxy that runs this module.
#[derive(Clone, Copy)]
pub(crate) struct Proxy;

fn done(call: &'static str, status: u32) -> Result<(), HostError> {
    if status == OK { Ok(()) } else { Err(HostError::new(call, status)) }
}

/// Runs a call that returns bytes; none when the host found nothing.
fn bytes_from(
    call: &'static str,
    run: impl FnOnce(*mut *mut u8, *mut usize) -> u32,
) -> Result<Option<Vec<u8>>, HostError> {
    let mut data = ptr::null_mut::<u8>();
    let mut size = 0_usize;
    match run(&raw mut data, &raw mut size) {
        OK if data.is_null() => Ok(Some(Vec::new())),
        // SAFETY: the host got `data` from this module's `proxy_on_memory_allocate(size)`, which allocates a
        // boxed slice of exactly `size` bytes and gives it up; the host filled them and keeps no pointer.
        OK => Ok(Some(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(data, size)) }.into_vec())),
        NOT_FOUND => Ok(None),
        status => Err(HostError::new(call, status)),
    }
}

/// Reads the bytes of the plugin's configuration; available while the host configures the plugin.
pub(super) fn plugin_configuration() -> Result<Vec<u8>, HostError> {
    let bytes = bytes_from("proxy_get_buffer_bytes", |data, size| {
        // SAFETY: both out pointers live through the call.
        unsafe { proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, usize::MAX, data, size) }
    })?;
    Ok(bytes.unwrap_or_default())
}

impl Host for Proxy {
    fn headers(&self, map: MapType) -> Result<Vec<Header>, HostError> {
        let call = "proxy_get_header_map_pairs";
        let bytes = bytes_from(call, |data, size| {
            // SAFETY: both out pointers live through the call.
            unsafe { proxy_get_header_map_pairs(map as u32, data, size) }
        })?;
        wire::read_map(&bytes.unwrap_or_default()).ok_or(HostError::new(call, PARSE_FAILURE))
    }

    fn header(&self, map: MapType, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        bytes_from("proxy_get_header_map_value", |data, size| {
            // SAFETY: `name` and both out pointers live through the call.
            unsafe { proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size) }
        })
    }

    fn add_header(&mut self, map: MapType, name: &str, value: &str) -> Result<(), HostError> {
        // SAFETY: `name` and `value` live through the call.
        let status =
            unsafe { proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
        done("proxy_add_header_map_value", status)
    }

    fn replace_header(&mut self, map: MapType, name: &str, value: &str) -> Result<(), HostError> {
        // SAFETY: `name` and `value` live through the call.
        let status = unsafe {
            proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
        };
        done("proxy_replace_header_map_value", status)
    }

    fn remove_header(&mut self, map: MapType, name: &str) -> Result<(), HostError> {
        // SAFETY: `name` lives through the call.
        done("proxy_remove_header_map_value", unsafe {
            proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len())
        })
    }

    fn body(&self, buffer: BufferType, range: Range<usize>) -> Result<Vec<u8>, HostError> {
        let bytes = bytes_from("proxy_get_buffer_bytes", |data, size| {
            // SAFETY: both out pointers live through the call.
            unsafe { proxy_get_buffer_bytes(buffer as u32, range.start, range.len(), data, size) }
        })?;
        Ok(bytes.unwrap_or_default())
    }

    fn replace_body(&mut self, buffer: BufferType, bytes: &[u8]) -> Result<(), HostError> {
        // SAFETY: `bytes` lives through the call.
        done("proxy_set_buffer_bytes", unsafe {
            proxy_set_buffer_bytes(buffer as u32, 0, usize::MAX, bytes.as_ptr(), bytes.len())
        })
    }

    fn property(&self, path: &[&str]) -> Result<Option<Vec<u8>>, HostError> {
        let path = path.join("\0");
        bytes_from("proxy_get_property", |data, size| {
            // SAFETY: `path` and both out pointers live through the call.
            unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) }
        })
    }

    fn set_property(&mut self, name: &str, value: &[u8]) -> Result<(), HostError> {
        // SAFETY: `name` and `value` live through the call.
        done("proxy_set_property", unsafe {
            proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len())
        })
    }

    fn send_local_response(&mut self, response: &LocalResponse) -> Result<(), HostError> {
        let headers = wire::write_map(&response.headers);
        // SAFETY: `response` and `headers` live through the call.
        let status = unsafe {
            proxy_send_local_response(
                response.status.into(),
                response.details.as_ptr(),
                response.details.len(),
                response.body.as_ptr(),
                response.body.len(),
                headers.as_ptr(),
                headers.len(),
                NO_GRPC_STATUS,
            )
        };
        done("proxy_send_local_response", status)
    }

    fn reset_stream(&mut self) -> Result<(), HostError> {
        // SAFETY: passes a number only.
        done("proxy_close_stream", unsafe { proxy_close_stream(HTTP_REQUEST) })
    }

    fn log(&self, level: LogLevel, message: &str) {
        // A log that refuses a message leaves nowhere to say so.
        // SAFETY: `message` lives through the call.
        let _ = unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
    }

    fn now(&self) -> Result<SystemTime, HostError> {
        let mut nanoseconds = 0_u64;
        // SAFETY: the out pointer lives through the call.
        let status = unsafe { proxy_get_current_time_nanoseconds(&raw mut nanoseconds) };
        done("proxy_get_current_time_nanoseconds", status)?;
        Ok(UNIX_EPOCH + Duration::from_nanos(nanoseconds))
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), HostError> {
        bytes.chunks_mut(MOST_RANDOM).try_for_each(|chunk| {
            // SAFETY: `chunk` lives through the call, and all of it may be written to.
            done("random_get", unsafe { random_get(chunk.as_mut_ptr(), chunk.len()) })
        })
    }
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

    fn call_response(&self, headers: usize, body_size: usize) -> Option<(Vec<Header>, Vec<u8>)> {
        // No headers at all is how the host says that the response broke off.
        if headers == 0 {
            return None;
        }
        let pairs = bytes_from("proxy_get_header_map_pairs", |data, size| {
            // SAFETY: both out pointers live through the call.
            unsafe { proxy_get_header_map_pairs(CALL_RESPONSE_HEADERS, data, size) }
        });
        let body = bytes_from("proxy_get_buffer_bytes", |data, size| {
            // SAFETY: both out pointers live through the call.
            unsafe { proxy_get_buffer_bytes(CALL_RESPONSE_BODY, 0, body_size, data, size) }
        });
        Some((wire::read_map(&pairs.ok()??)?, body.ok()?.unwrap_or_default()))
    }

    fn set_tick_period(&mut self, period: Duration) {
        let milliseconds = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
        // SAFETY: passes a number only.
        let status = unsafe { proxy_set_tick_period_milliseconds(milliseconds) };
        report(*self, done("proxy_set_tick_period_milliseconds", status));
    }

    fn set_context(&mut self, context: u32) {
        // SAFETY: passes a number only.
        let status = unsafe { proxy_set_effective_context(context) };
        report(*self, done("proxy_set_effective_context", status));
    }

    fn resume(&mut self, direction: Direction) {
        let stream = match direction {
            Direction::Request => HTTP_REQUEST,
            Direction::Response => HTTP_RESPONSE,
        };
        // SAFETY: passes a number only.
        let status = unsafe { proxy_continue_stream(stream) };
        report(*self, done("proxy_continue_stream", status));
    }
}

fn report(proxy: Proxy, result: Result<(), HostError>) {
    if let Err(error) = result {
        proxy.error(&error.to_string());
    }
}
