//! Chains as Istio builds them: built-in filters, order, and what is left out.

use proptest::prelude::*;

use super::{resolve, resolve_in_front};
use crate::attach::{GATEWAY_NAME_LABEL, MeshOptions};
use crate::model::{Direction, Filter, FilterChain, FilterKind, Layer, Listener, Protocol, Proxy, ProxyKind};
use crate::resources::{Resources, Source, read};

fn resources(text: &str) -> Resources {
    let reading = read(&[Source { file: "f".to_owned(), text: text.to_owned() }]);
    assert_eq!(reading.errors, []);
    reading.resources
}

fn proxy(kind: ProxyKind) -> Proxy {
    let labels = match kind {
        ProxyKind::Sidecar => vec![],
        ProxyKind::Gateway | ProxyKind::Waypoint => vec![(GATEWAY_NAME_LABEL.to_owned(), "g".to_owned())],
    };
    Proxy { name: "p".to_owned(), namespace: "apps".to_owned(), labels: labels.into_iter().collect(), kind }
}

const INBOUND: Listener =
    Listener { direction: Some(Direction::Inbound), port: None, layer: Layer::Http, protocol: None };
const OUTBOUND: Listener =
    Listener { direction: Some(Direction::Outbound), port: None, layer: Layer::Http, protocol: None };

/// An extension as `namespace/name phase priority`, with `-` for what is unset.
fn extension(brief: &str) -> String {
    plugin(brief, "WasmPlugin", "")
}

fn plugin(brief: &str, kind: &str, spec: &str) -> String {
    let mut words = brief.split(' ');
    let mut next = || words.next().filter(|word| *word != "-");
    let (namespace, name) = next().unwrap().split_once('/').unwrap();
    let phase = next().map(|phase| format!(", phase: {phase}")).unwrap_or_default();
    let priority = next().map(|priority| format!(", priority: {priority}")).unwrap_or_default();
    let created = next().map(|time| format!(", creationTimestamp: {time}")).unwrap_or_default();
    let filter = if kind == "WasmPlugin" { "url: h/x" } else { "wasm: {url: h/x}" };
    format!(
        "---\napiVersion: extensions.istio.io/v1alpha1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}{created}}}\nspec: {{{filter}{phase}{priority}{spec}}}\n"
    )
}

fn extensions_of(chain: &FilterChain) -> Vec<String> {
    let extensions = chain.filters.iter().filter_map(|filter| match &filter.kind {
        FilterKind::Extension(extension) => Some(format!("{}/{}", extension.namespace, extension.name)),
        FilterKind::BuiltIn(_) => None,
    });
    extensions.collect()
}

/// The order of the extensions at a sidecar in `apps`.
#[track_caller]
fn check_order(text: &[String], expected: &[&str]) {
    let chain = resolve(&resources(&text.concat()), &proxy(ProxyKind::Sidecar), &INBOUND, &MeshOptions::default());
    assert_eq!(extensions_of(&chain), expected);
}

/// The names of all filters, without the common prefixes.
#[track_caller]
fn check_chain(text: &str, kind: ProxyKind, listener: Listener, expected: &str) {
    let chain = resolve(&resources(text), &proxy(kind), &listener, &MeshOptions::default());
    let line = chain.to_string().replace("envoy.filters.http.", "").replace("-> ", "");
    assert_eq!(line, expected);
    assert!(chain.filters.iter().all(|filter| filter.reason.ends_with('.')));
}

fn all_phases(spec: &str) -> String {
    let phases = ["authz AUTHZ", "none -", "authn AUTHN", "stats STATS"];
    phases.map(|phase| plugin(&format!("apps/{phase}"), "WasmPlugin", spec)).concat()
}

fn policies(spec: &str) -> String {
    let policy = |kind: &str, name: &str, action: &str| {
        format!(
            "---\n{{apiVersion: security.istio.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: apps}}, \
             spec: {{{spec}{action}}}}}\n"
        )
    };
    [
        policy("RequestAuthentication", "jwt", "jwtRules: [{issuer: i}]"),
        policy("AuthorizationPolicy", "rbac", "action: DENY, rules: [{}]"),
        policy("AuthorizationPolicy", "custom", "action: CUSTOM, provider: {name: p}, rules: [{}]"),
    ]
    .concat()
}

const TARGET: &str = ", targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g}]";
const POLICY_TARGET: &str = "targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g}], ";

#[test]
fn sidecar_inbound() {
    check_chain(
        &(all_phases("") + &policies("")),
        ProxyKind::Sidecar,
        INBOUND,
        "istio.metadata_exchange rbac ext_authz authn jwt_authn authz rbac stats none grpc_web grpc_stats fault cors \
         istio.stats router",
    );
    check_chain(
        &all_phases(""),
        ProxyKind::Sidecar,
        INBOUND,
        "istio.metadata_exchange authn authz stats none grpc_web grpc_stats fault cors istio.stats router",
    );
}

#[test]
fn sidecar_outbound_has_no_policies_and_has_alpn() {
    check_chain(
        &(all_phases("") + &policies("")),
        ProxyKind::Sidecar,
        OUTBOUND,
        "istio.metadata_exchange authn authz stats none grpc_web grpc_stats istio.alpn fault cors istio.stats router",
    );
}

#[test]
fn gateway() {
    check_chain(
        &(all_phases(TARGET) + &policies(POLICY_TARGET)),
        ProxyKind::Gateway,
        OUTBOUND,
        "istio.metadata_exchange rbac ext_authz authn jwt_authn authz rbac stats none grpc_web grpc_stats istio.alpn \
         fault cors istio.stats router",
    );
}

#[test]
fn waypoint_has_stats_after_cors() {
    check_chain(
        &(all_phases(TARGET) + &policies(POLICY_TARGET)),
        ProxyKind::Waypoint,
        INBOUND,
        "rbac ext_authz authn jwt_authn authz rbac grpc_stats fault cors stats none istio.stats router",
    );
}

#[test]
fn network_chain() {
    let listener = Listener { layer: Layer::Network, ..INBOUND };
    check_chain(
        &(all_phases(", type: NETWORK") + &extension("apps/http -") + &policies("")),
        ProxyKind::Sidecar,
        listener,
        "envoy.filters.network.rbac envoy.filters.network.ext_authz authn authz envoy.filters.network.rbac stats none \
         istio.stats envoy.filters.network.tcp_proxy",
    );
}

#[test]
fn the_network_chain_of_an_http_port_ends_in_http() {
    let listener = Listener { layer: Layer::Network, protocol: Some(Protocol::Http), ..INBOUND };
    check_chain(
        &(all_phases(", type: NETWORK") + &extension("apps/http -") + &policies("")),
        ProxyKind::Sidecar,
        listener,
        "authn authz stats none envoy.filters.network.http_connection_manager",
    );
}

#[test]
fn the_network_chain_of_an_outbound_tcp_port_has_no_policies() {
    let listener = Listener { layer: Layer::Network, protocol: Some(Protocol::Tcp), ..OUTBOUND };
    check_chain(
        &(all_phases(", type: NETWORK") + &policies("")),
        ProxyKind::Sidecar,
        listener,
        "authn authz stats none istio.stats envoy.filters.network.tcp_proxy",
    );
}

#[test]
fn a_waypoints_chain_for_a_service_gathers_the_services_namespace_last() {
    let service = |namespace: &str| crate::attach::AttachedService {
        kind: crate::attach::ServiceKind::Service,
        namespace: namespace.to_owned(),
        name: "web".to_owned(),
    };
    let to_service = ", targetRefs: [{kind: Service, name: web}]";
    let class = ", targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}]";
    let text = [
        plugin("shop/a AUTHN 1", "WasmPlugin", to_service),
        plugin("istio-system/b AUTHN 1", "WasmPlugin", class),
        plugin("apps/c AUTHN 1", "WasmPlugin", TARGET),
        plugin("other/d AUTHN 1", "WasmPlugin", to_service),
        plugin("apps/e AUTHN 2", "TrafficExtension", to_service),
    ];
    let mesh = MeshOptions { services: vec![service("shop"), service("apps")], ..MeshOptions::default() };
    let chain = resolve(&resources(&text.concat()), &proxy(ProxyKind::Waypoint), &INBOUND, &mesh);
    assert_eq!(extensions_of(&chain), ["apps/e", "apps/c", "istio-system/b", "shop/a"]);
    assert_eq!(chain.left_out.len(), 1);
}

#[test]
fn only_extensions_are_in_front_of_http() {
    let text = all_phases(", type: NETWORK") + &extension("apps/http -") + &policies("");
    let proxy = proxy(ProxyKind::Sidecar);
    let chain = resolve_in_front(&resources(&text), &proxy, &INBOUND, &MeshOptions::default()).unwrap();
    let names: Vec<_> = chain.filters.iter().map(Filter::name).collect();
    assert_eq!(names, ["authn", "authz", "stats", "none", "envoy.filters.network.http_connection_manager"]);
    assert_eq!(chain.listener.layer, Layer::Network);
    let none = resolve_in_front(&resources(&extension("apps/http -")), &proxy, &INBOUND, &MeshOptions::default());
    assert_eq!(none, None);
}

#[test]
fn policies_for_others_add_no_filters() {
    check_chain(
        &policies("selector: {matchLabels: {app: other}}, "),
        ProxyKind::Sidecar,
        INBOUND,
        "istio.metadata_exchange grpc_web grpc_stats fault cors istio.stats router",
    );
}

#[test]
fn priority_descends_and_unset_sorts_below_negative() {
    check_order(
        &["apps/a AUTHN", "apps/b AUTHN -5", "apps/c AUTHN 7", "apps/d AUTHN 0"].map(extension),
        &["apps/c", "apps/d", "apps/b", "apps/a"],
    );
}

#[test]
fn age_then_name_decide_equal_priorities() {
    check_order(
        &[
            "apps/a - - 2024-01-02T00:00:00Z",
            "apps/c - - 2024-01-01T00:00:00Z",
            "apps/b - - 2024-01-01T00:00:00Z",
            "apps/z - -",
        ]
        .map(extension),
        &["apps/z", "apps/b", "apps/c", "apps/a"],
    );
}

#[test]
fn a_wasm_plugins_name_sorts_with_its_marker() {
    check_order(&["apps/foo -", "apps/foo-bar -"].map(extension), &["apps/foo-bar", "apps/foo"]);
    let traffic = plugin("apps/foo -", "TrafficExtension", "");
    check_order(&[extension("apps/foo-bar -"), traffic], &["apps/foo", "apps/foo-bar"]);
}

#[test]
fn own_namespace_comes_before_the_root_whatever_the_age() {
    check_order(
        &[
            "istio-system/a AUTHN 1 2020-01-01T00:00:00Z",
            "apps/b AUTHN 1 2024-01-01T00:00:00Z",
            "istio-system/c AUTHN 2 2024-01-01T00:00:00Z",
        ]
        .map(extension),
        &["istio-system/c", "apps/b", "istio-system/a"],
    );
}

#[test]
fn everything_left_out_has_its_reason() {
    let text = [
        extension("other/a -"),
        plugin("apps/b -", "WasmPlugin", ", type: NETWORK"),
        plugin("apps/c -", "WasmPlugin", ", match: [{mode: CLIENT}]"),
        plugin("apps/d -", "WasmPlugin", ", selector: {matchLabels: {app: x}}"),
    ];
    let chain = resolve(&resources(&text.concat()), &proxy(ProxyKind::Sidecar), &INBOUND, &MeshOptions::default());
    let left_out: Vec<_> = chain
        .left_out
        .iter()
        .map(|out| format!("{} {}/{}: {}", out.kind, out.namespace, out.name, out.reason))
        .collect();
    assert_eq!(
        left_out,
        [
            "WasmPlugin apps/b: Its type is NETWORK: it runs in the network chain, before HTTP is parsed.",
            "WasmPlugin apps/c: No `match` entry takes its traffic, which is SERVER at sidecar `p`.",
            "WasmPlugin apps/d: It selects app=x, and sidecar `p` has no label `app`.",
            "WasmPlugin other/a: It counts in its own namespace `other`, and sidecar `p` is in `apps`.",
        ]
    );
}

#[test]
fn http_filters_and_lua_are_left_out_of_the_network_chain() {
    let lua = "---\n{apiVersion: extensions.istio.io/v1alpha1, kind: TrafficExtension, metadata: {name: l, namespace: apps}, \
               spec: {lua: {inlineCode: 'function envoy_on_request(h) end'}}}";
    let text = extension("apps/a -") + lua;
    let listener = Listener { layer: Layer::Network, ..INBOUND };
    let chain = resolve(&resources(&text), &proxy(ProxyKind::Sidecar), &listener, &MeshOptions::default());
    let reasons: Vec<_> = chain.left_out.iter().map(|out| out.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "It is an HTTP filter, and this is the network chain.",
            "It is Lua, which runs in HTTP chains only, and this is the network chain."
        ]
    );
}

#[test]
fn reasons_tell_attachment_match_phase_and_priority() {
    let text = plugin("apps/a AUTHN 5", "WasmPlugin", ", match: [{ports: [{number: 1}]}, {mode: SERVER}]")
        + &extension("apps/b -");
    let listener = Listener { port: Some(80), ..INBOUND };
    let chain = resolve(&resources(&text), &proxy(ProxyKind::Sidecar), &listener, &MeshOptions::default());
    let reason = |name: &str| chain.filters.iter().find(|filter| filter.name() == name).unwrap().reason.as_str();
    assert_eq!(
        reason("a"),
        "Applies to every workload of namespace `apps`; `match[1]` takes this traffic; phase AUTHN, priority 5."
    );
    assert_eq!(
        reason("b"),
        "Applies to every workload of namespace `apps`; no phase, no priority, below every set one."
    );
    assert_eq!(reason("istio.stats"), "Part of every sidecar chain: records Istio's metrics.");
}

/// The three plugins of Istio's own documentation, whose chain it gives.
#[test]
fn the_documented_example_gives_the_documented_chain() {
    let text = "
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
  pluginConfig: {read_header: authz_complete, verification_key: a89gAzxvls0JKAKIJSBnnvvvkIO, function: read_data}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: acl-check, namespace: istio-ingress}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  url: oci://private-registry:5000/acl-check/acl:latest
  imagePullPolicy: Always
  imagePullSecret: private-registry-pull-secret
  phase: AUTHZ
  priority: 1000
  pluginConfig: {acl_server: some_server, set_header: authz_complete}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: openid-connect, namespace: istio-ingress}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  url: oci://private-registry:5000/openid-connect/openid:latest
  imagePullPolicy: IfNotPresent
  imagePullSecret: private-registry-pull-secret
  phase: AUTHN
  pluginConfig: {openid_server: authn, openid_realm: ingress}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: istio-ingress}
spec: {jwtRules: [{issuer: https://issuer}]}
";
    let resources = resources(text);
    let mesh = MeshOptions::default();
    let assumed = crate::proxy::assume_proxy(&resources, &mesh).unwrap();
    assert_eq!(assumed.proxy.kind, ProxyKind::Gateway);
    let chain = resolve(&resources, &assumed.proxy, &assumed.listener, &mesh);
    assert_eq!(chain.brief(), "-> openid-connect -> istio.authn -> acl-check -> check-header -> router");
    assert_eq!(chain.left_out, []);
}

/// Extensions that collide in everything but kind, namespace and name.
fn colliding() -> impl Strategy<Value = Vec<String>> {
    let brief = (
        prop::sample::select(vec!["apps", "istio-system", "other"]),
        prop::sample::select(vec!["a", "a-b", "b"]),
        prop::sample::select(vec!["WasmPlugin", "TrafficExtension"]),
        prop::sample::select(vec!["AUTHN", "STATS", "-"]),
        prop::sample::select(vec!["-1", "0", "-"]),
        prop::sample::select(vec!["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", "-"]),
    );
    prop::collection::vec(brief, 0..12).prop_map(|briefs| {
        let mut seen = std::collections::BTreeSet::new();
        briefs
            .into_iter()
            .filter(|(namespace, name, kind, ..)| seen.insert((*namespace, *name, *kind)))
            .map(|(namespace, name, kind, phase, priority, created)| {
                plugin(&format!("{namespace}/{name} {phase} {priority} {created}"), kind, "")
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_the_input_does_not_matter(
        (texts, shuffled) in colliding().prop_flat_map(|texts| (Just(texts.clone()), Just(texts).prop_shuffle()))
    ) {
        let chain = |texts: &[String]| {
            let chain = resolve(&resources(&texts.concat()), &proxy(ProxyKind::Sidecar), &INBOUND, &MeshOptions::default());
            let extension = |filter: &Filter| match &filter.kind {
                FilterKind::Extension(extension) => format!("{} {}/{}", extension.origin.kind, extension.namespace, extension.name),
                FilterKind::BuiltIn(name) => name.clone(),
            };
            (chain.filters.iter().map(extension).collect::<Vec<_>>(), chain.left_out)
        };
        let before = chain(&texts);
        prop_assert_eq!(&before, &chain(&shuffled));
        let built_in = 7;
        prop_assert_eq!(before.0.len() + before.1.len(), texts.len() + built_in);
    }
}
