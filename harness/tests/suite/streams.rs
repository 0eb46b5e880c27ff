//! Pausing, resuming, buffering and answering at every phase of a stream.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::h2::send_with_trailer;
use crate::support::{Guest, Harness, Reply, add_header, local_response, parse, replace_body, wasm};

/// Asks for a tick every few milliseconds, in which `what` is done once for the context in `$count`.
fn ticking(guest: Guest, what: impl FnOnce(&mut Guest) -> String) -> Guest {
    guest
        .on("configure", |_| "(drop (call $proxy_set_tick_period_milliseconds (i32.const 5))) (i32.const 1)".to_owned())
        .on("tick", |g| {
            let what = what(g);
            format!(
                "(if (global.get $count) (then
                    (drop (call $proxy_set_effective_context (global.get $count)))
                    (global.set $count (i32.const 0))
                    {what}))"
            )
        })
}

fn resume(direction: u32) -> String {
    format!("(drop (call $proxy_continue_stream (i32.const {direction})))")
}

/// To be acted on in the next tick.
const MARK: &str = "(global.set $count (local.get 0))";
const MARK_AT_END: &str = "(if (local.get 2) (then (global.set $count (local.get 0))))";

/// Says what it sees.
fn observer(name: &str) -> Guest {
    let chunk = |g: &mut Guest, callback: &str| {
        let (last, more) = (
            g.say_number(&format!("{name} {callback} last"), "(local.get 1)"),
            g.say_number(&format!("{name} {callback} more"), "(local.get 1)"),
        );
        format!("(if (local.get 2) (then {last}) (else {more})) (i32.const 0)")
    };
    Guest::default()
        .on("request_headers", |g| format!("{} (i32.const 0)", g.say(&format!("{name} rh"))))
        .on("request_body", |g| chunk(g, "rb"))
        .on("request_trailers", |g| format!("{} (i32.const 0)", g.say(&format!("{name} rt"))))
        .on("response_headers", |g| format!("{} (i32.const 0)", g.say(&format!("{name} sh"))))
        .on("response_body", |g| chunk(g, "sb"))
        .on("response_trailers", |g| format!("{} (i32.const 0)", g.say(&format!("{name} st"))))
}

fn two(a: Guest, b: Guest) -> Harness {
    Harness::new(vec![wasm("a", |_| {}), wasm("b", |_| {})], &[("a", a.build()), ("b", b.build())])
}

/// In front of an upstream that sends `response` to whatever it is asked.
fn before(guests: [Guest; 2], response: Vec<u8>) -> Harness {
    let upstream = answering(response);
    let [a, b] = guests.map(Guest::build);
    Harness::with(vec![wasm("a", |_| {}), wasm("b", |_| {})], &[("a", a), ("b", b)], |options| {
        options.upstream = Some(format!("http://{upstream}"));
    })
}

fn answering(response: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, response) = (stream.unwrap(), response.clone());
            std::thread::spawn(move || {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    request.push(byte[0]);
                }
                let _ = stream.write_all(&response);
            });
        }
    });
    address
}

/// Sends `abc` and `def`, each once the one before has been seen.
fn upload(harness: &Harness, seen: &[&str]) -> Option<Reply> {
    let mut client = TcpStream::connect(harness.server.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 6\r\n\r\n").unwrap();
    for (chunk, seen) in [&b"abc"[..], b"def"].into_iter().zip(seen) {
        client.write_all(chunk).unwrap();
        harness.log.wait_for(seen);
    }
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    parse(&bytes)
}

fn pausing_body(action: u32) -> Guest {
    Guest::default().on("request_body", |g| {
        let said = g.say_number("a rb", "(local.get 1)");
        format!("{said} {MARK_AT_END} (i32.const {action})")
    })
}

#[test]
fn a_filter_after_a_paused_one_begins_when_it_resumes() {
    let a = Guest::default().on("request_headers", |g| format!("{MARK} {} (i32.const 1)", g.say("a rh")));
    let a = ticking(a, |g| format!("{} {} {}", g.say("tick"), add_header(g, 0, "x-late", "1"), resume(0)));
    let b = observer("b").on("context_create", |g| {
        let said = g.say("b create");
        format!("(if (local.get 1) (then {said}))")
    });
    let harness = two(a, b);
    harness.log.messages();
    assert_eq!(harness.get("/").echoed("x-late"), ["1"]);
    assert_eq!(harness.log.messages()[..4], ["a rh", "tick", "b create", "b rh"]);
}

#[test]
fn a_paused_body_accumulates_and_goes_on_in_one_piece() {
    let harness = two(ticking(pausing_body(1), |_| resume(0)), observer("b"));
    let reply = upload(&harness, &["a rb 003", "a rb 006"]).unwrap();
    assert_eq!(reply.echo()["body"], "abcdef");
    assert_eq!(harness.log.messages()[..5], ["b rh", "a rb 003", "a rb 006", "a rb 006", "b rb last 006"]);
}

#[test]
fn stop_iteration_and_watermark_shows_each_chunk_once_and_keeps_all() {
    let harness = two(ticking(pausing_body(2), |_| resume(0)), observer("b"));
    let reply = upload(&harness, &["a rb 003", "a rb 003"]).unwrap();
    assert_eq!(reply.echo()["body"], "abcdef");
    assert_eq!(harness.log.messages()[..5], ["b rh", "a rb 003", "a rb 003", "a rb 000", "b rb last 006"]);
}

#[test]
fn stop_iteration_no_buffer_drops_the_chunks_and_so_do_unknown_answers() {
    for action in [3, 4, 77] {
        let drop_length = |g: &mut Guest| {
            let name = g.text("content-length");
            format!("(drop (call $proxy_remove_header_map_value (i32.const 0) {name})) (i32.const 0)")
        };
        let a = pausing_body(action).on("request_headers", drop_length);
        let harness = two(ticking(a, |_| resume(0)), observer("b"));
        let reply = upload(&harness, &["a rb 003", "a rb 003"]).unwrap();
        assert_eq!(reply.echo()["body"], "");
        assert_eq!(harness.log.messages()[4], "b rb last 000");
    }
}

#[test]
fn a_body_that_is_held_can_be_replaced_from_a_tick() {
    let a = pausing_body(1).on("request_headers", |g| {
        let name = g.text("content-length");
        format!("(drop (call $proxy_remove_header_map_value (i32.const 0) {name})) (i32.const 0)")
    });
    let harness = two(ticking(a, |g| format!("{} {}", replace_body(g, 0, "replaced"), resume(0))), observer("b"));
    assert_eq!(harness.send("POST", "/", &[], "body").echo()["body"], "replaced");
}

#[test]
fn trailers_made_at_the_end_of_the_body_follow_it() {
    let a = Guest::default().on("request_body", |g| {
        let add = add_header(g, 1, "x-made", "1");
        format!("(if (local.get 2) (then {add})) (i32.const 0)")
    });
    let harness = two(a, observer("b"));
    let reply = harness.send("POST", "/", &[], "body");
    assert_eq!(reply.echo()["trailers"], serde_json::json!([["x-made", "1"]]));
    assert_eq!(harness.log.messages()[..4], ["b rh", "b rb more 004", "b rb more 000", "b rt"]);
}

/// A body that ends with a trailer, and what the upstream got of it.
fn with_trailer(harness: &Harness) -> serde_json::Value {
    send_with_trailer(harness.server.address(), &["body"], ("x-end", "1")).echo()
}

#[test]
fn paused_trailers_hold_the_body_that_is_held_too() {
    let a = Guest::default()
        .on("request_body", |g| format!("{} (i32.const 1)", g.say_number("a rb", "(local.get 1)")))
        .on("request_trailers", |g| format!("{} {MARK} (i32.const 1)", g.say("a rt")));
    let harness = two(ticking(a, |g| format!("{} {}", g.say("tick"), resume(0))), observer("b"));
    assert_eq!(with_trailer(&harness)["body"], "body");
    assert_eq!(harness.log.messages()[..6], ["b rh", "a rb 004", "a rt", "tick", "b rb more 004", "b rt"]);
}

#[test]
fn trailers_that_continue_release_the_body() {
    let a = Guest::default()
        .on("request_body", |_| "(i32.const 1)".to_owned())
        .on("request_trailers", |g| format!("{} (i32.const 0)", g.say("a rt")));
    let harness = two(a, observer("b"));
    assert_eq!(with_trailer(&harness)["body"], "body");
    assert_eq!(harness.log.messages()[..4], ["b rh", "a rt", "b rb more 004", "b rt"]);
}

#[test]
fn paused_response_headers_withhold_the_body_from_this_filter_alone() {
    let a = observer("a").on("response_headers", |g| format!("{MARK} {} (i32.const 1)", g.say("a sh")));
    let harness = two(ticking(a, |_| resume(1)), observer("b"));
    let reply = harness.get("/");
    assert_eq!(reply.status, 200);
    let messages = harness.log.messages();
    let place = |text: &str| messages.iter().position(|message| message.starts_with(text)).expect(text);
    assert!(place("b sh") < place("a sh") && place("a sh") < place("b sb"), "{messages:?}");
    assert!(place("b sb last") < place("a sb last"), "{messages:?}");
    assert_eq!(messages.iter().filter(|message| message.starts_with("a sb")).count(), 1);
}

#[test]
fn a_local_response_from_the_request_body_passes_all_that_saw_the_request() {
    let b = observer("b").on("request_body", |g| format!("{} (i32.const 0)", local_response(g, 403, "", "no")));
    let harness = two(observer("a"), b);
    let reply = harness.send("POST", "/", &[], "body");
    assert_eq!((reply.status, reply.body.as_str()), (403, "no"));
    assert_eq!(
        harness.log.messages(),
        ["a rh", "b rh", "a rb more 004", "b sh", "a sh", "b sb last 002", "a sb last 002"]
    );
}

#[test]
fn a_local_response_from_the_response_body_replaces_a_head_that_has_not_gone_out() {
    // A still holds the response's headers when B answers.
    let a = Guest::default().on("response_headers", |g| format!("{} (i32.const 1)", g.say("a sh")));
    let b = Guest::default().on("response_body", |g| format!("{} (i32.const 0)", local_response(g, 403, "", "no")));
    let harness = two(a, b);
    let reply = harness.get("/");
    assert_eq!((reply.status, reply.body.as_str()), (403, "no"));
    assert_eq!(harness.log.messages(), ["a sh"]);
}

#[test]
fn a_local_response_from_the_response_body_truncates_one_that_has() {
    let b = Guest::default().on("response_body", |g| {
        let reply = local_response(g, 403, "too_late", "no");
        format!("(if (local.get 2) (then {reply})) (i32.const 0)")
    });
    let mut response = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    response.extend_from_slice(b"4\r\nbody\r\n0\r\n\r\n");
    let harness = before([Guest::default(), b], response);
    let mut client = TcpStream::connect(harness.server.address()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&bytes));
    let line = "GET / Some(200) by Some(\"default.b\") too_late";
    assert!(harness.log.lines().contains(&line.to_owned()), "{:?}", harness.log.lines());
}

#[test]
fn a_tick_answers_for_a_paused_request() {
    let a = observer("a").on("request_headers", |_| format!("{MARK} (i32.const 1)"));
    let harness = two(ticking(a, |g| local_response(g, 429, "", "later")), observer("b"));
    let reply = harness.send("POST", "/", &[], "body");
    assert_eq!((reply.status, reply.body.as_str()), (429, "later"));
    assert_eq!(harness.log.messages(), ["a sh", "a sb last 005"]);
}

fn long_response() -> Vec<u8> {
    let mut response = b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n".to_vec();
    response.extend(std::iter::repeat_n(b'x', 3_000_000));
    response
}

#[test]
fn a_response_beyond_the_buffer_limit_is_reset_once_its_head_is_out_and_500_before() {
    let holding = || Guest::default().on("response_body", |_| "(i32.const 1)".to_owned());
    let paused = || Guest::default().on("response_headers", |_| "(i32.const 1)".to_owned());
    let harness = before([Guest::default(), holding()], long_response());
    let reply = harness.get("/");
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    harness.log.wait_for("response_payload_too_large");
    let harness = before([paused(), holding()], long_response());
    let reply = harness.get("/");
    assert_eq!((reply.status, reply.body.as_str()), (500, "Internal Server Error"));
}

#[test]
fn a_paused_response_beyond_the_limit_is_held_back_and_then_delivered_whole() {
    let a = Guest::default().on("response_headers", |_| format!("{MARK} (i32.const 1)"));
    let harness = before([ticking(a, |_| resume(1)), Guest::default()], long_response());
    assert_eq!(harness.get("/").body.len(), 3_000_000);
}

#[test]
fn closing_from_the_response_gives_no_response() {
    for direction in [0, 1] {
        let guest = Guest::default().on("response_headers", |_| {
            format!("(drop (call $proxy_close_stream (i32.const {direction}))) (i32.const 0)")
        });
        let harness = Harness::of(guest);
        assert!(crate::support::send(harness.server.address(), "GET", "/", &[], "").is_none());
    }
}

#[test]
fn a_head_that_waits_in_a_filter_times_out_as_504() {
    let guest = Guest::default().on("response_headers", |_| "(i32.const 1)".to_owned());
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
        options.idle_timeout = Duration::from_millis(50);
    });
    let reply = harness.get("/");
    assert_eq!((reply.status, reply.body.as_str()), (504, "stream timeout"));
}

#[test]
fn interim_responses_are_the_proxys_own() {
    let mut response = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".to_vec();
    response.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let harness = before([observer("a"), observer("b")], response);
    let reply = harness.get("/");
    assert_eq!((reply.status, reply.body.as_str(), reply.header("link")), (200, "ok", None));
    assert_eq!(harness.log.messages().iter().filter(|message| *message == "a sh").count(), 1);

    let harness = two(observer("a"), observer("b"));
    let mut client = TcpStream::connect(harness.server.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    client.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"body").unwrap();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    let reply = parse(&bytes).unwrap();
    assert_eq!((&reply.echo()["body"], reply.echoed("expect")), (&"body".into(), vec![]));
}

#[test]
fn the_ends_of_bodies_and_heads_without_bodies() {
    for (head, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", &["a rh", "a sh end"][..]),
        ("HTTP/1.1 204 No Content\r\n\r\n", &["a rh", "a sh end"]),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", &["a rh", "a sh end"]),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", &["a rh", "a sh", "a sb more 002", "a sb last 000"]),
    ] {
        let a = observer("a").on("response_headers", |g| {
            let (end, more) = (g.say("a sh end"), g.say("a sh"));
            format!("(if (local.get 2) (then {end}) (else {more})) (i32.const 0)")
        });
        let harness = before([a, Guest::default()], head.as_bytes().to_vec());
        harness.get("/");
        assert_eq!(harness.log.messages(), expected, "{head}");
    }
}
