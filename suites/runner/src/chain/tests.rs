//! Chain suites from their text to their verdicts, with scripts for plugins, which need no module.
use std::path::PathBuf;
use std::sync::Mutex;

use harness::engine::{Engine, Limits};
use harness::hazard::HazardKind;
use mesh::model::{Layer, Protocol};
use mesh::{MeshOptions, Source};
use suites::chain::{Chosen, HAZARDS, Planned, Task};
use suites::outcome::{Case, Verdict};

use super::run;

const RESOURCES: &str = r#"
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: greeter, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  phase: AUTHN
  lua:
    inlineCode: |
      function envoy_on_request(handle)
        local path = handle:headers():get(":path")
        handle:logInfo("asked for " .. path)
        if path == "/call" then
          local headers, body = handle:httpCall("auth", {[":method"]="POST", [":path"]="/check", [":authority"]="auth"}, "q=1", 5000)
          handle:headers():add("x-auth", headers[":status"] .. " " .. (body or ""))
        elseif path == "/time" then
          handle:headers():add("x-time", tostring(handle:timestamp()))
        elseif path == "/deny" then
          handle:respond({[":status"]="403", ["set-cookie"]="session=abc; Path=/"}, "no")
        end
      end
"#;

/// Resolves as the command line does, and runs.
fn cases(more: &str, suite: &str) -> Vec<Case> {
    let source = |file: &str, text: &str| Source { file: file.to_owned(), text: text.to_owned() };
    let reading = mesh::read(&[source("r.yaml", &format!("{RESOURCES}{more}"))]);
    assert_eq!(reading.errors, []);
    let mut options = MeshOptions::default();
    let assumed = mesh::assume_proxy(&reading.resources, &options).unwrap();
    options.services = assumed.services;
    let mut listener = assumed.listener;
    if suite.contains("connections:") {
        (listener.layer, listener.protocol) = (Layer::Network, Some(Protocol::Tcp));
    }
    let chain = mesh::resolve(&reading.resources, &assumed.proxy, &listener, &options);
    let plan = serde_json::json!({"chain": chain, "modules": {}, "host_env": {}, "listen": "", "upstream": null, "workers": 1});
    let head = "apiVersion: plugwright.dev/v1alpha1\nkind: ChainTest\nresources: [r.yaml]\n";
    let read = suites::chain::read(&source("s.yaml", &format!("{head}{suite}")));
    let suite = read.unwrap_or_else(|mistakes| panic!("{}", mistakes[0])).remove(0);
    let tests = (0..suite.tests.len()).map(|test| Chosen { test, plan: 0 }).collect();
    let plans = vec![Planned::Ready(serde_json::from_value(plan).unwrap())];
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let task = Task { folder, suite, plans, tests };
    run(&Engine::new(Limits::default()).unwrap(), &task, &task.tests, &Mutex::default())
}

/// Runs a suite, and wants these mismatches of its tests, as text.
#[track_caller]
fn check(suite: &str, expected: &[&str]) {
    check_with("", suite, expected);
}

#[track_caller]
fn check_with(more: &str, suite: &str, expected: &[&str]) {
    let mut found = Vec::new();
    for case in cases(more, suite) {
        match case.verdict {
            Verdict::Passed => {}
            Verdict::Broken(why) => found.push(format!("{}: broken: {why}", case.name)),
            Verdict::Failed(mismatches) => found.extend(mismatches.into_iter().map(|one| {
                let actual = one.actual.unwrap_or_else(|| "nothing".to_owned());
                format!("{}: {}: {} is {actual}, not {}", case.name, one.path, one.what, one.expected)
            })),
        }
    }
    assert_eq!(found, expected);
}

#[test]
fn the_echo_is_the_upstream_unless_there_is_another() {
    check(
        "tests:
- name: echo
  expect: {chain: '-> greeter -> router'}
  requests:
  - path: /x?y=1
    method: POST
    headers: [{name: X-A, value: b}]
    body: {json: {k: v}}
    expect:
      response:
        status: 200
        details: via_upstream
        headers: [{name: server, exact: istio-envoy}, {name: x-none, present: false}]
        body: {jsonIncludes: {method: POST, path: '/x?y=1', body: '{\"k\":\"v\"}'}}
      upstream:
        method: POST
        path: /x?y=1
        headers: [{name: x-a, exact: b}, {name: ':authority', exact: example.com}, {name: content-type, exact: application/json}]
        body: {json: {k: v}}
      callouts: []
      logs: [{level: info, exact: 'asked for /x?y=1', count: 1}, {contains: nothing of it, count: 0}]
- name: another
  upstream:
    answers: [{status: 201, body: {text: one}}, {status: 202, headers: [{name: x-n, value: two}]}]
    routes: [{pathRegex: /z.*, answers: [{drop: beforeResponse}]}, {path: /half, answers: [{body: {text: abcdef}, drop: afterHeaders}]}]
  requests:
  - {expect: {response: {status: 201, body: {exact: one}}}}
  - {expect: {response: {status: 202, headers: [{name: x-n, exact: two}], body: {empty: true}}}}
  - {expect: {response: {status: 202}}}
  - {path: /zz, expect: {response: {status: 503, body: {contains: connection termination}}}}
  - {path: /half, expect: {response: {status: 200, brokenOff: true, body: {exact: abc}}}}
",
        &[],
    );
}

#[test]
fn what_is_not_as_expected_is_said_field_by_field() {
    check(
        "tests:
- name: t
  expect: {chain: '-> router', hazards: [content-length]}
  requests:
  - path: /deny
    expect:
      response: {status: 200, details: d, headers: [{name: x, exact: z}, {name: set-cookie, regex: 'a.*'}], body: {exact: 'yes'}}
      upstream: {reached: true}
      callouts: [{cluster: auth}]
      logs: [{level: error, contains: oh}]
",
        &[
            "t: tests[0].requests[0].expect.response.status: response status is 403, not 200",
            "t: tests[0].requests[0].expect.response.details: response code details is lua_response, not d",
            "t: tests[0].requests[0].expect.response.headers[0]: response header x is nothing, not z",
            "t: tests[0].requests[0].expect.response.headers[1]: response header set-cookie is session=abc; Path=/, not something that matches a.*",
            "t: tests[0].requests[0].expect.response.body: response body is no, not yes",
            "t: tests[0].requests[0].expect.upstream: request at the upstream is nothing, not one",
            "t: tests[0].requests[0].expect.callouts: callouts is none, not auth",
            "t: tests[0].requests[0].expect.logs[0]: log is info script log: asked for /deny, not a line at error: something with oh in it",
            "t: tests[0].expect.chain: chain is -> greeter -> router, not -> router",
            "t: tests[0].expect.hazards[0]: hazard is nothing, not content-length",
        ],
    );
}

#[test]
fn a_connection_is_two_ends_and_what_passes_between_them() {
    check(
        "tests:
- name: t
  expect: {chain: -> tcp_proxy}
  connections:
  - steps:
    - {client: {text: ping}, expect: {upstream: {exact: ping}, client: {empty: true}}}
    - {upstream: {hex: 00 ff}, expect: {client: {base64: AP8=}, ended: false}}
    - {end: client}
    - {upstream: {file: Cargo.toml}, expect: {client: {contains: '[package]'}}}
    - {end: upstream, expect: {ended: true}}
    expect: {client: {ended: true}, upstream: {received: {exact: ping}, ended: true}, closedBy: upstream, callouts: []}
  - {steps: [{reset: upstream}], expect: {client: {received: {empty: true}, ended: true}, closedBy: upstream}}
  - {steps: [{reset: client}], expect: {upstream: {ended: true}, closedBy: client}}
  - {advance: 10m, steps: [{client: {text: a}}, {advance: 61m, expect: {ended: true}}], expect: {closedBy: upstream}}
  - {unreachable: true, steps: [{client: {text: a}}], expect: {client: {ended: true}, upstream: {reached: false}, closedBy: upstream}}
  - expect: {client: {ended: false}, upstream: {reached: true, received: {empty: true}}, closedBy: client}
- name: not so
  connections:
  - steps:
    - {client: {text: ping}, expect: {upstream: {exact: pong}, ended: true}}
    expect: {client: {received: {hex: '00'}}, upstream: {reached: false}, closedBy: plugin}
- name: another
  connections:
  - steps: [{upstream: {file: nothing}}]
    expect: {closedBy: client}
",
        &[
            "not so: tests[1].connections[0].steps[0].expect.upstream: what came to the upstream is ping, not pong",
            "not so: tests[1].connections[0].steps[0].expect.ended: client's connection is open, not ended",
            "not so: tests[1].connections[0].expect.client.received.hex: all that came to the client is , not 00",
            "not so: tests[1].connections[0].expect.upstream.reached: connection to the upstream is one, not none",
            "not so: tests[1].connections[0].expect.closedBy: who closed the connection is the client, not a plugin",
            &format!(
                "another: broken: `tests[2].connections[0]`: failed to read {}: No such file or directory (os error 2)",
                PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("nothing").display()
            ),
        ],
    );
}

#[test]
fn clusters_answer_in_turn_and_time_jumps_over_their_delays() {
    check(
        "clusters:
- name: auth
  answers: [{delay: 2s, body: {text: fine}}, {delay: 10s}, {drop: beforeResponse}]
tests:
- name: t
  requests:
  - path: /call
    expect:
      callouts: [{cluster: auth, method: POST, path: /check, body: {exact: q=1}, headers: [{name: ':authority', exact: auth}]}]
      upstream: {headers: [{name: x-auth, exact: 200 fine}]}
  - {path: /call, expect: {upstream: {headers: [{name: x-auth, exact: 504 upstream request timeout}]}}}
  - {path: /call, expect: {upstream: {headers: [{name: x-auth, regex: '503 .*connection termination'}]}}}
",
        &[],
    );
}

#[test]
fn the_clock_begins_where_it_is_set_and_goes_as_told() {
    check(
        "clock: '2001-09-09T01:46:40Z'
tests:
- name: t
  requests:
  - {path: /time, expect: {upstream: {headers: [{name: x-time, exact: '1000000000000'}]}, response: {headers: [{name: date, exact: 'Sun, 09 Sep 2001 01:46:40 GMT'}]}}}
  - {path: /time, advance: 1m, expect: {upstream: {headers: [{name: x-time, exact: '1000000060000'}]}}}
- name: each test begins anew
  requests: [{path: /time, expect: {upstream: {headers: [{name: x-time, exact: '1000000000000'}]}}}]
",
        &[],
    );
}

#[test]
fn runs_are_the_same_each_time() {
    let suite = "seed: 7
tests:
- name: t
  requests: [{expect: {response: {status: 200}}}, {advance: 1s, expect: {response: {status: 200}}}]
  upstream: {answers: [{echo: true}]}
";
    let ids = || {
        let found = cases("", suite).remove(0);
        assert_eq!(found.verdict, Verdict::Passed);
        let text = serde_json::to_string(&found.traces).unwrap();
        text.match_indices("x-request-id").map(|(at, _)| text[at..at + 60].to_owned()).collect::<Vec<_>>()
    };
    let first = ids();
    assert!(!first.is_empty());
    assert_eq!(first, ids());
}

#[test]
fn what_is_captured_is_there_for_later_requests_and_answers() {
    check(
        "clusters: [{name: auth, answers: [{body: {text: 'hello ${user}'}}]}]
variables: {user: alice}
tests:
- name: t
  cookieJar: true
  requests:
  - path: /deny
    capture: [{name: session, cookie: session}, {name: letter, header: set-cookie, regex: 'session=(.)'}, {name: word, bodyRegex: '^n.'}]
    expect: {response: {status: 403}}
  - path: /${word}?s=${session}
    capture: [{name: target, jsonPointer: /path}]
    expect: {upstream: {path: '/no?s=abc', headers: [{name: cookie, exact: 'session=${session}'}]}}
  - path: /call
    headers: [{name: x-target, value: '${target}'}]
    expect: {upstream: {headers: [{name: x-auth, exact: '200 hello ${user}'}, {name: x-target, regex: '/${word}.s=a.c'}]}}
",
        &[],
    );
    check(
        "tests:
- name: t
  requests:
  - {capture: [{name: a, header: x-nothing}], expect: {response: {status: 200}}}
  - {path: '/${a}'}
- name: the rest is run
  requests: [{expect: {response: {status: 200}}}]
",
        &[
            "t: broken: `tests[0].requests[0]`: nothing to capture as `a`: the response has status 200, 269 bytes of body and the headers content-type, content-length, x-envoy-upstream-service-time, server, date",
        ],
    );
}

#[test]
fn the_proxys_own_filters_take_part() {
    let policies = r"---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  jwtRules: [{issuer: 'https://issuer.example', jwksUri: 'https://issuer.example/keys'}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: admin, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
";
    check_with(
        policies,
        "clusters: [{name: issuer, hosts: [issuer.example], routes: [{path: /keys, answers: [{body: {json: {keys: [{kty: oct, k: c2VjcmV0, alg: HS256, kid: k}]}}}]}]}]
tests:
- name: t
  expect:
    chain: -> greeter -> istio.authn -> istio.authz -> router
    metrics:
    - {name: istio_requests_total, labels: {response_code: '403'}, value: 1}
    - {name: istio_requests_total, atLeast: 3}
    - {name: nobody_counts, absent: true}
  requests:
  - {path: /admin, expect: {response: {status: 403, body: {exact: 'RBAC: access denied'}}, upstream: {reached: false}}}
  - {path: /, headers: [{name: authorization, value: Bearer nonsense}], expect: {response: {status: 401}}}
  - {path: /, expect: {response: {status: 200}, callouts: []}}
",
        &[],
    );
}

#[test]
fn a_suite_may_keep_its_proxy() {
    let more = r#"---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: counter, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  lua: {inlineCode: "n = 0\nfunction envoy_on_request(handle) n = n + 1; handle:headers():add('x-n', tostring(n)) end"}
"#;
    let suite = |isolation: &str, second: u8| {
        format!(
            "isolation: {isolation}
tests:
- {{name: a, requests: [{{expect: {{upstream: {{headers: [{{name: x-n, exact: '1'}}]}}}}}}]}}
- {{name: b, requests: [{{expect: {{upstream: {{headers: [{{name: x-n, exact: '{second}'}}]}}}}}}]}}
"
        )
    };
    check_with(more, &suite("test", 1), &[]);
    check_with(more, &suite("suite", 2), &[]);
}

#[test]
fn every_hazard_of_the_harness_has_its_name_in_the_format() {
    use HazardKind as K;
    let kinds = [
        K::ContentLength,
        K::ResumeInCallback,
        K::ResumeWithoutPause,
        K::ReplyAfterHeaders,
        K::ReplyWhenDone,
        K::DoubleReply,
        K::MapOutOfPhase,
        K::PauseWithoutResume,
        K::HeaderControlCharacter,
        K::Status,
        K::SecretInLog,
        K::MemoryGrowth,
    ];
    let mut names = kinds.map(HazardKind::name);
    names.sort_unstable();
    assert_eq!(names, HAZARDS);
}
