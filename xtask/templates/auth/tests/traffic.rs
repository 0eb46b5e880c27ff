//! Requests through the plugin, natively or as a module in the harness.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use plugin_name::PluginName;
use plugwright_sdk::testing::{Exchange, Message, Proxy, get};

const TOKEN: &str = "Bearer 0123456789abcdef-example";

fn proxy() -> Proxy<PluginName> {
    plugwright_sdk::proxy!(PluginName).configure(include_str!("config.example.json")).unwrap()
}

fn with(authorization: &str) -> Message {
    get("/").header("authorization", authorization)
}

#[track_caller]
fn denied(exchange: &Exchange) {
    assert_eq!((exchange.status(), exchange.details()), (401, "bearer_token_unknown"));
    assert_eq!(exchange.forwarded(), None);
    assert_eq!(exchange.values("www-authenticate"), [r#"Bearer realm="example""#]);
}

#[track_caller]
fn rejected(config: &str, error: &str) {
    assert_eq!(plugwright_sdk::proxy!(PluginName).configure(config).unwrap_err().to_string(), error);
}

#[test]
fn a_known_token_passes_and_names_its_client() {
    for authorization in [TOKEN, "bEARER 0123456789abcdef-example"] {
        let exchange = proxy().send(with(authorization));
        assert_eq!((exchange.status(), exchange.values("vary")), (200, vec!["authorization"]));
        assert_eq!(exchange.forwarded().unwrap().values("x-client"), ["batch"]);
    }
}

#[test]
fn no_token_and_other_tokens_are_denied() {
    denied(&proxy().send(get("/")));
    let others = ["", "Bearer", "Bearer ", "Basic b2s6dGVzdA==", "Bearer 0123456789abcdef", "0123456789abcdef-example"];
    for authorization in others {
        denied(&proxy().send(with(authorization)));
    }
    denied(&proxy().send(with(&format!("{TOKEN}x"))));
}

#[test]
fn several_authorization_headers_are_denied() {
    denied(&proxy().send(with(TOKEN).header("authorization", "Bearer other")));
    denied(&proxy().send(with("Bearer other").header("authorization", TOKEN)));
}

#[test]
fn a_client_cannot_say_who_it_is() {
    let exchange = proxy().send(with(TOKEN).header("x-client", "root").header("X-Client", "admin"));
    assert_eq!(exchange.forwarded().unwrap().values("x-client"), ["batch"]);
}

#[test]
fn a_configuration_that_lets_nobody_or_anybody_pass_is_refused() {
    rejected("", "clients: is missing");
    rejected(r#"{"clients":[]}"#, "clients: is empty: nobody could pass");
    let client = |name: &str, digest: &str| format!(r#"{{"name":"{name}","sha256":"{digest}"}}"#);
    let good = "0".repeat(64);
    let clients = |list: &[String]| format!(r#"{{"clients":[{}]}}"#, list.join(","));
    rejected(&clients(&[client("", &good)]), "clients[0].name: is empty or has a control character");
    for bad in ["", "0123456789abcdef-example", &"g".repeat(64)] {
        rejected(&clients(&[client("a", bad)]), "clients[0].sha256: is not 64 hexadecimal digits");
    }
    rejected(&clients(&[client("a", &good), client("b", &good)]), "clients[1].sha256: is another client's too");
}
