//! Requests through the plugin, natively or as a module in the harness.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use basic_auth::BasicAuth;
use plugwright_sdk::LogLevel;
use plugwright_sdk::testing::{Exchange, Message, Proxy, get, post, request};

const OK: &str = "Basic b2s6dGVzdA==";
const ADMIN3: &str = "Basic YWRtaW4zOmFkbWluMw==";

fn proxy(config: &str) -> Proxy<BasicAuth> {
    plugwright_sdk::proxy!(BasicAuth).configure(config).unwrap()
}

/// The configuration of Istio's task "Wasm modules at a waypoint".
fn productpage() -> Proxy<BasicAuth> {
    proxy(include_str!("config.example.json"))
}

fn with(request: Message, authorization: &str) -> Message {
    request.header("authorization", authorization)
}

#[track_caller]
fn denied(exchange: &Exchange, details: &str) {
    assert_eq!((exchange.status(), exchange.details()), (401, details));
    assert_eq!(exchange.forwarded(), None);
    assert_eq!(exchange.values("www-authenticate"), [r#"Basic realm="istio""#]);
    assert_eq!(exchange.response().unwrap().bytes(), b"");
}

#[track_caller]
fn missing(exchange: &Exchange) {
    denied(exchange, "basic_auth_missing_credentials");
}

#[track_caller]
fn wrong(exchange: &Exchange) {
    denied(exchange, "basic_auth_wrong_credentials");
}

#[test]
fn either_configured_credential_passes() {
    for authorization in [OK, ADMIN3] {
        let exchange = productpage().send(with(get("/productpage"), authorization));
        assert_eq!(exchange.status(), 200, "{authorization}");
        assert_eq!(exchange.forwarded().unwrap().values("authorization"), [authorization]);
    }
    assert_eq!(productpage().send(with(post("/productpage").body("x"), OK)).status(), 200);
}

#[test]
fn no_credentials_and_other_schemes_are_missing() {
    missing(&productpage().send(get("/productpage")));
    missing(&productpage().send(with(get("/productpage"), "Bearer b2s6dGVzdA==")));
    missing(&productpage().send(with(get("/productpage"), "")));
}

#[test]
fn other_and_broken_credentials_are_wrong() {
    for authorization in ["Basic b2s6d3Jvbmc=", "Basic !", "Basic", "Basic b2s6dGVzdA==, Basic b2s6dGVzdA=="] {
        wrong(&productpage().send(with(get("/productpage"), authorization)));
    }
}

#[test]
fn the_scheme_may_be_in_any_case() {
    assert_eq!(productpage().send(with(get("/productpage"), "bASIC b2s6dGVzdA==")).status(), 200);
}

#[test]
fn several_authorization_headers_are_wrong_in_any_order() {
    wrong(&productpage().send(with(with(get("/productpage"), OK), "Basic b2s6d3Jvbmc=")));
    wrong(&productpage().send(with(with(get("/productpage"), "Basic b2s6d3Jvbmc="), OK)));
}

#[test]
fn other_paths_and_methods_pass() {
    assert_eq!(productpage().send(get("/reviews")).status(), 200);
    assert_eq!(productpage().send(request("DELETE", "/productpage")).status(), 200);
    missing(&productpage().send(request("get", "/productpage")));
}

#[test]
fn a_path_written_otherwise_is_the_same_path() {
    for path in [
        "//productpage",
        "/./productpage",
        "/x/../productpage",
        "/%70roductpage",
        "/%2e/productpage",
        "/x/%2E%2E/productpage",
        "/%2Fproductpage",
        "/%2fproductpage?x",
        "/\\productpage",
        "/%5cproductpage",
        "/%2570roductpage",
        "/x;/../productpage",
    ] {
        missing(&productpage().send(get(path)));
    }
}

#[test]
fn exact_and_suffix_are_not_slipped_by_a_query() {
    let config = r#"{"basic_auth_rules":[
        {"exact":"/api","request_methods":["GET"],"credentials":["ok:test"]},
        {"suffix":".cgi","request_methods":["GET"],"credentials":["ok:test"]}]}"#;
    missing(&proxy(config).send(get("/api?x=1")));
    missing(&proxy(config).send(get("/run.cgi?x=/free")));
    assert_eq!(proxy(config).send(get("/apis?x=.cgi")).status(), 200);
}

#[test]
fn hosts_narrow_a_rule_down() {
    let config = r#"{"basic_auth_rules":[{"hosts":["Shop.example","*.Admin.example","dev.*","[2001:db8::1]"],
        "prefix":"/","request_methods":["GET"],"credentials":["ok:test"]}]}"#;
    for host in ["shop.example", "SHOP.EXAMPLE:8080", "a.admin.example", "dev.anything:80", "[2001:DB8::1]:8443"] {
        missing(&proxy(config).send(get("/").header("host", host)));
        assert_eq!(proxy(config).send(with(get("/").header("host", host), OK)).status(), 200, "{host}");
    }
    for host in ["other.example", "admin.example", "[2001:db8::2]:8443"] {
        assert_eq!(proxy(config).send(get("/").header("host", host)).status(), 200, "{host}");
    }
}

#[test]
fn what_a_request_leaves_out_matches_every_rule() {
    let config = r#"{"basic_auth_rules":[{"hosts":["shop.example"],"exact":"/api","request_methods":["GET"],
        "credentials":["ok:test"]}]}"#;
    let full = get("/api").header("host", "shop.example");
    for name in [":path", ":method", ":authority"] {
        missing(&proxy(config).send(full.clone().without(name)));
        // What a proxy makes of such a request is its own affair.
        assert_ne!(proxy(config).send(with(full.clone().without(name), OK)).status(), 401, "{name}");
    }
    assert_ne!(proxy(config).send(request("PUT", "/api").without(":path")).status(), 401);
}

#[test]
fn every_rule_that_applies_must_pass() {
    let config = r#"{"basic_auth_rules":[
        {"prefix":"/","request_methods":["GET"],"credentials":["ok:test","admin3:admin3"]},
        {"prefix":"/admin","request_methods":["GET"],"credentials":["admin3:admin3"]}]}"#;
    assert_eq!(proxy(config).send(with(get("/"), OK)).status(), 200);
    wrong(&proxy(config).send(with(get("/admin"), OK)));
    assert_eq!(proxy(config).send(with(get("/admin"), ADMIN3)).status(), 200);
}

#[test]
fn the_realm_is_a_quoted_string() {
    let config = r#"{"realm":"the \"inner\" \\ circle","basic_auth_rules":[
        {"prefix":"/","request_methods":["GET"],"credentials":["a:b"]}]}"#;
    let exchange = proxy(config).send(get("/"));
    assert_eq!(exchange.values("www-authenticate"), [r#"Basic realm="the \"inner\" \\ circle""#]);
}

#[test]
fn no_rules_protect_nothing_and_say_so() {
    for config in ["", "{}", r#"{"basic_auth_rules":[]}"#, r#"{"realm":"x"}"#] {
        let mut proxy = proxy(config);
        assert_eq!(proxy.send(get("/productpage")).status(), 200, "{config}");
        let text = "basic_auth_rules is empty: no request is asked for credentials".to_owned();
        assert_eq!(proxy.logs(), [(LogLevel::Warn, text)], "{config}");
    }
}

#[test]
fn a_configuration_with_rules_logs_nothing() {
    let mut proxy = productpage();
    denied(&proxy.send(with(get("/productpage"), "Basic c2VjcmV0OnNlY3JldA==")), "basic_auth_wrong_credentials");
    assert_eq!(proxy.logs(), []);
}

#[test]
fn long_paths_and_credentials_are_judged_like_others() {
    let long = 60_000;
    for unit in ["/x", "/..", "/.", "//", "/%2e%2e", "/%252e", "/;x", "\\", "%2f", "/%25%25"] {
        let there = unit.repeat(long / unit.len());
        missing(&productpage().send(get(&format!("/q{there}{}/productpage", "/..".repeat(long)))));
    }
    assert_eq!(productpage().send(get(&"/x".repeat(long))).status(), 200);
    wrong(&productpage().send(with(get("/productpage"), &format!("Basic {}", "b2s6".repeat(long)))));
    missing(&productpage().send(with(get("/productpage"), &"x".repeat(long))));
}
