//! Foreign functions and properties: their values, not just their statuses.

use std::fmt::Write as _;

use crate::support::{Guest, Harness, wasm};

fn foreign(guest: &mut Guest, name: &str, arguments: &str) -> String {
    let (name, arguments) = (guest.text(name), guest.text(arguments));
    format!(
        "(i32.store (i32.const 516) (i32.const 0))
         (call $number (call $proxy_call_foreign_function {name} {arguments} (i32.const 512) (i32.const 516)))
         (call $value)"
    )
}

/// Logs the properties, each with its status; binary values as a number when they have eight bytes.
fn properties(guest: &mut Guest, paths: &[&str]) -> String {
    let mut out = String::new();
    for path in paths {
        let path = guest.text(&path.replace('|', "\0"));
        let _ = write!(
            out,
            "(i32.store (i32.const 516) (i32.const 0))
             (call $number (call $proxy_get_property {path} (i32.const 512) (i32.const 516)))
             (call $value)"
        );
    }
    out
}

#[track_caller]
fn check_properties(callback: &str, paths: &[&str], expected: &[&str]) {
    let result = if callback == "configure" { "(i32.const 1)" } else { "(i32.const 0)" };
    let guest = Guest::default().on(callback, |g| properties(g, paths) + result);
    let harness = Harness::new(vec![wasm("a", |w| "root".clone_into(&mut w.plugin_name))], &[("a", guest.build())]);
    if callback == "configure" {
        // What the worker's VM said, after the canary.
        let messages = harness.log.messages();
        assert_eq!(messages[messages.len() / 2..], *expected);
        return;
    }
    assert_eq!(harness.send("GET", "/p?q=1", &[("x-two", "1"), ("x-two", "2")], "").status, 200);
    assert_eq!(harness.log.messages(), *expected);
}

#[test]
fn properties_of_the_proxy_are_there_for_roots_too() {
    check_properties(
        "configure",
        &[
            "plugin_name",
            "plugin_root_id",
            "xds|node|id",
            "xds|node|metadata|NAMESPACE",
            "xds|node|cluster",
            "xds|route_name",
        ],
        &[
            "0",
            "default.a",
            "0",
            "root",
            "0",
            "waypoint~127.0.0.1~waypoint.default~default.svc.cluster.local",
            "0",
            "default",
            "0",
            "waypoint.default",
            "1",
            "",
        ],
    );
}

#[test]
fn properties_of_a_request_have_envoys_encodings() {
    check_properties(
        "request_headers",
        &[
            "request|path",
            "request|url_path",
            "request|query",
            "request|method",
            "request|headers|x-two",
            "request|protocol",
            "connection|mtls",
            "source",
            "metadata",
            "xds|listener_metadata",
            "upstream|address",
            "node",
        ],
        &[
            "0", "/p?q=1", "0", "/p", "0", "q=1", "0", "GET", "0", "1,2", "0", "HTTP/1.1", "0", "\0", "3", "", "0", "",
            "0", "", "1", "", "1", "",
        ],
    );
}

#[test]
fn what_is_compressed_uncompresses() {
    let guest = Guest::default().on("request_headers", |g| {
        let compress = foreign(g, "compress", "some text");
        let uncompress = g.text("uncompress");
        let compress = compress.replace("(call $value)", "");
        format!(
            "{compress}
             (call $number (call $proxy_call_foreign_function {uncompress} (i32.load (i32.const 512))
                (i32.load (i32.const 516)) (i32.const 512) (i32.const 516)))
             (call $value) (i32.const 0)"
        )
    });
    let harness = Harness::of(guest);
    assert_eq!(harness.get("/").status, 200);
    assert_eq!(harness.log.messages(), ["0", "0", "some text"]);
}

#[test]
fn expressions_are_made_at_the_root_and_evaluated_in_streams() {
    let guest = Guest::default()
        .on("configure", |g| {
            let first = foreign(g, "expr_create", "request.headers['x-user'] + '@' + request.path");
            let second = foreign(g, "expr_create", "request.headers['x-none'] == 'a'");
            let refused = foreign(g, "expr_create", "[1].all(x, true)");
            format!("{first} {second} {refused} (i32.const 1)")
        })
        .on("request_headers", |g| {
            let first = foreign(g, "expr_evaluate", "\0\0\0\0");
            let second = foreign(g, "expr_evaluate", "\u{1}\0\0\0");
            format!("{first} {second} (i32.const 0)")
        });
    let harness = Harness::of(guest);
    let lines = harness.log.lines();
    assert!(lines.contains(&"info: expr_create of plugin default.a: `all()` is not supported".to_owned()), "{lines:?}");
    assert_eq!(harness.log.messages()[..6], ["0", "\0\0\0\0", "0", "\u{1}\0\0\0", "2", ""]);
    assert_eq!(harness.send("GET", "/p", &[("x-user", "me")], "").status, 200);
    assert_eq!(harness.log.messages(), ["0", "me@/p", "10", ""]);
}

#[test]
fn a_declared_property_is_set_once_when_it_is_read_only() {
    // name: "mine", readonly: true, type: String
    let declaration = "\u{a}\u{4}mine\u{10}\u{1}\u{18}\u{1}";
    let guest = Guest::default()
        .on("configure", |g| {
            let (once, twice) =
                (foreign(g, "declare_property", declaration), foreign(g, "declare_property", declaration));
            format!("{once} {twice} (i32.const 1)")
        })
        .on("request_headers", |g| {
            let (name, one, two) = (g.text("mine"), g.text("1"), g.text("2"));
            let get = properties(g, &["mine", "filter_state|wasm.mine"]);
            format!(
                "(call $number (call $proxy_set_property {name} {one}))
                 (call $number (call $proxy_set_property {name} {two})) {get} (i32.const 0)"
            )
        });
    let harness = Harness::of(guest);
    assert_eq!(harness.log.messages()[..4], ["0", "", "2", ""]);
    assert_eq!(harness.get("/").status, 200);
    assert_eq!(harness.log.messages(), ["0", "2", "0", "1", "0", "1"]);
}

#[test]
fn envoys_own_filter_state_takes_the_keys_it_knows() {
    let guest = Guest::default().on("request_headers", |g| {
        let known = foreign(g, "set_envoy_filter_state", "\u{a}\u{17}envoy.tcp_proxy.cluster\u{12}\u{1}c");
        let unknown = foreign(g, "set_envoy_filter_state", "\u{a}\u{1}k\u{12}\u{1}v");
        format!("{known} {unknown} {} (i32.const 0)", properties(g, &["filter_state|envoy.tcp_proxy.cluster"]))
    });
    let harness = Harness::of(guest);
    assert_eq!(harness.get("/").status, 200);
    assert_eq!(harness.log.messages(), ["0", "", "1", "", "0", "c"]);
}

/// Fields of a message, each with bytes below 16 KiB.
fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, bytes) in fields {
        let (low, high) = (bytes.len() & 0x7f, bytes.len() >> 7);
        out.extend([number << 3 | 2, 0x80 | u8::try_from(low).unwrap(), u8::try_from(high).unwrap()]);
        out.extend_from_slice(bytes);
    }
    out
}

#[test]
fn what_a_plugin_signs_it_can_verify() {
    let key = rcgen::KeyPair::generate().unwrap();
    let (private, public) = (key.serialize_pem(), key.public_key_pem());
    let sign = |key: (u8, &[u8])| message(&[(1, b"sha256"), key, (3, b"text")]);
    let verify = |key: (u8, &[u8]), text: &[u8]| message(&[(1, b"SHA256"), key, (4, text)]);
    let (der, public_der) = (key.serialize_der(), rcgen::PublicKeyData::subject_public_key_info(&key));
    for (sign, verify, answer) in [
        (sign((4, private.as_bytes())), verify((5, public.as_bytes()), b"text"), "\u{8}\u{1}"),
        (sign((2, &der)), verify((2, &public_der), b"text"), "\u{8}\u{1}"),
        (sign((2, &der)), verify((2, &public_der), b"other"), "\u{12}\u{26}Failed to verify digest. Error code: 0"),
    ] {
        let guest = Guest::default().on("request_headers", |g| {
            let (sign_name, sign_arguments) = (g.text("sign"), g.bytes(&sign));
            let (verify_name, verify_arguments) = (g.text("verify_signature"), g.bytes(&verify));
            let len = verify.len();
            // The answer is `true` and the signature, as field 2. It becomes field 3 behind the other arguments.
            format!(
                "(call $number (call $proxy_call_foreign_function {sign_name} {sign_arguments} (i32.const 512) (i32.const 516)))
                 (memory.copy (i32.const 251000) {verify_arguments})
                 (memory.copy (i32.const {signature}) (i32.add (i32.load (i32.const 512)) (i32.const 2))
                    (i32.sub (i32.load (i32.const 516)) (i32.const 2)))
                 (i32.store8 (i32.const {signature}) (i32.const 0x1a))
                 (call $number (call $proxy_call_foreign_function {verify_name} (i32.const 251000)
                    (i32.add (i32.const {len}) (i32.sub (i32.load (i32.const 516)) (i32.const 2)))
                    (i32.const 512) (i32.const 516)))
                 (call $value) (i32.const 0)",
                signature = 251_000 + len,
            )
        });
        let harness = Harness::of(guest);
        assert_eq!(harness.get("/").status, 200);
        assert_eq!(harness.log.messages(), ["0", "0", answer]);
    }
}
