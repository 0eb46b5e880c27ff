//! HTTP calls to clusters: what is sent, what comes back, and to whom.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::{Guest, Harness, pairs, wasm};

const HEADERS: &[(&str, &str)] =
    &[(":method", "POST"), (":path", "/call"), (":authority", "auth.example"), ("x-k", "v")];

/// A server that gives every connection to `f`.
fn server(f: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            f(stream);
        }
    });
    address
}

/// A server that answers each connection's first request so, and what the requests were.
fn scripted(response: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
    let (sender, receiver) = mpsc::channel();
    let address = server(move |mut stream| {
        let mut bytes = [0; 4096];
        let mut request = String::new();
        // The calls here end in a known body, or in nothing.
        while !request.ends_with("\r\n\r\n") && !request.ends_with("body") {
            match stream.read(&mut bytes) {
                Ok(n) if n > 0 => request.push_str(&String::from_utf8_lossy(&bytes[..n])),
                _ => break,
            }
        }
        let _ = sender.send(request);
        let _ = stream.write_all(response.as_bytes());
    });
    (address, receiver)
}

fn call(guest: &mut Guest, cluster: &str, headers: &[(&str, &str)], body: &str, timeout: i32) -> String {
    let (cluster, headers, body) = (guest.text(cluster), pairs(guest, headers), guest.text(body));
    format!(
        "(call $proxy_http_call {cluster} {headers} {body} (i32.const 0) (i32.const 0) (i32.const {timeout})
            (i32.const 520))"
    )
}

/// Logs everything about a response, and lets the stream go on whose context is in `$count`.
fn on_response(guest: &mut Guest) -> String {
    let (status, trailer, auth) = (guest.text(":status"), guest.text("x-end"), guest.text("x-auth"));
    format!(
        "(call $number (local.get 1)) (call $number (local.get 2)) (call $number (local.get 3))
         (call $number (local.get 4))
         (i32.store (i32.const 516) (i32.const 0))
         (call $number (call $proxy_get_header_map_value (i32.const 6) {status} (i32.const 512) (i32.const 516)))
         (call $value)
         (i32.store (i32.const 516) (i32.const 0))
         (call $number (call $proxy_get_buffer_bytes (i32.const 4) (i32.const 0) (i32.const 100) (i32.const 512)
            (i32.const 516)))
         (call $value)
         (call $number (call $proxy_get_header_map_value (i32.const 7) {trailer} (i32.const 512) (i32.const 516)))
         (drop (call $proxy_get_status (i32.const 508) (i32.const 512) (i32.const 516)))
         (call $number (i32.load (i32.const 508))) (call $value)
         (drop (call $proxy_set_effective_context (global.get $count)))
         (call $number (call $proxy_get_buffer_bytes (i32.const 4) (i32.const 0) (i32.const 100) (i32.const 512)
            (i32.const 516)))
         (drop (call $proxy_add_header_map_value (i32.const 0) {auth} {auth}))
         (call $number (call $proxy_continue_stream (i32.const 0)))"
    )
}

fn calling(cluster: &str, body: &str, timeout: i32) -> Guest {
    Guest::default()
        .on("request_headers", |g| {
            let call = call(g, cluster, HEADERS, body, timeout);
            format!(
                "(global.set $count (local.get 0)) (call $number {call}) (call $number (i32.load (i32.const 520)))
                 (i32.const 1)"
            )
        })
        .on("http_call_response", on_response)
}

fn with_cluster(guest: Guest, name: &str, address: SocketAddr) -> Harness {
    Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
        options.clusters = [(name.to_owned(), format!("http://{address}"))].into();
        options.idle_timeout = Duration::from_secs(5);
    })
}

#[test]
fn a_response_arrives_at_the_root_and_lets_the_stream_go_on() {
    let (address, requests) = scripted(
        "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n4\r\ngood\r\n0\r\nx-end: 1\r\n\r\n",
    );
    let name = "outbound|80||auth.ns.svc.cluster.local";
    let harness = with_cluster(calling(name, "body", 2000), name, address);
    let reply = harness.get("/");
    assert_eq!((reply.status, reply.echoed("x-auth")), (200, vec!["x-auth".to_owned()]));
    // Status and token of the call; token, headers, body and trailers; status, body, trailer, get_status, and again
    // the body from the effective context; then the stream goes on.
    // On HTTP/1.1 trailers are dropped.
    let expected = ["0", "4", "4", "4", "4", "0", "0", "201", "0", "good", "2", "0", "", "0", "0"];
    assert_eq!(harness.log.messages(), expected);
    let request = requests.recv().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /call HTTP/1.1\r\n"), "{head}");
    for line in [
        "host: auth.example",
        "x-k: v",
        "x-envoy-internal: true",
        "x-envoy-expected-rq-timeout-ms: 2000",
        "content-length: 4",
    ] {
        assert!(head.lines().any(|sent| sent == line), "{line} in {head}");
    }
    for name in ["x-forwarded-for", "x-request-id"] {
        assert!(!head.contains(name), "{head}");
    }
    assert_eq!(body, "body");
}

#[test]
fn failures_look_like_responses() {
    // Bound and dropped: nobody listens there.
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let harness = with_cluster(calling("c", "", 0), "c", refused);
    assert_eq!(harness.get("/").status, 200);
    let messages = harness.log.messages();
    assert_eq!(messages[6..9], ["0", "503", "0"]);
    assert!(messages[9].starts_with("upstream connect error or disconnect/reset before headers."), "{messages:?}");

    let silent = server(std::mem::forget);
    let harness = with_cluster(calling("c", "", 100), "c", silent);
    assert_eq!(harness.get("/").status, 200);
    assert_eq!(harness.log.messages()[6..10], ["0", "504", "0", "upstream request timeout"]);
}

#[test]
fn a_response_that_breaks_off_has_no_maps_and_a_status() {
    let (address, _requests) = scripted("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort");
    let harness = with_cluster(calling("c", "", 0), "c", address);
    assert_eq!(harness.get("/").status, 200);
    // No headers, no body, no trailers: 2, 1, 2; and the status.
    let expected = ["0", "4", "4", "0", "0", "0", "2", "", "1", "", "2", "11", "reset", "1", "0"];
    assert_eq!(harness.log.messages(), expected);
}

#[test]
fn an_unknown_cluster_is_2_with_token_0_and_said_once_with_the_flag_to_give() {
    let guest = Guest::default().on("request_headers", |g| {
        let call = call(g, "outbound|80||x", HEADERS, "", 0);
        format!("(i32.store (i32.const 520) (i32.const 9)) (call $number {call}) (call $number (i32.load (i32.const 520))) (i32.const 0)")
    });
    let harness = Harness::of(guest);
    assert_eq!([(); 2].map(|()| harness.get("/").status), [200, 200]);
    let said: Vec<String> = harness.log.lines().into_iter().filter(|line| line.starts_with("warning")).collect();
    let expected = "warning: plugin default.a calls the cluster `outbound|80||x`, which is not there; give it with \
        --cluster 'outbound|80||x=http://HOST:PORT'";
    assert_eq!(said, [expected]);
    assert_eq!(harness.log.messages(), ["2", "0", "2", "0"]);
}

#[test]
fn a_call_needs_method_path_and_authority_and_no_negative_timeout() {
    let (address, _requests) = scripted("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let guest = Guest::default().on("request_headers", |g| {
        let mut body = String::new();
        for missing in 0..3 {
            let mut headers = HEADERS.to_vec();
            headers.remove(missing);
            let _ = write!(body, "(call $number {})", call(g, "c", &headers, "", 0));
        }
        let _ = write!(body, "(call $number {})", call(g, "c", HEADERS, "", -1));
        let host = [(":method", "GET"), (":path", "/"), ("host", "h")];
        let _ = write!(body, "(call $number {})", call(g, "c", &host, "", 0));
        body + "(i32.const 0)"
    });
    let harness = with_cluster(guest, "c", address);
    assert_eq!(harness.get("/").status, 200);
    assert_eq!(harness.log.messages(), ["2", "2", "2", "2", "0"]);
}

#[test]
fn calls_from_every_root_callback_and_from_log_arrive_and_the_canarys_do_not() {
    let upstream = Harness::new(vec![], &[]);
    for callback in ["context_create", "vm_start", "configure", "tick", "log", "done"] {
        let mut guest = Guest::default().on(callback, |g| {
            let say = g.say("called");
            // A root or stream context calls once.
            let call = call(g, "c", &[(":method", "GET"), (":path", "/"), (":authority", "h")], "", 0);
            let result = match callback {
                "context_create" | "tick" | "log" => "",
                _ => "(i32.const 1)",
            };
            format!(
                "(if (i32.eqz (global.get $count)) (then (global.set $count (i32.const 1)) {say} (drop {call}))) {result}"
            )
        });
        guest = guest.on("http_call_response", |g| g.say("answered"));
        if callback == "tick" {
            guest = guest.on("configure", |_| {
                "(drop (call $proxy_set_tick_period_milliseconds (i32.const 5))) (i32.const 1)".to_owned()
            });
        }
        let harness = with_cluster(guest, "c", upstream.server.address());
        assert_eq!(harness.get("/").status, 200);
        harness.log.wait_for("answered");
        let canary = usize::from(["context_create", "vm_start", "configure"].contains(&callback));
        harness.server.shut_down();
        let messages = harness.log.messages();
        let count = |text: &str| messages.iter().filter(|message| *message == text).count();
        assert_eq!((count("called"), count("answered")), (1 + canary, 1), "{callback}: {messages:?}");
    }
}

#[test]
fn a_client_that_goes_away_ends_the_stream_and_the_response_finds_it_gone() {
    let (release, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = server(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = wait.lock().unwrap().recv();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let guest = calling("c", "", 0).on("delete", |g| g.say("deleted")).on("log", |g| g.say("logged"));
    let harness = with_cluster(guest, "c", slow);
    let mut client = TcpStream::connect(harness.server.address()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    harness.log.wait_for(": 4");
    drop(client);
    harness.log.wait_for("deleted");
    release.send(()).unwrap();
    // The last that the response's callback logs: to go on is not an error, though nothing does.
    while harness.log.lines().len() < 18 {
        std::thread::yield_now();
    }
    let messages = harness.log.messages();
    assert_eq!(messages[..4], ["0", "4", "logged", "deleted"]);
    assert_eq!(messages[4..], ["4", "3", "0", "0", "0", "200", "0", "", "2", "0", "", "0", "0"]);
}

#[test]
fn a_local_response_may_come_from_the_answer_to_a_call() {
    let upstream = Harness::new(vec![], &[]);
    let guest = Guest::default()
        .on("request_headers", |g| {
            let call = call(g, "c", &[(":method", "GET"), (":path", "/"), (":authority", "h")], "", 0);
            format!("(global.set $count (local.get 0)) (drop {call}) (i32.const 1)")
        })
        .on("http_call_response", |g| {
            let reply = crate::support::local_response(g, 401, "denied", "who?");
            format!("(drop (call $proxy_set_effective_context (global.get $count))) {reply}")
        });
    let reply = with_cluster(guest, "c", upstream.server.address()).get("/");
    assert_eq!((reply.status, reply.body.as_str()), (401, "who?"));
}

#[test]
fn a_trap_in_an_answer_fails_the_vm_and_other_answers_are_dropped() {
    let upstream = Harness::new(vec![], &[]);
    let guest = Guest::default()
        .on("log", |g| {
            let call = call(g, "c", &[(":method", "GET"), (":path", "/"), (":authority", "h")], "", 0);
            format!("(drop {call}) (drop {call})")
        })
        .on("http_call_response", |_| "unreachable".to_owned());
    let harness = with_cluster(guest, "c", upstream.server.address());
    assert_eq!(harness.get("/").status, 200);
    harness.log.wait_for("Function: proxy_on_http_call_response failed: Uncaught RuntimeError: unreachable");
    assert_eq!(harness.get("/").status, 503);
    let traps = harness.log.lines().iter().filter(|line| line.contains("unreachable")).count();
    assert_eq!(traps, 1);
}

#[test]
fn names_are_resolved() {
    let guest = Guest::default()
        .on("configure", |g| {
            let host = g.text("localhost");
            format!("(call $number (call $envoy_resolve_dns {host} (i32.const 520))) (i32.const 1)")
        })
        .on("resolve_dns", |_| {
            // The number of addresses is below ten; the first one is behind as many times to live.
            "(drop (call $proxy_get_buffer_bytes (i32.const 8) (i32.const 0) (local.get 2) (i32.const 512)
                (i32.const 516)))
             (call $number (local.get 1))
             (call $number (i32.gt_u (i32.load (i32.load (i32.const 512))) (i32.const 0)))
             (call $number (i32.eqz (i32.sub (i32.load (i32.const 516)) (local.get 2))))"
                .to_owned()
        });
    let harness = Harness::of(guest);
    harness.log.wait_for(": 1");
    while harness.log.lines().len() < 5 {
        std::thread::yield_now();
    }
    // The canary's comes to nothing.
    assert_eq!(harness.log.messages(), ["0", "0", "1", "1", "1"]);
}
