//! Bodies through the plugin, natively or as a module in the harness.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use plugin_name::PluginName;
use plugwright_sdk::testing::{Message, Proxy, get, post, response};

fn proxy(upstream: Message) -> Proxy<PluginName> {
    let setup = plugwright_sdk::proxy!(PluginName);
    setup.configure(include_str!("config.example.json")).unwrap().upstream(upstream)
}

fn text(body: &str) -> Message {
    response(200).header("content-type", "text/html").body(body)
}

#[track_caller]
fn rejected(config: &str, error: &str) {
    assert_eq!(plugwright_sdk::proxy!(PluginName).configure(config).unwrap_err().to_string(), error);
}

#[test]
fn words_of_a_response_are_replaced() {
    let upstream = text("<p>Project Falcon</p>").header("content-length", "21").header("etag", "\"1\"");
    let exchange = proxy(upstream).send(get("/"));
    let response = exchange.response().unwrap();
    assert_eq!(String::from_utf8_lossy(response.bytes()), "<p>Project (secret)</p>");
    assert!(response.values("etag").is_empty());
    // A length that is not the body's is worse than none.
    assert!(response.values("content-length").iter().all(|length| *length == "23"));
}

#[test]
fn a_response_without_such_words_stays_as_it_is() {
    for body in ["<p>Project Eagle</p>", ""] {
        let exchange = proxy(text(body)).send(get("/"));
        assert_eq!((exchange.status(), exchange.response().unwrap().bytes()), (200, body.as_bytes()));
    }
}

#[test]
fn what_is_not_text_is_left_alone() {
    for (kind, encoding) in [("image/png", None), ("text/plain", Some("gzip"))] {
        let mut upstream = response(200).header("content-type", kind).header("content-length", "6").body("Falcon");
        if let Some(encoding) = encoding {
            upstream = upstream.header("content-encoding", encoding);
        }
        let exchange = proxy(upstream).send(get("/"));
        assert_eq!(exchange.response().unwrap().bytes(), b"Falcon", "{kind}");
        assert_eq!(exchange.values("content-length"), ["6"], "{kind}");
    }
}

#[test]
fn no_upstream_is_asked_to_compress() {
    let exchange = proxy(response(200)).send(get("/").header("accept-encoding", "gzip"));
    assert!(exchange.forwarded().unwrap().values("accept-encoding").is_empty());
}

#[test]
fn a_request_may_be_as_long_as_is_configured() {
    let exchange = proxy(response(200)).send(post("/").body("x".repeat(64)));
    assert_eq!((exchange.status(), exchange.forwarded().unwrap().bytes().len()), (200, 64));
    let exchange = proxy(response(200)).send(post("/").body("x".repeat(65)));
    assert_eq!((exchange.status(), exchange.details()), (413, "request_too_large"));
}

#[test]
fn a_wrong_field_is_named() {
    rejected(r#"{"words":["a",""]}"#, "words[1]: is empty");
    rejected(
        r#"{"max_request_bytes":1048577}"#,
        "max_request_bytes: is more than 1048576, which the proxy keeps at most",
    );
}
