//! Each hostcall's status: success, a range outside memory, the wrong callback.
//!
//! Calls are written as `name argument…`; `"text"` is address and length of that text, `@` an address to write to,
//! `far` an address outside memory, `long` a range that ends outside.

use std::fmt::Write as _;

use crate::support::{Guest, Harness, env, wasm};
use mesh::model::EnvValue;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const MEMORY: u32 = 6;
const UNIMPLEMENTED: u32 = 12;

fn instruction(guest: &mut Guest, call: &str) -> String {
    let (name, arguments) = call.split_once(' ').unwrap_or((call, ""));
    let mut out = format!("(call ${name}");
    for argument in arguments.split_whitespace() {
        let argument = match argument {
            "@" => "(i32.const 512)".to_owned(),
            "far" => "(i32.const -2)".to_owned(),
            "long" => "(i32.const 0) (i32.const -1)".to_owned(),
            text if text.starts_with('"') => guest.text(&text.trim_matches('"').replace('|', "\0")),
            number => match number.strip_suffix('l') {
                Some(long) => format!("(i64.const {long})"),
                None => format!("(i32.const {number})"),
            },
        };
        out.push_str(&argument);
    }
    out + ")"
}

/// Runs the calls within a callback of a POST with a body and compares their statuses.
#[track_caller]
pub(crate) fn check(callback: &str, calls: &[(&str, u32)]) {
    let guest = Guest::default().on(callback, |guest| {
        let mut body = String::new();
        for (index, (call, _)) in calls.iter().enumerate() {
            let call = instruction(guest, call);
            // One printable character for each status.
            let _ = write!(body, "(i32.store8 (i32.const {}) (i32.add (i32.const 64) {call}))", 2048 + index);
        }
        let _ = write!(body, "(drop (call $proxy_log (i32.const 5) (i32.const 2048) (i32.const {})))", calls.len());
        body + match callback {
            "log" | "delete" | "context_create" | "tick" => "",
            "configure" | "vm_start" | "done" => "(i32.const 1)",
            _ => "(i32.const 0)",
        }
    });
    let variables = vec![env("A", EnvValue::Inline("1".to_owned()))];
    let harness = Harness::new(vec![wasm("a", |w| w.env = variables)], &[("a", guest.build())]);
    let _ = crate::support::send(harness.server.address(), "POST", "/p?q=1", &[("x-mine", "v")], "body");
    harness.server.shut_down();
    let expected: String = calls.iter().map(|(_, status)| char::from_u32(64 + status).unwrap()).collect();
    let lines = harness.log.lines();
    let logged: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("critical: ")?.split_once(": ")).collect();
    assert!(!logged.is_empty(), "{lines:?}");
    for (_, statuses) in &logged {
        if statuses.len() == expected.len() {
            for ((call, want), got) in calls.iter().zip(statuses.chars()) {
                assert_eq!((u32::from(got) - 64, *call), (*want, *call));
            }
        }
    }
}

#[test]
fn log() {
    check(
        "request_headers",
        &[
            ("proxy_log 2 \"x\"", OK),
            ("proxy_log 6 \"x\"", BAD_ARGUMENT),
            ("proxy_log 2 long", MEMORY),
            ("proxy_log 2 far 0", MEMORY),
            ("proxy_get_log_level @", OK),
            ("proxy_get_log_level far", MEMORY),
        ],
    );
}

#[test]
fn time_ticks_and_contexts() {
    check(
        "configure",
        &[
            ("proxy_get_current_time_nanoseconds @", OK),
            ("proxy_get_current_time_nanoseconds far", MEMORY),
            ("proxy_set_tick_period_milliseconds 0", OK),
            ("proxy_set_effective_context 0", OK),
            ("proxy_set_effective_context 77", BAD_ARGUMENT),
            ("proxy_done", NOT_FOUND),
            ("proxy_get_status @ @ @", OK),
            ("proxy_get_status far @ @", MEMORY),
        ],
    );
}

#[test]
fn get_header_map_value() {
    check(
        "request_headers",
        &[
            ("proxy_get_header_map_value 0 \"X-Mine\" @ @", OK),
            ("proxy_get_header_map_value 0 \"host\" @ @", OK),
            ("proxy_get_header_map_value 0 \"x-none\" @ @", NOT_FOUND),
            ("proxy_get_header_map_value 0 long @ @", MEMORY),
            ("proxy_get_header_map_value 0 \"x-mine\" far @", MEMORY),
            ("proxy_get_header_map_value 2 \"x\" @ @", BAD_ARGUMENT),
            ("proxy_get_header_map_value 6 \"x\" @ @", BAD_ARGUMENT),
            ("proxy_get_header_map_value 8 \"x\" @ @", BAD_ARGUMENT),
        ],
    );
    for callback in ["request_body", "response_headers", "done"] {
        check(callback, &[("proxy_get_header_map_value 0 \"x-mine\" @ @", BAD_ARGUMENT)]);
    }
    check("configure", &[("proxy_get_header_map_value 0 \"x-mine\" @ @", BAD_ARGUMENT)]);
    check(
        "log",
        &[
            ("proxy_get_header_map_value 0 \"x-mine\" @ @", OK),
            ("proxy_get_header_map_value 2 \":status\" @ @", OK),
            ("proxy_get_header_map_value 0 \"x-none\" @ @", NOT_FOUND),
            ("proxy_get_header_map_value 1 \"x-mine\" @ @", NOT_FOUND),
        ],
    );
}

#[test]
fn changes_to_header_maps() {
    check(
        "request_headers",
        &[
            ("proxy_add_header_map_value 0 \"k\" \"v\"", OK),
            ("proxy_add_header_map_value 0 \"k\" long", MEMORY),
            ("proxy_add_header_map_value 2 \"k\" \"v\"", BAD_ARGUMENT),
            ("proxy_replace_header_map_value 0 \"k\" \"v\"", OK),
            ("proxy_replace_header_map_value 0 long \"v\"", MEMORY),
            ("proxy_replace_header_map_value 1 \"k\" \"v\"", BAD_ARGUMENT),
            ("proxy_remove_header_map_value 0 \"none\"", OK),
            ("proxy_remove_header_map_value 0 long", MEMORY),
            ("proxy_remove_header_map_value 3 \"k\"", BAD_ARGUMENT),
        ],
    );
    check("request_body", &[("proxy_add_header_map_value 0 \"k\" \"v\"", BAD_ARGUMENT)]);
    check(
        "log",
        &[
            ("proxy_add_header_map_value 0 \"k\" \"v\"", BAD_ARGUMENT),
            ("proxy_replace_header_map_value 2 \"k\" \"v\"", BAD_ARGUMENT),
            ("proxy_remove_header_map_value 2 \"k\"", BAD_ARGUMENT),
            ("proxy_set_header_map_pairs 2 0 0", BAD_ARGUMENT),
        ],
    );
}

#[test]
fn whole_header_maps() {
    check(
        "request_headers",
        &[
            ("proxy_get_header_map_pairs 0 @ @", OK),
            ("proxy_get_header_map_pairs 2 @ @", OK),
            ("proxy_get_header_map_pairs 8 @ @", BAD_ARGUMENT),
            ("proxy_get_header_map_pairs 0 far @", MEMORY),
            ("proxy_get_header_map_size 0 @", OK),
            ("proxy_get_header_map_size 2 @", BAD_ARGUMENT),
            ("proxy_get_header_map_size 0 far", MEMORY),
            ("proxy_set_header_map_pairs 2 0 0", BAD_ARGUMENT),
            ("proxy_set_header_map_pairs 0 long", MEMORY),
            ("proxy_set_header_map_pairs 0 0 0", OK),
        ],
    );
    check("log", &[("proxy_get_header_map_pairs 0 @ @", OK), ("proxy_get_header_map_size 0 @", BAD_ARGUMENT)]);
}

#[test]
fn buffers() {
    check(
        "request_body",
        &[
            ("proxy_get_buffer_bytes 0 0 100 @ @", OK),
            ("proxy_get_buffer_bytes 0 99 1 @ @", OK),
            ("proxy_get_buffer_bytes 1 0 1 @ @", OK),
            ("proxy_get_buffer_bytes 4 0 1 @ @", NOT_FOUND),
            ("proxy_get_buffer_bytes 6 0 1 @ @", OK),
            ("proxy_get_buffer_bytes 7 0 1 @ @", NOT_FOUND),
            ("proxy_get_buffer_bytes 9 0 1 @ @", BAD_ARGUMENT),
            ("proxy_get_buffer_bytes 0 0 100 far @", MEMORY),
            ("proxy_get_buffer_status 0 @ @", OK),
            ("proxy_get_buffer_status 9 @ @", BAD_ARGUMENT),
            ("proxy_get_buffer_status 0 far @", MEMORY),
            ("proxy_set_buffer_bytes 0 0 0 long", MEMORY),
            ("proxy_set_buffer_bytes 1 0 0 \"x\"", BAD_ARGUMENT),
            ("proxy_set_buffer_bytes 7 0 0 \"x\"", NOT_FOUND),
        ],
    );
    check(
        "request_headers",
        &[("proxy_get_buffer_bytes 0 0 1 @ @", OK), ("proxy_set_buffer_bytes 0 0 0 \"x\"", BAD_ARGUMENT)],
    );
    check("configure", &[("proxy_get_buffer_bytes 7 0 9 @ @", OK), ("proxy_get_buffer_bytes 6 0 9 @ @", OK)]);
    check("vm_start", &[("proxy_get_buffer_bytes 7 0 9 @ @", NOT_FOUND)]);
}

#[test]
fn properties() {
    check(
        "request_headers",
        &[
            ("proxy_get_property \"request|path\" @ @", OK),
            ("proxy_get_property \"request|headers|X-Mine\" @ @", OK),
            ("proxy_get_property \"request|query\" @ @", OK),
            ("proxy_get_property \"source|port\" @ @", OK),
            ("proxy_get_property \"plugin_name\" @ @", OK),
            ("proxy_get_property \"xds|node|metadata|NAME\" @ @", OK),
            ("proxy_get_property \"request\" @ @", 3),
            ("proxy_get_property \"response|code\" @ @", NOT_FOUND),
            ("proxy_get_property \"route_name\" @ @", NOT_FOUND),
            ("proxy_get_property \"none\" @ @", NOT_FOUND),
            ("proxy_get_property long @ @", MEMORY),
            ("proxy_get_property \"plugin_name\" far @", MEMORY),
            ("proxy_set_property \"mine\" \"v\"", OK),
            ("proxy_get_property \"mine\" @ @", OK),
            ("proxy_get_property \"filter_state|wasm.mine\" @ @", OK),
            ("proxy_set_property long \"v\"", MEMORY),
        ],
    );
    check(
        "request_body",
        &[("proxy_get_property \"request|path\" @ @", NOT_FOUND), ("proxy_get_property \"request|protocol\" @ @", OK)],
    );
    check(
        "response_headers",
        &[("proxy_get_property \"response|code\" @ @", OK), ("proxy_get_property \"response|code_details\" @ @", OK)],
    );
    check(
        "log",
        &[("proxy_get_property \"request|duration\" @ @", OK), ("proxy_get_property \"request|path\" @ @", OK)],
    );
    check(
        "configure",
        &[("proxy_get_property \"plugin_name\" @ @", OK), ("proxy_set_property \"k\" \"v\"", NOT_FOUND)],
    );
}

#[test]
fn local_responses_and_resumption() {
    check(
        "request_headers",
        &[
            ("proxy_send_local_response 403 long \"b\" 0 0 -1", MEMORY),
            ("proxy_send_local_response 403 \"d\" long 0 0 -1", MEMORY),
            ("proxy_send_local_response 403 \"d\" \"b\" long -1", MEMORY),
            ("proxy_send_local_response 403 \"d\" \"b\" 0 0 -1", OK),
            ("proxy_continue_stream 0", OK),
            ("proxy_continue_stream 2", OK),
            ("proxy_continue_stream 3", UNIMPLEMENTED),
            ("proxy_continue_stream 4", BAD_ARGUMENT),
            ("proxy_close_stream 2", OK),
            ("proxy_close_stream 4", BAD_ARGUMENT),
        ],
    );
    for callback in ["configure", "log", "done"] {
        check(
            callback,
            &[
                ("proxy_send_local_response 403 \"d\" \"b\" 0 0 -1", OK),
                ("proxy_continue_stream 0", OK),
                ("proxy_close_stream 0", OK),
            ],
        );
    }
}

#[test]
fn shared_data() {
    check(
        "response_headers",
        &[
            ("proxy_get_shared_data \"none\" @ @ @", NOT_FOUND),
            ("proxy_set_shared_data \"k\" \"v\" 0", OK),
            ("proxy_get_shared_data \"k\" @ @ @", OK),
            ("proxy_set_shared_data \"k\" \"v\" 99", 8),
            ("proxy_get_shared_data \"k\" @ @ far", MEMORY),
            ("proxy_get_shared_data long @ @ @", MEMORY),
            ("proxy_set_shared_data \"k\" long 0", MEMORY),
        ],
    );
}

#[test]
fn metrics() {
    check(
        "response_headers",
        &[
            ("proxy_define_metric 0 \"c\" @", OK),
            ("proxy_define_metric 3 \"c\" @", BAD_ARGUMENT),
            ("proxy_define_metric 0 long @", MEMORY),
            ("proxy_define_metric 0 \"c\" far", MEMORY),
            ("proxy_increment_metric 4 1l", OK),
            ("proxy_increment_metric 4 -1l", BAD_ARGUMENT),
            ("proxy_increment_metric 400 1l", NOT_FOUND),
            ("proxy_increment_metric 6 1l", BAD_ARGUMENT),
            ("proxy_record_metric 6 1l", NOT_FOUND),
            ("proxy_get_metric 6 @", BAD_ARGUMENT),
            ("proxy_record_metric 4 1l", OK),
            ("proxy_get_metric 4 @", OK),
            ("proxy_get_metric 4 far", MEMORY),
            ("proxy_get_metric 5 @", NOT_FOUND),
        ],
    );
}

#[test]
fn callouts() {
    check(
        "request_headers",
        &[
            ("proxy_http_call \"none\" 0 0 0 0 0 0 0 @", BAD_ARGUMENT),
            ("proxy_http_call long 0 0 0 0 0 0 0 @", MEMORY),
            ("proxy_http_call \"none\" long 0 0 0 0 0 @", MEMORY),
            ("proxy_http_call \"none\" 0 0 0 0 0 0 0 far", MEMORY),
            ("proxy_http_call \"none\" 0 0 0 0 0 0 -1 @", BAD_ARGUMENT),
            ("proxy_grpc_call \"none\" \"s\" \"m\" 0 0 0 0 0 @", 4),
            ("proxy_grpc_call \"none\" long \"m\" 0 0 0 0 0 @", MEMORY),
            ("proxy_grpc_call \"none\" \"s\" \"m\" 0 0 long 0 @", MEMORY),
            ("proxy_grpc_call \"none\" \"s\" \"m\" 0 0 0 0 0 far", MEMORY),
            ("proxy_grpc_stream \"none\" \"s\" \"m\" 0 0 @", 4),
            ("proxy_grpc_stream \"none\" \"s\" \"m\" 0 0 far", MEMORY),
            ("proxy_grpc_send 6 0 0 0", NOT_FOUND),
            ("proxy_grpc_send 5 0 0 0", BAD_ARGUMENT),
            ("proxy_grpc_send 6 long 0", MEMORY),
            ("proxy_grpc_close 5", NOT_FOUND),
            ("proxy_grpc_close 6", NOT_FOUND),
            ("proxy_grpc_close 4", BAD_ARGUMENT),
            ("proxy_grpc_cancel 5", NOT_FOUND),
            ("proxy_grpc_cancel 6", NOT_FOUND),
            ("proxy_grpc_cancel 7", BAD_ARGUMENT),
            ("envoy_resolve_dns long @", MEMORY),
            ("envoy_resolve_dns \"localhost\" far", MEMORY),
            ("envoy_resolve_dns \"localhost\" @", OK),
        ],
    );
}

#[test]
fn queues() {
    check(
        "response_headers",
        &[
            ("proxy_resolve_shared_queue 0 0 \"q\" @", NOT_FOUND),
            ("proxy_register_shared_queue \"q\" far", MEMORY),
            ("proxy_register_shared_queue long @", MEMORY),
            ("proxy_register_shared_queue \"q\" @", OK),
            ("proxy_resolve_shared_queue 0 0 \"q\" @", OK),
            ("proxy_resolve_shared_queue \"other\" \"q\" @", NOT_FOUND),
            ("proxy_resolve_shared_queue long \"q\" @", MEMORY),
            ("proxy_dequeue_shared_queue 1 @ @", 7),
            ("proxy_dequeue_shared_queue 2 @ @", NOT_FOUND),
            ("proxy_enqueue_shared_queue 1 \"v\"", OK),
            ("proxy_enqueue_shared_queue 1 long", MEMORY),
            ("proxy_enqueue_shared_queue 0 \"v\"", NOT_FOUND),
            ("proxy_dequeue_shared_queue 1 @ @", OK),
            ("proxy_enqueue_shared_queue 1 0 0", OK),
            ("proxy_dequeue_shared_queue 1 far @", MEMORY),
        ],
    );
}

#[test]
fn foreign_functions() {
    check(
        "request_headers",
        &[
            ("proxy_call_foreign_function \"none\" 0 0 @ @", NOT_FOUND),
            ("proxy_call_foreign_function long 0 0 @ @", MEMORY),
            ("proxy_call_foreign_function \"compress\" long @ @", MEMORY),
            ("proxy_call_foreign_function \"compress\" \"text\" far @", MEMORY),
            ("proxy_call_foreign_function \"compress\" \"text\" @ @", OK),
            ("proxy_call_foreign_function \"compress\" \"text\" 0 0", OK),
            ("proxy_call_foreign_function \"uncompress\" \"text\" @ @", 3),
            ("proxy_call_foreign_function \"clear_route_cache\" 0 0 0 0", OK),
            ("proxy_call_foreign_function \"set_envoy_filter_state\" \"bad\" 0 0", BAD_ARGUMENT),
            ("proxy_call_foreign_function \"set_envoy_filter_state\" 0 0 0 0", NOT_FOUND),
            ("proxy_call_foreign_function \"declare_property\" \"bad\" 0 0", BAD_ARGUMENT),
            ("proxy_call_foreign_function \"expr_create\" \"1+\" @ @", BAD_ARGUMENT),
            ("proxy_call_foreign_function \"expr_create\" \"request.path\" @ @", OK),
            ("proxy_call_foreign_function \"expr_evaluate\" \"||||\" @ @", OK),
            ("proxy_call_foreign_function \"expr_evaluate\" \"|||\" @ @", BAD_ARGUMENT),
            ("proxy_call_foreign_function \"expr_evaluate\" \"a|||\" @ @", NOT_FOUND),
            ("proxy_call_foreign_function \"expr_delete\" \"||||\" 0 0", OK),
            ("proxy_call_foreign_function \"expr_evaluate\" \"||||\" @ @", NOT_FOUND),
            ("proxy_call_foreign_function \"verify_signature\" \"bad\" @ @", BAD_ARGUMENT),
            ("proxy_call_foreign_function \"verify_signature\" 0 0 @ @", BAD_ARGUMENT),
            ("proxy_call_foreign_function \"sign\" 0 0 @ @", BAD_ARGUMENT),
        ],
    );
}
