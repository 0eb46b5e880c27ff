//! Requests through the plugin, on the SDK's in-memory proxy and beside a scripted policy server.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use acl_check::AclCheck;
use plugwright_sdk::LogLevel;
use plugwright_sdk::testing::{AsyncProxy, Exchange, Message, Reply, get, request, response};

/// The configuration of Istio's documentation.
const SEED: &str = include_str!("config.example.json");
const CLUSTER: &str = "outbound|80||some_server";

/// `{"alg":"RS256"}` and `{"sub":"alice"}`; this plugin looks at no signature.
const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";
/// `{"alg":"HS256"}` and `{"function":"read_data"}`.
const PERMISSION: &str = "eyJhbGciOiJIUzI1NiJ9.eyJmdW5jdGlvbiI6InJlYWRfZGF0YSJ9.c2lnbmF0dXJl";

fn proxy<R: Into<Reply>>(config: &str, server: impl FnMut(&Message) -> R + 'static) -> AsyncProxy<AclCheck> {
    plugwright_sdk::proxy!(AclCheck).configure(config).unwrap().cluster(CLUSTER, server)
}

fn permits() -> Message {
    response(200).header("content-type", "application/jwt").body(PERMISSION)
}

fn with_token(request: Message) -> Message {
    request.header("authorization", format!("Bearer {JWT}"))
}

fn answered(reply: impl Into<Reply>) -> Exchange {
    let reply = reply.into();
    proxy(SEED, move |_| reply.clone()).send(with_token(get("/")))
}

#[track_caller]
fn denied(exchange: &Exchange, status: u16, details: &str) {
    assert_eq!((exchange.status(), exchange.details()), (status, details));
    assert_eq!(exchange.forwarded(), None);
    assert_eq!(exchange.response().unwrap().bytes(), b"");
}

#[test]
fn the_policy_servers_token_goes_on_in_the_header() {
    let exchange = answered(permits());
    assert_eq!(exchange.status(), 200);
    assert_eq!(exchange.forwarded().unwrap().values("authz_complete"), [PERMISSION]);
    assert_eq!(exchange.forwarded().unwrap().values("authorization"), [format!("Bearer {JWT}")]);
}

#[test]
fn the_policy_server_is_told_what_is_asked_for() {
    let asked = with_token(request("PUT", "/files/a?b=c").header("host", "shop.example"))
        .header("cookie", "session=secret")
        .body("data");
    let exchange = proxy(SEED, |_| permits()).send(asked);
    let [(cluster, call)] = exchange.calls() else { panic!("one call is made") };
    assert_eq!(cluster, CLUSTER);
    assert_eq!((call.values(":method"), call.values(":path")), (vec!["GET"], vec!["/"]));
    assert_eq!(call.values(":authority"), ["some_server"]);
    assert_eq!(
        call.lines(),
        [
            &format!("authorization: Bearer {JWT}"),
            "accept: application/jwt",
            "x-forwarded-method: PUT",
            "x-forwarded-host: shop.example",
            "x-forwarded-uri: /files/a?b=c",
        ]
    );
    assert_eq!(call.bytes(), b"");
    assert_eq!(exchange.forwarded().unwrap().bytes(), b"data");
}

#[test]
fn url_cluster_and_timeout_are_configurable() {
    let config = r#"{"acl_server":"http://acl.policy.svc.cluster.local:8080/v1/ask","set_header":"X-Permit",
        "cluster":"policy","timeout_ms":50}"#;
    let slow = |after: u64| move |_: &Message| Reply::after(Duration::from_millis(after), permits());
    let mut proxy = plugwright_sdk::proxy!(AclCheck).configure(config).unwrap().cluster("policy", slow(49));
    let exchange = proxy.send(with_token(get("/")));
    assert_eq!(exchange.forwarded().unwrap().values("x-permit"), [PERMISSION]);
    let (_, call) = &exchange.calls()[0];
    assert_eq!(call.values(":authority"), ["acl.policy.svc.cluster.local:8080"]);
    assert_eq!(call.values(":path"), ["/v1/ask"]);
    let mut proxy = plugwright_sdk::proxy!(AclCheck).configure(config).unwrap().cluster("policy", slow(51));
    denied(&proxy.send(with_token(get("/"))), 503, "acl_server_failed");
}

#[test]
fn what_the_client_writes_into_the_header_never_gets_further() {
    for spelling in ["authz_complete", "AUTHZ_COMPLETE", "Authz-Complete", "authz-complete"] {
        let forged = with_token(get("/")).header(spelling, "forged").header(spelling, "twice");
        let forwarded = proxy(SEED, |_| permits()).send(forged).forwarded().cloned().unwrap();
        assert_eq!(forwarded.values("authz_complete"), [PERMISSION], "{spelling}");
        assert_eq!(forwarded.values("authz-complete"), [""; 0], "{spelling}");
    }
    let kept = with_token(get("/")).header("authzcomplete", "1").header("authz_complete2", "2");
    let forwarded = proxy(SEED, |_| permits()).send(kept).forwarded().cloned().unwrap();
    assert_eq!((forwarded.values("authzcomplete"), forwarded.values("authz_complete2")), (vec!["1"], vec!["2"]));
}

#[test]
fn no_token_is_401_and_nobody_is_asked() {
    for request in [
        get("/"),
        get("/").header("authorization", ""),
        get("/").header("authorization", "Basic b2s6dGVzdA=="),
        get("/").header("authorization", "Bearer"),
        get("/").header("authorization", JWT),
        get("/").header("authz_complete", PERMISSION),
        get("/").header("cookie", format!("authorization=Bearer {JWT}")),
    ] {
        let exchange = proxy(SEED, |_| permits()).send(request);
        denied(&exchange, 401, "acl_no_token");
        assert_eq!(exchange.values("www-authenticate"), ["Bearer"]);
        assert_eq!(exchange.calls(), []);
    }
}

#[test]
fn a_token_that_is_none_is_401_and_nobody_is_asked() {
    let long = format!("{JWT}{}", "x".repeat(16_384));
    for token in ["opaque", "a.b", "a.b.c", "a.b.c.d.e", &format!("{JWT}, Bearer {JWT}"), &long] {
        let exchange = proxy(SEED, |_| permits()).send(get("/").header("authorization", format!("Bearer {token}")));
        denied(&exchange, 401, "acl_malformed_token");
        assert_eq!(exchange.values("www-authenticate"), [r#"Bearer error="invalid_token""#]);
        assert_eq!(exchange.calls(), []);
    }
    let several = with_token(with_token(get("/")));
    denied(&proxy(SEED, |_| permits()).send(several), 401, "acl_malformed_token");
    let binary = get("/").header("authorization", b"Bearer \xff");
    denied(&proxy(SEED, |_| permits()).send(binary), 401, "acl_malformed_token");
}

#[test]
fn the_scheme_may_be_in_any_case() {
    let request = get("/").header("authorization", format!("bEARER  {JWT} "));
    assert_eq!(proxy(SEED, |_| permits()).send(request).status(), 200);
}

#[test]
fn the_policy_server_says_no() {
    denied(&answered(response(403).body("a page about why")), 403, "acl_denied");
    let refused = answered(response(401).header("www-authenticate", "Basic"));
    denied(&refused, 401, "acl_token_refused");
    assert_eq!(refused.values("www-authenticate"), [r#"Bearer error="invalid_token""#]);
}

#[test]
fn a_policy_server_that_fails_is_503() {
    for status in [0, 100, 201, 204, 206, 301, 302, 304, 400, 404, 429, 500, 502, 503, 504] {
        denied(&answered(response(status).body(PERMISSION)), 503, "acl_server_failed");
    }
    denied(&answered(Reply::unreachable()), 503, "acl_server_failed");
    denied(&answered(Reply::never()), 503, "acl_server_failed");
    denied(&answered(Reply::broken()), 503, "acl_server_unreachable");
    let mut nowhere = plugwright_sdk::proxy!(AclCheck).configure(SEED).unwrap();
    denied(&nowhere.send(with_token(get("/"))), 503, "acl_server_unreachable");
}

#[test]
fn an_answer_that_is_no_token_is_503() {
    let injected = format!("{PERMISSION}\r\nx-admin: 1");
    let oversized = format!("{PERMISSION}{}", "x".repeat(8192));
    for body in [
        "".as_bytes(),
        b"ok",
        b"<html>",
        br#"{"token":"x"}"#,
        b"a.b.c",
        b"\xff\xfe",
        injected.as_bytes(),
        format!("{PERMISSION} {PERMISSION}").as_bytes(),
        format!("{PERMISSION}\0").as_bytes(),
        oversized.as_bytes(),
    ] {
        denied(&answered(response(200).body(body)), 503, "acl_server_malformed_answer");
    }
    let spaced = answered(response(200).body(format!("{PERMISSION}\n")));
    assert_eq!(spaced.forwarded().unwrap().values("authz_complete"), [PERMISSION]);
}

#[test]
fn a_failing_server_is_logged_when_it_begins_and_when_it_ends() {
    let calls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&calls);
    let mut proxy = proxy(SEED, move |_| {
        counted.set(counted.get() + 1);
        if counted.get() < 4 { response(500) } else { permits() }
    });
    for status in [503, 503, 503, 200, 200] {
        assert_eq!(proxy.send(with_token(get("/"))).status(), status);
    }
    let failed = format!("policy server {CLUSTER}: it answered 500; requests get 503 until it does better");
    let works = "the policy server answers again".to_owned();
    assert_eq!(proxy.logs(), [(LogLevel::Error, failed), (LogLevel::Info, works)]);
}

#[test]
fn a_request_that_cannot_be_described_is_400() {
    for name in [":method", ":authority", ":path"] {
        denied(&proxy(SEED, |_| permits()).send(with_token(get("/")).without(name)), 400, "acl_malformed_request");
    }
    let control = with_token(get("/").without(":path").header(":path", "/\u{1}"));
    denied(&proxy(SEED, |_| permits()).send(control), 400, "acl_malformed_request");
}

/// How often the policy server is asked by these requests, each after so many seconds.
fn calls(config: &str, reply: &Message, requests: &[(u64, Message)]) -> (u32, Vec<u16>) {
    let count = Rc::new(Cell::new(0));
    let (counted, reply) = (Rc::clone(&count), reply.clone());
    let mut proxy = proxy(config, move |_| {
        counted.set(counted.get() + 1);
        reply.clone()
    });
    let mut statuses = Vec::new();
    for (seconds, request) in requests {
        proxy.pass(Duration::from_secs(*seconds));
        let exchange = proxy.send(request.clone());
        if let Some(forwarded) = exchange.forwarded() {
            assert_eq!(forwarded.values("authz_complete"), [PERMISSION]);
        }
        statuses.push(exchange.status());
    }
    (count.get(), statuses)
}

#[test]
fn permissions_are_kept_only_when_it_is_configured_and_only_for_the_same_question() {
    let caching = r#"{"acl_server":"some_server","set_header":"authz_complete","cache_seconds":10}"#;
    let ask = || with_token(get("/a"));
    assert_eq!(calls(SEED, &permits(), &[(0, ask()), (0, ask())]), (2, vec![200; 2]));
    assert_eq!(calls(caching, &permits(), &[(0, ask()), (9, ask()), (1, ask())]), (2, vec![200; 3]));
    let other = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJib2IifQ.c2lnbmF0dXJl";
    let others = [
        ask(),
        with_token(get("/b")),
        with_token(request("PUT", "/a")),
        with_token(get("/a").header("host", "other.example")),
        get("/a").header("authorization", format!("Bearer {other}")),
        ask().header("authz_complete", "forged"),
    ];
    assert_eq!(calls(caching, &permits(), &others.map(|request| (0, request))), (5, vec![200; 6]));
    let short = permits().header("cache-control", "max-age=2");
    assert_eq!(calls(caching, &short, &[(0, ask()), (1, ask()), (1, ask())]), (2, vec![200; 3]));
    let never = permits().header("cache-control", "no-store");
    assert_eq!(calls(caching, &never, &[(0, ask()), (0, ask())]), (2, vec![200; 2]));
    assert_eq!(calls(caching, &response(403), &[(0, ask()), (0, ask())]), (2, vec![403; 2]));
    assert_eq!(calls(caching, &response(500), &[(0, ask()), (0, ask())]), (2, vec![503; 2]));
}

#[test]
fn a_configuration_that_is_no_good_is_refused_by_its_field() {
    let config = |server: &str, header: &str, more: &str| {
        format!(r#"{{"acl_server":"{server}","set_header":"{header}"{more}}}"#)
    };
    for (text, error) in [
        (String::new(), "acl_server: is missing"),
        (r#"{"acl_server":"a"}"#.to_owned(), "set_header: is missing"),
        (config("ftp://a", "x", ""), "acl_server: has another scheme than http and https"),
        (config("http://u:p@a", "x", ""), "acl_server: has a user, which is sent to no policy server"),
        (config("a:0", "x", ""), "acl_server: has a port that is not 1 to 65535"),
        (config("", "x", ""), "acl_server: is not http://HOST:PORT/PATH"),
        (config("a", "", ""), "set_header: is not a header's name"),
        (config("a", ":path", ""), "set_header: is not a header's name"),
        (config("a", "Authorization", ""), "set_header: is a header with a meaning of its own"),
        (config("a", "host", ""), "set_header: is a header with a meaning of its own"),
        (config("a", "x", r#","cluster":"""#), "cluster: is not a cluster's name"),
        (config("a", "x", r#","timeout_ms":0"#), "timeout_ms: is not 1 to 60000"),
        (config("a", "x", r#","timeout_ms":60001"#), "timeout_ms: is not 1 to 60000"),
        (config("a", "x", r#","cache_seconds":301"#), "cache_seconds: is more than 300"),
        (config("a", "x", r#","acl_sever":"b""#), {
            "acl_sever: is not a field here; known are acl_server, set_header, cluster, timeout_ms, cache_seconds"
        }),
    ] {
        assert_eq!(plugwright_sdk::proxy!(AclCheck).configure(&text).unwrap_err().to_string(), error, "{text}");
    }
}

#[test]
fn tokens_are_in_no_log_and_no_debug_text() {
    let caching = r#"{"acl_server":"some_server","set_header":"authz_complete","cache_seconds":10}"#;
    let mut proxy = proxy(caching, |_| response(500).body(PERMISSION));
    denied(&proxy.send(with_token(get("/"))), 503, "acl_server_failed");
    for (_, line) in proxy.logs() {
        assert!(!line.contains("eyJ"), "{line}");
    }
}
