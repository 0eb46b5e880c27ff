//! What plugins get wrong must not reach further than their own request.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::{Guest, Harness, IMPORTS, add_header, local_response, parse, replace_body, send, wasm};

fn harness(guest: Guest) -> Harness {
    let upstream = Harness::new(vec![], &[]);
    let url = format!("http://{}", upstream.server.address());
    let bytes = guest.build();
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", bytes)], |options| options.upstream = Some(url));
    // It serves for as long as the process runs.
    std::mem::forget(upstream);
    harness
}

fn raw(harness: &Harness, request: &str) -> Vec<u8> {
    let mut client = TcpStream::connect(harness.server.address()).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    bytes
}

#[test]
fn a_body_that_no_longer_fits_its_content_length_harms_only_its_own_request() {
    for (callback, buffer) in [("request_body", 0), ("response_body", 1)] {
        for body in ["", "x", &"long ".repeat(500)] {
            let guest = Guest::default().on(callback, |g| {
                let replace = replace_body(g, buffer, body);
                format!("(if (local.get 1) (then {replace})) (i32.const 0)")
            });
            let harness = harness(guest);
            for _ in 0..2 {
                let _ = send(harness.server.address(), "POST", "/", &[], "body");
                assert_eq!(harness.send("HEAD", "/", &[], "").status, 200, "{callback} {body}");
            }
        }
    }
}

#[test]
fn a_request_body_shorter_than_its_content_length_is_503_and_said() {
    let guest = Guest::default().on("request_body", |g| {
        let replace = replace_body(g, 0, "x");
        format!("(if (local.get 1) (then {replace})) (i32.const 0)")
    });
    let harness = harness(guest);
    assert_eq!(harness.send("POST", "/", &[], "body").status, 503);
    let hazard = "content-length default.a proxy_on_request_body proxy_set_buffer_bytes: \
                  the filters let 1 bytes of the request's body pass, but content-length is 4";
    assert_eq!(harness.log.hazards(), [hazard]);
}

#[test]
fn framing_headers_of_a_plugin_do_not_frame() {
    for (name, value) in [
        ("transfer-encoding", "chunked"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("content-length", "abc"),
        ("content-length", "-1"),
        ("te", "gzip"),
    ] {
        for (callback, map) in [("request_headers", 0), ("response_headers", 2)] {
            let guest = Guest::default().on(callback, |g| format!("{} (i32.const 0)", add_header(g, map, name, value)));
            let harness = harness(guest);
            for _ in 0..2 {
                let _ = send(harness.server.address(), "POST", "/", &[], "body");
            }
            assert!(TcpStream::connect(harness.server.address()).is_ok());
            assert!(harness.log.lines().iter().filter(|line| line.starts_with("POST /")).count() == 2);
        }
    }
}

#[test]
fn without_path_or_method_there_is_no_route_or_no_request() {
    for (name, expected) in [(":path", (404, "")), (":method", (503, "missing required header: :method"))] {
        let guest = Guest::default().on("request_headers", |g| {
            format!("(drop (call $proxy_remove_header_map_value (i32.const 0) {})) (i32.const 0)", g.text(name))
        });
        let reply = harness(guest).get("/");
        assert_eq!((reply.status, reply.body.as_str()), expected);
    }
    let guest = Guest::default().on("response_headers", |g| {
        format!("(drop (call $proxy_remove_header_map_value (i32.const 2) {})) (i32.const 0)", g.text(":status"))
    });
    let reply = harness(guest).get("/");
    assert_eq!((reply.status, reply.body.as_str()), (502, "missing required header: :status"));
}

#[test]
fn local_responses_without_a_place_for_a_body_have_none() {
    for (method, status) in [("HEAD", 403), ("GET", 204), ("GET", 304)] {
        let guest = Guest::default()
            .on("request_headers", |g| format!("{} (i32.const 1)", local_response(g, status, "", "text")));
        let reply = Harness::of(guest).send(method, "/", &[], "");
        assert_eq!((u32::from(reply.status), reply.body.as_str()), (status, ""));
    }
}

#[test]
fn a_local_response_in_the_response_replaces_it_without_callbacks() {
    let a = Guest::recorder("a").build();
    let b = Guest::default()
        .on("response_headers", |g| format!("{} (i32.const 1)", local_response(g, 418, "", "teapot")))
        .build();
    let harness = Harness::new(vec![wasm("a", |_| {}), wasm("b", |_| {})], &[("a", a), ("b", b)]);
    let reply = harness.get("/");
    assert_eq!((reply.status, reply.body.as_str()), (418, "teapot"));
    assert_eq!(harness.log.messages(), ["a request_headers", "a log", "a done", "a delete"]);
}

#[test]
fn grpc_requests_get_their_local_response_in_headers() {
    let guest = Guest::default()
        .on("request_headers", |g| format!("{} (i32.const 1)", local_response(g, 401, "", "who are you?")));
    let reply = Harness::of(guest).send("POST", "/", &[("content-type", "application/grpc")], "");
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("16")));
    assert_eq!(reply.header("grpc-message"), Some("who are you?"));
    assert_eq!(reply.header("content-type"), Some("application/grpc"));
}

#[test]
fn trailers_on_http_1_end_the_body_and_are_dropped() {
    let guest = Guest::default()
        .on("request_trailers", |g| format!("{} {} (i32.const 0)", g.say("trailers"), add_header(g, 1, "x-more", "2")));
    let harness = Harness::of(guest);
    let bytes = raw(
        &harness,
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n\
         4\r\nbody\r\n0\r\nx-end: 1\r\n\r\n",
    );
    let echo = parse(&bytes).unwrap().echo();
    assert_eq!(echo["trailers"], serde_json::json!([]));
    assert_eq!((echo["body"].as_str(), harness.log.messages()), (Some("body"), vec![]));
}

#[test]
fn hostile_requests_get_an_answer_or_a_closed_connection() {
    let harness = Harness::of(Guest::recorder("a"));
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", Some(400)),
        ("GET /%00 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", Some(400)),
        ("CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\nconnection: close\r\n\r\n", Some(404)),
        ("OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", Some(404)),
        ("GET http://other/p HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", Some(200)),
        ("GET / HTTP/1.0\r\nhost: x\r\n\r\n", Some(426)),
        ("GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", Some(403)),
        ("nonsense\r\n\r\n", Some(400)),
    ] {
        let reply = parse(&raw(&harness, request));
        assert_eq!(reply.map(|reply| reply.status), expected, "{request}");
    }
    let many: String = (0..200).fold(String::new(), |all, n| all + &format!("x-{n}: 1\r\n"));
    let reply = parse(&raw(&harness, &format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"))).unwrap();
    assert_eq!(reply.status, 431);
}

#[test]
fn large_bodies_stream_in_both_directions() {
    let harness = harness(Guest::default().on("request_body", |_| "(i32.const 0)".to_owned()));
    let body = "0123456789".repeat(500_000);
    let reply = harness.send("POST", "/", &[], &body);
    assert_eq!(reply.echo()["body_size"], body.len());
}

#[test]
fn a_paused_upload_is_held_back_and_then_delivered_whole() {
    let guest = Guest::default()
        .on("configure", |_| {
            "(drop (call $proxy_set_tick_period_milliseconds (i32.const 50))) (i32.const 1)".to_owned()
        })
        .on("request_headers", |_| "(global.set $count (local.get 0)) (i32.const 1)".to_owned())
        .on("tick", |_| {
            "(if (global.get $count) (then
                (drop (call $proxy_set_effective_context (global.get $count)))
                (drop (call $proxy_continue_stream (i32.const 0)))
                (global.set $count (i32.const 0))))"
                .to_owned()
        });
    let harness = harness(guest);
    let body = "0123456789".repeat(500_000);
    assert_eq!(harness.send("POST", "/", &[], &body).echo()["body_size"], body.len());
}

/// Calls of random hostcalls with arguments that are often plausible and often not.
fn random_calls(seed: &mut u64, count: usize) -> String {
    let mut next = |below: usize| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*seed >> 33).unwrap() % below
    };
    let arguments = [0, 1, 2, 3, 4, 7, 8, 16, 512, 4096, 65_535, 262_143, 262_144, i32::MAX, i32::MIN, -1, -2];
    let mut calls = String::new();
    for _ in 0..count {
        let (_, name, params) = IMPORTS[next(IMPORTS.len())];
        let given: String = params.chars().fold(String::new(), |all, param| {
            let ty = if param == 'l' { "i64" } else { "i32" };
            format!("{all} ({ty}.const {})", arguments[next(arguments.len())])
        });
        let _ = writeln!(calls, "(drop (call ${name} {given}))");
    }
    calls
}

/// Calls that are well-formed, so that answers come: to a cluster over HTTP and gRPC, to a queue, to a resolver.
fn real_calls(guest: &mut Guest) -> String {
    let (cluster, name) = (guest.text("c"), guest.text("q"));
    let headers = crate::support::pairs(guest, &[(":method", "GET"), (":path", "/"), (":authority", "h")]);
    let (none, out) = ("(i32.const 0) (i32.const 0)", "(i32.const 520)");
    format!(
        "(drop (call $proxy_http_call {cluster} {headers} {none} {none} (i32.const 50) {out}))
         (drop (call $proxy_grpc_call {cluster} {name} {name} {none} {none} (i32.const 50) {out}))
         (drop (call $proxy_grpc_stream {cluster} {name} {name} {none} {out}))
         (drop (call $proxy_register_shared_queue {name} {out}))
         (drop (call $proxy_enqueue_shared_queue (i32.load {out}) {name}))
         (drop (call $envoy_resolve_dns {none} {out}))"
    )
}

#[test]
fn random_hostcalls_in_every_callback_leave_the_host_whole() {
    let backend = Harness::new(vec![], &[]);
    let url = format!("http://{}", backend.server.address());
    for first in 0..40 {
        let mut seed = first;
        let mut guest = Guest::default();
        for callback in [
            "context_create",
            "vm_start",
            "configure",
            "request_headers",
            "request_body",
            "request_trailers",
            "response_headers",
            "response_body",
            "response_trailers",
            "log",
            "done",
            "delete",
            "tick",
            "http_call_response",
            "grpc_receive_initial_metadata",
            "grpc_receive_trailing_metadata",
            "grpc_receive",
            "grpc_close",
            "queue_ready",
            "resolve_dns",
        ] {
            let result = match callback {
                "vm_start" | "configure" => "(i32.const 1)",
                "done" => "(i32.const 0)",
                name if name.starts_with("request_") || name.starts_with("response_") => "(i32.const 0)",
                _ => "",
            };
            let calls = random_calls(&mut seed, 60);
            let real = ["configure", "request_headers", "log"].contains(&callback);
            guest = guest.on(callback, |g| if real { real_calls(g) + &calls + result } else { calls + result });
        }
        let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
            options.idle_timeout = std::time::Duration::from_millis(200);
            options.drain = std::time::Duration::from_millis(200);
            options.clusters = [("c".to_owned(), url.clone())].into();
        });
        for _ in 0..3 {
            let _ = send(harness.server.address(), "POST", "/", &[("x", "1")], "body");
        }
        // The one worker still listens: nothing panicked.
        assert!(TcpStream::connect(harness.server.address()).is_ok(), "seed {first}");
        harness.server.shut_down();
        let ends =
            harness.log.lines().iter().filter(|line| line.contains(" by None ") || line.contains(" by Some(")).count();
        assert_eq!(ends, 3, "seed {first}: {:?}", harness.log.lines());
    }
}
