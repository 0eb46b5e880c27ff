//! Connections through the plugin, natively or as a module in the harness.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use plugin_name::PluginName;
use plugwright_sdk::testing::Proxy;

fn proxy() -> Proxy<PluginName> {
    plugwright_sdk::proxy!(PluginName).configure(include_str!("config.example.json")).unwrap()
}

fn lines(proxy: &Proxy<PluginName>) -> Vec<String> {
    proxy.logs().into_iter().map(|(_, line)| line).collect()
}

#[track_caller]
fn rejected(config: &str, error: &str) {
    assert_eq!(plugwright_sdk::proxy!(PluginName).configure(config).unwrap_err().to_string(), error);
}

#[test]
fn a_connection_within_its_limits_passes_and_is_counted() {
    let mut proxy = proxy();
    let mut connection = proxy.connect();
    assert_eq!(connection.send("0123456789"), b"0123456789");
    assert_eq!(connection.reply("ok"), b"ok");
    assert!(!connection.is_closed());
    drop(connection);
    assert_eq!(lines(&proxy), ["closed by the client after 10 bytes up, 2 down"]);
}

#[test]
fn a_client_that_sends_too_much_is_cut_off() {
    let mut proxy = proxy();
    let mut connection = proxy.connect();
    assert_eq!(connection.send("0123456789"), b"0123456789");
    assert_eq!(connection.send("x"), b"");
    assert!(connection.is_closed());
    drop(connection);
    let [warning, closed] = &lines(&proxy)[..] else { panic!("{:?}", lines(&proxy)) };
    assert_eq!(warning, "the client sent 11 bytes, more than 10: closing");
    assert_eq!(closed, "closed by the proxy after 11 bytes up, 0 down");
}

#[test]
fn a_server_that_sends_too_much_is_cut_off() {
    let mut proxy = proxy();
    let mut connection = proxy.connect();
    assert_eq!(connection.reply("x".repeat(21)), b"");
    assert!(connection.is_closed());
}

#[test]
fn connections_are_counted_apart() {
    let mut proxy = proxy();
    for _ in 0..3 {
        assert_eq!(proxy.connect().send("0123456789"), b"0123456789");
    }
}

#[test]
fn without_limits_anything_passes() {
    let mut proxy = plugwright_sdk::proxy!(PluginName).configure("{}").unwrap();
    assert_eq!(proxy.connect().send("x".repeat(100)).len(), 100);
}

#[test]
fn a_limit_that_lets_nothing_pass_is_refused() {
    rejected(r#"{"max_upload":0}"#, "max_upload: is 0, with which no connection carries anything");
    rejected(r#"{"max_uploads":1}"#, "max_uploads: is not a field here; known are max_upload, max_download");
}
