//! Plugins of type NETWORK: in front of HTTP, and of a TCP upstream.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use mesh::model::FailStrategy;

use crate::support::{Guest, Harness, network, send};

/// A guest that says what it is told of a connection.
fn recorder(name: &str) -> Guest {
    Guest::default()
        .on("new_connection", |g| format!("{} (i32.const 0)", g.say(&format!("{name} new"))))
        .on("downstream_data", |g| said_data(g, name, "down", "(i32.const 0)"))
        .on("upstream_data", |g| said_data(g, name, "up", "(i32.const 0)"))
        .on("downstream_connection_close", |g| g.say_number(&format!("{name} down closed"), "(local.get 1)"))
        .on("upstream_connection_close", |g| g.say_number(&format!("{name} up closed"), "(local.get 1)"))
        .on("done", |g| format!("{} (i32.const 1)", g.say(&format!("{name} done"))))
        .on("log", |g| g.say(&format!("{name} log")))
        .on("delete", |g| g.say(&format!("{name} delete")))
}

fn said_data(guest: &mut Guest, name: &str, side: &str, action: &str) -> String {
    let said = guest.say_number(&format!("{name} {side}"), "(local.get 1)");
    let end = guest.say(&format!("{name} {side} end"));
    format!("{said} (if (local.get 2) (then {end})) {action}")
}

fn tcp(filters: &[(&str, Guest)], upstream: SocketAddr) -> Harness {
    tcp_with(filters.iter().map(|(name, _)| network(name)).collect(), filters, upstream)
}

fn tcp_with(chain: Vec<mesh::model::Filter>, filters: &[(&str, Guest)], upstream: SocketAddr) -> Harness {
    let modules: Vec<_> = filters.iter().map(|(name, guest)| (*name, guest.clone().build())).collect();
    Harness::network(chain, None, &modules, |options| options.upstream = Some(format!("tcp://{upstream}")))
}

/// An upstream that handles each connection in a thread of its own.
fn upstream(handle: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let handle = handle.clone();
            thread::spawn(move || handle(stream.unwrap()));
        }
    });
    address
}

/// Answers everything it was sent with `re:` in front, once the client has ended.
fn answering() -> SocketAddr {
    upstream(|mut stream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        // In one piece: what a filter adds, it adds to each.
        stream.write_all(format!("re:{text}").as_bytes()).unwrap();
    })
}

fn connect(harness: &Harness) -> TcpStream {
    let client = TcpStream::connect(harness.server.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client
}

/// Sends, ends, and reads to the end.
fn exchange(harness: &Harness, text: &str) -> String {
    let mut client = connect(harness);
    client.write_all(text.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn data_passes_forwards_and_backwards_and_done_comes_before_log() {
    let harness = tcp(&[("a", recorder("a")), ("b", recorder("b"))], answering());
    assert_eq!(exchange(&harness, "hello"), "re:hello");
    harness.log.wait_for("by client false");
    assert!(harness.log.lines().contains(&"connection 5 in 8 out by None by client false".to_owned()));
    let messages = harness.log.messages();
    // The end may come with the data's last read or after it.
    let expected = [
        "a new",
        "b new",
        "a down 005",
        "b down 005",
        "a down 000",
        "a down end",
        "b down 000",
        "b down end",
        "b up 008",
        "a up 008",
        "b up 000",
        "b up end",
        "b up closed 000",
        "a up 000",
        "a up end",
        "a up closed 000",
        "a down closed 001",
        "a done",
        "a log",
        "a delete",
        "b down closed 001",
        "b done",
        "b log",
        "b delete",
    ];
    assert_eq!(messages, expected);
}

#[test]
fn a_client_that_ends_last_has_closed_the_connection() {
    let greeting = upstream(|mut stream| stream.write_all(b"bye").unwrap());
    let harness = tcp(&[("a", recorder("a"))], greeting);
    let mut client = connect(&harness);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    drop(client);
    harness.log.wait_for("by client true");
    let messages = harness.log.messages();
    let expected = [
        "a new",
        "a up 003",
        "a up 000",
        "a up end",
        "a up closed 000",
        "a down 000",
        "a down end",
        "a down closed 002",
        "a done",
        "a log",
        "a delete",
    ];
    assert_eq!((text.as_str(), messages), ("bye", expected.map(str::to_owned).to_vec()));
}

#[test]
fn paused_data_is_kept_and_seen_again_by_all() {
    // B stops until it has six bytes; A continues and sees them again with it.
    let b = Guest::default().on("downstream_data", |g| {
        let said = g.say_number("b", "(local.get 1)");
        format!("{said} (i32.and (i32.lt_u (local.get 1) (i32.const 6)) (i32.eqz (local.get 2)))")
    });
    let a = Guest::default().on("downstream_data", |g| format!("{} (i32.const 0)", g.say_number("a", "(local.get 1)")));
    let harness = tcp(&[("a", a), ("b", b)], answering());
    let mut client = connect(&harness);
    client.write_all(b"abc").unwrap();
    harness.log.wait_for("b 003");
    client.write_all(b"def").unwrap();
    harness.log.wait_for("b 006");
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "re:abcdef");
    assert_eq!(harness.log.messages()[..4], ["a 003", "b 003", "a 006", "b 006"]);
}

#[test]
fn a_connection_paused_from_the_start_waits_for_a_tick() {
    let guest = Guest::default()
        .on("configure", |_| {
            "(drop (call $proxy_set_tick_period_milliseconds (i32.const 20))) (i32.const 1)".to_owned()
        })
        .on("new_connection", |g| format!("{} (global.set $count (local.get 0)) (i32.const 1)", g.say("new")))
        .on("downstream_data", |g| format!("{} (i32.const 0)", g.say("data")))
        .on("tick", |g| {
            let said = g.say("resumed");
            format!(
                "(if (global.get $count) (then
                    (drop (call $proxy_set_effective_context (global.get $count)))
                    {said}
                    (drop (call $proxy_continue_stream (i32.const 2)))
                    (global.set $count (i32.const 0))))"
            )
        });
    let harness = tcp(&[("a", guest), ("b", Guest::default())], answering());
    assert_eq!(exchange(&harness, "hello"), "re:hello");
    assert_eq!(harness.log.messages()[..3], ["new", "resumed", "data"]);
}

#[test]
fn upstream_data_that_is_paused_waits_for_more() {
    let two = upstream(|mut stream| {
        stream.write_all(b"one").unwrap();
        let mut more = [0; 1];
        stream.read_exact(&mut more).unwrap();
        stream.write_all(b"two").unwrap();
    });
    let guest = Guest::default().on("upstream_data", |g| {
        let said = g.say_number("up", "(local.get 1)");
        // Resuming it is not implemented: 12.
        let resumed = g.say_number("resumed", "(call $proxy_continue_stream (i32.const 3))");
        format!("{said} {resumed} (i32.lt_u (local.get 1) (i32.const 6))")
    });
    let harness = tcp(&[("a", guest)], two);
    let mut client = connect(&harness);
    harness.log.wait_for("up 003");
    client.write_all(b"!").unwrap();
    let mut read = [0; 6];
    client.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"onetwo");
    let messages = harness.log.messages();
    assert_eq!(messages[1], "resumed 012");
    assert!(messages.contains(&"up 006".to_owned()), "{messages:?}");
}

#[test]
fn data_can_be_replaced_and_added_to() {
    let guest = Guest::default()
        .on("downstream_data", |g| {
            let text = g.text("<");
            format!("(if (local.get 1) (then (drop (call $proxy_set_buffer_bytes (i32.const 2) (i32.const 0) (i32.const 0) {text}))))
            (i32.const 0)")
        })
        .on("upstream_data", |g| {
            let text = g.text(">");
            format!("(if (local.get 1) (then (drop (call $proxy_set_buffer_bytes (i32.const 3) (i32.const 999) (i32.const 0) {text}))))
            (i32.const 0)")
        });
    let harness = tcp(&[("a", guest)], answering());
    assert_eq!(exchange(&harness, "x"), "re:<x>");
}

#[test]
fn closing_flushes_what_was_written_and_closes_the_client() {
    for stream in [2, 3] {
        let banner = upstream(|mut stream| {
            stream.write_all(b"banner").unwrap();
            let _ = stream.read(&mut [0]);
        });
        let guest = Guest::default()
            .on("downstream_data", |_| format!("(drop (call $proxy_close_stream (i32.const {stream}))) (i32.const 0)"))
            .on("downstream_connection_close", |g| g.say_number("closed", "(local.get 1)"));
        let harness = tcp(&[("a", guest)], banner);
        let mut client = connect(&harness);
        let mut banner = [0; 6];
        client.read_exact(&mut banner).unwrap();
        client.write_all(b"x").unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        harness.log.wait_for("by Some(\"default.a\") by client false");
        assert!(harness.log.messages().contains(&"closed 001".to_owned()));
    }
}

#[test]
fn a_trap_closes_the_connection_and_what_comes_later_depends_on_the_strategy() {
    for (strategy, later) in [(FailStrategy::FailClose, ""), (FailStrategy::FailOpen, "re:x")] {
        let guest = Guest::default().on("downstream_data", |_| "unreachable".to_owned());
        let chain = vec![crate::support::wasm("a", |wasm| {
            wasm.layer = mesh::model::Layer::Network;
            wasm.fail_strategy = strategy;
        })];
        let harness = tcp_with(chain, &[("a", guest)], answering());
        assert_eq!(read_all(&harness, "x"), "");
        assert_eq!(read_all(&harness, "x"), later, "{strategy:?}");
    }
}

/// As [`exchange`], of a connection that may be reset.
fn read_all(harness: &Harness, text: &str) -> String {
    let mut client = connect(harness);
    let _ = client.write_all(text.as_bytes());
    let _ = client.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn an_upstream_that_is_not_there_closes_the_connection() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let harness = tcp(&[("a", recorder("a"))], free);
    assert_eq!(read_all(&harness, "x"), "");
    harness.log.wait_for("by client false");
    assert_eq!(harness.log.messages(), ["a new", "a down closed 001", "a done", "a log", "a delete"]);
}

#[test]
fn a_connection_has_properties_and_no_headers() {
    let guest = Guest::default().on("new_connection", |g| {
        let (path, name) = (g.text("source\0address"), g.text(":path"));
        let size = "(i32.load (i32.const 20))";
        let property = g.say_number("property", &format!("(call $proxy_get_property {path} (i32.const 16) (i32.const 20))"));
        let header = g.say_number(
            "header",
            &format!("(call $proxy_get_header_map_value (i32.const 0) {name} (i32.const 16) (i32.const 20))"),
        );
        let text = g.text("x");
        format!(
            "{property} (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 16)) {size})) {header}
            (drop (call $proxy_send_local_response (i32.const 403) {text} {text} (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 0)"
        )
    });
    let harness = tcp(&[("a", guest)], answering());
    assert_eq!(exchange(&harness, "x"), "re:x");
    let messages = harness.log.messages();
    assert!(messages[1].starts_with("127.0.0.1:"), "{messages:?}");
    assert_eq!((messages[0].as_str(), messages[2].as_str()), ("property 000", "header 002"));
}

#[test]
fn in_front_of_http_both_chains_run() {
    let modules = [("n", recorder("n").build()), ("h", Guest::recorder("h").build())];
    let harness = Harness::network(vec![network("n")], Some(vec![crate::support::wasm("h", |_| {})]), &modules, |_| {});
    let reply = send(harness.server.address(), "GET", "/x", &[], "").unwrap();
    assert_eq!((reply.status, &reply.echo()["path"]), (200, &"/x".into()));
    harness.log.wait_for("n delete");
    let messages = harness.log.messages();
    let place = |text: &str| messages.iter().position(|message| message.starts_with(text)).expect(text);
    assert!(place("n new") < place("n down") && place("n down") < place("h request_headers"));
    assert!(place("h response_headers") < place("n up") && place("n up") < place("n down closed"), "{messages:?}");
    // The connection manager closes without an end of its own.
    assert!(!messages.iter().any(|message| message.contains("up closed") || message.contains("end")), "{messages:?}");
}

#[test]
fn bytes_are_changed_before_http_reads_them() {
    let guest = Guest::default().on("downstream_data", |g| {
        let text = g.text("GET /other HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n");
        format!(
            "(drop (call $proxy_set_buffer_bytes (i32.const 2) (i32.const 0) (i32.const 0x7fffffff) {text})) (i32.const 0)"
        )
    });
    let harness = Harness::network(vec![network("n")], Some(vec![]), &[("n", guest.build())], |_| {});
    let reply = send(harness.server.address(), "GET", "/x", &[], "").unwrap();
    assert_eq!((&reply.echo()["path"], &reply.echo()["authority"]), (&"/other".into(), &"other".into()));
}

#[test]
fn http_2_passes_network_filters_too() {
    let harness = Harness::network(vec![network("n")], Some(vec![]), &[("n", recorder("n").build())], |_| {});
    crate::h2::block_on(async {
        let mut client = crate::h2::Client::new(harness.server.address()).await;
        let body = "0123456789".repeat(1000);
        let answer = client.send(crate::h2::request("POST", "/"), &body).await.unwrap();
        assert_eq!(answer.echo()["body_size"], body.len());
    });
}

#[test]
fn http_in_a_network_chain_and_tcp_for_http_are_refused() {
    use harness::server::{Options, ServeError, Server};
    for (http, upstream, message) in [
        (true, Some("tcp://127.0.0.1:1"), "the upstream tcp://127.0.0.1:1 is not of the form http://HOST[:PORT], "),
        (false, Some("http://127.0.0.1:1"), "the upstream http://127.0.0.1:1 is not of the form tcp://HOST:PORT"),
        (false, None, "the upstream (none) is not of the form tcp://HOST:PORT"),
    ] {
        let chain = crate::support::load_network(vec![], http.then(Vec::new), &[], std::sync::Arc::default()).unwrap();
        let options = Options { upstream: upstream.map(str::to_owned), ..Options::listen_on("127.0.0.1:0") };
        let error = Server::start(chain, options).unwrap_err();
        assert!(matches!(error, ServeError::Upstream { .. }));
        assert!(error.to_string().starts_with(message), "{error}");
    }
}
