//! `AuthorizationPolicy`: which requests match, and what follows.

use serde_json::{Value, json};

use crate::support::{Guest, Harness, Recorder, load_chain, resolved};
use crate::tokens::{KEY, token};
use std::sync::Arc;

/// A policy of the namespace `default`, as the `spec` says.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
    )
}

fn authentication() -> String {
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {{name: jwt}}, \
         spec: {{jwtRules: [{{issuer: https://issuer, jwks: '{0}'}}, {{issuer: plain, jwks: '{0}'}}]}}}}\n",
        KEY.jwks()
    )
}

/// A request and whether it matches.
struct Row {
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    claims: Option<Value>,
    matches: bool,
}

fn row(path: &'static str, matches: bool) -> Row {
    Row { method: "GET", path, headers: Vec::new(), claims: None, matches }
}

impl Row {
    fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn claims(self, claims: Value) -> Self {
        Self { claims: Some(claims), ..self }
    }
}

/// Under ALLOW what matches passes and nothing else does; under DENY it is the other way round.
#[track_caller]
fn check_peer(peer: Option<&str>, rule: &str, rows: &[Row]) {
    for (action, on_match) in [("ALLOW", 200), ("DENY", 403)] {
        let text = authentication() + &policy("p", &format!("action: {action}, rules: [{rule}]"));
        let harness = Harness::of_manifests(&text, |options| options.peer = peer.map(str::to_owned));
        for Row { method, path, headers, claims, matches } in rows {
            let authorization = claims.as_ref().map(|claims| format!("Bearer {}", token(claims.clone())));
            let mut headers = headers.clone();
            headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
            let reply = harness.send(method, path, &headers, "");
            let expected = if *matches { on_match } else { 603 - on_match };
            assert_eq!(reply.status, expected, "{action} {rule}: {method} {path} {headers:?} {claims:?}");
            if reply.status == 403 {
                assert_eq!(reply.body, "RBAC: access denied");
            }
        }
    }
}

#[track_caller]
fn check(rule: &str, rows: &[Row]) {
    check_peer(None, rule, rows);
}

#[test]
fn paths() {
    let to = |paths: &str| format!("{{to: [{{operation: {{{paths}}}}}]}}");
    check(
        &to("paths: [/a]"),
        &[row("/a", true), row("/a?b=/c", true), row("/a/", false), row("/A", false), row("/b", false)],
    );
    check(&to("paths: [/a*]"), &[row("/a", true), row("/abc", true), row("/a/b?c", true), row("/b/a", false)]);
    check(&to("paths: ['*/b']"), &[row("/b", true), row("/a/b?x", true), row("/b/c", false), row("/x?y=/b", false)]);
    check(&to("paths: ['*']"), &[row("/", true), row("/a/b", true)]);
    check(&to("paths: [/x, /y]"), &[row("/x", true), row("/y", true), row("/z", false)]);
    check(&to("notPaths: [/x, '/y*']"), &[row("/x", false), row("/yy", false), row("/z", true)]);
    check(&to("paths: ['/a*'], notPaths: ['*.css']"), &[row("/a/b", true), row("/a/b.css", false), row("/b", false)]);
    check(&to("paths: ['/v/{*}']"), &[row("/v/1", true), row("/v/1/2", false), row("/v/", false)]);
    check(&to("paths: ['/v/{*}/x']"), &[row("/v/1/x", true), row("/v/1/y", false), row("/v//x", false)]);
    check(&to("paths: ['/v/{**}']"), &[row("/v/1/2", true), row("/v/", true), row("/v", false), row("/w/1", false)]);
    check(&to("paths: ['/{*}/v/{**}/end']"), &[row("/a/v/b/c/end", true), row("/a/v/b/c", false)]);
    // The path is compared as Istio's proxies normalise it.
    check(&to("paths: [/admin]"), &[row("/x/../admin", true), row("/%61dmin", true), row("//admin", false)]);
}

#[test]
fn methods_hosts_and_ports() {
    let to = |operation: &str| format!("{{to: [{{operation: {{{operation}}}}}]}}");
    check(&to("methods: [GET, PUT]"), &[row("/", true), row("/", true).method("PUT"), row("/", false).method("POST")]);
    check(&to("methods: ['P*']"), &[row("/", true).method("PATCH"), row("/", false)]);
    check(&to("methods: ['*']"), &[row("/", true).method("DELETE")]);
    check(&to("notMethods: [GET]"), &[row("/", false), row("/", true).method("POST")]);
    check(&to("methods: [get]"), &[row("/", false)]);
    check(&to("hosts: [example.com]"), &[row("/", true)]);
    check(&to("hosts: [EXAMPLE.com]"), &[row("/", true)]);
    check(&to("hosts: ['*.com', other]"), &[row("/", true)]);
    check(&to("hosts: ['exam*']"), &[row("/", true)]);
    check(&to("hosts: ['example.com:*']"), &[row("/", false)]);
    check(&to("hosts: ['*']"), &[row("/", true)]);
    check(&to("notHosts: ['*.org']"), &[row("/", true)]);
    check(&to("notHosts: [Example.com]"), &[row("/", false)]);
    check(&to("ports: ['8080']"), &[row("/", true)]);
    check(&to("ports: ['80', '443']"), &[row("/", false)]);
    check(&to("notPorts: ['80']"), &[row("/", true)]);
    check(&to("methods: [GET], paths: [/a]"), &[row("/a", true), row("/a", false).method("PUT"), row("/b", false)]);
}

#[test]
fn addresses() {
    let from = |source: &str| format!("{{from: [{{source: {{{source}}}}}]}}");
    let forwarded = |value, matches| row("/", matches).header("x-forwarded-for", value);
    check(&from("ipBlocks: [127.0.0.1]"), &[row("/", true), forwarded("10.0.0.1", true)]);
    check(&from("ipBlocks: [127.0.0.0/8]"), &[row("/", true)]);
    check(&from("ipBlocks: [0.0.0.0/0]"), &[row("/", true)]);
    check(&from("ipBlocks: ['::/0', 10.0.0.0/8]"), &[row("/", false)]);
    check(&from("notIpBlocks: [127.0.0.0/31]"), &[row("/", false)]);
    check(
        &from("remoteIpBlocks: [10.1.0.0/16]"),
        &[
            forwarded("10.1.2.3", true),
            forwarded("10.2.0.1", false),
            forwarded("10.1.2.3, 10.2.0.1", false),
            forwarded("1.1.1.1,10.1.0.0", true),
            forwarded("unknown", false),
            row("/", false),
        ],
    );
    check(&from("remoteIpBlocks: ['fd00::/8']"), &[forwarded("fd12::1", true), forwarded("fe80::1", false)]);
    check(&from("notRemoteIpBlocks: [10.0.0.0/8]"), &[forwarded("10.9.9.9", false), row("/", true)]);
    check("{when: [{key: source.ip, values: [127.0.0.1]}]}", &[row("/", true)]);
    check("{when: [{key: remote.ip, notValues: [10.0.0.1]}]}", &[forwarded("10.0.0.1", false), row("/", true)]);
    check("{when: [{key: destination.ip, values: [127.0.0.1]}]}", &[row("/", true)]);
    check("{when: [{key: destination.port, values: ['8080']}]}", &[row("/", true)]);
    check("{when: [{key: destination.port, notValues: ['8080']}]}", &[row("/", false)]);
}

#[test]
fn peers() {
    let from = |source: &str| format!("{{from: [{{source: {{{source}}}}}]}}");
    let sleep = Some("spiffe://cluster.local/ns/default/sa/sleep");
    let yes = || [row("/", true)];
    let no = || [row("/", false)];
    check_peer(sleep, &from("principals: [cluster.local/ns/default/sa/sleep]"), &yes());
    check_peer(sleep, &from("principals: [cluster.local/ns/default/sa/other]"), &no());
    check_peer(sleep, &from("principals: ['cluster.local/ns/default/*']"), &yes());
    check_peer(sleep, &from("principals: ['*/sa/sleep']"), &yes());
    check_peer(sleep, &from("principals: ['*']"), &yes());
    check_peer(sleep, &from("notPrincipals: ['*/sa/sleep']"), &no());
    check_peer(sleep, &from("namespaces: [default]"), &yes());
    check_peer(sleep, &from("namespaces: [defaul]"), &no());
    check_peer(sleep, &from("namespaces: ['def*']"), &yes());
    check_peer(sleep, &from("notNamespaces: [other]"), &yes());
    check_peer(sleep, &from("serviceAccounts: [sleep]"), &yes());
    check_peer(sleep, &from("serviceAccounts: [default/sleep]"), &yes());
    check_peer(sleep, &from("serviceAccounts: [other/sleep]"), &no());
    check_peer(sleep, &from("serviceAccounts: [slee]"), &no());
    check_peer(
        sleep,
        "{when: [{key: source.principal, values: ['*']}, {key: source.namespace, values: [default]}]}",
        &yes(),
    );
    // Nobody has proven anything on a plain connection.
    check(&from("principals: ['*']"), &no());
    check(&from("namespaces: ['*']"), &no());
    check(&from("notPrincipals: ['*']"), &yes());
    check(&from("notNamespaces: [default]"), &yes());
}

#[test]
fn tokens() {
    let from = |source: &str| format!("{{from: [{{source: {{{source}}}}}]}}");
    let me = |matches| row("/", matches).claims(json!({"iss": "https://issuer", "sub": "me"}));
    let plain = |matches| row("/", matches).claims(json!({"iss": "plain", "sub": "you"}));
    check(&from("requestPrincipals: ['*']"), &[me(true), plain(true), row("/", false)]);
    check(&from("requestPrincipals: ['https://issuer/me']"), &[me(true), plain(false)]);
    check(&from("requestPrincipals: ['https://issuer/*']"), &[me(true), plain(false)]);
    check(&from("requestPrincipals: ['plain/y*']"), &[me(false), plain(true)]);
    check(&from("requestPrincipals: ['*/me']"), &[me(true), plain(false)]);
    check(&from("requestPrincipals: ['*you']"), &[me(false), plain(true)]);
    check(&from("requestPrincipals: ['pla*']"), &[me(false), plain(true)]);
    check(&from("notRequestPrincipals: ['*']"), &[me(false), row("/", true)]);
    let only_issuer = || row("/", false).claims(json!({"iss": "plain"}));
    check(&from("requestPrincipals: ['*']"), &[only_issuer()]);

    let when = |key: &str, values: &str| format!("{{when: [{{key: '{key}', {values}}}]}}");
    let claims = |matches, more: Value| {
        let mut claims = json!({"iss": "plain", "sub": "x"});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row("/", matches).claims(claims)
    };
    check(&when("request.auth.principal", "values: ['plain/x']"), &[claims(true, json!({})), me(false)]);
    check(
        &when("request.auth.audiences", "values: [a, 'b*']"),
        &[
            claims(true, json!({"aud": "a"})),
            claims(true, json!({"aud": ["z", "bb"]})),
            claims(false, json!({"aud": "c"})),
            claims(false, json!({})),
        ],
    );
    check(
        &when("request.auth.presenter", "values: [app]"),
        &[claims(true, json!({"azp": "app"})), claims(false, json!({}))],
    );
    check(
        &when("request.auth.claims[groups]", "values: [admin]"),
        &[
            claims(true, json!({"groups": ["user", "admin"]})),
            claims(true, json!({"groups": "admin"})),
            claims(false, json!({"groups": "admins"})),
            claims(false, json!({"groups": {"admin": 1}})),
            row("/", false),
        ],
    );
    check(
        &when("request.auth.claims[a][b]", "values: ['*']"),
        &[
            claims(true, json!({"a": {"b": "x"}})),
            claims(false, json!({"a": {"b": ""}})),
            claims(false, json!({"a": {"c": "x"}})),
            claims(false, json!({"a": {"b": 1}})),
        ],
    );
    check(
        &when("request.auth.claims[scope]", "values: [write]"),
        &[claims(true, json!({"scope": "read write"})), claims(false, json!({"scope": "rewrite"}))],
    );
    check(
        &when("request.auth.claims[groups]", "notValues: [admin]"),
        &[claims(false, json!({"groups": ["admin"]})), claims(true, json!({"groups": ["user"]})), row("/", true)],
    );
    let filter = "experimental.envoy.filters.http.jwt_authn[payload]";
    check(&when(filter, "values: [x]"), &[claims(false, json!({}))]);
}

#[test]
fn headers() {
    let when = |values: &str| format!("{{when: [{{key: 'request.headers[X-A]', {values}}}]}}");
    let a = |value, matches| row("/", matches).header("x-a", value);
    check(&when("values: ['1', '2*']"), &[a("1", true), a("22", true), a("11", false), row("/", false)]);
    check(&when("values: ['*']"), &[a("x", true), row("/", false)]);
    check(&when("values: ['*z']"), &[a("xyz", true), a("xyZ", false)]);
    check(&when("notValues: ['1']"), &[a("1", false), a("2", true), row("/", true)]);
    let two = |matches| row("/", matches).header("x-a", "1").header("x-a", "2");
    check(&when("values: ['1,2']"), &[two(false), a("1,2", true)]);
    check(&when("values: ['2']"), &[two(true), a("1,2", false)]);
    check(&when("notValues: ['2']"), &[two(false), a("1,2", true)]);
    // What may be there once only is one value.
    check(
        "{when: [{key: 'request.headers[accept]', values: ['1,2']}]}",
        &[row("/", true).header("accept", "1").header("accept", "2"), row("/", false).header("accept", "1")],
    );
    check("{when: [{key: connection.sni, values: ['*']}]}", &[row("/", false)]);
}

#[test]
fn parts_of_a_rule_are_joined_as_istio_joins_them() {
    check("{}", &[row("/", true)]);
    check(
        "{from: [{source: {ipBlocks: [10.0.0.1]}}, {source: {remoteIpBlocks: [10.0.0.2]}}],
          to: [{operation: {paths: [/a]}}, {operation: {methods: [PUT]}}],
          when: [{key: 'request.headers[x]', values: [v]}, {key: 'request.headers[z]', notValues: [z]}]}",
        &[
            row("/a", true).header("x-forwarded-for", "10.0.0.2").header("x", "v"),
            row("/b", true).method("PUT").header("x-forwarded-for", "10.0.0.2").header("x", "v"),
            row("/b", false).header("x-forwarded-for", "10.0.0.2").header("x", "v"),
            row("/a", false).header("x", "v"),
            row("/a", false).header("x-forwarded-for", "10.0.0.2"),
            row("/a", false).header("x-forwarded-for", "10.0.0.2").header("x", "v").header("z", "z"),
        ],
    );
    check(
        "{to: [{operation: {paths: [/a]}}]}, {to: [{operation: {paths: [/b]}}]}",
        &[row("/a", true), row("/b", true), row("/c", false)],
    );
}

/// The outcome with its details, for the path `/a`.
#[track_caller]
fn outcome(policies: &[String], expected: &str) {
    let harness = Harness::of_manifests(&policies.concat(), |_| {});
    harness.get("/a");
    let line = harness.log.lines().pop().unwrap();
    assert!(line.ends_with(expected), "{line}");
}

#[test]
fn actions_are_asked_in_istios_order() {
    let allow_a = || policy("allow", "rules: [{to: [{operation: {paths: [/b]}}, {operation: {paths: [/a]}}]}]");
    let allow_b = || policy("allow-b", "rules: [{to: [{operation: {paths: [/b]}}]}]");
    let deny_a = || {
        policy("deny", "action: DENY, rules: [{to: [{operation: {paths: [/z]}}]}, {to: [{operation: {paths: [/a]}}]}]")
    };
    let denied =
        |by: &str| format!("Some(403) by Some(\"envoy.filters.http.rbac\") rbac_access_denied_matched_policy[{by}]");
    let passed = "Some(200) by None via_upstream";
    outcome(&[allow_a()], passed);
    outcome(&[allow_b()], &denied("none"));
    outcome(&[allow_a(), allow_b()], passed);
    outcome(&[allow_a(), deny_a()], &denied("ns[default]-policy[deny]-rule[1]"));
    outcome(&[deny_a()], &denied("ns[default]-policy[deny]-rule[1]"));
    // No rules: an ALLOW policy that allows nothing, and nothing else allows it either.
    outcome(&[policy("nothing", "")], &denied("none"));
    outcome(&[policy("everything", "rules: [{}]")], passed);
    outcome(&[policy("nobody", "action: DENY, rules: [{}]"), allow_a()], &denied("ns[default]-policy[nobody]-rule[0]"));
    outcome(&[policy("audit", "action: AUDIT, rules: [{}]")], passed);
    // For others, in other namespaces and of the root namespace.
    outcome(&[policy("other", "selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]")], passed);
    outcome(
        &[policy("own", "selector: {matchLabels: {app: web}}, action: DENY, rules: [{}]")],
        &denied("ns[default]-policy[own]-rule[0]"),
    );
    let elsewhere = |namespace| {
        policy("x", "action: DENY, rules: [{}]").replace("name: x", &format!("name: x, namespace: {namespace}"))
    };
    outcome(&[elsewhere("other")], passed);
    outcome(&[elsewhere("istio-system")], &denied("ns[istio-system]-policy[x]-rule[0]"));
}

#[test]
fn a_dry_run_decides_nothing_and_says_what_it_would_have() {
    let dry = |name: &str, spec: &str| {
        let annotation = format!("name: {name}, annotations: {{istio.io/dry-run: 'true'}}");
        policy(name, spec).replace(&format!("name: {name}"), &annotation)
    };
    outcome(&[dry("d", "action: DENY, rules: [{}]")], "Some(200) by None via_upstream");
    outcome(&[dry("a", "")], "Some(200) by None via_upstream");
    // A plugin after the filter reads the verdict, as an access log would.
    let property = |guest: &mut Guest, path: &str| {
        let path = guest.text(path);
        format!(
            "(if (i32.eqz (call $proxy_get_property {path} (i32.const 16) (i32.const 20)))
              (then (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 16)) (i32.load (i32.const 20))))))"
        )
    };
    let metadata = |key: &str| format!("metadata\0filter_metadata\0envoy.filters.http.rbac\0istio_dry_run_{key}");
    let guest = Guest::default().on("request_headers", |guest| {
        let keys = ["deny_shadow_engine_result", "deny_shadow_effective_policy_id", "allow_shadow_engine_result"];
        let reads: String = keys.iter().map(|key| property(guest, &metadata(key))).collect();
        format!("{reads} (i32.const 0)")
    });
    let text = [
        dry("d", "action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]"),
        dry("a", "rules: [{to: [{operation: {paths: [/a]}}]}]"),
        "---\n{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {name: reader}, \
         spec: {url: 'oci://example.com/x'}}\n"
            .to_owned(),
    ]
    .concat();
    let log = Arc::new(Recorder::default());
    let chain = load_chain(&resolved(&text), &[("reader", guest.build())], log.clone()).unwrap();
    let harness = Harness::serve(chain, log, |_| {});
    assert_eq!(harness.get("/a").status, 200);
    assert_eq!(harness.log.messages(), ["denied", "ns[default]-policy[d]-rule[0]", "allowed"]);
    assert_eq!(harness.get("/b").status, 200);
    assert_eq!(harness.log.messages(), ["allowed", "denied"]);
}

#[test]
fn claims_are_there_for_plugins_too() {
    let guest = Guest::default().on("request_headers", |guest| {
        let path = guest.text("metadata\0filter_metadata\0envoy.filters.http.jwt_authn\0payload\0sub");
        format!(
            "(drop (call $proxy_get_property {path} (i32.const 16) (i32.const 20)))
             (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 16)) (i32.load (i32.const 20))))
             (i32.const 0)"
        )
    });
    let text = authentication()
        + "---\n{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {name: reader}, \
           spec: {url: 'oci://example.com/x', phase: AUTHZ}}\n";
    let log = Arc::new(Recorder::default());
    let chain = load_chain(&resolved(&text), &[("reader", guest.build())], log.clone()).unwrap();
    let harness = Harness::serve(chain, log, |_| {});
    let authorization = format!("Bearer {}", token(json!({"iss": "plain", "sub": "somebody"})));
    assert_eq!(harness.send("GET", "/", &[("authorization", &authorization)], "").status, 200);
    assert_eq!(harness.log.messages(), ["somebody"]);
}

#[test]
fn that_nobody_proves_an_identity_is_said_once() {
    let text = policy("p", "rules: [{from: [{source: {namespaces: [default]}}]}]");
    let harness = Harness::of_manifests(&text, |_| {});
    assert_eq!([harness.get("/").status, harness.get("/").status], [403, 403]);
    let said = harness.log.lines().iter().filter(|line| line.contains("which come from mTLS")).count();
    assert_eq!(said, 1);
    let silent = Harness::of_manifests(&policy("p", "rules: [{}]"), |_| {});
    assert!(silent.log.lines().is_empty());
}

#[test]
fn a_custom_policy_is_refused_by_name() {
    let text = policy("ask", "action: CUSTOM, provider: {name: opa}, rules: [{}]");
    let Err(error) = load_chain(&resolved(&text), &[], Arc::default()) else { panic!("it loaded") };
    assert_eq!(
        error.to_string(),
        "AuthorizationPolicy default/ask, which asks an external authorizer (action CUSTOM), is not yet executed by the \
         harness"
    );
}

#[test]
fn a_denied_grpc_call_gets_a_grpc_status() {
    let harness = Harness::of_manifests(&policy("p", ""), |_| {});
    let reply = harness.send("POST", "/s/m", &[("content-type", "application/grpc")], "");
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("7")));
    assert_eq!(reply.header("grpc-message"), Some("RBAC: access denied"));
}
