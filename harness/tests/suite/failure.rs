//! Plugins that fail, on purpose or not: the strategy's answer, and a host that goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{self, Guest, Harness, Recorder, built_in, load, wasm};
use mesh::model::{FailStrategy, Filter, Layer};

const TRAP_ON_FIRST: &str = "(global.set $count (i32.add (global.get $count) (i32.const 1)))
    (if (i32.eq (global.get $count) (i32.const 1)) (then unreachable))
    (i32.const 0)";

fn strategy(strategy: FailStrategy) -> Vec<Filter> {
    vec![wasm("a", |w| w.fail_strategy = strategy)]
}

fn trapping() -> Vec<(&'static str, Vec<u8>)> {
    vec![("a", Guest::default().on("request_headers", |_| TRAP_ON_FIRST.to_owned()).build())]
}

#[test]
fn fail_close_answers_503_from_the_trap_on() {
    let harness = Harness::new(strategy(FailStrategy::FailClose), &trapping());
    for _ in 0..2 {
        let reply = harness.get("/");
        assert_eq!((reply.status, reply.body.as_str(), reply.header("content-type")), (503, "", None));
    }
    let lines = harness.log.lines();
    assert_eq!(lines[0], "error: Function: proxy_on_request_headers failed: Uncaught RuntimeError: unreachable");
    assert_eq!(lines[1], "GET / Some(503) by Some(\"default.a\") wasm_fail_stream");
}

#[test]
fn fail_open_answers_503_once_and_is_then_skipped() {
    let harness = Harness::new(strategy(FailStrategy::FailOpen), &trapping());
    assert_eq!([(); 3].map(|()| harness.get("/").status), [503, 200, 200]);
}

#[test]
fn fail_reload_starts_a_new_vm_after_the_backoff() {
    let harness = Harness::new(strategy(FailStrategy::FailReload), &trapping());
    let started = Instant::now();
    // Every new VM traps on its first request: it is served by a new one whenever one is due.
    while harness.log.lines().iter().filter(|line| line.contains("unreachable")).count() < 2 {
        assert_eq!(harness.get("/").status, 503);
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
}

#[test]
fn filters_before_a_trap_see_the_503() {
    let a = Guest::recorder("a").build();
    let b = Guest::default().on("request_headers", |_| "unreachable".to_owned()).build();
    let harness = Harness::new(vec![wasm("a", |_| {}), wasm("b", |_| {})], &[("a", a), ("b", b)]);
    assert_eq!(harness.get("/").status, 503);
    let expected = ["a request_headers", "a response_headers", "a log", "a done", "a delete"];
    assert_eq!(harness.log.messages(), expected);
}

#[test]
fn plugins_with_the_same_code_fall_together() {
    let guest = Guest::default().on("request_headers", |_| "unreachable".to_owned()).build();
    let log = Guest::recorder("b").build();
    let harness = Harness::new(
        vec![wasm("b", |_| {}), wasm("a", |_| {}), wasm("same", |w| w.fail_strategy = FailStrategy::FailOpen)],
        &[("b", log), ("a", guest.clone()), ("same", guest)],
    );
    assert_eq!(harness.get("/").status, 503);
    assert_eq!(harness.log.messages(), ["b request_headers", "b response_headers", "b log", "b done", "b delete"]);
}

#[test]
fn a_trap_in_the_response_is_503_before_its_head_and_a_reset_after() {
    for (callback, status) in [("response_headers", Some(503)), ("response_body", None)] {
        let harness = Harness::of(Guest::default().on(callback, |_| "unreachable".to_owned()));
        let reply = support::send(harness.server.address(), "GET", "/", &[], "");
        match status {
            Some(status) => assert_eq!(reply.unwrap().status, status),
            None => assert_eq!(reply.map_or_else(String::new, |reply| reply.body), ""),
        }
    }
}

#[test]
fn a_trap_while_logging_leaves_the_response_alone() {
    let harness = Harness::of(Guest::default().on("log", |_| "unreachable".to_owned()));
    assert_eq!([(); 2].map(|()| harness.get("/").status), [200, 503]);
}

#[test]
fn an_endless_loop_is_503_within_the_deadline_and_others_are_served() {
    let endless = Guest::default().on("request_headers", |_| "(loop $again (br $again)) unreachable".to_owned());
    let harness = Harness::with(strategy(FailStrategy::FailOpen), &[("a", endless.build())], |_| {});
    let started = Instant::now();
    assert_eq!(harness.get("/").status, 503);
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(harness.get("/").status, 200);
    assert!(harness.log.lines()[0].contains("exceeded its time limit"));
}

#[test]
fn an_endless_loop_of_hostcalls_is_interrupted_too() {
    let endless = Guest::default().on("request_headers", |g| {
        let add = support::add_header(g, 0, "x", "some value");
        let log = g.text("");
        format!(
            "(loop $again {add} (drop (call $proxy_log (i32.const 0) {log}))
            (drop (call $proxy_get_header_map_pairs (i32.const 0) (i32.const 16) (i32.const 20)))
            (br $again)) unreachable"
        )
    });
    assert_eq!(Harness::of(endless).get("/").status, 503);
}

#[test]
fn endless_recursion_is_a_trap() {
    let wat = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 0))
        (func $f (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (i32.add (i32.const 1) (call $f (local.get 0) (local.get 1) (local.get 2)))))"#;
    let harness = Harness::new(strategy(FailStrategy::FailOpen), &[("a", wat::parse_str(wat).unwrap())]);
    assert_eq!([(); 2].map(|()| harness.get("/").status), [503, 200]);
    assert!(harness.log.lines()[0].ends_with("RangeError: Maximum call stack size exceeded"));
}

#[test]
fn memory_stops_growing_at_one_gibibyte() {
    // Answers with the number of times that 16 MiB could be had: 63, since 4 pages are there already.
    let guest = Guest::default().on("request_headers", |g| {
        let reply = support::local_response(g, 200, "", "");
        format!(
            "(loop $again
                (if (i32.ne (memory.grow (i32.const 256)) (i32.const -1)) (then
                    (global.set $count (i32.add (global.get $count) (i32.const 1))) (br $again))))
            {}
            (i32.const 1)",
            reply.replace("(i32.const 200)", "(i32.add (i32.const 200) (global.get $count))")
        )
    });
    assert_eq!(Harness::of(guest).get("/").status, 263);
}

#[test]
fn bad_pointers_are_a_status_and_never_an_end() {
    let guest = Guest::default().on("request_headers", |g| {
        let reply = support::local_response(g, 200, "", "");
        // Adds up the statuses of calls with ranges outside memory: 6 each.
        let add = |call: &str| format!("(global.set $count (i32.add (global.get $count) {call}))");
        let far = "(i32.const -2)";
        let long = "(i32.const 0) (i32.const -1)";
        format!(
            "{}{}{}{}{}{}{} (i32.const 1)",
            add(&format!("(call $proxy_log (i32.const 2) {long})")),
            add(&format!("(call $proxy_get_header_map_pairs (i32.const 0) {far} (i32.const 0))")),
            add(&format!("(call $proxy_get_property {long} (i32.const 0) (i32.const 4))")),
            add(&format!("(call $proxy_add_header_map_value (i32.const 0) {long} {long})")),
            add(&format!("(call $proxy_get_current_time_nanoseconds {far})")),
            add(&format!("(call $proxy_send_local_response (i32.const 200) {long} {long} {long} (i32.const -1))")),
            reply.replace("(i32.const 200)", "(i32.add (i32.const 200) (global.get $count))")
        )
    });
    assert_eq!(Harness::of(guest).get("/").status, 236);
}

#[track_caller]
fn refused(filters: Vec<Filter>, modules: &[(&str, Vec<u8>)]) -> String {
    let error = load(filters, modules, Arc::new(Recorder::default())).err().expect("a refusal");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn a_refused_configuration_is_an_error_with_the_plugins_own_words_whatever_the_strategy() {
    let guest = Guest::default().on("configure", |g| {
        let text = g.text("basic_auth_rules[0]: no prefix");
        format!("(drop (call $proxy_log (i32.const 4) {text})) (i32.const 0)")
    });
    assert_eq!(
        refused(strategy(FailStrategy::FailOpen), &[("a", guest.build())]),
        "configure the plugin WasmPlugin default/a: Failed to configure base Wasm plugin; the plugin logged: \
         basic_auth_rules[0]: no prefix"
    );
    let guest = Guest::default().on("vm_start", |_| "(i32.const 0)".to_owned());
    assert_eq!(
        refused(strategy(FailStrategy::FailOpen), &[("a", guest.build())]),
        "configure the plugin WasmPlugin default/a: Failed to start base Wasm"
    );
    let guest = Guest::default().on("configure", |_| "unreachable".to_owned());
    assert_eq!(
        refused(strategy(FailStrategy::FailOpen), &[("a", guest.build())]),
        "configure the plugin WasmPlugin default/a: Function: proxy_on_configure failed: Uncaught RuntimeError: unreachable"
    );
}

#[test]
fn what_the_harness_does_not_execute_is_refused_by_name() {
    for name in ["envoy.filters.http.jwt_authn", "envoy.filters.http.rbac"] {
        let expected = format!("the built-in filter {name} without policies is not yet executed by the harness");
        assert_eq!(refused(vec![built_in(name)], &[]), expected);
    }
    assert_eq!(
        refused(vec![built_in("envoy.filters.http.ext_authz")], &[]),
        "the built-in filter envoy.filters.http.ext_authz, which asks the provider of a CUSTOM policy, is not yet \
         executed by the harness"
    );
    let network = wasm("n", |w| w.layer = Layer::Network);
    assert_eq!(
        refused(vec![network], &[]),
        "WasmPlugin default/n, of type NETWORK in an HTTP chain, is not yet executed by the harness"
    );
    assert!(load(vec![built_in("istio.stats")], &[], Arc::default()).is_ok());
}

struct Unfetched;

impl harness::source::ModuleSource for Unfetched {
    fn module(&self, _: &str) -> Result<harness::source::Fetched, harness::source::SourceError> {
        Ok(harness::source::Fetched::Failed { reason: "401".to_owned() })
    }
}

#[test]
fn a_module_that_was_not_fetched_denies_all_or_lets_all_pass() {
    for (strategy, expected) in
        [(FailStrategy::FailClose, (403, "RBAC: access denied")), (FailStrategy::FailOpen, (200, ""))]
    {
        let log = Arc::new(Recorder::default());
        let engine = harness::engine::Engine::new(support::limits()).unwrap();
        let chain = support::chain(vec![wasm("a", |w| w.fail_strategy = strategy)]);
        let level = harness::abi::LogLevel::Info;
        let host_env = std::collections::BTreeMap::new();
        let loaded = harness::chain::Chain::load(&engine, &chain, &Unfetched, &host_env, log.clone(), level).unwrap();
        let options =
            harness::server::Options { workers: Some(1), ..harness::server::Options::listen_on("127.0.0.1:0") };
        let server = harness::server::Server::start(loaded, options).unwrap();
        let reply = support::send(server.address(), "GET", "/", &[], "").unwrap();
        assert_eq!(reply.status, expected.0);
        assert!(reply.body.starts_with(expected.1));
        assert!(log.lines()[0].starts_with("warning: fetching the module of WasmPlugin default/a failed (401)"));
    }
}

#[test]
fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let chain = load(vec![], &[], Arc::default()).unwrap();
    let error = harness::server::Server::start(chain, harness::server::Options::listen_on(&address)).unwrap_err();
    assert_eq!(error.to_string(), format!("listen on {address}"));
}
