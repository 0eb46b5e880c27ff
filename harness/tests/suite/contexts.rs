//! Root contexts and the contexts hostcalls act on: ticks, the end, the effective context; and the oldest ABI.

use std::time::Duration;

use crate::support::{Guest, Harness, wasm};

#[test]
fn a_root_context_that_is_not_done_is_kept_until_it_says_so() {
    let guest = Guest::default()
        .on("done", |g| {
            let say = g.say("done?");
            format!(
                "{say} (call $number (call $proxy_done))
                 (drop (call $proxy_set_tick_period_milliseconds (i32.const 5))) (i32.const 0)"
            )
        })
        .on("tick", |g| {
            let say = g.say("tick");
            format!(
                "{say}
                 (global.set $count (i32.add (global.get $count) (i32.const 1)))
                 (if (i32.eq (global.get $count) (i32.const 2)) (then
                    (call $number (call $proxy_done)) (call $number (call $proxy_done))))"
            )
        })
        .on("delete", |g| g.say("deleted"));
    let harness = Harness::of(guest);
    harness.server.shut_down();
    // proxy_done is 1 as long as on_done has not answered 0, and 1 again when it is on its way.
    assert_eq!(harness.log.messages(), ["done?", "1", "tick", "tick", "0", "1", "deleted"]);
}

#[test]
fn a_root_context_that_is_never_done_is_not_waited_for_for_ever() {
    let guest = Guest::default().on("done", |_| "(i32.const 0)".to_owned()).on("delete", |g| g.say("deleted"));
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
        options.drain = Duration::from_millis(50);
    });
    harness.server.shut_down();
    assert_eq!(harness.log.messages(), [] as [&str; 0]);
}

#[test]
fn a_tick_is_armed_again_until_it_is_turned_off() {
    let guest = Guest::default()
        .on("configure", |_| "(drop (call $proxy_set_tick_period_milliseconds (i32.const 1))) (i32.const 1)".to_owned())
        .on("tick", |_| {
            "(global.set $count (i32.add (global.get $count) (i32.const 1)))
             (call $number (global.get $count))
             (if (i32.eq (global.get $count) (i32.const 3)) (then
                (drop (call $proxy_set_tick_period_milliseconds (i32.const 0)))))"
                .to_owned()
        });
    let harness = Harness::of(guest);
    harness.log.wait_for(": 3");
    assert_eq!(harness.get("/").status, 200);
    harness.server.shut_down();
    assert_eq!(harness.log.messages(), ["1", "2", "3"]);
}

#[test]
fn the_effective_context_counts_for_every_hostcall_and_ends_with_the_callback() {
    let guest = Guest::default()
        .on("configure", |_| {
            "(drop (call $proxy_set_tick_period_milliseconds (i32.const 5))) (i32.const 1)".to_owned()
        })
        .on("request_headers", |_| "(global.set $count (local.get 0)) (i32.const 1)".to_owned())
        .on("tick", |g| {
            let (path, before, after) = (g.text(":path"), g.say("before"), g.say("after"));
            format!(
                "(if (global.get $count) (then
                    {before}
                    (call $number (call $proxy_get_header_map_value (i32.const 0) {path} (i32.const 512) (i32.const 516)))
                    (call $number (call $proxy_set_effective_context (global.get $count)))
                    {after}
                    (call $number (call $proxy_get_header_map_value (i32.const 0) {path} (i32.const 512) (i32.const 516)))
                    (call $value)
                    (call $number (call $proxy_set_effective_context (i32.const 0)))
                    (call $number (call $proxy_get_header_map_value (i32.const 0) {path} (i32.const 512) (i32.const 516)))
                    (drop (call $proxy_set_effective_context (global.get $count)))
                    (drop (call $proxy_continue_stream (i32.const 0)))
                    (global.set $count (i32.const 0))))"
            )
        });
    let harness = Harness::new(vec![wasm("a", |w| w.plugin_name = "root".to_owned())], &[("a", guest.build())]);
    assert_eq!(harness.get("/p").status, 200);
    let lines = harness.log.lines();
    assert_eq!(harness.log.messages(), ["before", "2", "0", "after", "0", "/p", "0", "2"]);
    let of = |text: &str| lines.iter().find(|line| line.ends_with(text)).unwrap().clone();
    assert_eq!(of("before"), "info: wasm log root: before");
    assert_eq!(of("after"), "info: wasm log default.a root: after");
}

#[test]
fn the_oldest_abi_has_its_own_functions_and_answers() {
    let wat = r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (import "env" "proxy_get_configuration" (func $configuration (param i32 i32) (result i32)))
        (import "env" "proxy_continue_request" (func $request (result i32)))
        (import "env" "proxy_continue_response" (func $response (result i32)))
        (import "env" "proxy_clear_route_cache" (func $route (result i32)))
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
        (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
        (memory (export "memory") 1)
        (global $context (mut i32) (i32.const 0))
        (func (export "proxy_abi_version_0_1_0"))
        (func (export "malloc") (param i32) (result i32) (i32.const 4096))
        (data (i32.const 100) "x-none")
        (func $value (drop (call $log (i32.const 2) (i32.load (i32.const 512)) (i32.load (i32.const 516)))))
        (func $status (param i32)
            (i32.store8 (i32.const 200) (i32.add (i32.const 48) (local.get 0)))
            (drop (call $log (i32.const 2) (i32.const 200) (i32.const 1))))
        (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
            (call $status (call $configuration (i32.const 512) (i32.const 516))) (call $value) (i32.const 1))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (call $status (call $configuration (i32.const 512) (i32.const 516))) (call $value)
            (drop (call $tick (i32.const 5))) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32) (result i32)
            (call $status (call $get (i32.const 0) (i32.const 100) (i32.const 6) (i32.const 512) (i32.const 516)))
            (call $value)
            (call $status (call $route))
            (global.set $context (local.get 0))
            (i32.const 1))
        (func (export "proxy_on_response_headers") (param i32 i32) (result i32)
            (global.set $context (local.get 0))
            (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (if (global.get $context) (then
                (drop (call $effective (global.get $context)))
                (global.set $context (i32.const 0))
                (call $status (call $request))
                (call $status (call $response))))))"#;
    let module = wat::parse_str(wat).unwrap();
    let filter = wasm("a", |w| w.plugin_config = Some("configured".to_owned()));
    let harness = Harness::new(vec![filter], &[("a", module)]);
    harness.log.messages();
    assert_eq!(harness.get("/").status, 200);
    // A missing header is an empty value; both directions go on when they are held.
    assert_eq!(harness.log.messages(), ["0", "", "0", "0", "0", "0", "0"]);
}
