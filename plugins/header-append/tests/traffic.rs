//! Responses through the plugin, natively or as a module in the harness.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use header_append::HeaderAppend;
use plugwright_sdk::testing::{Proxy, get, response};

fn proxy(config: &str) -> Proxy<HeaderAppend> {
    plugwright_sdk::proxy!(HeaderAppend).configure(config).unwrap()
}

#[track_caller]
fn adds(config: &str, lines: &[&str]) {
    let exchange = proxy(config).send(get("/"));
    assert_eq!(exchange.response().unwrap().lines(), lines);
    assert_eq!(exchange.forwarded().unwrap().lines(), [""; 0]);
}

#[track_caller]
fn rejected(config: &str, error: &str) {
    assert_eq!(plugwright_sdk::proxy!(HeaderAppend).configure(config).unwrap_err().to_string(), error);
}

#[test]
fn the_example_configuration_works() {
    let lines = ["x-frame-options: DENY", "x-content-type-options: nosniff"];
    adds(include_str!("config.example.json"), &lines);
}

#[test]
fn headers_are_added_in_the_configurations_order() {
    adds(r#"{"z":"1","a":"2","m":"3","b":"4"}"#, &["z: 1", "a: 2", "m: 3", "b: 4"]);
}

#[test]
fn a_header_that_is_there_already_stays() {
    let mut proxy = proxy(r#"{"X-A":"ours"}"#).upstream(response(200).header("x-a", "theirs"));
    assert_eq!(proxy.send(get("/")).values("x-a"), ["theirs", "ours"]);
}

#[test]
fn a_name_given_twice_is_added_twice() {
    adds(
        r#"{"set-cookie":"a=1","Set-Cookie":"b=2","x":"","set-cookie":"a=1"}"#,
        &["set-cookie: a=1", "set-cookie: b=2", "x: ", "set-cookie: a=1"],
    );
}

#[test]
fn no_configuration_adds_nothing() {
    adds("", &[]);
    adds("{}", &[]);
}

#[test]
fn values_may_hold_what_http_allows() {
    adds(r#"{"x":"a \"b\"\tc; é"}"#, &["x: a \"b\"\tc; é"]);
}

#[test]
fn only_an_object_of_strings_is_accepted() {
    rejected(r#"["x"]"#, "expected an object from header names to values, got a list");
    rejected(r#"{"x-a":"1","x-b":2}"#, "x-b: expected a string, got a number");
    rejected(r#"{"x-a":null}"#, "x-a: expected a string, got null");
    rejected(r#"{"x-a":{"value":"1"}}"#, "x-a: expected a string, got an object");
    rejected("x-a: 1", "not valid JSON at byte 0: expected a value");
}

#[test]
fn an_invalid_name_is_named() {
    rejected(r#"{"x a":"1"}"#, "\"x a\": is not a valid header name");
    rejected(r#"{"":"1"}"#, "\"\": is not a valid header name");
    rejected(r#"{"x:":"1"}"#, "x:: is not a valid header name");
    rejected(r#"{"x\r\ny":"1"}"#, "\"x\u{fffd}\u{fffd}y\": is not a valid header name");
    rejected(r#"{":status":"204"}"#, ":status: is a pseudo-header, which cannot be added");
    rejected(r#"{"Content-Length":"0"}"#, "Content-Length: frames the message, so it cannot be added");
}

#[test]
fn an_invalid_value_is_named_by_its_header() {
    for value in ["a\\r\\nset-cookie: x", "a\\nb", "a\\u0000b", "\\u001b", "\\u007f"] {
        rejected(&format!(r#"{{"x-a":"{value}"}}"#), "x-a: has a value with a control character");
    }
}
