//! What is wrong with a suite is said, with its place.

use mesh::Source;

use super::{is_chain_suite, read, schema};

/// A suite that is fine, for tests to spoil.
const FINE: &str = "\
apiVersion: plugwright.dev/v1alpha1
kind: ChainTest
resources: [chain.yaml]
variables: {user: alice}
clusters:
- name: outbound|80||auth
  answers:
  - {status: 200, headers: [{name: x-user, value: '${user}'}]}
tests:
- name: first
  requests:
  - path: /?user=${user}
    capture: [{name: token, header: x-token}]
    expect: {response: {status: 200}}
  - headers: [{name: authorization, value: 'Bearer ${token}'}]
    advance: 5s
    expect: {callouts: []}
";

fn source(text: &str) -> Source {
    Source { file: "s.yaml".to_owned(), text: text.to_owned() }
}

/// Replaces a part of the suite, and wants to be told this.
#[track_caller]
fn check(from: &str, to: &str, expected: &[&str]) {
    assert_eq!(FINE.matches(from).count(), 1, "{from}");
    check_text(&FINE.replace(from, to), expected);
}

#[track_caller]
fn check_text(text: &str, expected: &[&str]) {
    let mistakes = read(&source(text)).err().unwrap_or_default();
    assert_eq!(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
}

#[test]
fn a_suite_is_read_from_yaml_and_json() {
    let suites = read(&source(FINE)).unwrap();
    let json = serde_json::to_string(&suites[0]).unwrap();
    assert_eq!(read(&source(&json)).unwrap(), suites, "{json}");
    let two = format!("{FINE}---\n{FINE}");
    assert_eq!(read(&source(&two)).unwrap().len(), 2);
}

#[test]
fn a_chain_suite_is_told_from_other_documents_even_when_it_is_broken() {
    for (text, expected) in [
        (FINE, true),
        ("kind: ChainTest # and no more", true),
        ("apiVersion: plugwright.dev/v1alpha1\na: [", true),
        ("{\"kind\": \"ChainTest\", [", false),
        ("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin", false),
        ("test: []\nenv: {}", false),
        ("", false),
    ] {
        assert_eq!(is_chain_suite(&source(text)), expected, "{text}");
    }
}

#[test]
fn an_unknown_field_names_the_nearest() {
    check(
        "status: 200}}",
        "statsu: 200}}",
        &["s.yaml:14:25: `tests[0].requests[0].expect.response.statsu`: unknown field, did you mean `status`?"],
    );
    check("resources:", "resource:", &["s.yaml:3:1: `resource`: unknown field, did you mean `resources`?"]);
    check("  answers:", "  zzz: 1\n  answers:", &["s.yaml:7:3: `clusters[0].zzz`: unknown field"]);
}

#[test]
fn a_missing_field_and_a_wrong_type_have_their_places() {
    check("- name: first\n  requests", "- requests", &["s.yaml:10:3: `tests[0].name`: required, but missing"]);
    check("[chain.yaml]", "chain.yaml", &["s.yaml:3:1: `resources`: must be a list, is a string"]);
    check("alice", "1", &["s.yaml:4:13: `variables.user`: must be a string, is a number"]);
    check("advance: 5s", "advance: 5", &["s.yaml:16:5: `tests[0].requests[1].advance`: must be a string, is a number"]);
    check(
        "advance: 5s",
        "advance: 5 s",
        &[
            "s.yaml:16:5: `tests[0].requests[1].advance`: a length of time is written like 300ms, 5s, 1m30s or 2h, and is at most a year",
        ],
    );
    check(
        "kind: ChainTest",
        "kind: ChainTests",
        &["s.yaml:2:1: `kind`: `ChainTests` is none of ChainTest, did you mean `ChainTest`?"],
    );
    check(
        "v1alpha1",
        "v1",
        &[
            "s.yaml:1:1: `apiVersion`: `plugwright.dev/v1` is none of plugwright.dev/v1alpha1, did you mean `plugwright.dev/v1alpha1`?",
        ],
    );
}

#[test]
fn every_malformed_field_is_said_and_not_only_the_first() {
    let text = FINE
        .replace("alice", "1")
        .replace("[chain.yaml]", "chain.yaml")
        .replace("- name: first\n", "- name: 5\n  zzz: 1\n")
        .replace("advance: 5s", "advance: 5")
        .replace("    expect: {callouts: []}", "    expect: {callouts: 1}\n- requests: 1");
    check_text(
        &text,
        &[
            "s.yaml:3:1: `resources`: must be a list, is a string",
            "s.yaml:4:13: `variables.user`: must be a string, is a number",
            "s.yaml:10:3: `tests[0].name`: must be a string, is a number",
            "s.yaml:11:3: `tests[0].zzz`: unknown field",
            "s.yaml:17:5: `tests[0].requests[1].advance`: must be a string, is a number",
            "s.yaml:18:14: `tests[0].requests[1].expect.callouts`: must be a list, is a number",
            "s.yaml:19:3: `tests[1].requests`: must be a list, is a number",
            "s.yaml:19:3: `tests[1].name`: required, but missing",
        ],
    );
}

#[test]
fn a_key_that_yaml_takes_for_a_boolean_is_said() {
    let said = "is `true` here";
    check("user: alice", "y: alice", &[&format!("s.yaml:4:13: `variables.true`: the key `y` {said}")]);
    check("alice}", "alice, On: x}", &[&format!("s.yaml:4:26: `variables.true`: the key `On` {said}")]);
    check(
        "name: x-user",
        "no: x-user",
        &[
            "s.yaml:8:30: `clusters[0].answers[0].headers[0].false`: the key `no` is `false` here",
            "s.yaml:8:29: `clusters[0].answers[0].headers[0].name`: required, but missing",
        ],
    );
    let fine = FINE.replace("alice}", "alice, \"y\": x, 'no': z, true: x}");
    assert_eq!(read(&source(&fine)).unwrap()[0].variables.len(), 4);
    let twice = read(&source(&FINE.replace("alice}", "alice, y: x, on: z}"))).unwrap_err();
    assert_eq!(twice[0].what, "the key `true` is given twice, first on line 4");
    assert!(twice[0].hint.as_ref().unwrap().contains("put such keys in quotes"));
}

#[test]
fn what_asserts_nothing_is_an_error() {
    let without =
        FINE.replace("    expect: {response: {status: 200}}\n", "").replace("    expect: {callouts: []}\n", "");
    check_text(&without, &["s.yaml:10:3: `tests[0]`: the test asserts nothing"]);
    check("{callouts: []}", "{}", &["s.yaml:17:5: `tests[0].requests[1].expect`: it asserts nothing"]);
    check("{status: 200}}", "{}}", &["s.yaml:14:14: `tests[0].requests[0].expect.response`: it asserts nothing"]);
    check(
        "{status: 200}}",
        "{headers: [{name: x}]}}",
        &["s.yaml:14:35: `tests[0].requests[0].expect.response.headers[0]`: it asserts nothing"],
    );
    check(
        "{status: 200}}",
        "{body: {}}}",
        &["s.yaml:14:25: `tests[0].requests[0].expect.response.body`: it asserts nothing"],
    );
    check(
        "{callouts: []}",
        "{logs: [{}]}",
        &["s.yaml:17:21: `tests[0].requests[1].expect.logs[0]`: it asserts nothing"],
    );
    let (head, _) = FINE.split_once("tests:").unwrap();
    check_text(&format!("{head}tests: []\n"), &["s.yaml:9:1: `tests`: there are none, so the suite asserts nothing"]);
    check_text("# nothing\n", &["s.yaml:1:1: there is no suite in it"]);
}

#[test]
fn a_name_must_have_a_value_by_then() {
    check(
        "?user=${user}",
        "?user=${token}",
        &["s.yaml:12:5: `tests[0].requests[0].path`: nothing is called `token` by then"],
    );
    check(
        "Bearer ${token}",
        "Bearer ${tokn}",
        &[
            "s.yaml:15:37: `tests[0].requests[1].headers[0].value`: nothing is called `tokn` by then, did you mean `token`?",
        ],
    );
    check("Bearer ${token}", "Bearer $${tokn}", &[]);
}

#[test]
fn exactly_one_way_of_saying_a_thing_is_taken() {
    let capture = "{name: token, header: x-token}";
    let path = "tests[0].requests[0].capture[0]";
    check(
        capture,
        "{name: token}",
        &[&format!("s.yaml:13:15: `{path}`: one of header, cookie, jsonPointer, bodyRegex must be given")],
    );
    check(
        capture,
        "{name: token, header: a, cookie: b}",
        &[&format!("s.yaml:13:15: `{path}`: only one of header, cookie, jsonPointer, bodyRegex may be given")],
    );
    check(
        capture,
        "{name: token, bodyRegex: '(', regex: a}",
        &[
            &format!("s.yaml:13:45: `{path}.regex`: goes with `header` or `cookie` only"),
            &format!("s.yaml:13:29: `{path}.bodyRegex`: is no regular expression: unclosed group"),
        ],
    );
    check(
        "{status: 200, headers",
        "{echo: true, headers",
        &["s.yaml:8:6: `clusters[0].answers[0].echo`: an echo has nothing beside it but `delay`"],
    );
    check(
        "{callouts: []}",
        "{upstream: {reached: false, path: /}}",
        &[
            "s.yaml:17:25: `tests[0].requests[1].expect.upstream.reached`: a request that does not get there has nothing to be looked at",
        ],
    );
}

#[test]
fn names_of_things_that_there_are_not_are_refused() {
    check(
        "- name: first\n",
        "- name: first\n  expect: {hazards: [content-lenght], chain: a -> router}\n",
        &[
            "s.yaml:11:39: `tests[0].expect.chain`: is no chain: expected `-> a -> b -> router`",
            "s.yaml:11:22: `tests[0].expect.hazards[0]`: `content-lenght` is no hazard, did you mean `content-length`?",
        ],
    );
    check("resources:", "workload: gateway\nresources:", &["s.yaml:3:1: `workload`: must be NAMESPACE/NAME"]);
    check(
        "x-user, value",
        "host, value",
        &["s.yaml:8:30: `clusters[0].answers[0].headers[0].name`: host is not given as a header: it is `host`"],
    );
}

/// Puts a gRPC cluster in the place of the suite's, and wants to be told this of what is in it.
#[track_caller]
fn check_grpc(grpc: &str, expected: &[&str]) {
    let text = FINE.replace("  answers:\n  - {status: 200, headers: [{name: x-user, value: '${user}'}]}\n", "  GRPC\n");
    let place = |said: &&str| if said.starts_with("s.") { (*said).to_owned() } else { format!("s.yaml:7:{said}") };
    let expected: Vec<_> = expected.iter().map(place).collect();
    check_text(&text.replace("GRPC", grpc), &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_grpc_cluster_has_statuses_by_name_and_number_and_bytes_in_every_notation() {
    check_grpc(
        "grpc: {answers: [{status: PERMISSION_DENIED}, {status: 16, messages: [{hex: 00 ff}, {base64: AP8=}]}]}",
        &[],
    );
    check_grpc("unreachable: true", &[]);
    let at = |column: u8, rest: &str| format!("{column}: `clusters[0].grpc.answers[0]{rest}");
    let said = |column, rest: &str| at(column, rest);
    check_grpc(
        "grpc: {answers: [{status: PERMISION_DENIED}]}",
        &[&said(21, ".status`: `PERMISION_DENIED` is no status of gRPC, did you mean `PERMISSION_DENIED`?")],
    );
    check_grpc("grpc: {answers: [{status: 17}]}", &[&said(21, ".status`: 17 is no status of gRPC, which are 0 to 16")]);
    check_grpc(
        "grpc: {answers: [{status: []}]}",
        &[&said(21, ".status`: must be a status of gRPC, by name or number, is a list")],
    );
    check_grpc(
        "grpc: {answers: [{message: {text: x}}]}",
        &[&said(21, ".message`: unknown field, did you mean `messages`?")],
    );
    check_grpc(
        "grpc: {answers: [{messages: [{hex: 0g}, {}, {text: '${usr}'}]}]}",
        &[
            &said(33, ".messages[0].hex`: must be pairs of hexadecimal digits"),
            &said(43, ".messages[1]`: one of text, json, file, base64, hex must be given"),
            &said(48, ".messages[2].text`: nothing is called `usr` by then, did you mean `user`?"),
        ],
    );
    check_grpc(
        "grpc: {answers: [{drop: afterMessages, status: 3}]}",
        &[&said(21, ".drop`: stands in the place of an end and its status")],
    );
    check_grpc(
        "grpc: {answers: [{end: never, statusMessage: x}]}",
        &[&said(21, ".end`: what never ends has no status and no trailing metadata")],
    );
    check_grpc(
        "grpc: {answers: [{trailingMetadata: [{name: Grpc-Status, value: '1'}]}]}",
        &[&said(41, ".trailingMetadata[0].name`: Grpc-Status is the protocol's own")],
    );
    check_grpc("grpc: {}", &["3: `clusters[0].grpc`: it answers nothing"]);
    check_grpc(
        "grpc: {routes: [{answers: [{}]}, {service: a/b, answers: []}]}",
        &[
            "19: `clusters[0].grpc.routes[0]`: it has no condition",
            "37: `clusters[0].grpc.routes[1].service`: is no name",
            "51: `clusters[0].grpc.routes[1].answers`: there are none",
        ],
    );
}

#[test]
fn a_cluster_speaks_one_protocol_or_is_not_there() {
    let fault = "clusters[0].grpc`: a cluster speaks gRPC, or HTTP with `answers` and `routes`";
    check("  answers:", "  grpc: {answers: [{}]}\n  answers:", &[&format!("s.yaml:7:3: `{fault}")]);
    check(
        "  answers:",
        "  unreachable: true\n  answers:",
        &["s.yaml:7:3: `clusters[0].unreachable`: where nobody is, nothing is answered"],
    );
    check_grpc(
        "grpc: {answers: [{}]}\n  hosts: [a]",
        &["s.yaml:8:3: `clusters[0].hosts`: are of documents, which are not fetched by gRPC"],
    );
}

#[test]
fn a_grpc_callout_is_looked_at_as_one() {
    let path = "tests[0].requests[1].expect.callouts[0]";
    let callouts = |callout: &str| format!("{{callouts: [{{cluster: c, {callout}}}]}}");
    check("{callouts: []}", &callouts("grpc: {service: a.B, messages: [{hex: '00'}], ended: true}"), &[]);
    check("{callouts: []}", &callouts("grpc: {}"), &[&format!("s.yaml:17:38: `{path}.grpc`: it asserts nothing")]);
    check(
        "{callouts: []}",
        &callouts("path: /, grpc: {method: M}"),
        &[&format!("s.yaml:17:47: `{path}.grpc`: has nothing beside it but `cluster`")],
    );
    check(
        "{callouts: []}",
        &callouts("grpc: {metod: M}"),
        &[&format!("s.yaml:17:45: `{path}.grpc.metod`: unknown field, did you mean `method`?")],
    );
}

/// Puts connections in the place of the suite's requests, and wants to be told this of what is in them.
#[track_caller]
fn check_connections(connections: &str, expected: &[&str]) {
    let (head, _) = FINE.split_once("  requests:").unwrap();
    let expected: Vec<_> = expected.iter().map(|said| format!("s.yaml:11:{said}")).collect();
    check_text(&format!("{head}  {connections}\n"), &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_connection_is_steps_and_what_comes_of_them() {
    let path = "tests[0].connections[0]";
    check_connections(
        "connections: [{steps: [{client: {text: '${user}'}}, {upstream: {hex: '00'}}, {end: client}, {reset: upstream}, \
         {advance: 1s}, {expect: {ended: true}}], expect: {closedBy: upstream}}]",
        &[],
    );
    check_connections(
        "connections: [{steps: [{client: {text: a}, end: client, expect: {}}, {}], expect: {client: {}}}]",
        &[
            &format!("26: `{path}.steps[0]`: only one of client, upstream, end, reset may be given"),
            &format!("59: `{path}.steps[0].expect`: it asserts nothing"),
            &format!("72: `{path}.steps[1]`: nothing happens in it"),
            &format!("86: `{path}.expect.client`: it asserts nothing"),
        ],
    );
    check_connections(
        "connections: [{expect: {upstream: {reached: false, ended: true}}}, {steps: [{clint: {text: a}}, {end: both}]}]",
        &[
            "80: `tests[0].connections[1].steps[0].clint`: unknown field, did you mean `client`?",
            "100: `tests[0].connections[1].steps[1].end`: `both` is none of client, upstream",
        ],
    );
    check_connections(
        "connections: [{expect: {upstream: {reached: false, ended: true}}}]",
        &[&format!(
            "38: `{path}.expect.upstream.reached`: a connection that does not get there has nothing to be looked at"
        )],
    );
    check_connections(
        "connections: [{steps: [{client: {text: '${usr}'}, expect: {client: {hex: 0g}}}]}]",
        &[
            &format!("36: `{path}.steps[0].client.text`: nothing is called `usr` by then, did you mean `user`?"),
            &format!("71: `{path}.steps[0].expect.client.hex`: must be pairs of hexadecimal digits"),
        ],
    );
}

#[test]
fn an_upstream_that_is_not_there_does_nothing() {
    check_connections("connections: [{unreachable: true, expect: {closedBy: upstream}}]", &[]);
    check_connections(
        "connections: [{unreachable: true, steps: [{end: upstream}], expect: {closedBy: upstream}}]",
        &["45: `tests[0].connections[0].steps[0]`: an upstream that is `unreachable` does nothing"],
    );
}

#[test]
fn a_test_has_requests_or_connections() {
    check(
        "- name: first\n",
        "- name: first\n  connections: [{expect: {closedBy: client}}]\n  upstream: {answers: [{}]}\n",
        &[
            "s.yaml:11:3: `tests[0].connections`: a test has requests or connections, and not both",
            "s.yaml:12:3: `tests[0].upstream`: is of requests; what a connection's upstream does is in its steps",
        ],
    );
    let (head, _) = FINE.split_once("  requests:").unwrap();
    check_text(&format!("{head}  connections: [{{}}]\n"), &["s.yaml:10:3: `tests[0]`: the test asserts nothing"]);
    check(
        "- name: first\n",
        "- name: first\n  expect: {inFront: a -> b}\n",
        &["s.yaml:11:12: `tests[0].expect.inFront`: is no chain: expected `-> a -> b -> http_connection_manager`"],
    );
}

#[test]
fn what_is_not_yaml_has_its_place() {
    check_text("kind: ChainTest\nkind: ChainTest\n", &["s.yaml:2:1: the key `kind` is given twice, first on line 1"]);
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/chain-test.schema.json");
    let expected = format!("{:#}\n", schema());
    let published = std::fs::read_to_string(&file).unwrap_or_default();
    if published != expected {
        let made = std::env::temp_dir().join("chain-test.schema.json");
        std::fs::write(&made, expected).unwrap();
        panic!("docs/chain-test.schema.json is not that of the types: cp {} {}", made.display(), file.display());
    }
}
