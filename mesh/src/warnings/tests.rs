//! Each trap: what falls into it, and what stands beside it and does not.

use super::{Rule, Warning, all, locate, of_chain};
use crate::attach::{GATEWAY_NAME_LABEL, MeshOptions};
use crate::chain::resolve;
use crate::model::{Direction, Layer, Listener, Proxy, ProxyKind};
use crate::resources::{Reading, Source, read, read_located};

fn sources(text: &str) -> Vec<Source> {
    vec![Source { file: "f".to_owned(), text: text.to_owned() }]
}

fn reading(text: &str) -> Reading {
    let reading = read(&sources(text));
    assert_eq!(reading.errors, []);
    reading
}

/// A `TrafficExtension` with a wasm filter; `brief` is `namespace/name`.
fn wasm(brief: &str, spec: &str, filter: &str) -> String {
    extension(brief, &format!("{spec}wasm: {{url: 'oci://h/x:1'{filter}}}"))
}

fn extension(brief: &str, spec: &str) -> String {
    let (namespace, name) = brief.split_once('/').unwrap();
    format!(
        "---\napiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn pod(brief: &str, labels: &str) -> String {
    let (namespace, name) = brief.split_once('/').unwrap();
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}}}\n"
    )
}

fn gateway(brief: &str, class: &str) -> String {
    let (namespace, name) = brief.split_once('/').unwrap();
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: {name}, \
         namespace: {namespace}}}, spec: {{gatewayClassName: {class}}}}}\n"
    )
}

const LUA: &str = "lua: {inlineCode: 'function envoy_on_request(h) end'}";
const TO_GW: &str = "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: gw}], ";
const TO_WP: &str = "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}], ";

fn shown(warnings: &[Warning]) -> Vec<String> {
    warnings
        .iter()
        .map(|warning| {
            assert!(!warning.why.is_empty() && !warning.fix.is_empty() && !warning.what.is_empty());
            let name = warning.resource.rsplit('/').next().unwrap_or_default();
            format!("{name} {} {}", warning.path, warning.rule)
        })
        .collect()
}

/// The warnings of everything, as `name path rule`.
#[track_caller]
fn check(text: &[String], expected: &[&str]) -> Vec<Warning> {
    let warnings = all(&reading(&text.concat()).resources, &MeshOptions::default());
    assert_eq!(shown(&warnings), expected);
    warnings
}

#[test]
fn an_unset_priority_is_below_a_negative_one() {
    let phased = |brief: &str, rest: &str| wasm(brief, &format!("phase: AUTHZ, {rest}"), "");
    let low = phased("a/low", "priority: -1, ");
    let warnings = check(&[low.clone(), phased("a/unset", "")], &["unset spec.priority unset-priority"]);
    assert_eq!(
        warnings[0].what,
        "it has no priority, and so comes after TrafficExtension a/low, which has priority -1"
    );
    check(
        &[phased("istio-system/low", "priority: 0, "), phased("a/unset", "")],
        &["unset spec.priority unset-priority"],
    );
    check(&[low.clone(), phased("istio-system/unset", "")], &["unset spec.priority unset-priority"]);
    // Above zero is where the documentation has it too; other phases, namespaces and workloads are not met.
    check(&[phased("a/high", "priority: 1, "), phased("a/unset", "")], &[]);
    check(&[low.clone(), wasm("a/unset", "phase: STATS, ", "")], &[]);
    check(&[low, phased("b/unset", "")], &[]);
    let selecting =
        |name: &str, app: &str, rest: &str| phased(name, &format!("selector: {{matchLabels: {{app: {app}}}}}, {rest}"));
    check(&[selecting("a/low", "x", "priority: -1, "), selecting("a/unset", "w", "")], &[]);
    check(
        &[selecting("a/low", "x", "priority: -1, "), selecting("a/unset", "x", "")],
        &["unset spec.priority unset-priority"],
    );
}

#[test]
fn equal_priorities_are_decided_by_something_else() {
    let equal = |brief: &str| wasm(brief, "phase: AUTHZ, priority: 3, ", "");
    let warnings = check(
        &[equal("a/x"), equal("a/z"), equal("istio-system/r")],
        &["z spec.priority equal-priority", "r spec.priority equal-priority"],
    );
    assert_eq!(
        warnings[0].what,
        "it has phase AUTHZ and priority 3 as TrafficExtension a/x has, which comes before it by their names, as long \
         as both are of the same age"
    );
    assert!(warnings[1].what.contains("TrafficExtension a/z has, which comes before it by their namespaces"));
    check(&[equal("a/x"), equal("b/w"), wasm("a/v", "phase: AUTHZ, priority: 4, ", "")], &[]);
    check(&[wasm("a/x", TO_GW, ""), wasm("a/z", TO_WP, ""), wasm("a/v", "", "")], &[]);
    check(&[wasm("a/x", TO_GW, ""), wasm("a/z", TO_GW, "")], &["z spec.priority equal-priority"]);
    check(&[wasm("a/x", "", ""), wasm("a/z", "", ", type: NETWORK")], &[]);
    let mut old = equal("a/z");
    old = old.replace("namespace: a", "namespace: a, creationTimestamp: 2024-01-01T00:00:00Z");
    let warnings = check(&[equal("a/x"), old], &["z spec.priority equal-priority"]);
    assert!(warnings[0].what.ends_with("by their age"), "{}", warnings[0].what);
}

#[test]
fn server_never_holds_at_a_gateway() {
    let spec = format!("{TO_GW}match: [{{mode: SERVER}}, {{mode: CLIENT}}], ");
    check(&[wasm("a/x", &spec, "")], &["x spec.match[0].mode server-on-gateway"]);
    let classic = "selector: {matchLabels: {istio: ingressgateway}}, match: [{mode: SERVER}], ";
    check(&[wasm("a/x", classic, "")], &["x spec.match[0].mode server-on-gateway", "x spec.match match-never-holds"]);
    check(&[wasm("a/x", "selector: {matchLabels: {app: web}}, match: [{mode: SERVER}], ", "")], &[]);
    check(&[wasm("a/x", &format!("{TO_WP}match: [{{mode: SERVER}}], "), "")], &[]);
    // The class says what the name does not.
    let spec = format!("{TO_WP}match: [{{mode: SERVER}}, {{}}], ");
    check(&[gateway("a/waypoint", "istio"), wasm("a/x", &spec, "")], &["x spec.match[0].mode server-on-gateway"]);
}

#[test]
fn ports_and_client_never_hold_at_a_waypoint() {
    let spec = format!("{TO_WP}match: [{{ports: [{{number: 80}}]}}, {{mode: CLIENT}}, {{}}], ");
    check(
        &[wasm("a/x", &spec, "")],
        &["x spec.match[0].ports ports-on-waypoint", "x spec.match[1].mode client-on-waypoint"],
    );
    let to_service = "targetRefs: [{kind: Service, name: web}], match: [{ports: [{number: 80}]}], ";
    check(
        &[wasm("a/x", to_service, "")],
        &["x spec.match[0].ports ports-on-waypoint", "x spec.match match-never-holds"],
    );
    // A network listener has a port, and so has a gateway's.
    check(&[wasm("a/x", to_service, ", type: NETWORK")], &[]);
    check(&[wasm("a/x", &format!("{TO_GW}match: [{{ports: [{{number: 80}}]}}], "), "")], &[]);
}

#[test]
fn a_waypoint_looks_at_no_selector() {
    let waypoint_pod = pod("a/p", &format!("app: web, {GATEWAY_NAME_LABEL}: waypoint"));
    let selecting = wasm("a/x", "selector: {matchLabels: {app: web}}, ", "");
    let expected = &["x spec.selector selector-on-waypoint"];
    check(&[waypoint_pod, selecting.clone()], expected);
    let by_label = format!("selector: {{matchLabels: {{{GATEWAY_NAME_LABEL}: waypoint}}}}, ");
    check(&[wasm("a/x", &by_label, "")], expected);
    check(&[pod("a/p", "app: web"), selecting.clone()], &[]);
    let ambient =
        "---\n{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {istio.io/dataplane-mode: ambient}}}\n";
    check(&[ambient.to_owned(), pod("a/p", "app: web"), selecting], expected);
}

#[test]
fn a_target_must_be_a_gateway() {
    let target = wasm("a/x", TO_GW, "");
    check(&[pod("a/gw", "app: web"), target.clone()], &["x spec.targetRefs[0].name target-on-pod"]);
    check(&[pod("a/p", "app: gw"), target.clone()], &["x spec.targetRefs[0].name target-on-pod"]);
    check(&[pod("a/gw", "app: web"), gateway("a/gw", "istio"), target.clone()], &[]);
    check(&[pod("a/gw", &format!("{GATEWAY_NAME_LABEL}: gw")), target.clone()], &[]);
    check(&[gateway("b/gw", "istio"), target.clone()], &["x spec.targetRefs[0].name target-not-given"]);
    check(&[target], &[]);
    let service = "---\n{apiVersion: v1, kind: Service, metadata: {name: web, namespace: a}}\n";
    let namespace = |labels: &str| {
        format!("---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: a, labels: {{{labels}}}}}}}\n")
    };
    let to_service = wasm("a/x", "targetRefs: [{kind: Service, name: web}], ", "");
    check(&[service.to_owned(), namespace(""), to_service.clone()], &["x spec.targetRefs[0].name target-on-pod"]);
    check(&[service.to_owned(), namespace("istio.io/use-waypoint: waypoint"), to_service.clone()], &[]);
    check(&[service.to_owned(), to_service], &[]);
}

#[test]
fn a_selector_that_selects_nothing_given() {
    let selecting =
        |namespace: &str| wasm(&format!("{namespace}/x"), "selector: {matchLabels: {app: web, v: '1'}}, ", "");
    let expected = &["x spec.selector.matchLabels selector-matches-nothing"];
    check(&[pod("a/p", "app: web, v: '2'"), selecting("a")], expected);
    check(&[pod("b/p", "app: web, v: '1'"), selecting("a")], expected);
    check(&[pod("b/p", "app: web, v: '1', z: z"), selecting("istio-system")], &[]);
    check(&[pod("a/p", "app: web, v: '1', z: z"), selecting("a")], &[]);
    check(&[selecting("a")], &[]);
}

#[track_caller]
fn check_filter(filter: &str, expected: &[&str]) -> Vec<Warning> {
    check(&[extension("a/x", &format!("phase: STATS, wasm: {{{filter}}}"))], expected)
}

#[test]
fn a_tag_that_moves_is_pulled_once() {
    let expected = &["x spec.wasm.url stale-tag"];
    check_filter("url: 'oci://h:5000/x:latest', imagePullPolicy: IfNotPresent", expected);
    check_filter("url: 'h/x', imagePullPolicy: IfNotPresent", expected);
    check_filter("url: 'oci://h:5000/x'", expected);
    let digest = "0".repeat(64);
    for fine in [
        "url: 'oci://h/x:latest'".to_owned(),
        "url: 'oci://h/x', imagePullPolicy: Always".to_owned(),
        "url: 'oci://h/x:1', imagePullPolicy: IfNotPresent".to_owned(),
        format!("url: 'oci://h/x', sha256: '{digest}'"),
        format!("url: 'oci://h/x@sha256:{digest}', imagePullPolicy: IfNotPresent"),
        "url: 'https://h/x', imagePullPolicy: IfNotPresent".to_owned(),
    ] {
        check_filter(&fine, &[]);
    }
}

#[test]
fn a_files_checksum_is_not_checked() {
    let digest = "0".repeat(64);
    check_filter(&format!("url: 'file:///x.wasm', sha256: '{digest}'"), &["x spec.wasm.sha256 sha256-on-file"]);
    check_filter(&format!("url: 'https://h/x.wasm', sha256: '{digest}'"), &[]);
}

#[test]
fn failing_open() {
    let open = ", failStrategy: FAIL_OPEN";
    for phase in ["AUTHN", "AUTHZ"] {
        check(
            &[wasm("a/x", &format!("phase: {phase}, "), open)],
            &["x spec.wasm.failStrategy fail-open-auth", "x spec.wasm.failStrategy fail-open-crash"],
        );
    }
    check(&[wasm("a/x", "phase: STATS, ", open)], &["x spec.wasm.failStrategy fail-open-crash"]);
    check(&[wasm("a/x", "phase: AUTHN, ", ", failStrategy: FAIL_RELOAD")], &[]);
}

#[test]
fn numbers_that_lose_digits() {
    let config = |config: &str| format!(", pluginConfig: {{{config}}}");
    let warnings = check(
        &[wasm("a/x", "", &config("a: [{b.c: 9007199254740993}]"))],
        &["x spec.wasm.pluginConfig.a[0][\"b.c\"] number-precision"],
    );
    assert!(warnings[0].what.contains("9007199254740992"));
    check(&[wasm("a/x", "", &config("a: -123456789012345678901"))], &["x spec.wasm.pluginConfig.a number-precision"]);
    check(&[wasm("a/x", "", &config("a: 9007199254740991, b: 1.5e300, c: '9007199254740993'"))], &[]);
}

#[test]
fn secrets_in_plain_text_are_found_and_not_quoted() {
    let config = |config: &str| format!(", pluginConfig: {{{config}}}");
    for (given, path) in [
        ("client_secret: hunter2", "client_secret"),
        ("nested: {apiKey: hunter2}", "nested.apiKey"),
        ("rules: [{credentials: [hunter2, b]}]", "rules[0].credentials[0]"),
        ("verification_key: hunter2", "verification_key"),
        ("x: '-----BEGIN RSA PRIVATE KEY-----hunter2'", "x"),
        ("x: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.c2lnbmF0dXJlaHVudGVyMg", "x"),
    ] {
        let warnings =
            check(&[wasm("a/x", "", &config(given))], &[&format!("x spec.wasm.pluginConfig.{path} secret-in-config")]);
        assert!(!format!("{warnings:?}").contains("hunter2"));
        assert!(warnings[0].fix.contains("valueFrom: HOST"));
    }
    for fine in [
        "token_header: x-token",
        "secretName: s",
        "password: ''",
        "token: '${TOKEN}'",
        "tokens: 3",
        "function: read_data",
    ] {
        check(&[wasm("a/x", "", &config(fine))], &[]);
    }
    let url = |url: &str| {
        check(&[extension("a/x", &format!("wasm: {{url: '{url}'}}"))], &["x spec.wasm.url secret-in-config"])
    };
    assert!(!format!("{:?}", url("https://ann:hunter2@h/x.wasm")).contains("hunter2"));
    url("oci://hunter2@h/x:1");
    let env = |variable: &str| format!(", vmConfig: {{env: [{{{variable}}}]}}");
    check(
        &[wasm("a/x", "", &env("name: DB_PASSWORD, value: hunter2"))],
        &["x spec.wasm.vmConfig.env[0].value secret-in-config"],
    );
    check(&[wasm("a/x", "", &env("name: DB_PASSWORD, valueFrom: HOST"))], &[]);
}

#[test]
fn variables_that_istio_strips() {
    let env = ", vmConfig: {env: [{name: OK}, {name: ISTIO_META_X, valueFrom: HOST}]}";
    check(&[wasm("a/x", "", env)], &["x spec.wasm.vmConfig.env[1].name istio-meta-env"]);
    check(&[extension("a/x", &format!("wasm: {{url: 'file:///x'{env}}}"))], &[]);
}

#[test]
fn a_wasm_plugin_has_a_successor() {
    let plugin = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: x, namespace: a}\n\
                  spec: {url: 'oci://h/x:1', failStrategy: FAIL_OPEN}\n";
    check(&[plugin.to_owned()], &["x spec.failStrategy fail-open-crash", "x kind wasm-plugin-superseded"]);
}

#[test]
fn lua_runs_on_http_ports_only() {
    let service = "---\n{apiVersion: v1, kind: Service, metadata: {name: s, namespace: a}, spec: {ports: [\
                   {name: tcp-db, port: 5432}, {name: http, port: 80, targetPort: 8080}]}}\n";
    let lua = |ports: &str| extension("a/x", &format!("match: [{{ports: [{ports}]}}], {LUA}"));
    check(&[service.to_owned(), lua("{number: 5432}")], &["x spec.match[0].ports lua-in-network"]);
    check(&[service.to_owned(), lua("{number: 5432}, {number: 8080}")], &[]);
    check(&[service.to_owned(), lua("{number: 1}")], &[]);
}

#[test]
fn one_plugin_name_in_one_vm() {
    let named =
        |brief: &str, rest: &str| wasm(brief, "phase: STATS, priority: PRIORITY, ", &format!(", pluginName: pn{rest}"));
    let one = named("a/x", "").replace("PRIORITY", "1");
    let other = |text: String| text.replace("PRIORITY", "2");
    check(&[one.clone(), other(named("a/w", ""))], &["w spec.wasm.pluginName shared-plugin-name"]);
    check(&[one.clone(), other(named("a/w", ", vmConfig: {env: [{name: A}]}"))], &[]);
    check(&[one.clone(), other(named("b/w", ""))], &[]);
    check(&[one, other(wasm("a/w", "phase: STATS, priority: PRIORITY, ", ", pluginName: m"))], &[]);
    check(&[wasm("a/x", "priority: 1, ", ""), wasm("a/w", "priority: 2, ", "")], &[]);
}

fn proxy(kind: ProxyKind, labels: &[(&str, &str)]) -> Proxy {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Proxy { name: "p".to_owned(), namespace: "a".to_owned(), labels, kind }
}

const ANY: Listener = Listener { direction: None, port: None, layer: Layer::Http, protocol: None };

/// The warnings of one chain.
#[track_caller]
fn check_chain(text: &[String], proxy: &Proxy, listener: Listener, expected: &[&str]) {
    let resources = reading(&text.concat()).resources;
    let mesh = MeshOptions::default();
    let chain = resolve(&resources, proxy, &listener, &mesh);
    assert_eq!(shown(&of_chain(&resources, &chain, &mesh)), expected);
}

#[test]
fn a_chain_has_its_own_warnings_only() {
    let sidecar = proxy(ProxyKind::Sidecar, &[("app", "web")]);
    let open = ", failStrategy: FAIL_OPEN";
    check_chain(
        &[wasm("a/here", "priority: 1, ", open), wasm("b/elsewhere", "", open)],
        &sidecar,
        ANY,
        &["here spec.wasm.failStrategy fail-open-crash"],
    );
    // Left out for its direction, so what it does when it crashes is no matter here.
    let outbound = Listener { direction: Some(Direction::Outbound), ..ANY };
    check_chain(&[wasm("a/x", "match: [{mode: SERVER}], ", open)], &sidecar, outbound, &[]);
}

#[test]
fn a_chain_knows_who_meets_whom() {
    let sidecar = proxy(ProxyKind::Sidecar, &[("app", "web"), ("v", "1")]);
    let by = |name: &str, label: &str, rest: &str| {
        wasm(name, &format!("selector: {{matchLabels: {{{label}}}}}, {rest}"), "")
    };
    let text = [by("a/one", "app: web", "priority: -1, "), by("a/two", "v: '1'", ""), by("a/three", "v: '1'", "")];
    check_chain(
        &text,
        &sidecar,
        ANY,
        &["two spec.priority unset-priority", "two spec.priority equal-priority", "three spec.priority unset-priority"],
    );
}

#[test]
fn what_a_trap_keeps_out_of_the_chain_is_warned_of() {
    let label = (GATEWAY_NAME_LABEL, "g");
    let target = "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g}], ";
    let server = format!("{target}match: [{{mode: SERVER}}], ");
    let expected = ["x spec.match[0].mode server-on-gateway", "x spec.match match-never-holds"];
    let gateway = proxy(ProxyKind::Gateway, &[label]);
    check_chain(
        &[wasm("a/x", &server, "")],
        &gateway,
        Listener { direction: Some(Direction::Outbound), ..ANY },
        &expected,
    );
    check_chain(&[wasm("a/x", "match: [{mode: SERVER}], ", "")], &gateway, ANY, &expected);
    let waypoint = proxy(ProxyKind::Waypoint, &[label, ("app", "wp")]);
    let selecting = wasm("a/x", "selector: {matchLabels: {app: wp}}, ", "");
    check_chain(&[selecting], &waypoint, ANY, &["x spec.selector selector-on-waypoint"]);
    let sidecar = proxy(ProxyKind::Sidecar, &[("app", "web")]);
    check_chain(&[wasm("a/x", target, "")], &sidecar, ANY, &["x spec.targetRefs[0].name target-on-pod"]);
    check_chain(&[wasm("a/x", target, ""), self::gateway("a/g", "istio")], &sidecar, ANY, &[]);
    let network = Listener { layer: Layer::Network, ..ANY };
    check_chain(&[extension("a/x", LUA)], &sidecar, network, &["x spec.lua lua-in-network"]);
}

#[test]
fn warnings_find_their_lines() {
    let text = wasm("a/x", "phase: AUTHN, ", "\n, failStrategy: FAIL_OPEN, pluginConfig: {a: {\n password: s}}");
    let (reading, locator) = read_located(&sources(&text));
    let mut warnings = all(&reading.resources, &MeshOptions::default());
    locate(&mut warnings, &locator);
    let places: Vec<_> = warnings.iter().map(|w| (w.rule.id(), w.place.line, w.place.column)).collect();
    assert_eq!(places, [("fail-open-auth", 6, 3), ("fail-open-crash", 6, 3), ("secret-in-config", 7, 2)]);
    assert!(warnings[0].to_string().starts_with(
        "f:6:3: TrafficExtension a/x: `spec.wasm.failStrategy`: it is to fail open, in phase AUTHN [fail-open-auth]\n  \
         why: "
    ));
}

#[test]
fn rules_are_known_by_their_names() {
    for rule in Rule::ALL {
        assert_eq!(rule.id().parse(), Ok(*rule));
    }
    assert_eq!(
        "stale-tags".parse::<Rule>(),
        Err("there is no rule `stale-tags`, did you mean `stale-tag`?".to_owned())
    );
}
