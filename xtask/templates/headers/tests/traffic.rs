//! Requests and responses through the plugin, natively or as a module in the harness.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use plugin_name::PluginName;
use plugwright_sdk::testing::{Proxy, get, response};

fn proxy(config: &str) -> Proxy<PluginName> {
    plugwright_sdk::proxy!(PluginName).configure(config).unwrap()
}

#[track_caller]
fn rejected(config: &str, error: &str) {
    assert_eq!(plugwright_sdk::proxy!(PluginName).configure(config).unwrap_err().to_string(), error);
}

#[test]
fn the_example_configuration_works() {
    let upstream = response(200).header("server", "legacy/1.2").header("x-kept", "yes");
    let mut proxy = proxy(include_str!("config.example.json")).upstream(upstream);
    let exchange = proxy.send(get("/"));
    assert_eq!(exchange.forwarded().unwrap().lines(), ["x-team: web"]);
    assert_eq!(exchange.response().unwrap().lines(), ["x-kept: yes"]);
}

#[test]
fn what_the_client_sends_under_such_a_name_is_replaced() {
    let mut proxy = proxy(r#"{"set_on_request":{"X-Team":"web"}}"#);
    let exchange = proxy.send(get("/").header("x-team", "root").header("X-TEAM", "admin"));
    assert_eq!(exchange.forwarded().unwrap().values("x-team"), ["web"]);
}

#[test]
fn no_configuration_changes_nothing() {
    for config in ["", "{}"] {
        let mut proxy = proxy(config).upstream(response(200).header("server", "legacy/1.2"));
        let exchange = proxy.send(get("/").header("x-team", "mine"));
        assert_eq!(exchange.forwarded().unwrap().lines(), ["x-team: mine"]);
        assert_eq!(exchange.values("server"), ["legacy/1.2"]);
    }
}

#[test]
fn a_header_that_http_does_not_allow_is_named() {
    rejected(r#"{"set_on_request":{"x a":"1"}}"#, "set_on_request.\"x a\": is not a header's name");
    rejected(r#"{"remove_from_response":["a",":status"]}"#, "remove_from_response[1]: is not a header's name");
    rejected(
        r#"{"set_on_request":{"x-a":"1\r\nx-b: 2"}}"#,
        "set_on_request.x-a: has a value with a control character",
    );
}

#[test]
fn headers_that_frame_the_message_are_refused() {
    let reason = "is a header that frames or routes the message";
    rejected(r#"{"set_on_request":{"Content-Length":"1"}}"#, &format!("set_on_request.Content-Length: {reason}"));
    rejected(r#"{"remove_from_response":["transfer-encoding"]}"#, &format!("remove_from_response[0]: {reason}"));
}

#[test]
fn a_misspelt_field_is_refused() {
    let error = plugwright_sdk::proxy!(PluginName).configure(r#"{"set_on_requests":{}}"#).unwrap_err().to_string();
    assert!(error.starts_with("set_on_requests: is not a field here; known are "), "{error}");
}
