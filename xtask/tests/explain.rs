//! `explain` on real files: the chain, the reasons, what changes, and what is said to bad input.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use support::{Ended, command, finish, plugwright};

/// The three plugins of Istio's own documentation, in another order, and the policy that its chain has.
const DOCUMENTED: &str = "\
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: check-header, namespace: istio-ingress}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  url: oci://private-registry:5000/check-header:latest
  imagePullPolicy: IfNotPresent
  imagePullSecret: private-registry-pull-secret
  phase: AUTHZ
  priority: 10
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: acl-check, namespace: istio-ingress}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  url: oci://private-registry:5000/acl-check/acl:latest
  imagePullPolicy: Always
  phase: AUTHZ
  priority: 1000
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: openid-connect, namespace: istio-ingress}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  url: oci://private-registry:5000/openid-connect/openid:latest
  imagePullPolicy: IfNotPresent
  phase: AUTHN
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: istio-ingress}
spec: {jwtRules: [{issuer: i}]}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: elsewhere, namespace: shop}
spec: {url: oci://h/x:1}
";

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: gw-1, namespace: istio-ingress, labels: {istio: ingressgateway}}
";

const STATED: [&str; 6] = ["--namespace", "istio-ingress", "--kind", "gateway", "--label", "istio=ingressgateway"];

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn explain(folder: &Path, arguments: &[&str]) -> Ended {
    plugwright(folder, &[&["explain"], arguments].concat())
}

fn json_of(ended: Ended) -> Value {
    serde_json::from_str(&ended.fine().stdout).unwrap()
}

fn names(document: &Value, of: &str) -> Vec<String> {
    document[of].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_documented_chain_is_printed_as_it_is_documented() {
    let folder = folder(&[("r.yaml", DOCUMENTED), ("pods/pod.yaml", POD)]);
    let stated = explain(folder.path(), &[&["-f", "r.yaml"], &STATED[..]].concat()).fine();
    let named = explain(folder.path(), &["-f", "r.yaml", "pods", "--workload", "istio-ingress/gw-1"]).fine();
    for ended in [&stated, &named] {
        let first = ended.stdout.lines().next();
        assert_eq!(first, Some("-> openid-connect -> istio.authn -> acl-check -> check-header -> router"));
        let table: Vec<&str> = ended.stdout.lines().skip(2).take_while(|line| !line.is_empty()).collect();
        assert_eq!(table[0].split_whitespace().collect::<Vec<_>>(), ["#", "name", "phase", "priority", "from", "why"]);
        assert_eq!(table.len(), 1 + 12, "{}", ended.stdout);
        let row: Vec<&str> = table[4].split_whitespace().take(8).collect();
        let expected =
            ["4", "acl-check", "AUTHZ", "1000", "WasmPlugin", "istio-ingress/acl-check", "r.yaml:12", "Selects"];
        assert_eq!(row, expected);
        assert!(ended.stdout.contains("\nleft out\n  WasmPlugin shop/elsewhere  It counts in its own namespace"));
    }
    let all = explain(folder.path(), &[&["-f", "r.yaml", "--all"], &STATED[..]].concat()).fine();
    assert!(all.stdout.starts_with("-> istio.metadata_exchange -> openid-connect -> envoy.filters.http.jwt_authn -> "));
}

#[test]
fn json_has_the_chain_what_is_left_out_and_warnings() {
    let folder = folder(&[("r.yaml", DOCUMENTED)]);
    let document = json_of(explain(folder.path(), &[&["-f", "r.yaml", "--json"], &STATED[..]].concat()));
    let chain = document["chain"].as_array().unwrap();
    let has = |entry: &Value, expected: Value| {
        expected.as_object().unwrap().iter().all(|(key, value)| entry.get(key) == Some(value))
    };
    assert!(has(
        &chain[1],
        json!({"kind": "wasm", "name": "openid-connect", "namespace": "istio-ingress", "phase": "AUTHN", "priority": null,
            "reason": "Selects this workload by istio=ingressgateway; phase AUTHN, no priority, below every set one."})
    ));
    assert!(has(
        &chain[2],
        json!({"kind": "builtin", "name": "envoy.filters.http.jwt_authn", "namespace": null, "phase": null, "priority": null,
            "reason": "Checks JSON web tokens, for RequestAuthentication istio-ingress/jwt."})
    ));
    assert!(has(&chain[3], json!({"name": "acl-check", "phase": "AUTHZ", "priority": 1000})));
    assert_eq!(names(&document, "left_out"), ["elsewhere"]);
    assert_eq!(document["left_out"][0]["kind"], "WasmPlugin");
    let warnings = document["warnings"].as_array().unwrap();
    let stale = warnings.iter().find(|warning| warning["rule"] == "stale-tag").unwrap();
    assert!(has(
        stale,
        json!({"file": "r.yaml", "line": 6, "path": "spec.url", "resource": "WasmPlugin istio-ingress/check-header"})
    ));
    assert!(["what", "why", "fix"].iter().all(|key| stale[*key].as_str().is_some_and(|text| !text.is_empty())));
}

#[test]
fn standard_input_is_a_file_too() {
    let folder = folder(&[("pod.yaml", POD)]);
    let arguments = ["explain", "-f", "-", "pod.yaml", "--workload", "istio-ingress/gw-1"];
    let mut child = command(folder.path(), &arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(DOCUMENTED.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("-> openid-connect -> istio.authn"), "{text}");
    assert!(text.contains("-:12"), "{text}");
}

const SIDECAR: &str = "\
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, namespace: apps}
  spec: {template: {metadata: {labels: {app: web}}}}
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: apps}
  spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-db, port: 5432}]}
- apiVersion: extensions.istio.io/v1alpha1
  kind: TrafficExtension
  metadata: {name: in, namespace: apps}
  spec: {match: [{mode: SERVER, ports: [{number: 8080}]}], wasm: {url: 'oci://h/in:1'}}
- apiVersion: extensions.istio.io/v1alpha1
  kind: TrafficExtension
  metadata: {name: out, namespace: apps}
  spec: {match: [{mode: CLIENT}], priority: 1, wasm: {url: 'oci://h/out:1'}}
- apiVersion: extensions.istio.io/v1alpha1
  kind: TrafficExtension
  metadata: {name: net, namespace: istio-system}
  spec: {wasm: {url: 'oci://h/net:1', type: NETWORK}}
- apiVersion: extensions.istio.io/v1alpha1
  kind: TrafficExtension
  metadata: {name: script, namespace: apps}
  spec: {priority: 2, lua: {inlineCode: 'function envoy_on_request(h) end'}}
";

#[track_caller]
fn check_line(text: &str, flags: &[&str], expected: &str) {
    let folder = folder(&[("r.yaml", text)]);
    let ended = explain(folder.path(), &[&["-f", "r.yaml"], flags].concat()).fine();
    assert_eq!(ended.stdout.lines().next(), Some(expected));
}

#[test]
fn direction_port_and_layer_choose_the_listener() {
    let web = ["--workload", "apps/web"];
    let with = |flags: &[&'static str]| [&web[..], flags].concat();
    check_line(SIDECAR, &web, "-> script -> out -> in -> router");
    check_line(SIDECAR, &with(&["--direction", "inbound"]), "-> script -> in -> router");
    check_line(SIDECAR, &with(&["--direction", "inbound", "--port", "9090"]), "-> script -> router");
    check_line(SIDECAR, &with(&["--direction", "outbound"]), "-> script -> out -> router");
    check_line(SIDECAR, &with(&["--layer", "network"]), "-> net -> tcp_proxy");
    let inbound = ["--layer", "network", "--direction", "inbound", "--port"];
    check_line(SIDECAR, &with(&[&inbound[..], &["8080"]].concat()), "-> net -> http_connection_manager");
    check_line(SIDECAR, &with(&[&inbound[..], &["5432"]].concat()), "-> net -> tcp_proxy");
    check_line(SIDECAR, &with(&["--layer", "network", "--protocol", "http"]), "-> net -> http_connection_manager");
    check_line(SIDECAR, &with(&["--layer", "network", "--root-namespace", "mesh"]), "-> tcp_proxy");
}

const WAYPOINT: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: apps}
spec: {gatewayClassName: istio-waypoint}
---
{apiVersion: v1, kind: Namespace, metadata: {name: apps, labels: {istio.io/use-waypoint: wp}}}
---
{apiVersion: v1, kind: Service, metadata: {name: reviews, namespace: apps}}
---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: at-service, namespace: apps}
spec: {targetRefs: [{kind: Service, name: reviews}], wasm: {url: 'oci://h/x:1'}}
---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: at-entry, namespace: ext}
spec: {targetRefs: [{kind: ServiceEntry, group: networking.istio.io, name: api}], wasm: {url: 'oci://h/x:1'}}
---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: at-class, namespace: istio-system}
spec:
  targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}]
  priority: 1
  wasm: {url: 'oci://h/x:1'}
";

#[test]
fn a_waypoints_chain_is_for_services() {
    check_line(WAYPOINT, &["--workload", "apps/wp"], "-> at-class -> at-service -> router");
    let stated = ["--namespace", "apps", "--kind", "waypoint"];
    check_line(WAYPOINT, &stated, "-> at-class -> at-service -> router");
    let with = |flags: &[&'static str]| [&stated[..], flags].concat();
    check_line(WAYPOINT, &with(&["--service", "apps/other"]), "-> at-class -> router");
    check_line(WAYPOINT, &with(&["--service-entry", "ext/api"]), "-> at-class -> at-entry -> router");
}

#[test]
fn a_pull_request_shows_what_changes() {
    let after = DOCUMENTED.replace("priority: 10\n", "priority: 2000\n").replace("name: openid-connect", "name: oidc");
    let folder = folder(&[("before.yaml", DOCUMENTED), ("after.yaml", &after)]);
    let flags = [&["-f", "after.yaml", "--before", "before.yaml"], &STATED[..]].concat();
    let text = explain(folder.path(), &flags).fine().stdout;
    assert!(text.starts_with("-> oidc -> istio.authn -> check-header -> acl-check -> router\n"), "{text}");
    let changes: Vec<&str> =
        text.lines().skip_while(|line| *line != "changes").skip(1).take_while(|line| !line.is_empty()).collect();
    assert_eq!(changes.len(), 3, "{text}");
    assert!(changes[0].starts_with("  - removed istio-ingress/openid-connect from 2: It is no longer among"));
    assert!(changes[1].starts_with("  + added istio-ingress/oidc at 2: Selects this workload"));
    assert!(changes[2].starts_with("  ~ moved istio-ingress/check-header from 5 to 4: Its priority differs."));

    let document = json_of(explain(folder.path(), &[&["--json"], &flags[..]].concat()));
    let kinds: Vec<_> = document["changes"].as_array().unwrap().iter().map(|change| change["change"].clone()).collect();
    assert_eq!(kinds, ["removed", "added", "moved"]);
    assert_eq!(document["changes"][2]["fields"], json!(["priority"]));

    let same = [&["-f", "before.yaml", "--before", "before.yaml"], &STATED[..]].concat();
    assert!(explain(folder.path(), &same).fine().stdout.contains("\nnothing changes in the chain\n"));
    assert_eq!(json_of(explain(folder.path(), &[&["--json"], &same[..]].concat()))["changes"], json!([]));
}

#[test]
fn the_cache_is_asked_and_nobody_else() {
    let folder = folder(&[("r.yaml", DOCUMENTED)]);
    let arguments = [&["explain", "-f", "r.yaml", "--fetch"], &STATED[..]].concat();
    let run = |more: &[&str]| {
        let mut command = command(folder.path(), &[&arguments[..], more].concat());
        finish(command.env("XDG_CACHE_HOME", folder.path())).fine().stdout
    };
    let text = run(&[]);
    let line = text.lines().find(|line| line.starts_with("  WasmPlugin istio-ingress/check-header: ")).unwrap();
    assert!(
        line.contains(
            "will be asked for: its url was not pulled before; key (oci://private-registry:5000/check-header, "
        )
    );
    assert!(line.contains("; with Secret istio-ingress/private-registry-pull-secret, which is not in the given files"));
    let document: Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(document["chain"][1]["fetch"]["action"], "will-ask");
    assert_eq!(document["chain"][0].get("fetch"), None);
}

#[test]
fn without_a_proxy_it_is_the_one_that_the_extensions_are_for_as_with_run() {
    let folder = folder(&[("r.yaml", DOCUMENTED), ("other.yaml", WAYPOINT)]);
    let assumed = explain(folder.path(), &["-f", "r.yaml"]).fine();
    let gateway = "Assuming the outbound traffic of gateway `ingressgateway` in namespace `istio-ingress`, which ";
    assert!(assumed.stderr.starts_with(gateway), "{}", assumed.stderr);
    let named =
        ["-f", "r.yaml", "--namespace", "istio-ingress", "--kind", "gateway", "--label", "istio=ingressgateway"];
    assert_eq!(assumed.stdout.lines().next(), explain(folder.path(), &named).fine().stdout.lines().next());
    explain(folder.path(), &["-f", "r.yaml", "other.yaml"]).refused(2, &["several proxies", "--workload"]);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let folder = folder(&[("r.yaml", DOCUMENTED), ("pod.yaml", POD)]);
    for (arguments, part) in [
        (&["--workload", "a/b"][..], "--filename"),
        (&["-f", "r.yaml", "--namespace", "a"], "--kind"),
        (&["-f", "r.yaml", "--workload", "a/b", "--kind", "sidecar"], "--workload"),
        (&["-f", "r.yaml", "--namespace", "a", "--kind", "sidecar", "--label", "x"], "KEY=VALUE"),
        (&["-f", "r.yaml", "--namespace", "a", "--kind", "waypoint", "--service", "x"], "NAMESPACE/NAME"),
        (&["-f", "r.yaml", "--namespace", "a", "--kind", "banana"], "waypoint"),
        (&["-f", "r.yaml", "--namespace", "a", "--kind", "sidecar", "--port", "70000"], "70000"),
        (&["-f", "r.yaml", "pod.yaml", "--workload", "gw-1"], "NS/NAME"),
        (&["-f", "r.yaml", "pod.yaml", "--workload", "istio-ingress/nobody"], "it has istio-ingress/gw-1"),
        (&["-f", "-", "--before", "-", "--namespace", "a", "--kind", "sidecar"], "standard input"),
    ] {
        explain(folder.path(), arguments).refused(2, &[part]);
    }
}

#[test]
fn bad_files_are_exit_code_1_with_every_error() {
    let bad = "\
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: x}
spec: {url: 'registry:5000/x', phse: AUTHN}
";
    let folder = folder(&[("r.yaml", DOCUMENTED), ("bad.yaml", bad), ("worse.yaml", "a: [")]);
    fs::write(folder.path().join("binary.yaml"), [0xff, 0xfe]).unwrap();
    let sidecar = ["--namespace", "a", "--kind", "sidecar"];
    let parts = ["bad.yaml:4:13: `spec.url`", "write `oci://registry:5000/x`", "did you mean `phase`?", "worse.yaml:"];
    explain(folder.path(), &[&["-f", "bad.yaml", "worse.yaml"], &sidecar[..]].concat()).refused(1, &parts);
    let before = [&["-f", "r.yaml", "--before", "bad.yaml"], &sidecar[..]].concat();
    explain(folder.path(), &before).refused(1, &parts[..3]);
    explain(folder.path(), &[&["-f", "binary.yaml"], &sidecar[..]].concat()).refused(1, &["binary.yaml", "UTF-8"]);
    explain(folder.path(), &[&["-f", "none.yaml"], &sidecar[..]].concat()).refused(3, &["none.yaml"]);
}

#[test]
fn nothing_in_a_resource_reaches_the_terminal_as_it_is() {
    let text = "\
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: x, namespace: a}
spec: {selector: {matchLabels: {app: \"\\e[31mred\"}}, wasm: {url: 'oci://h/x:1'}}
";
    let folder = folder(&[("r.yaml", text)]);
    let ended = explain(folder.path(), &["-f", "r.yaml", "--namespace", "a", "--kind", "sidecar"]).fine();
    assert!(ended.stdout.contains("\\u{1b}[31mred") && !ended.stdout.contains('\u{1b}'), "{}", ended.stdout);
}
