//! Plugins in front of real HTTP: headers, bodies, local responses, order.

use crate::support::{self, Guest, Harness, add_header, local_response, replace_body, wasm};
use mesh::model::EnvValue;

#[test]
fn headers_are_added_in_both_directions() {
    let guest = Guest::default()
        .on("request_headers", |g| format!("{} (i32.const 0)", add_header(g, 0, "X-Added", "yes")))
        .on("response_headers", |g| format!("{} (i32.const 0)", add_header(g, 2, "X-Answer", "42")));
    let reply = Harness::of(guest).get("/x?q=1");
    assert_eq!((reply.status, reply.header("x-answer")), (200, Some("42")));
    assert_eq!(reply.echoed("x-added"), ["yes"]);
    assert_eq!(reply.echo()["path"], "/x?q=1");
    assert_eq!(reply.echo()["authority"], "example.com");
    assert_eq!(reply.echoed("x-forwarded-proto"), ["http"]);
}

#[test]
fn a_local_response_answers_and_names_its_filter_and_details() {
    let guest = Guest::default().on("request_headers", |g| {
        format!("{} (i32.const 1)", local_response(g, 401, "no credentials", "Unauthorized"))
    });
    let harness = Harness::of(guest);
    let reply = harness.get("/secret?token=1");
    assert_eq!((reply.status, reply.body.as_str()), (401, "Unauthorized"));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    assert_eq!(reply.header("content-length"), Some("12"));
    assert_eq!(harness.log.lines(), ["GET /secret Some(401) by Some(\"default.a\") no_credentials"]);
}

#[test]
fn a_local_response_cannot_split_the_response() {
    let mut pairs = Vec::new();
    for n in [1_u32, 5, 7] {
        pairs.extend_from_slice(&n.to_le_bytes());
    }
    pairs.extend_from_slice(b"x-bad\0a\r\nb: c\0");
    let pairs = String::from_utf8(pairs).unwrap();
    let guest = Guest::default().on("request_headers", |g| {
        let pairs = g.text(&pairs);
        let none = "(i32.const 0) (i32.const 0)";
        format!(
            "(drop (call $proxy_send_local_response (i32.const 403) {none} {none} {pairs} (i32.const -1)))
            (i32.const 1)"
        )
    });
    let reply = Harness::of(guest).get("/");
    assert_eq!((reply.status, reply.header("x-bad"), reply.header("b")), (403, None, None));
}

#[test]
fn a_status_that_is_none_becomes_503() {
    let guest =
        Guest::default().on("request_headers", |g| format!("{} (i32.const 1)", local_response(g, 7, "", "odd")));
    assert_eq!(Harness::of(guest).get("/").status, 503);
}

#[test]
fn an_invalid_header_on_a_request_is_503() {
    let guest =
        Guest::default().on("request_headers", |g| format!("{} (i32.const 0)", add_header(g, 0, "x-bad", "a\nb")));
    let reply = Harness::of(guest).get("/");
    assert_eq!((reply.status, reply.body.as_str()), (503, "invalid header value for: x-bad"));
}

#[test]
fn requests_pass_first_to_last_and_responses_last_to_first() {
    let harness = Harness::new(
        vec![wasm("a", |_| {}), wasm("b", |_| {})],
        &[("a", Guest::recorder("a").build()), ("b", Guest::recorder("b").build())],
    );
    assert_eq!(harness.send("POST", "/", &[], "hello").status, 200);
    harness.server.shut_down();
    let mut messages = harness.log.messages();
    // The root contexts' own end.
    assert_eq!(messages.split_off(messages.len() - 4), ["a done", "a delete", "b done", "b delete"]);
    let expected = [
        "a request_headers",
        "b request_headers",
        "a request_body",
        "b request_body",
        "a request_body",
        "b request_body",
        "b response_headers",
        "a response_headers",
        "b response_body",
        "a response_body",
        "b response_body",
        "a response_body",
        "a log",
        "b log",
        "a done",
        "a delete",
        "b done",
        "b delete",
    ];
    assert_eq!(messages, expected);
}

#[test]
fn a_filter_that_was_not_reached_only_logs() {
    let a = Guest::default()
        .on("request_headers", |g| format!("{} (i32.const 1)", local_response(g, 403, "", "no")))
        .on("response_headers", |g| format!("{} (i32.const 0)", g.say("a response_headers")));
    let b = Guest::recorder("b");
    let harness = Harness::new(vec![wasm("a", |_| {}), wasm("b", |_| {})], &[("a", a.build()), ("b", b.build())]);
    assert_eq!(harness.get("/").status, 403);
    assert_eq!(harness.log.messages(), ["a response_headers", "b log", "b done", "b delete"]);
}

#[test]
fn a_body_that_is_paused_for_can_be_replaced_as_a_whole() {
    let guest = Guest::default()
        .on("request_headers", |g| {
            let name = g.text("content-length");
            format!("(drop (call $proxy_remove_header_map_value (i32.const 0) {name})) (i32.const 0)")
        })
        .on("request_body", |g| {
            let replace = replace_body(g, 0, "replaced");
            format!("(if (result i32) (local.get 2) (then {replace} (i32.const 0)) (else (i32.const 1)))")
        });
    let reply = Harness::of(guest).send("POST", "/", &[], "original, and longer");
    assert_eq!((reply.status, &reply.echo()["body"]), (200, &"replaced".into()));
}

#[test]
fn a_response_body_can_be_replaced() {
    let guest = Guest::default()
        .on("response_headers", |g| {
            let name = g.text("content-length");
            format!("(drop (call $proxy_remove_header_map_value (i32.const 2) {name})) (i32.const 0)")
        })
        .on("response_body", |g| {
            let replace = replace_body(g, 1, "short");
            format!("(if (result i32) (local.get 2) (then {replace} (i32.const 0)) (else (i32.const 1)))")
        });
    let reply = Harness::of(guest).get("/");
    assert_eq!((reply.status, reply.body.as_str()), (200, "short"));
}

#[test]
fn a_paused_request_goes_on_when_a_tick_resumes_it() {
    let guest = Guest::default()
        .on("configure", |_| "(drop (call $proxy_set_tick_period_milliseconds (i32.const 5))) (i32.const 1)".to_owned())
        .on("request_headers", |_| "(global.set $count (local.get 0)) (i32.const 1)".to_owned())
        .on("request_body", |g| format!("{} (i32.const 0)", g.say("body")))
        .on("tick", |g| {
            let add = add_header(g, 0, "x-tick", "1");
            format!(
                "(if (global.get $count) (then
                    (drop (call $proxy_set_effective_context (global.get $count)))
                    {add}
                    (drop (call $proxy_continue_stream (i32.const 0)))
                    (global.set $count (i32.const 0))))"
            )
        });
    let harness = Harness::of(guest);
    let reply = harness.send("POST", "/", &[], "hello");
    assert_eq!((reply.status, &reply.echo()["body"]), (200, &"hello".into()));
    assert_eq!(reply.echoed("x-tick"), ["1"]);
}

#[test]
fn a_body_beyond_the_buffer_limit_is_413() {
    let guest = Guest::default().on("request_body", |_| "(i32.const 1)".to_owned());
    let reply = Harness::of(guest).send("POST", "/", &[], &"x".repeat((1 << 20) + 1));
    assert_eq!((reply.status, reply.body.as_str()), (413, "Payload Too Large"));
    assert_eq!(reply.header("connection"), Some("close"));
}

#[test]
fn a_request_that_is_never_resumed_times_out() {
    let guest = Guest::default().on("request_headers", |_| "(i32.const 1)".to_owned());
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
        options.idle_timeout = std::time::Duration::from_millis(50);
    });
    let reply = harness.get("/");
    assert_eq!((reply.status, reply.body.as_str()), (504, "stream timeout"));
}

#[test]
fn closing_the_stream_closes_the_connection_without_a_response() {
    let guest = Guest::default()
        .on("request_headers", |_| "(drop (call $proxy_close_stream (i32.const 0))) (i32.const 1)".to_owned());
    let harness = Harness::of(guest);
    assert!(support::send(harness.server.address(), "GET", "/", &[], "").is_none());
    assert_eq!(harness.log.lines(), ["GET / None by Some(\"default.a\") wasm_close_stream"]);
}

#[test]
fn a_client_that_goes_away_ends_the_stream() {
    let guest = Guest::recorder("a").build();
    let harness = Harness::new(vec![wasm("a", |_| {})], &[("a", guest)]);
    {
        use std::io::Write as _;
        let mut client = std::net::TcpStream::connect(harness.server.address()).unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf").unwrap();
        harness.log.wait_for("a request_body");
    }
    harness.log.wait_for("POST / None by None downstream_remote_disconnect");
    let expected = ["a request_headers", "a request_body", "a log", "a done", "a delete"];
    assert_eq!(harness.log.messages(), expected);
}

#[test]
fn limits_on_requests_answer_before_any_filter() {
    let harness = Harness::of(Guest::recorder("a"));
    let large = "v".repeat(62 << 10);
    // Two more are `host` and `connection`.
    for headers in [vec![("x-large", large.as_str())], vec![("x-many", "1"); 99]] {
        let reply = harness.send("GET", "/", &headers, "");
        assert_eq!((reply.status, reply.body.as_str()), (431, "Request Header Fields Too Large"));
        assert_eq!(harness.log.messages(), ["a log", "a done", "a delete"]);
    }
    assert_eq!(harness.send("GET", "/", &[("x-many", "1"); 98], "").status, 200);
}

#[test]
fn a_plugin_sees_its_configuration_and_environment_once() {
    let guest = Guest::default().on("configure", |_| {
        // Out pointers at 16 and 20; logs what it was given.
        "(drop (call $proxy_get_buffer_bytes (i32.const 7) (i32.const 0) (i32.const 1000) (i32.const 16) (i32.const 20)))
        (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 16)) (i32.load (i32.const 20))))
        (i32.const 1)"
            .to_owned()
    });
    let harness = Harness::new(
        vec![wasm("a", |w| {
            w.plugin_config = Some("{\"k\":1}".to_owned());
            w.plugin_name = "root".to_owned();
            w.env = vec![support::env("A", EnvValue::Inline("1".to_owned())), support::env("ON_HOST", EnvValue::Host)];
        })],
        &[("a", guest.build())],
    );
    // Once in the canary, once in the worker's VM.
    assert_eq!(harness.log.lines(), ["info: wasm log root: {\"k\":1}"; 2]);
}

#[test]
fn paths_are_normalised_before_plugins_see_them() {
    let reply = Harness::of(Guest::default()).get("/public/x/.%2e/%2e%2e/./admin?x=/../y");
    assert_eq!(reply.echo()["path"], "/admin?x=/../y");
}

#[test]
fn head_and_http_upstreams_work() {
    let upstream = Harness::new(vec![], &[]);
    let url = format!("http://{}", upstream.server.address());
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", Guest::recorder("a").build())], |options| {
        options.upstream = Some(url);
    });
    for _ in 0..3 {
        let reply = harness.send("POST", "/p", &[("x-mine", "1")], "payload");
        assert_eq!((reply.status, &reply.echo()["body"]), (200, &"payload".into()));
        assert_eq!(reply.echoed("x-mine"), ["1"]);
        assert_eq!(reply.header("server"), Some("istio-envoy"));
    }
    let reply = harness.send("HEAD", "/", &[], "");
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
}

#[test]
fn an_upstream_that_is_not_there_is_503() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", Guest::recorder("a").build())], |options| {
        options.upstream = Some(format!("http://{free}"));
    });
    let reply = harness.get("/");
    let text = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    assert_eq!((reply.status, reply.body.as_str()), (503, text));
    assert_eq!(harness.log.messages()[1], "a response_headers");
}
