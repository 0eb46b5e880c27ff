//! The `env.proxy_*` functions, one table for all ABI versions.

mod buffers;
mod callouts;
mod context;
mod foreign;
mod headers;
mod http;
mod log;
pub(crate) mod memory;
mod metrics;
mod properties;
mod queues;
mod shared_data;

use wasmtime::{Caller, Linker};

pub(crate) use context::nanoseconds;

use crate::abi::{AbiVersion, Status};
use crate::state::{HostState, Phase};
use crate::stream::state::Direction;

pub(crate) type Call<'a> = Caller<'a, HostState>;

/// How a hostcall ends when it does not succeed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A status (proxy-wasm) or errno (WASI) for the guest.
    Code(u32),
    /// A range outside linear memory; each interface has its own number for it.
    OutOfBounds,
    /// The guest's allocator trapped: so does the callback.
    Trap(wasmtime::Error),
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self::Code(status as u32)
    }
}

/// What a trap says when a hostcall ran where it may not.
#[derive(Debug, thiserror::Error)]
#[error("restricted_callback")]
pub(crate) struct RestrictedCallback;

/// Runs one hostcall: the phase's restriction before, the guest's status after.
pub(crate) fn enter(
    mut call: Call<'_>,
    allowed: &[Phase],
    out_of_bounds: u32,
    f: impl FnOnce(&mut Call<'_>) -> Result<(), Fault>,
) -> wasmtime::Result<u32> {
    if !allowed.contains(&call.data().phase) {
        return Err(wasmtime::Error::new(RestrictedCallback));
    }
    match f(&mut call) {
        Ok(()) => Ok(0),
        Err(Fault::Code(code)) => Ok(code),
        Err(Fault::OutOfBounds) => Ok(out_of_bounds),
        Err(Fault::Trap(error)) => Err(error),
    }
}

const ALWAYS: &[Phase] = &[Phase::Startup, Phase::Allocating, Phase::Callback];
const IN_CALLBACKS: &[Phase] = &[Phase::Callback];

macro_rules! link {
    ($linker:ident, $allowed:ident: $($name:literal($($arg:ident: $ty:ty),*) => $f:expr;)*) => {$(
        $linker.func_wrap("env", $name, |call: Call<'_>, $($arg: $ty),*| {
            enter(call, $allowed, Status::InvalidMemoryAccess as u32, |call| $f(call, $($arg),*))
        })?;
    )*};
}

/// Defines everything that a module of this ABI version may import from `env`.
pub(crate) fn add_to_linker(linker: &mut Linker<HostState>, abi: AbiVersion) -> wasmtime::Result<()> {
    link! { linker, ALWAYS:
        "proxy_log"(level: u32, ptr: u32, len: u32) => log::log;
    }
    link! { linker, IN_CALLBACKS:
        "proxy_get_current_time_nanoseconds"(out: u32) => context::get_current_time;
        "proxy_set_tick_period_milliseconds"(period: u32) => |call: &mut Call<'_>, period| {
            context::set_tick_period(call, period);
            Ok(())
        };
        "proxy_set_effective_context"(id: u32) => context::set_effective_context;
        "proxy_done"() => context::done;
        "proxy_get_status"(code: u32, ptr: u32, size: u32) => context::get_status;
        "proxy_get_property"(path: u32, len: u32, ptr: u32, size: u32) => properties::get;
        "proxy_set_property"(path: u32, path_len: u32, value: u32, value_len: u32) => properties::set;
        "proxy_get_buffer_bytes"(buffer: u32, start: u32, len: u32, ptr: u32, size: u32) => buffers::get;
        "proxy_get_buffer_status"(buffer: u32, len: u32, flags: u32) => buffers::status;
        "proxy_set_buffer_bytes"(buffer: u32, start: u32, len: u32, ptr: u32, size: u32) => buffers::set;
        "proxy_get_header_map_pairs"(map: u32, ptr: u32, size: u32) => headers::get_pairs;
        "proxy_set_header_map_pairs"(map: u32, ptr: u32, size: u32) => headers::set_pairs;
        "proxy_add_header_map_value"(map: u32, k: u32, k_len: u32, v: u32, v_len: u32) => headers::add;
        "proxy_replace_header_map_value"(map: u32, k: u32, k_len: u32, v: u32, v_len: u32) => headers::replace;
        "proxy_remove_header_map_value"(map: u32, k: u32, k_len: u32) => headers::remove;
        "proxy_get_header_map_size"(map: u32, size: u32) => headers::size;
        "proxy_send_local_response"(code: u32, details: u32, details_len: u32, body: u32, body_len: u32,
            headers: u32, headers_len: u32, grpc_status: i32) => http::send_local_response;
        "proxy_get_shared_data"(k: u32, k_len: u32, ptr: u32, size: u32, cas: u32) => shared_data::get;
        "proxy_set_shared_data"(k: u32, k_len: u32, v: u32, v_len: u32, cas: u32) => shared_data::set;
        "proxy_define_metric"(kind: u32, name: u32, name_len: u32, id: u32) => metrics::define;
        "proxy_increment_metric"(id: u32, offset: i64) => metrics::increment;
        "proxy_record_metric"(id: u32, value: u64) => metrics::record;
        "proxy_get_metric"(id: u32, out: u32) => metrics::get;
    }
    link! { linker, IN_CALLBACKS:
        "proxy_http_call"(upstream: u32, upstream_len: u32, headers: u32, headers_len: u32, body: u32, body_len: u32,
            trailers: u32, trailers_len: u32, timeout: i32, token: u32) => callouts::http_call;
        "proxy_grpc_call"(upstream: u32, upstream_len: u32, service: u32, service_len: u32, method: u32,
            method_len: u32, metadata: u32, metadata_len: u32, message: u32, message_len: u32, timeout: u32,
            token: u32) => callouts::grpc_call;
        "proxy_grpc_stream"(upstream: u32, upstream_len: u32, service: u32, service_len: u32, method: u32,
            method_len: u32, metadata: u32, metadata_len: u32, token: u32) => callouts::grpc_stream;
        "proxy_grpc_send"(token: u32, message: u32, message_len: u32, end: u32) => callouts::grpc_send;
        "proxy_grpc_close"(token: u32) => callouts::grpc_close;
        "proxy_grpc_cancel"(token: u32) => callouts::grpc_cancel;
        "envoy_resolve_dns"(host: u32, host_len: u32, token: u32) => callouts::resolve_dns;
        "proxy_register_shared_queue"(name: u32, len: u32, token: u32) => queues::register;
        "proxy_resolve_shared_queue"(vm: u32, vm_len: u32, name: u32, len: u32, token: u32) => queues::resolve;
        "proxy_enqueue_shared_queue"(token: u32, value: u32, len: u32) => queues::enqueue;
        "proxy_dequeue_shared_queue"(token: u32, ptr: u32, size: u32) => queues::dequeue;
        "proxy_call_foreign_function"(name: u32, name_len: u32, arguments: u32, arguments_len: u32, ptr: u32,
            size: u32) => foreign::call;
    }
    match abi {
        AbiVersion::V0_1_0 => {
            link! { linker, IN_CALLBACKS:
                "proxy_get_header_map_value"(map: u32, k: u32, k_len: u32, ptr: u32, size: u32) => headers::get_or_empty;
                "proxy_get_configuration"(ptr: u32, size: u32) => buffers::get_configuration;
                "proxy_continue_request"() => |call: &mut Call<'_>| {
                    http::resume(call.data(), Direction::Request);
                    Ok(())
                };
                "proxy_continue_response"() => |call: &mut Call<'_>| {
                    http::resume(call.data(), Direction::Response);
                    Ok(())
                };
                // There is one route, so that nothing is cached.
                "proxy_clear_route_cache"() => |_: &mut Call<'_>| Ok(());
            }
        }
        AbiVersion::V0_2_0 | AbiVersion::V0_2_1 => {
            link! { linker, IN_CALLBACKS:
                "proxy_get_header_map_value"(map: u32, k: u32, k_len: u32, ptr: u32, size: u32) => headers::get;
                "proxy_continue_stream"(stream: u32) => http::continue_stream;
                "proxy_close_stream"(stream: u32) => http::close_stream;
            }
        }
    }
    if abi == AbiVersion::V0_2_1 {
        link! { linker, IN_CALLBACKS: "proxy_get_log_level"(out: u32) => log::get_level; }
    }
    linker.func_wrap("env", "pthread_equal", |a: u32, b: u32| u32::from(a == b))?;
    linker.func_wrap("env", "emscripten_notify_memory_growth", |_memory: u32| {})?;
    Ok(())
}
