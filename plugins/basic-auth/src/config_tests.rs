//! Every way to get the configuration wrong, and what the proxy's log says of it.

use plugwright_sdk::testing::Proxy;

use crate::BasicAuth;

/// Checks the error of a configuration with this one rule.
#[track_caller]
fn rule(fields: &str, error: &str) {
    whole(&format!(r#"{{"basic_auth_rules":[{{{fields}}}]}}"#), &format!("basic_auth_rules[0]{error}"));
}

#[track_caller]
fn whole(config: &str, error: &str) {
    assert_eq!(Proxy::<BasicAuth>::new(config).unwrap_err().to_string(), error);
}

const METHODS: &str = r#""request_methods":["GET"]"#;
const CREDENTIALS: &str = r#""credentials":["a:b"]"#;

#[test]
fn a_rule_has_exactly_one_path() {
    rule(&format!("{METHODS},{CREDENTIALS}"), ": has none of prefix, suffix and exact");
    for (first, then) in [("prefix", "suffix"), ("prefix", "exact"), ("suffix", "exact")] {
        rule(
            &format!(r#""{first}":"/a","{then}":"/b",{METHODS},{CREDENTIALS}"#),
            &format!(".{then}: is given beside {first}; a rule has one of prefix, suffix and exact"),
        );
    }
    rule(
        &format!(r#""prefix":"/a","suffix":"/b","exact":"/c",{METHODS},{CREDENTIALS}"#),
        ".suffix: is given beside prefix; a rule has one of prefix, suffix and exact",
    );
}

#[test]
fn a_path_that_never_matches_is_an_error() {
    for field in ["prefix", "suffix", "exact"] {
        rule(&format!(r#""{field}":"",{METHODS},{CREDENTIALS}"#), &format!(".{field}: is empty"));
    }
    rule(&format!(r#""exact":"api",{METHODS},{CREDENTIALS}"#), ".exact: does not start with `/`, as every path does");
    rule(&format!(r#""prefix":7,{METHODS},{CREDENTIALS}"#), ".prefix: expected a string, got a number");
}

#[test]
fn methods_are_a_list_of_one_or_more() {
    rule(&format!(r#""prefix":"/",{CREDENTIALS}"#), ".request_methods: is missing");
    rule(&format!(r#""prefix":"/","request_methods":[],{CREDENTIALS}"#), ".request_methods: is empty");
    rule(
        &format!(r#""prefix":"/","request_methods":"GET",{CREDENTIALS}"#),
        ".request_methods: expected a sequence, got a string",
    );
    rule(
        &format!(r#""prefix":"/","request_methods":["GET",""],{CREDENTIALS}"#),
        ".request_methods[1]: is not a request method",
    );
}

#[test]
fn credentials_are_a_list_of_one_or_more() {
    rule(&format!(r#""prefix":"/",{METHODS}"#), ".credentials: is missing");
    rule(&format!(r#""prefix":"/",{METHODS},"credentials":[]"#), ".credentials: is empty");
    rule(&format!(r#""prefix":"/",{METHODS},"credentials":{{}}"#), ".credentials: expected a sequence, got an object");
}

#[test]
fn a_bad_credential_is_named_by_its_place_and_not_shown() {
    let config = r#"{"basic_auth_rules":[
        {"prefix":"/a","request_methods":["GET"],"credentials":["a:b"]},
        {"prefix":"/b","request_methods":["GET"],"credentials":["hunter2"]}]}"#;
    whole(config, "basic_auth_rules[1].credentials[0]: is neither `user:password` nor base64 of one");
    rule(&format!(r#""prefix":"/",{METHODS},"credentials":["a:b",""]"#), ".credentials[1]: is empty");
    rule(&format!(r#""prefix":"/",{METHODS},"credentials":[1]"#), ".credentials[0]: expected a string, got a number");
}

#[test]
fn a_bad_host_is_named_by_its_place() {
    rule(&format!(r#""prefix":"/","hosts":["a.com",""],{METHODS},{CREDENTIALS}"#), ".hosts[1]: is empty");
    rule(
        &format!(r#""prefix":"/","hosts":["a.com:80"],{METHODS},{CREDENTIALS}"#),
        ".hosts[0]: has a port, which is removed before hosts are matched, or an IPv6 address without brackets",
    );
    rule(
        &format!(r#""prefix":"/","hosts":"a.com",{METHODS},{CREDENTIALS}"#),
        ".hosts: expected a sequence, got a string",
    );
}

#[test]
fn a_realm_has_no_control_characters() {
    whole(r#"{"realm":"a\r\nset-cookie: x=y"}"#, "realm: has a control character");
    whole(r#"{"realm":"a\tb"}"#, "realm: has a control character");
    whole(r#"{"realm":7}"#, "realm: expected a string, got a number");
}

#[test]
fn unknown_fields_are_refused_by_name() {
    whole(r#"{"rules":[]}"#, "rules: is not a field here; known are basic_auth_rules, realm");
    rule(
        &format!(r#""prefix":"/","method":["GET"],{METHODS},{CREDENTIALS}"#),
        ".method: is not a field here; known are hosts, prefix, suffix, exact, request_methods, credentials",
    );
}

#[test]
fn the_whole_must_be_an_object() {
    whole("[]", "expected an object with basic_auth_rules, got a list");
    whole(r#"{"basic_auth_rules":{}}"#, "basic_auth_rules: expected a sequence, got an object");
    whole(r#"{"basic_auth_rules":["/a"]}"#, "basic_auth_rules[0]: expected a rule object, got a string");
    whole("nonsense", "not valid JSON at byte 0: expected a value");
}
