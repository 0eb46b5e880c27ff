//! HTTP/2 on the listener: the same port, the same filters, other rules for streams.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

use crate::support::{Guest, Harness, add_header, local_response, wasm};

/// Runs a test's client.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time") })
}

pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
    /// What the connection ends in.
    pub(crate) connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        Self { send, connection: tokio::spawn(connection) }
    }

    /// One request with a body in one frame, which is the last.
    pub(crate) async fn send(&mut self, request: Request<()>, body: &str) -> Result<Answer, h2::Error> {
        let mut send = self.send.clone().ready().await?;
        let (response, mut stream) = send.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true)?;
        }
        answer(response.await?).await
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn echo(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) async fn answer(response: http::Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (parts, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    let trailers = stream.trailers().await?;
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

/// A POST whose body comes in these frames and ends with a trailer.
pub(crate) fn send_with_trailer(address: SocketAddr, body: &[&str], (name, value): (&'static str, &str)) -> Answer {
    block_on(async {
        let client = Client::new(address).await;
        let mut send = client.send.ready().await.unwrap();
        let (response, mut stream) = send.send_request(request("POST", "/path"), false).unwrap();
        for chunk in body {
            stream.send_data(Bytes::copy_from_slice(chunk.as_bytes()), false).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert(name, value.parse().unwrap());
        stream.send_trailers(trailers).unwrap();
        answer(response.await.unwrap()).await.unwrap()
    })
}

pub(crate) fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://example.com{path}")).body(()).unwrap()
}

/// A guest that says for each chunk of a request's body how long it is and whether it is the last.
fn chunks() -> Guest {
    Guest::default().on("request_body", |g| {
        let (last, more) = (g.say_number("last", "(local.get 1)"), g.say_number("more", "(local.get 1)"));
        format!("(if (local.get 2) (then {last}) (else {more})) (i32.const 0)")
    })
}

#[test]
fn both_protocols_are_served_on_one_port() {
    let guest = Guest::default().on("request_headers", |g| {
        let (path, add) = (g.text("request\0protocol"), "proxy_add_header_map_value");
        let name = g.text("x-protocol");
        format!(
            "(drop (call $proxy_get_property {path} (i32.const 16) (i32.const 20)))
            (drop (call ${add} (i32.const 0) {name} (i32.load (i32.const 16)) (i32.load (i32.const 20))))
            (i32.const 0)"
        )
    });
    let harness = Harness::of(guest);
    assert_eq!(harness.get("/").echoed("x-protocol"), ["HTTP/1.1"]);
    let answer = block_on(async {
        let mut client = Client::new(harness.server.address()).await;
        client.send(request("GET", "/a/../b?q=1"), "").await.unwrap()
    });
    assert_eq!((answer.status, &answer.headers["server"]), (200, &"istio-envoy".parse().unwrap()));
    assert!(answer.headers.contains_key("date") && !answer.headers.contains_key("connection"));
    let echo = answer.echo();
    assert_eq!((&echo["path"], &echo["authority"]), (&"/b?q=1".into(), &"example.com".into()));
    assert!(echo["headers"].as_array().unwrap().contains(&serde_json::json!(["x-protocol", "HTTP/2"])));
}

#[test]
fn a_request_line_that_begins_as_the_preface_is_http_1() {
    let harness = Harness::of(Guest::default());
    assert_eq!(harness.send("PRI", "/", &[], "").status, 200);
}

#[test]
fn the_last_chunk_of_a_body_says_so_on_http_2_and_after_it_on_http_1() {
    let harness = Harness::of(chunks());
    block_on(async {
        let mut client = Client::new(harness.server.address()).await;
        assert_eq!(client.send(request("POST", "/"), "hello").await.unwrap().status, 200);
    });
    assert_eq!(harness.log.messages(), ["last 005"]);
    harness.send("POST", "/", &[], "hello");
    assert_eq!(harness.log.messages(), ["more 005", "last 000"]);
}

#[test]
fn a_response_from_an_http_2_upstream_has_its_end_in_the_last_chunk() {
    let upstream = Harness::of(Guest::default());
    let guest = Guest::default().on("response_body", |g| {
        let (last, more) = (g.say("last"), g.say("more"));
        format!("(if (local.get 2) (then {last}) (else {more})) (i32.const 0)")
    });
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
        options.upstream = Some(format!("h2c://{}", upstream.server.address()));
    });
    let reply = harness.send("POST", "/x", &[("te", "trailers"), ("x-mine", "1")], "payload");
    assert_eq!((reply.status, &reply.echo()["body"], &reply.echo()["path"]), (200, &"payload".into(), &"/x".into()));
    assert_eq!((reply.echoed("te"), reply.echoed("x-mine")), (vec!["trailers".to_owned()], vec!["1".to_owned()]));
    assert_eq!(reply.echo()["authority"], "example.com");
    assert_eq!(harness.log.messages(), ["last"]);
}

#[test]
fn trailers_pass_in_both_directions_and_plugins_add_to_them() {
    let upstream = Harness::of(Guest::default().on("response_body", |g| {
        // Trailers that are made where there were none.
        let add = add_header(g, 3, "x-checksum", "42");
        format!("(if (local.get 2) (then {add})) (i32.const 0)")
    }));
    let guest = Guest::default()
        .on("request_trailers", |g| format!("{} (i32.const 0)", add_header(g, 1, "x-more", "2")))
        .on("response_trailers", |g| format!("{} (i32.const 0)", add_header(g, 3, "x-even-more", "3")));
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
        options.upstream = Some(format!("h2c://{}", upstream.server.address()));
    });
    let answer = send_with_trailer(harness.server.address(), &["body"], ("x-end", "1"));
    assert_eq!(answer.echo()["trailers"], serde_json::json!([["x-end", "1"], ["x-more", "2"]]));
    let trailers = answer.trailers.unwrap();
    assert_eq!((&trailers["x-checksum"], &trailers["x-even-more"]), (&"42".parse().unwrap(), &"3".parse().unwrap()));
}

#[test]
fn cookies_that_came_apart_are_one_header() {
    let harness = Harness::of(Guest::default());
    let answer = block_on(async {
        let mut client = Client::new(harness.server.address()).await;
        let mut request = request("GET", "/");
        for cookie in ["a=1", "b=2"] {
            request.headers_mut().append("cookie", cookie.parse().unwrap());
        }
        client.send(request, "").await.unwrap()
    });
    let echo = answer.echo();
    let cookies: Vec<_> = echo["headers"].as_array().unwrap().iter().filter(|pair| pair[0] == "cookie").collect();
    assert_eq!(cookies, [&serde_json::json!(["cookie", "a=1; b=2"])]);
}

#[test]
fn a_client_that_resets_its_stream_ends_it_and_no_other() {
    let harness = Harness::of(Guest::recorder("a"));
    block_on(async {
        let mut client = Client::new(harness.server.address()).await;
        let mut send = client.send.clone().ready().await.unwrap();
        let (_response, mut stream) = send.send_request(request("POST", "/gone"), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        assert_eq!(client.send(request("GET", "/other"), "").await.unwrap().status, 200);
        harness.log.messages();
        stream.send_reset(Reason::CANCEL);
        assert_eq!(client.send(request("GET", "/third"), "").await.unwrap().status, 200);
    });
    harness.log.wait_for("POST /gone None by None downstream_remote_disconnect");
}

#[test]
fn closing_the_stream_resets_it_and_leaves_the_connection() {
    let guest = Guest::default().on("request_headers", |g| {
        let name = g.text("x-close");
        format!(
            "(if (i32.eqz (call $proxy_get_header_map_value (i32.const 0) {name} (i32.const 16) (i32.const 20)))
                (then (drop (call $proxy_close_stream (i32.const 0)))))
            (i32.const 0)"
        )
    });
    let harness = Harness::of(guest);
    block_on(async {
        let mut client = Client::new(harness.server.address()).await;
        let mut closing = request("GET", "/");
        closing.headers_mut().insert("x-close", "1".parse().unwrap());
        let error = client.send(closing, "").await.unwrap_err();
        assert!(error.is_reset() && error.is_remote(), "{error:?}");
        assert_eq!(client.send(request("GET", "/"), "").await.unwrap().status, 200);
    });
    assert_eq!(harness.log.lines()[0], "GET / None by Some(\"default.a\") wasm_close_stream");
}

#[test]
fn headers_beyond_the_limits_reset_the_stream_before_any_filter() {
    let harness = Harness::of(Guest::recorder("a"));
    block_on(async {
        let mut client = Client::new(harness.server.address()).await;
        let mut large = request("GET", "/");
        large.headers_mut().insert("x-large", "v".repeat(62 << 10).parse().unwrap());
        let mut many = request("GET", "/");
        for n in 0..97 {
            many.headers_mut().append(http::HeaderName::try_from(format!("x-{n}")).unwrap(), "1".parse().unwrap());
        }
        for refused in [large, many] {
            assert!(client.send(refused, "").await.unwrap_err().is_reset());
        }
        // What the library gives up on, it answers itself.
        let mut huge = request("GET", "/");
        for name in ["x-one", "x-two", "x-three"] {
            huge.headers_mut().insert(name, "v".repeat(60 << 10).parse().unwrap());
        }
        assert_eq!(client.send(huge, "").await.unwrap().status, 431);
        assert_eq!(harness.log.messages(), [""; 0]);
        assert_eq!(client.send(request("GET", "/"), "").await.unwrap().status, 200);
    });
}

#[test]
fn a_response_that_needs_no_more_of_the_body_leaves_the_connection() {
    let guest =
        Guest::default().on("request_headers", |g| format!("{} (i32.const 1)", local_response(g, 403, "", "no")));
    let harness = Harness::of(guest);
    block_on(async {
        let mut client = Client::new(harness.server.address()).await;
        for _ in 0..3 {
            let mut send = client.send.clone().ready().await.unwrap();
            let (response, _unfinished) = send.send_request(request("POST", "/"), false).unwrap();
            let answer = answer(response.await.unwrap()).await.unwrap();
            assert_eq!((answer.status, answer.body.as_slice()), (403, &b"no"[..]));
            assert!(!answer.headers.contains_key("connection"));
        }
        let answer = client.send(request("HEAD", "/"), "").await.unwrap();
        assert_eq!(
            (answer.status, answer.body.len(), &answer.headers["content-length"]),
            (403, 0, &"2".parse().unwrap())
        );
    });
}

#[test]
fn grpc_local_responses_are_trailers_only() {
    let guest =
        Guest::default().on("request_headers", |g| format!("{} (i32.const 1)", local_response(g, 403, "", "not you")));
    let harness = Harness::of(guest);
    block_on(async {
        let mut client = Client::new(harness.server.address()).await;
        let mut call = request("POST", "/svc/Method");
        call.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
        let mut send = client.send.clone().ready().await.unwrap();
        let (response, _stream) = send.send_request(call, false).unwrap();
        let response = response.await.unwrap();
        assert!(response.body().is_end_stream());
        let headers = response.headers();
        assert_eq!((response.status().as_u16(), &headers["grpc-status"]), (200, &"7".parse().unwrap()));
        assert_eq!(headers["grpc-message"], "not you");
        assert_eq!(client.send(request("GET", "/"), "").await.unwrap().status, 403);
    });
}

#[test]
fn a_paused_stream_times_out_by_itself() {
    let guest = Guest::default().on("request_headers", |_| "(i32.const 1)".to_owned());
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", guest.build())], |options| {
        options.idle_timeout = Duration::from_millis(50);
    });
    block_on(async {
        let mut client = Client::new(harness.server.address()).await;
        let answer = client.send(request("GET", "/"), "").await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (504, &b"stream timeout"[..]));
        let mut send = client.send.clone().ready().await.unwrap();
        let (response, _unfinished) = send.send_request(request("POST", "/"), false).unwrap();
        assert_eq!(response.await.unwrap().status().as_u16(), 408);
    });
}

#[test]
fn a_client_that_takes_nothing_loses_its_stream() {
    let harness = Harness::with(vec![], &[], |options| options.idle_timeout = Duration::from_millis(50));
    block_on(async {
        let stream = TcpStream::connect(harness.server.address()).await.unwrap();
        let (send, connection) =
            h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
        tokio::spawn(connection);
        let mut send = send.ready().await.unwrap();
        let (response, _) = send.send_request(request("GET", "/"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let error = body.data().await.unwrap().unwrap_err();
        assert!(error.is_reset() && error.is_remote(), "{error:?}");
    });
}

#[test]
fn streams_are_limited_and_rapid_resets_end_the_connection() {
    let harness = Harness::of(Guest::default());
    block_on(async {
        let mut client = Client::new(harness.server.address()).await;
        client.send(request("GET", "/"), "").await.unwrap();
        assert_eq!(client.send.current_max_send_streams(), 100);
        let mut refused = None;
        for _ in 0..100_000 {
            let Ok(mut send) = client.send.clone().ready().await else { break };
            let Ok((_, mut stream)) = send.send_request(request("POST", "/"), false) else { break };
            stream.send_reset(Reason::CANCEL);
            tokio::task::yield_now().await;
            if client.connection.is_finished() {
                refused = Some((&mut client.connection).await.unwrap());
                break;
            }
        }
        let error = refused.expect("an end to the connection").unwrap_err();
        // Whether the client still reads why depends on how much it was writing.
        assert!(error.reason() == Some(Reason::ENHANCE_YOUR_CALM) || error.is_io(), "{error:?}");
        let mut other = Client::new(harness.server.address()).await;
        assert_eq!(other.send(request("GET", "/"), "").await.unwrap().status, 200);
    });
}

#[test]
fn a_shutdown_says_goaway_and_lets_streams_end() {
    let harness = Harness::of(Guest::recorder("a"));
    block_on(async {
        let client = Client::new(harness.server.address()).await;
        let mut send = client.send.clone().ready().await.unwrap();
        let (response, mut stream) = send.send_request(request("POST", "/"), false).unwrap();
        stream.send_data(Bytes::from_static(b"ha"), false).unwrap();
        let (log, server) = (harness.log.clone(), harness.server);
        tokio::task::spawn_blocking(move || log.wait_for("a request_body")).await.unwrap();
        let stopping = tokio::task::spawn_blocking(move || server.shut_down());
        // The connection takes no more requests once the server has said so.
        let mut more = client.send.clone();
        let refused = loop {
            match more.ready().await {
                Ok(ready) => more = ready,
                Err(error) => break error,
            }
            match more.send_request(request("GET", "/"), true) {
                Ok((response, _)) => {
                    if let Err(error) = response.await {
                        break error;
                    }
                }
                Err(error) => break error,
            }
        };
        assert!(refused.is_go_away() || refused.is_library(), "{refused:?}");
        stream.send_data(Bytes::from_static(b"lf"), true).unwrap();
        let answer = answer(response.await.unwrap()).await.unwrap();
        assert_eq!(answer.echo()["body"], "half");
        stopping.await.unwrap();
        client.connection.await.unwrap().unwrap();
    });
}

#[test]
fn large_bodies_stream_in_both_directions() {
    let upstream = Harness::of(Guest::default());
    let harness = Harness::with(vec![wasm("a", |_| {})], &[("a", chunks().build())], |options| {
        options.upstream = Some(format!("h2c://{}", upstream.server.address()));
    });
    let body = "0123456789".repeat(300_000);
    let answer = block_on(async {
        let client = Client::new(harness.server.address()).await;
        let mut send = client.send.ready().await.unwrap();
        let (response, mut stream) = send.send_request(request("POST", "/"), false).unwrap();
        for chunk in body.as_bytes().chunks(10_000) {
            stream.reserve_capacity(chunk.len());
            while stream.capacity() < chunk.len() {
                std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
            }
            stream.send_data(Bytes::copy_from_slice(chunk), false).unwrap();
        }
        stream.send_data(Bytes::new(), true).unwrap();
        answer(response.await.unwrap()).await.unwrap()
    });
    assert_eq!(answer.echo()["body_size"], body.len());
}
