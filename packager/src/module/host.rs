//! What Envoy offers to a module's imports and looks for among its exports.
//!
//! Signatures and versions were read off Envoy 1.36, 1.37, 1.39 and 1.40 (V8), one import or export at a time. 1.38 and
//! those before 1.36 are taken to have what 1.36 has: the other WASI functions came with one update, made after 1.38.

use super::envoy::{AbiVersion, EnvoyVersion};
use super::signature::Signature;

/// The modules whose imports Envoy resolves.
pub(super) const ENV: &str = "env";
pub(super) const WASI: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

const ALL: &[AbiVersion] = &AbiVersion::ALL;
const V0_1_0: &[AbiVersion] = &[AbiVersion::V0_1_0];
const V0_2: &[AbiVersion] = &[AbiVersion::V0_2_0, AbiVersion::V0_2_1];
const V0_2_1: &[AbiVersion] = &[AbiVersion::V0_2_1];

/// A function that Envoy provides.
pub(super) struct HostFunction {
    /// Its name in the import.
    pub(super) name: &'static str,
    /// ABI versions whose modules get it.
    pub(super) abis: &'static [AbiVersion],
    /// The first Envoy to have it; `None` when every supported one does.
    pub(super) since: Option<EnvoyVersion>,
    shorthand: &'static str,
}

impl HostFunction {
    pub(super) fn signature(&self) -> Signature {
        Signature::shorthand(self.shorthand)
    }
}

/// An export that Envoy calls, if it is there.
pub(super) struct Callback {
    /// The export's name.
    pub(super) name: &'static str,
    /// ABI versions in which Envoy looks for it with this signature.
    pub(super) abis: &'static [AbiVersion],
    shorthand: &'static str,
}

impl Callback {
    pub(super) fn signature(&self) -> Signature {
        Signature::shorthand(self.shorthand)
    }
}

/// The function that an import means, whether or not a given Envoy has it.
pub(super) fn function(module: &str, name: &str) -> Option<&'static HostFunction> {
    let table = match module {
        ENV => HOSTCALLS,
        module if WASI.contains(&module) => WASI_FUNCTIONS,
        _ => return None,
    };
    table.iter().find(|function| function.name == name)
}

const fn hostcall(name: &'static str, shorthand: &'static str, abis: &'static [AbiVersion]) -> HostFunction {
    HostFunction { name, abis, since: None, shorthand }
}

const fn wasi(name: &'static str, shorthand: &'static str) -> HostFunction {
    HostFunction { name, abis: ALL, since: None, shorthand }
}

const fn wasi_since_1_39(name: &'static str, shorthand: &'static str) -> HostFunction {
    HostFunction { name, abis: ALL, since: Some(EnvoyVersion::v1(39)), shorthand }
}

const fn callback(name: &'static str, shorthand: &'static str, abis: &'static [AbiVersion]) -> Callback {
    Callback { name, abis, shorthand }
}

#[rustfmt::skip]
pub(super) const HOSTCALLS: &[HostFunction] = &[
    hostcall("proxy_log", "iii:i", ALL),
    hostcall("proxy_get_status", "iii:i", ALL),
    hostcall("proxy_get_property", "iiii:i", ALL),
    hostcall("proxy_set_property", "iiii:i", ALL),
    hostcall("proxy_get_current_time_nanoseconds", "i:i", ALL),
    hostcall("proxy_set_tick_period_milliseconds", "i:i", ALL),
    hostcall("proxy_get_buffer_bytes", "iiiii:i", ALL),
    hostcall("proxy_get_buffer_status", "iii:i", ALL),
    hostcall("proxy_set_buffer_bytes", "iiiii:i", ALL),
    hostcall("proxy_get_header_map_pairs", "iii:i", ALL),
    hostcall("proxy_set_header_map_pairs", "iii:i", ALL),
    hostcall("proxy_get_header_map_value", "iiiii:i", ALL),
    hostcall("proxy_add_header_map_value", "iiiii:i", ALL),
    hostcall("proxy_replace_header_map_value", "iiiii:i", ALL),
    hostcall("proxy_remove_header_map_value", "iii:i", ALL),
    hostcall("proxy_get_header_map_size", "ii:i", ALL),
    hostcall("proxy_send_local_response", "iiiiiiii:i", ALL),
    hostcall("proxy_http_call", "iiiiiiiiii:i", ALL),
    hostcall("proxy_grpc_call", "iiiiiiiiiiii:i", ALL),
    hostcall("proxy_grpc_stream", "iiiiiiiii:i", ALL),
    hostcall("proxy_grpc_send", "iiii:i", ALL),
    hostcall("proxy_grpc_close", "i:i", ALL),
    hostcall("proxy_grpc_cancel", "i:i", ALL),
    hostcall("proxy_get_shared_data", "iiiii:i", ALL),
    hostcall("proxy_set_shared_data", "iiiii:i", ALL),
    hostcall("proxy_register_shared_queue", "iii:i", ALL),
    hostcall("proxy_resolve_shared_queue", "iiiii:i", ALL),
    hostcall("proxy_enqueue_shared_queue", "iii:i", ALL),
    hostcall("proxy_dequeue_shared_queue", "iii:i", ALL),
    hostcall("proxy_define_metric", "iiii:i", ALL),
    hostcall("proxy_increment_metric", "iI:i", ALL),
    hostcall("proxy_record_metric", "iI:i", ALL),
    hostcall("proxy_get_metric", "ii:i", ALL),
    hostcall("proxy_set_effective_context", "i:i", ALL),
    hostcall("proxy_done", ":i", ALL),
    hostcall("proxy_call_foreign_function", "iiiiii:i", ALL),
    hostcall("proxy_get_configuration", "ii:i", V0_1_0),
    hostcall("proxy_continue_request", ":i", V0_1_0),
    hostcall("proxy_continue_response", ":i", V0_1_0),
    hostcall("proxy_clear_route_cache", ":i", V0_1_0),
    hostcall("proxy_continue_stream", "i:i", V0_2),
    hostcall("proxy_close_stream", "i:i", V0_2),
    hostcall("proxy_get_log_level", "i:i", V0_2_1),
    hostcall("pthread_equal", "ii:i", ALL),
    hostcall("emscripten_notify_memory_growth", "i:", ALL),
    hostcall("envoy_resolve_dns", "iii:i", ALL),
];

/// `path_link` and `path_symlink` lack a parameter of the standard's; a module that imports the standard's is refused.
#[rustfmt::skip]
pub(super) const WASI_FUNCTIONS: &[HostFunction] = &[
    wasi("args_get", "ii:i"),
    wasi("args_sizes_get", "ii:i"),
    wasi_since_1_39("clock_res_get", "ii:i"),
    wasi("clock_time_get", "iIi:i"),
    wasi("environ_get", "ii:i"),
    wasi("environ_sizes_get", "ii:i"),
    wasi_since_1_39("fd_advise", "iIIi:i"),
    wasi_since_1_39("fd_allocate", "iII:i"),
    wasi("fd_close", "i:i"),
    wasi_since_1_39("fd_datasync", "i:i"),
    wasi("fd_fdstat_get", "ii:i"),
    wasi("fd_fdstat_set_flags", "ii:i"),
    wasi_since_1_39("fd_fdstat_set_rights", "iII:i"),
    wasi_since_1_39("fd_filestat_get", "ii:i"),
    wasi_since_1_39("fd_filestat_set_size", "iI:i"),
    wasi_since_1_39("fd_filestat_set_times", "iIIi:i"),
    wasi_since_1_39("fd_pread", "iiiIi:i"),
    wasi("fd_prestat_dir_name", "iii:i"),
    wasi("fd_prestat_get", "ii:i"),
    wasi_since_1_39("fd_pwrite", "iiiIi:i"),
    wasi("fd_read", "iiii:i"),
    wasi_since_1_39("fd_readdir", "iiiIi:i"),
    wasi_since_1_39("fd_renumber", "ii:i"),
    wasi("fd_seek", "iIii:i"),
    wasi_since_1_39("fd_sync", "i:i"),
    wasi_since_1_39("fd_tell", "ii:i"),
    wasi("fd_write", "iiii:i"),
    wasi_since_1_39("path_create_directory", "iii:i"),
    wasi_since_1_39("path_filestat_get", "iiiii:i"),
    wasi_since_1_39("path_filestat_set_times", "iiiiIIi:i"),
    wasi_since_1_39("path_link", "iiiiii:i"),
    wasi("path_open", "iiiiiIIii:i"),
    wasi_since_1_39("path_readlink", "iiiiii:i"),
    wasi_since_1_39("path_remove_directory", "iii:i"),
    wasi_since_1_39("path_rename", "iiiiii:i"),
    wasi_since_1_39("path_symlink", "iiii:i"),
    wasi_since_1_39("path_unlink_file", "iii:i"),
    wasi("poll_oneoff", "iiii:i"),
    wasi("proc_exit", "i:"),
    wasi("random_get", "ii:i"),
    wasi("sched_yield", ":i"),
    wasi_since_1_39("sock_accept", "iii:i"),
    wasi_since_1_39("sock_recv", "iiiiii:i"),
    wasi_since_1_39("sock_send", "iiiii:i"),
    wasi_since_1_39("sock_shutdown", "ii:i"),
];

#[rustfmt::skip]
pub(super) const CALLBACKS: &[Callback] = &[
    callback("proxy_on_configure", "ii:i", ALL),
    callback("proxy_on_context_create", "ii:", ALL),
    callback("proxy_on_delete", "i:", ALL),
    callback("proxy_on_done", "i:i", ALL),
    callback("proxy_on_downstream_connection_close", "ii:", ALL),
    callback("proxy_on_downstream_data", "iii:i", ALL),
    callback("proxy_on_foreign_function", "iii:", V0_2),
    callback("proxy_on_grpc_close", "iii:", ALL),
    callback("proxy_on_grpc_receive", "iii:", ALL),
    callback("proxy_on_grpc_receive_initial_metadata", "iii:", ALL),
    callback("proxy_on_grpc_receive_trailing_metadata", "iii:", ALL),
    callback("proxy_on_http_call_response", "iiiii:", ALL),
    callback("proxy_on_log", "i:", ALL),
    callback("proxy_on_new_connection", "i:i", ALL),
    callback("proxy_on_queue_ready", "ii:", ALL),
    callback("proxy_on_request_body", "iii:i", ALL),
    callback("proxy_on_request_headers", "iii:i", V0_2),
    callback("proxy_on_request_headers", "ii:i", V0_1_0),
    callback("proxy_on_request_metadata", "ii:i", ALL),
    callback("proxy_on_request_trailers", "ii:i", ALL),
    callback("proxy_on_response_body", "iii:i", ALL),
    callback("proxy_on_response_headers", "iii:i", V0_2),
    callback("proxy_on_response_headers", "ii:i", V0_1_0),
    callback("proxy_on_response_metadata", "ii:i", ALL),
    callback("proxy_on_response_trailers", "ii:i", ALL),
    callback("proxy_on_tick", "i:", ALL),
    callback("proxy_on_upstream_connection_close", "ii:", ALL),
    callback("proxy_on_upstream_data", "iii:i", ALL),
    callback("proxy_on_vm_start", "ii:i", ALL),
    callback("proxy_validate_configuration", "ii:i", ALL),
];
