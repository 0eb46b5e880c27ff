//! The proxy's functions, each with its status as a `Result`.
//!
//! The proxy-wasm crate has these too, but it panics on a status that it does not expect, such as the 2 that Envoy
//! returns for a map out of its phase, and a panic fails every stream of the VM.
#![expect(unsafe_code, reason = "the host's functions take pointers into this module's memory")]

use std::ops::Range;
use std::ptr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::host::{BufferType, Host, HostError, LogLevel, MapType, MetricType};
use crate::{HeaderMap, LocalResponse, wire};

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const PARSE_FAILURE: u32 = 4;
const PLUGIN_CONFIGURATION: u32 = 7;
pub(super) const HTTP_REQUEST: u32 = 0;
pub(super) const DOWNSTREAM: u32 = 2;
const EMPTY: u32 = 7;
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
    pub(super) fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(key: *const u8, size: usize, value: *const u8, value_size: usize, version: u32) -> u32;
    fn proxy_register_shared_queue(name: *const u8, size: usize, queue: *mut u32) -> u32;
    fn proxy_resolve_shared_queue(
        vm_id: *const u8,
        vm_id_size: usize,
        name: *const u8,
        size: usize,
        queue: *mut u32,
    ) -> u32;
    fn proxy_enqueue_shared_queue(queue: u32, value: *const u8, size: usize) -> u32;
    fn proxy_dequeue_shared_queue(queue: u32, value: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, size: usize, metric: *mut u32) -> u32;
    fn proxy_increment_metric(metric: u32, by: i64) -> u32;
    fn proxy_record_metric(metric: u32, value: u64) -> u32;
    fn proxy_get_metric(metric: u32, value: *mut u64) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        size: usize,
        arguments: *const u8,
        arguments_size: usize,
        results: *mut *mut u8,
        results_size: *mut usize,
    ) -> u32;
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

pub(super) fn done(call: &'static str, status: u32) -> Result<(), HostError> {
    if status == OK { Ok(()) } else { Err(HostError::new(call, status)) }
}

/// Runs a call that returns bytes; none when the host found nothing.
pub(super) fn bytes_from(
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
    Ok(buffer(PLUGIN_CONFIGURATION, 0, usize::MAX)?.unwrap_or_default())
}

/// Reads a header map, by its number in the ABI.
pub(super) fn header_map(map: u32) -> Result<HeaderMap, HostError> {
    let call = "proxy_get_header_map_pairs";
    let bytes = bytes_from(call, |data, size| {
        // SAFETY: both out pointers live through the call.
        unsafe { proxy_get_header_map_pairs(map, data, size) }
    })?;
    HeaderMap::read(bytes.unwrap_or_default()).ok_or(HostError::new(call, PARSE_FAILURE))
}

/// Reads a buffer, by its number in the ABI; none when the host has none.
pub(super) fn buffer(buffer: u32, start: usize, size: usize) -> Result<Option<Vec<u8>>, HostError> {
    bytes_from("proxy_get_buffer_bytes", |data, data_size| {
        // SAFETY: both out pointers live through the call.
        unsafe { proxy_get_buffer_bytes(buffer, start, size, data, data_size) }
    })
}

impl Host for Proxy {
    fn header_map(&self, map: MapType) -> Result<HeaderMap, HostError> {
        header_map(map as u32)
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
        Ok(self::buffer(buffer as u32, range.start, range.len())?.unwrap_or_default())
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
        let headers = wire::write(&response.headers);
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

    fn resume_connection(&mut self) -> Result<(), HostError> {
        // SAFETY: passes a number only.
        done("proxy_continue_stream", unsafe { proxy_continue_stream(DOWNSTREAM) })
    }

    fn close_connection(&mut self) -> Result<(), HostError> {
        // SAFETY: passes a number only.
        done("proxy_close_stream", unsafe { proxy_close_stream(DOWNSTREAM) })
    }

    fn shared_data(&self, key: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        let mut version = 0;
        let value = bytes_from("proxy_get_shared_data", |data, size| {
            // SAFETY: `key` and the three out pointers live through the call.
            unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut version) }
        })?;
        Ok(value.map(|value| (value, version)))
    }

    fn set_shared_data(&mut self, key: &str, value: &[u8], version: u32) -> Result<(), HostError> {
        // SAFETY: `key` and `value` live through the call.
        done("proxy_set_shared_data", unsafe {
            proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version)
        })
    }

    fn register_queue(&mut self, name: &str) -> Result<u32, HostError> {
        let mut queue = 0;
        // SAFETY: `name` and the out pointer live through the call.
        let status = unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut queue) };
        done("proxy_register_shared_queue", status).map(|()| queue)
    }

    fn resolve_queue(&self, vm_id: &str, name: &str) -> Result<Option<u32>, HostError> {
        let mut queue = 0;
        // SAFETY: both names and the out pointer live through the call.
        let status = unsafe {
            proxy_resolve_shared_queue(vm_id.as_ptr(), vm_id.len(), name.as_ptr(), name.len(), &raw mut queue)
        };
        match status {
            NOT_FOUND => Ok(None),
            status => done("proxy_resolve_shared_queue", status).map(|()| Some(queue)),
        }
    }

    fn enqueue(&mut self, queue: u32, value: &[u8]) -> Result<(), HostError> {
        // SAFETY: `value` lives through the call.
        done("proxy_enqueue_shared_queue", unsafe { proxy_enqueue_shared_queue(queue, value.as_ptr(), value.len()) })
    }

    fn dequeue(&mut self, queue: u32) -> Result<Option<Vec<u8>>, HostError> {
        let call = "proxy_dequeue_shared_queue";
        let value = bytes_from(call, |data, size| {
            // SAFETY: both out pointers live through the call.
            unsafe { proxy_dequeue_shared_queue(queue, data, size) }
        });
        match value {
            Ok(Some(value)) => Ok(Some(value)),
            // Unlike elsewhere, not found is an error here, and empty is nothing.
            Ok(None) => Err(HostError::new(call, NOT_FOUND)),
            Err(error) if error.status() == EMPTY => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn define_metric(&mut self, kind: MetricType, name: &str) -> Result<u32, HostError> {
        let mut metric = 0;
        // SAFETY: `name` and the out pointer live through the call.
        let status = unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut metric) };
        done("proxy_define_metric", status).map(|()| metric)
    }

    fn increment_metric(&mut self, metric: u32, by: i64) -> Result<(), HostError> {
        // SAFETY: passes numbers only.
        done("proxy_increment_metric", unsafe { proxy_increment_metric(metric, by) })
    }

    fn record_metric(&mut self, metric: u32, value: u64) -> Result<(), HostError> {
        // SAFETY: passes numbers only.
        done("proxy_record_metric", unsafe { proxy_record_metric(metric, value) })
    }

    fn metric(&self, metric: u32) -> Result<u64, HostError> {
        let mut value = 0;
        // SAFETY: the out pointer lives through the call.
        let status = unsafe { proxy_get_metric(metric, &raw mut value) };
        done("proxy_get_metric", status).map(|()| value)
    }

    fn call_foreign_function(&mut self, name: &str, arguments: &[u8]) -> Result<Vec<u8>, HostError> {
        let call = "proxy_call_foreign_function";
        let results = bytes_from(call, |data, size| {
            // SAFETY: `name`, `arguments` and both out pointers live through the call.
            unsafe {
                proxy_call_foreign_function(name.as_ptr(), name.len(), arguments.as_ptr(), arguments.len(), data, size)
            }
        })?;
        results.ok_or(HostError::new(call, NOT_FOUND))
    }
}
