//! Requests through the plugin beside a policy server, natively or as a module in the harness.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use plugin_name::PluginName;
use plugwright_sdk::testing::{Proxy, Reply, get, response};

const CLUSTER: &str = "outbound|80||policy.default.svc.cluster.local";

fn alone() -> Proxy<PluginName> {
    plugwright_sdk::proxy!(PluginName).configure(include_str!("config.example.json")).unwrap()
}

/// Beside a policy server that decides by the path.
fn proxy() -> Proxy<PluginName> {
    alone().cluster(CLUSTER, |call| match call.values("x-forwarded-uri").first().copied() {
        Some("/open") => Reply::from(response(200).header("x-user", "ada")),
        Some("/late") => Reply::after(Duration::from_millis(20), response(200)),
        Some("/too-late") => Reply::after(Duration::from_secs(2), response(200)),
        Some("/unknown") => Reply::from(response(401)),
        Some("/broken") => Reply::from(response(302)),
        _ => Reply::from(response(403)),
    })
}

#[track_caller]
fn rejected(config: &str, error: &str) {
    assert_eq!(plugwright_sdk::proxy!(PluginName).configure(config).unwrap_err().to_string(), error);
}

#[test]
fn the_policy_server_is_asked_about_the_request() {
    let exchange = proxy().send(get("/open").header("host", "shop.example").header("authorization", "Bearer x"));
    let [(cluster, call)] = exchange.calls() else { panic!("{:?}", exchange.calls()) };
    assert_eq!(cluster, CLUSTER);
    assert_eq!(call.values(":path"), ["/check"]);
    assert_eq!(call.values("x-forwarded-method"), ["GET"]);
    assert_eq!(call.values("x-forwarded-host"), ["shop.example"]);
    assert_eq!(call.values("authorization"), ["Bearer x"]);
}

#[test]
fn what_it_allows_goes_on_with_what_it_says() {
    let exchange = proxy().send(get("/open"));
    assert_eq!((exchange.status(), exchange.values("server-timing")), (200, vec!["policy;dur=0"]));
    assert_eq!(exchange.forwarded().unwrap().values("x-user"), ["ada"]);
    assert_eq!(proxy().send(get("/late")).values("server-timing"), ["policy;dur=20"]);
}

#[test]
fn what_it_denies_does_not_go_on() {
    for (path, status) in [("/closed", 403), ("/unknown", 401)] {
        let exchange = proxy().send(get(path));
        assert_eq!((exchange.status(), exchange.details()), (status, "policy_denied"));
        assert_eq!(exchange.forwarded(), None);
    }
}

#[test]
fn a_client_cannot_say_what_only_the_policy_server_says() {
    let exchange = proxy().send(get("/late").header("X-User", "root"));
    assert!(exchange.forwarded().unwrap().values("x-user").is_empty());
    let exchange = proxy().send(get("/open").header("x-user", "root"));
    assert_eq!(exchange.forwarded().unwrap().values("x-user"), ["ada"]);
}

#[test]
fn without_an_answer_nothing_goes_on() {
    for (mut proxy, path, details) in [
        (alone(), "/open", "call_refused"),
        (proxy(), "/too-late", "policy_server_failed"),
        (proxy(), "/broken", "policy_server_failed"),
    ] {
        let exchange = proxy.send(get(path));
        assert_eq!((exchange.status(), exchange.details()), (503, details), "{path}");
        assert_eq!(exchange.forwarded(), None);
    }
}

#[test]
fn several_authorization_headers_are_a_bad_request() {
    let exchange = proxy().send(get("/open").header("authorization", "Bearer x").header("authorization", "Bearer y"));
    assert_eq!((exchange.status(), exchange.details()), (400, "policy_malformed_request"));
    let exchange = proxy().send(get("/open").header("authorization", "Bearer x, Bearer y"));
    assert_eq!(exchange.status(), 400);
}

#[test]
fn a_wrong_field_is_named() {
    rejected("", "cluster: is missing");
    rejected(r#"{"cluster":"","authority":"a"}"#, "cluster: is not a cluster's name");
    rejected(r#"{"cluster":"a","authority":"http://a/"}"#, "authority: is not HOST or HOST:PORT");
    rejected(r#"{"cluster":"a","authority":"a","path":"x"}"#, "path: is not a path that starts with a slash");
    rejected(r#"{"cluster":"a","authority":"a","timeout_ms":0}"#, "timeout_ms: is not 1 to 10000");
    rejected(r#"{"cluster":"a","authority":"a","copy":["host"]}"#, "copy[0]: is not a header that can be copied");
}
