//! What Envoy answers with a hang, a crash or a broken response is said, by name.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Guest, Harness, add_header, local_response, network, replace_body, wasm};

fn hazards(guest: Guest) -> Vec<String> {
    let harness = Harness::of(guest);
    let _ = crate::support::send(harness.server.address(), "POST", "/", &[], "body");
    harness.server.shut_down();
    harness.log.hazards()
}

#[track_caller]
fn check(guest: Guest, expected: &[&str]) {
    assert_eq!(hazards(guest), expected);
}

fn resume(direction: u32) -> String {
    format!("(drop (call $proxy_continue_stream (i32.const {direction})))")
}

#[test]
fn what_is_right_is_no_hazard() {
    check(Guest::recorder("a"), &[]);
    let guest = Guest::default()
        .on("request_headers", |g| {
            let name = g.text("content-length");
            format!("(drop (call $proxy_remove_header_map_value (i32.const 0) {name})) (i32.const 0)")
        })
        .on("request_body", |g| format!("{} (i32.const 0)", replace_body(g, 0, "else")))
        .on("response_headers", |g| format!("{} (i32.const 1)", local_response(g, 403, "", "no")));
    check(guest, &[]);
}

#[test]
fn a_response_body_that_does_not_have_its_length() {
    let guest = Guest::default()
        .on("response_body", |g| format!("(if (local.get 1) (then {})) (i32.const 0)", replace_body(g, 1, "short")));
    let hazards = hazards(guest);
    let start = "content-length default.a proxy_on_response_body proxy_set_buffer_bytes: \
                 the filters let 5 bytes of the response's body pass, but content-length is ";
    assert!(hazards.len() == 1 && hazards[0].starts_with(start), "{hazards:?}");
}

#[test]
fn resuming_within_the_callback() {
    for (callback, direction, name) in [("request_headers", 0, "request"), ("response_headers", 1, "response")] {
        for action in [0, 1] {
            let guest = Guest::default().on(callback, |_| format!("{} (i32.const {action})", resume(direction)));
            let expected = format!(
                "resume-in-callback default.a proxy_on_{callback} proxy_continue_stream: \
                 the {name} was resumed before the callback had answered"
            );
            check(guest, &[&expected]);
        }
    }
}

#[test]
fn resuming_what_is_not_paused() {
    let guest = Guest::default().on("request_headers", |_| format!("{} (i32.const 0)", resume(1)));
    let expected = "resume-without-pause default.a proxy_on_request_headers proxy_continue_stream: \
                    the response was resumed, and this filter does not hold it up";
    check(guest, &[expected]);
}

#[test]
fn a_local_response_after_the_headers_or_a_second_one() {
    let guest = Guest::default().on("response_body", |g| format!("{} (i32.const 0)", local_response(g, 403, "", "no")));
    let expected = "local-response-after-headers default.a proxy_on_response_body proxy_send_local_response: \
                    the response's headers have gone out already";
    check(guest, &[expected]);
    let guest = Guest::default().on("request_headers", |g| {
        format!("{} {} (i32.const 1)", local_response(g, 403, "", "no"), local_response(g, 404, "", "none"))
    });
    let expected = "double-local-response default.a proxy_on_request_headers proxy_send_local_response: \
                    this stream has a local response already";
    check(guest, &[expected]);
}

#[test]
fn a_local_response_when_all_is_done() {
    for (callback, result) in [("log", ""), ("done", "(i32.const 1)")] {
        let guest = Guest::default().on(callback, |g| format!("{} {result}", local_response(g, 403, "", "no")));
        let expected = format!(
            "local-response-when-done default.a proxy_on_{callback} proxy_send_local_response: the stream is over"
        );
        check(guest, &[&expected]);
    }
}

#[test]
fn a_header_map_that_is_not_there() {
    for (callback, map, name) in [("request_body", 0, "RequestHeaders"), ("request_headers", 2, "ResponseHeaders")] {
        let calls = [
            ("get_header_map_value", "(i32.const 16) (i32.const 20)"),
            ("add_header_map_value", "(i32.const 0) (i32.const 0)"),
            ("replace_header_map_value", "(i32.const 0) (i32.const 0)"),
            ("remove_header_map_value", ""),
        ];
        for (call, rest) in calls {
            let guest = Guest::default().on(callback, |g| {
                let key = g.text("x");
                let call = format!("(drop (call $proxy_{call} (i32.const {map}) {key} {rest}))");
                // The body may come in two parts.
                format!("(if (local.get 1) (then {call})) (i32.const 0)")
            });
            let expected = format!(
                "header-map-out-of-phase default.a proxy_on_{callback} proxy_{call}: \
                 the map {name} is not there in this callback"
            );
            check(guest, &[&expected]);
        }
    }
}

#[test]
fn a_pause_that_nobody_ends() {
    for (callback, direction) in
        [("request_headers", "request"), ("request_body", "request"), ("response_headers", "response")]
    {
        let guest = Guest::default().on(callback, |_| "(i32.const 1)".to_owned());
        let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
            options.idle_timeout = Duration::from_millis(50);
        });
        assert_eq!(harness.send("POST", "/", &[], "body").status, 504);
        let expected = format!(
            "pause-without-resume default.a proxy_on_{callback} -: \
             the {direction} was still paused when the stream ended: stream_idle_timeout"
        );
        assert_eq!(harness.log.hazards(), [expected]);
    }
}

#[test]
fn a_client_that_does_not_wait_for_a_pause_to_end() {
    let guest = Guest::default().on("request_headers", |g| format!("{} (i32.const 1)", g.say("paused")));
    let harness = Harness::of(guest);
    let mut client = TcpStream::connect(harness.server.address()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    harness.log.wait_for("paused");
    drop(client);
    harness.log.wait_for("downstream_remote_disconnect");
    let expected = "pause-without-resume default.a proxy_on_request_headers -: \
                    the request was still paused when the stream ended: downstream_remote_disconnect";
    assert_eq!(harness.log.hazards(), [expected]);
}

#[test]
fn control_characters_and_impossible_statuses() {
    let guest =
        Guest::default().on("request_headers", |g| format!("{} (i32.const 0)", add_header(g, 0, "x-bad", "a\r\nb: c")));
    let expected = "control-character-in-header default.a proxy_on_request_headers proxy_add_header_map_value: \
                    the header \"x-bad\" has a CR, LF or NUL";
    check(guest, &[expected]);
    let guest = Guest::default().on("request_headers", |g| format!("{} (i32.const 1)", local_response(g, 99, "", "")));
    let expected = "status-out-of-range default.a proxy_on_request_headers proxy_send_local_response: \
                    a local response has the status 99";
    check(guest, &[expected]);
}

#[test]
fn credentials_in_a_log_line() {
    let guest = Guest::default().on("request_headers", |g| {
        let name = g.text("authorization");
        format!(
            "(drop (call $proxy_get_header_map_value (i32.const 0) {name} (i32.const 16) (i32.const 20)))
            (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 16)) (i32.load (i32.const 20))))
            (i32.const 0)"
        )
    });
    let harness = Harness::of(guest);
    harness.send("GET", "/", &[("authorization", "Bearer 0123456789abcdef")], "");
    let expected =
        "secret-in-log default.a proxy_on_request_headers proxy_log: a log line has the value of authorization";
    assert_eq!(harness.log.hazards(), [expected]);
}

#[test]
fn a_network_plugin_that_reads_headers() {
    let guest = Guest::default().on("new_connection", |g| {
        let name = g.text(":path");
        format!(
            "(drop (call $proxy_get_header_map_value (i32.const 0) {name} (i32.const 16) (i32.const 20))) (i32.const 0)"
        )
    });
    let harness = Harness::network(vec![network("a")], Some(vec![]), &[("a", guest.build())], |_| {});
    harness.get("/");
    let expected = "header-map-out-of-phase default.a proxy_on_new_connection proxy_get_header_map_value: \
                    the map RequestHeaders is not there in this callback";
    assert_eq!(harness.log.hazards(), [expected]);
}

#[test]
fn memory_that_only_grows() {
    // A page more for every 250 requests.
    let guest = Guest::default().on("request_headers", |g| {
        let reply = local_response(g, 200, "", "");
        format!(
            "(global.set $count (i32.add (global.get $count) (i32.const 1)))
            (if (i32.eqz (i32.rem_u (global.get $count) (i32.const 250)))
                (then (drop (memory.grow (i32.const 1)))))
            {reply} (i32.const 1)"
        )
    });
    let harness = Harness::of(guest);
    let mut client = TcpStream::connect(harness.server.address()).unwrap();
    let requests = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    for _ in 0..100 {
        client.write_all(requests.as_bytes()).unwrap();
        let mut seen = Vec::new();
        while seen.windows(4).filter(|window| window == b"\r\n\r\n").count() < 100 {
            let mut chunk = [0; 16 << 10];
            let read = client.read(&mut chunk).unwrap();
            assert_ne!(read, 0);
            seen.extend_from_slice(&chunk[..read]);
        }
    }
    let hazards = harness.log.hazards();
    let start = "memory-growth default.a  -: over the last 10000 requests its memory grew from ";
    assert!(hazards.len() == 1 && hazards[0].starts_with(start), "{hazards:?}");
}
