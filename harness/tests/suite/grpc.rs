//! gRPC calls and streams to an HTTP/2 server.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::support::{Guest, Harness, pairs, wasm};

/// A body of prepared frames; without any, the response is its headers.
struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

fn message(content: &[u8]) -> Frame<Bytes> {
    let mut bytes = vec![0, 0, 0, 0, u8::try_from(content.len()).unwrap()];
    bytes.extend_from_slice(content);
    Frame::data(bytes.into())
}

fn trailers(status: &str, text: &str) -> Frame<Bytes> {
    let mut map = http::HeaderMap::new();
    map.insert("grpc-status", status.parse().unwrap());
    map.insert("grpc-message", text.parse().unwrap());
    Frame::trailers(map)
}

/// What each method answers: frames, or a status in the headers.
fn answer(method: &str, body: &Bytes) -> Response<Frames> {
    let mut response = Response::new(Frames(VecDeque::new()));
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response.headers_mut().insert("x-initial", "1".parse().unwrap());
    let frames = match method {
        "/s/Echo" => vec![Frame::data(body.clone()), trailers("0", "ok%20msg")],
        "/s/Twice" => vec![message(b"one"), message(b"two"), trailers("0", "")],
        "/s/Fail" => vec![trailers("7", "no")],
        "/s/Empty" => vec![trailers("0", "")],
        "/s/Compressed" => vec![Frame::data(Bytes::from_static(b"\x01\0\0\0\x01x")), trailers("0", "")],
        "/s/Unfinished" => vec![message(b"one")],
        "/s/NoGrpc" => {
            *response.status_mut() = hyper::StatusCode::NOT_FOUND;
            vec![Frame::data(Bytes::from_static(b"not here"))]
        }
        _ => {
            response.headers_mut().insert("grpc-status", "12".parse().unwrap());
            Vec::new()
        }
    };
    response.body_mut().0 = frames.into();
    response
}

#[derive(Clone, Copy)]
struct Executor;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// A server, and the heads of the requests that it got.
fn server() -> (SocketAddr, mpsc::Receiver<http::request::Parts>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let sender = sender.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let silent = parts.uri.path() == "/s/Silent";
                        let path = parts.uri.path().to_owned();
                        let _ = sender.send(parts);
                        if silent {
                            std::future::pending::<()>().await;
                        }
                        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                        Ok::<_, Infallible>(answer(&path, &body))
                    }
                });
                tokio::spawn(http2::Builder::new(Executor).serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    (address, receiver)
}

/// Says which callback it is, the token, its number, and what is behind it.
fn recording(mut guest: Guest) -> Guest {
    for (callback, map) in [
        ("grpc_receive_initial_metadata", 4),
        ("grpc_receive_trailing_metadata", 5),
        ("grpc_receive", 0),
        ("grpc_close", 1),
    ] {
        guest = guest.on(callback, |g| {
            let (say, initial) = (g.say(callback), g.text("x-initial"));
            let content = match map {
                0 => "(drop (call $proxy_get_buffer_bytes (i32.const 5) (i32.const 0) (local.get 2) (i32.const 512)
                        (i32.const 516))) (call $value)"
                    .to_owned(),
                1 => "(drop (call $proxy_get_status (i32.const 508) (i32.const 512) (i32.const 516)))
                        (call $number (i32.load (i32.const 508))) (call $value)"
                    .to_owned(),
                map => format!(
                    "(call $number (call $proxy_get_header_map_value (i32.const {map}) {initial} (i32.const 512)
                        (i32.const 516)))"
                ),
            };
            format!("{say} (call $number (local.get 1)) (call $number (local.get 2)) {content}")
        });
    }
    guest
}

fn unary(method: &str, upstream: impl FnOnce(&mut Guest) -> String, timeout: u32) -> Guest {
    recording(Guest::default().on("request_headers", |g| {
        let (upstream, service, method) = (upstream(g), g.text("s"), g.text(method));
        let (metadata, content) = (pairs(g, &[("x-meta", "m")]), g.text("hello"));
        format!(
            "(call $number (call $proxy_grpc_call {upstream} {service} {method} {metadata} {content}
                (i32.const {timeout}) (i32.const 520)))
             (call $number (i32.load (i32.const 520))) (i32.const 0)"
        )
    }))
}

fn with_cluster(guest: Guest, address: SocketAddr) -> Harness {
    Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
        options.clusters = [("backend".to_owned(), format!("http://{address}"))].into();
    })
}

/// Sends one request, waits for that many lines, and compares them.
#[track_caller]
fn check(harness: &Harness, expected: &[&str]) {
    assert_eq!(harness.get("/").status, 200);
    let started = std::time::Instant::now();
    let mut messages = Vec::new();
    while messages.len() < expected.len() && started.elapsed().as_secs() < 20 {
        messages.extend(harness.log.messages());
        std::thread::yield_now();
    }
    assert_eq!(messages, expected);
}

#[test]
fn a_calls_answer_is_its_message_and_its_failure_its_status() {
    let (address, requests) = server();
    let by_name = |g: &mut Guest| g.text("backend");
    for (method, expected) in [
        ("Echo", ["grpc_receive", "5", "5", "hello"].as_slice()),
        ("Fail", &["grpc_close", "5", "7", "7", "no{via_upstream}"]),
        ("Empty", &["grpc_close", "5", "13", "13", ""]),
        ("None", &["grpc_close", "5", "12", "12", "via_upstream"]),
        ("NoGrpc", &["grpc_close", "5", "12", "12", ""]),
        ("Compressed", &["grpc_close", "5", "13", "13", ""]),
        ("Unfinished", &["grpc_close", "5", "2", "2", ""]),
    ] {
        let harness = with_cluster(unary(method, by_name, 1000), address);
        check(&harness, &[&["0", "5"], expected].concat());
        let request = requests.recv().unwrap();
        assert_eq!((request.uri.path(), request.method.as_str()), (format!("/s/{method}").as_str(), "POST"));
        for (name, value) in [
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", "1000m"),
            ("x-meta", "m"),
            ("x-envoy-internal", "true"),
        ] {
            assert_eq!(request.headers[name], value);
        }
    }
}

#[test]
fn a_service_may_be_given_as_its_message() {
    let (address, requests) = server();
    // envoy_grpc { cluster_name: "backend", authority: "a.b" }
    let by_message = |g: &mut Guest| g.text("\u{a}\u{e}\u{a}\u{7}backend\u{12}\u{3}a.b");
    check(&with_cluster(unary("Echo", by_message, 0), address), &["0", "5", "grpc_receive", "5", "5", "hello"]);
    let request = requests.recv().unwrap();
    assert_eq!(request.uri.authority().unwrap(), "a.b");
    assert_eq!(request.headers.get("grpc-timeout"), None);
    // Named by its message, a cluster that is not there is 10; google_grpc is 10 too, and said.
    let unknown = |g: &mut Guest| g.text("\u{a}\u{6}\u{a}\u{4}none");
    check(&with_cluster(unary("Echo", unknown, 0), address), &["10", "0"]);
    let google = |g: &mut Guest| g.text("\u{12}\u{0}");
    let harness = with_cluster(unary("Echo", google, 0), address);
    check(&harness, &["10", "0"]);
}

#[test]
fn who_cannot_be_reached_or_does_not_answer_is_unavailable() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let by_name = |g: &mut Guest| g.text("backend");
    let text = "upstream connect error or disconnect/reset before headers. reset reason: remote connection \
        failure{upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}}";
    check(&with_cluster(unary("Echo", by_name, 0), refused), &["0", "5", "grpc_close", "5", "14", "14", text]);
    let (address, _requests) = server();
    let text = "upstream request timeout{response_timeout}";
    check(&with_cluster(unary("Silent", by_name, 50), address), &["0", "5", "grpc_close", "5", "14", "14", text]);
}

fn streaming(method: &str, then: &str) -> Guest {
    recording(Guest::default().on("request_headers", |g| {
        let (upstream, service, method) = (g.text("backend"), g.text("s"), g.text(method));
        let (one, two) = (g.text("one"), g.text("two"));
        let then = then.replace("$one", &one).replace("$two", &two);
        format!(
            "(call $number (call $proxy_grpc_stream {upstream} {service} {method} (i32.const 0) (i32.const 0)
                (i32.const 520)))
             (call $number (i32.load (i32.const 520))) {then} (i32.const 0)"
        )
    }))
}

#[test]
fn a_stream_has_all_callbacks_in_their_order() {
    let (address, _requests) = server();
    let send = "(call $number (call $proxy_grpc_send (i32.const 6) $one (i32.const 0)))
        (call $number (call $proxy_grpc_send (i32.const 6) $two (i32.const 1)))";
    check(
        &with_cluster(streaming("Echo", send), address),
        &[
            "0",
            "6",
            "0",
            "0",
            "grpc_receive_initial_metadata",
            "6",
            "5",
            "0",
            "grpc_receive",
            "6",
            "3",
            "one",
            "grpc_receive",
            "6",
            "3",
            "two",
            "grpc_receive_trailing_metadata",
            "6",
            "2",
            "1",
            "grpc_close",
            "6",
            "0",
            "0",
            "ok%20msg{via_upstream}",
        ],
    );
    // Trailers alone: no initial metadata, and what there is comes as trailing metadata.
    check(
        &with_cluster(streaming("None", "(call $number (call $proxy_grpc_close (i32.const 6)))"), address),
        &[
            "0",
            "6",
            "0",
            "grpc_receive_initial_metadata",
            "6",
            "0",
            "1",
            "grpc_receive_trailing_metadata",
            "6",
            "6",
            "0",
            "grpc_close",
            "6",
            "12",
            "12",
            "via_upstream",
        ],
    );
    check(
        &with_cluster(streaming("Unfinished", "(call $number (call $proxy_grpc_close (i32.const 6)))"), address),
        &[
            "0",
            "6",
            "0",
            "grpc_receive_initial_metadata",
            "6",
            "5",
            "0",
            "grpc_receive",
            "6",
            "3",
            "one",
            "grpc_receive_trailing_metadata",
            "6",
            "0",
            "1",
            "grpc_close",
            "6",
            "2",
            "2",
            "",
        ],
    );
}

#[test]
fn a_stream_that_is_cancelled_is_heard_of_no_more() {
    let (address, _requests) = server();
    let then = "(call $number (call $proxy_grpc_cancel (i32.const 6)))
        (call $number (call $proxy_grpc_send (i32.const 6) $one (i32.const 0)))
        (call $number (call $proxy_grpc_cancel (i32.const 6)))";
    let harness = with_cluster(streaming("Twice", then), address);
    check(&harness, &["0", "6", "0", "1", "1"]);
    harness.server.shut_down();
    assert_eq!(harness.log.messages(), [] as [&str; 0]);
}
