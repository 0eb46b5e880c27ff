//! Configurations that are taken, and what is said of those that are not.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod site;

use openid::OpenId;
use plugwright_sdk::testing::InMemoryHost;
use serde_json::{Value, json};
use site::{KEY, configuration};

fn host() -> InMemoryHost {
    InMemoryHost::default().with_env("OPENID_COOKIE_KEYS", KEY)
}

#[track_caller]
fn refused(host: InMemoryHost, members: &Value, expected: &str) {
    let error = plugwright_sdk::proxy!(OpenId).on(host).configure(configuration(members)).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[track_caller]
fn taken(members: &Value) {
    let error = plugwright_sdk::proxy!(OpenId).on(host()).configure(configuration(members)).err();
    assert_eq!(error, None, "{members}");
}

#[test]
fn the_example_is_taken() {
    plugwright_sdk::proxy!(OpenId).on(host()).configure(include_str!("config.example.json")).unwrap();
}

#[test]
fn the_seeds_short_form_is_taken() {
    plugwright_sdk::proxy!(OpenId)
        .on(host())
        .configure(r#"{"openid_server":"authn","openid_realm":"ingress"}"#)
        .unwrap();
}

#[test]
fn the_provider_is_named_in_one_form() {
    let none = json!({"issuer": null});
    refused(host(), &none, "issuer: is missing, and so are openid_server and openid_realm");
    refused(host(), &json!({"openid_server": "a"}), "issuer: is given beside openid_server");
    refused(host(), &json!({"issuer": null, "openid_server": "a"}), "openid_realm: is missing");
    refused(host(), &json!({"issuer": null, "openid_realm": "a"}), "openid_server: is missing");
    let short = |server: &str, realm: &str| json!({"issuer": null, "openid_server": server, "openid_realm": realm});
    for realm in ["", "a/b", "..", "a?b", ".hidden", "é"] {
        refused(host(), &short("authn", realm), "openid_realm: is not a realm");
    }
    for server in ["", "https://authn", "a/b", "a b"] {
        refused(host(), &short(server, "r"), "openid_server: is not a host");
    }
    for issuer in ["", "login.example", "https://", "https://x/?a=b", "https://x/#f", "ftp://x", "https://u@x"] {
        refused(host(), &json!({"issuer": issuer}), "issuer: is not a URL");
    }
    taken(&json!({"issuer": "http://127.0.0.1:9000/realms/x"}));
}

#[test]
fn the_clients_secret_comes_from_one_place() {
    refused(host(), &json!({"client_id": null}), "client_id: is missing");
    refused(
        host(),
        &json!({"client_secret": "hunter2", "client_secret_env": "X"}),
        "client_secret_env: is given beside",
    );
    refused(host(), &json!({"client_secret_env": "X"}), "client_secret_env: names a variable");
    refused(host(), &json!({"client_secret": ""}), "client_secret: is empty");
    refused(host(), &json!({"client_secret": "hunter2\n"}), "client_secret: is empty, too long or has a control");
    refused(host(), &json!({"client_authentication": "client_secret_post"}), "client_authentication: asks for");
    refused(
        host(),
        &json!({"client_authentication": "none", "client_secret": "hunter2"}),
        "client_authentication: is `none`, but there is",
    );
    refused(host(), &json!({"client_authentication": "private_key_jwt"}), "client_authentication: ");
    taken(&json!({"client_secret": "hunter2"}));
    taken(&json!({"client_authentication": "none"}));
}

#[test]
fn keys_are_strong_and_never_shown() {
    refused(
        InMemoryHost::default(),
        &json!({}),
        "cookie_keys: is missing, and the VM's environment has no OPENID_COOKIE",
    );
    refused(host(), &json!({"cookie_keys_env": "X"}), "the VM's environment has no X");
    refused(host(), &json!({"cookie_keys": [KEY], "cookie_keys_env": "X"}), "cookie_keys_env: is given beside");
    refused(host(), &json!({"cookie_keys": [KEY, "aHVudGVyMg=="]}), "cookie_keys[1]: is base64 of fewer than 32 bytes");
    refused(host(), &json!({"cookie_keys": ["hunter2!"]}), "cookie_keys[0]: is not base64");
    refused(host(), &json!({"cookie_keys": [KEY, KEY, KEY, KEY, KEY, KEY, KEY, KEY, KEY]}), "cookie_keys[8]: ");
    let environment = InMemoryHost::default().with_env("OPENID_COOKIE_KEYS", "hunter2!");
    refused(environment, &json!({}), "OPENID_COOKIE_KEYS[0]: is not base64");
}

#[test]
fn everything_else_is_checked_by_its_name() {
    for (members, expected) in [
        (json!({"callback_path": "callback"}), "callback_path: is not a plain absolute path"),
        (json!({"callback_path": "/"}), "callback_path: "),
        (json!({"callback_path": "/a?b"}), "callback_path: "),
        (json!({"logout_path": "/a/../b"}), "logout_path: "),
        (json!({"logout_path": "/a//b"}), "logout_path: "),
        (json!({"logged_out_path": "/%61"}), "logged_out_path: "),
        (json!({"logout_path": "/_openid/callback"}), "logout_path: is the same as another"),
        (json!({"public_origin": "https://a.example/"}), "public_origin: is not an origin"),
        (json!({"cookie_name": "a b"}), "cookie_name: "),
        (json!({"cookie_name": "a=b"}), "cookie_name: "),
        (json!({"cluster": ""}), "cluster: is empty"),
        (json!({"clusters": {"a/b": "c"}}), "clusters.a/b: is not a host"),
        (json!({"clusters": {"a": ""}}), "clusters.a: is empty"),
        (json!({"scopes": ["a b"]}), "scopes[0]: is not a scope"),
        (json!({"authorization_parameters": {"state": "x"}}), "authorization_parameters.state: is the plugin's own"),
        (json!({"authorization_parameters": {"scope": "x"}}), "authorization_parameters.scope: is what scopes"),
        (json!({"session_seconds": 59}), "session_seconds: is not between 60 and 31536000"),
        (json!({"clock_skew_seconds": 601}), "clock_skew_seconds: "),
        (json!({"timeout_seconds": 0}), "timeout_seconds: "),
        (json!({"hold_seconds": -1}), "hold_seconds: "),
        (json!({"forward": "both"}), "forward: "),
        (json!({"openid": true}), "openid: is not a field here"),
    ] {
        refused(host(), &members, expected);
    }
}
