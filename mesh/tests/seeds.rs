//! The samples of the documentation that the project was built from: each is read, and does what its text says.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up fails")]

use std::collections::BTreeMap;
use std::path::Path;

use mesh::migrate::{Kind, Options, migrate};
use mesh::model::{
    Direction, EnvValue, Extension, FilterChain, FilterKind, Layer, Listener, Phase, Proxy, ProxyKind, PullPolicy,
};
use mesh::{AttachedService, MeshOptions, Reading, Resources, ServiceKind, Source, read, resolve};

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds").join(format!("{name}.yaml"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn reading(texts: &[&str]) -> Reading {
    let source = |text: &&str| Source { file: "seed".to_owned(), text: (*text).to_owned() };
    read(&texts.iter().map(source).collect::<Vec<_>>())
}

#[track_caller]
fn resources(texts: &[&str]) -> Resources {
    let reading = reading(texts);
    assert_eq!((reading.errors, reading.warnings), (vec![], vec![]));
    reading.resources
}

fn proxy(kind: ProxyKind, namespace: &str, label: (&str, &str)) -> Proxy {
    let labels = BTreeMap::from([(label.0.to_owned(), label.1.to_owned())]);
    Proxy { name: "p".to_owned(), namespace: namespace.to_owned(), labels, kind }
}

fn ingress() -> Proxy {
    proxy(ProxyKind::Gateway, "istio-ingress", ("istio", "ingressgateway"))
}

fn gateway(kind: ProxyKind, name: &str) -> Proxy {
    proxy(kind, "default", ("gateway.networking.k8s.io/gateway-name", name))
}

fn on(port: Option<u16>) -> Listener {
    Listener { direction: Some(Direction::Outbound), port, layer: Layer::Http, protocol: None }
}

fn chain(resources: &Resources, proxy: &Proxy) -> FilterChain {
    resolve(resources, proxy, &on(None), &MeshOptions::default())
}

/// The names that the documentation's own drawings of the chain have.
fn drawn(chain: &FilterChain) -> String {
    let name = |filter: &mesh::model::Filter| match filter.name() {
        "envoy.filters.http.jwt_authn" => Some("istio.authn".to_owned()),
        "envoy.filters.http.router" => Some("router".to_owned()),
        name => matches!(filter.kind, FilterKind::Extension(_)).then(|| name.to_owned()),
    };
    chain.filters.iter().filter_map(name).map(|name| format!("-> {name}")).collect::<Vec<_>>().join(" ")
}

const AUTHENTICATION: &str = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: istio-ingress}
spec: {jwtRules: [{issuer: authn}]}
";

fn both(sample: &str) -> [String; 2] {
    ["wasm-plugin", "traffic-extension"].map(|kind| format!("{kind}-{sample}"))
}

/// The only extension of a sample, which must be at the gateway before Istio's authentication.
#[track_caller]
fn openid(name: &str) -> Extension {
    let mut resources = resources(&[&text(name), AUTHENTICATION]);
    assert_eq!(drawn(&chain(&resources, &ingress())), "-> openid-connect -> istio.authn -> router", "{name}");
    let other = proxy(ProxyKind::Gateway, "istio-ingress", ("istio", "egressgateway"));
    assert_eq!(drawn(&chain(&resources, &other)), "-> istio.authn -> router", "{name}");
    let extension = resources.extensions.pop().unwrap();
    let wasm = extension.wasm().unwrap();
    assert_eq!(wasm.plugin_config.as_deref(), Some(r#"{"openid_realm":"ingress","openid_server":"authn"}"#));
    extension
}

#[test]
fn a_module_in_the_proxys_files_has_a_checksum() {
    for name in both("file").into_iter().chain(["openshift-file".to_owned()]) {
        let extension = openid(&name);
        let wasm = extension.wasm().unwrap();
        assert_eq!(wasm.url, "file:///opt/filters/openid.wasm");
        assert_eq!(wasm.sha256.as_deref().map(str::len), Some(64));
    }
}

#[test]
fn an_image_is_pulled_with_a_secret() {
    for name in both("oci").into_iter().chain(both("environment")).chain(["openshift-oci".to_owned()]) {
        let extension = openid(&name);
        let wasm = extension.wasm().unwrap();
        assert_eq!(wasm.url, "oci://private-registry:5000/openid-connect/openid:latest");
        assert_eq!(wasm.pull_policy, PullPolicy::IfNotPresent);
        assert_eq!(wasm.pull_secret.as_deref(), Some("private-registry-pull-secret"));
    }
}

#[test]
fn variables_come_from_the_proxy_or_are_given() {
    for name in both("environment") {
        let env = openid(&name).wasm().unwrap().env.clone();
        let values: Vec<_> = env.iter().map(|one| (one.name.as_str(), &one.value)).collect();
        let inline = EnvValue::Inline("cluster.local".to_owned());
        assert_eq!(values, [("POD_NAME", &EnvValue::Host), ("TRUST_DOMAIN", &inline)]);
    }
}

#[test]
fn a_module_over_https_is_fetched_again_when_the_resource_changes() {
    for name in both("https") {
        let extension = openid(&name);
        let wasm = extension.wasm().unwrap();
        assert_eq!(wasm.url, "https://private-bucket/filters/openid.wasm");
        assert_eq!(wasm.pull_policy, PullPolicy::Always);
        assert_eq!(wasm.env.len(), 2);
    }
}

#[test]
fn three_extensions_make_the_chain_that_is_drawn_beside_them() {
    for name in both("three") {
        let resources = resources(&[&text(&name), AUTHENTICATION]);
        assert_eq!(
            drawn(&chain(&resources, &ingress())),
            "-> openid-connect -> istio.authn -> acl-check -> check-header -> router"
        );
    }
}

#[test]
fn lua_at_a_gateway_runs_on_its_two_ports_only() {
    let resources = resources(&[&text("traffic-extension-lua-gateway")]);
    for (port, expected) in [(8080, true), (8081, true), (443, false)] {
        let chain = resolve(&resources, &ingress(), &on(Some(port)), &MeshOptions::default());
        assert_eq!(drawn(&chain).contains("conditional-header-modifier"), expected, "{port}");
    }
}

#[test]
fn lua_at_a_waypoint_runs_for_its_service_only() {
    let resources = resources(&[&text("traffic-extension-lua-waypoint")]);
    let waypoint = gateway(ProxyKind::Waypoint, "waypoint");
    for (name, expected) in [("reviews", "-> reviews-header-logger -> router"), ("ratings", "-> router")] {
        let service =
            AttachedService { kind: ServiceKind::Service, namespace: "default".to_owned(), name: name.to_owned() };
        let mesh = MeshOptions { services: vec![service], ..MeshOptions::default() };
        let listener = Listener { direction: Some(Direction::Inbound), port: None, layer: Layer::Http, protocol: None };
        assert_eq!(drawn(&resolve(&resources, &waypoint, &listener, &mesh)), expected);
    }
    assert_eq!(drawn(&chain(&resources, &proxy(ProxyKind::Sidecar, "default", ("app", "reviews")))), "-> router");
}

#[test]
fn in_ambient_mode_each_gateway_has_the_plugin_that_targets_it() {
    let resources = resources(&[&text("ambient")]);
    for (kind, name, plugin) in [
        (ProxyKind::Gateway, "bookinfo-gateway", "basic-auth-at-gateway"),
        (ProxyKind::Waypoint, "waypoint", "basic-auth-at-waypoint"),
        (ProxyKind::Waypoint, "reviews-svc-waypoint", "basic-auth-for-service"),
    ] {
        let chain = chain(&resources, &gateway(kind, name));
        assert_eq!(drawn(&chain), format!("-> {plugin} -> router"));
        assert_eq!(chain.left_out.len(), 2);
    }
    assert!(resources.extensions.iter().all(|extension| extension.phase == Phase::Authn));
}

#[test]
fn openshifts_before_and_after_are_the_same_but_for_the_priority_and_outbound_traffic() {
    let options = Options {
        to: Kind::WasmPlugin,
        namespaces: BTreeMap::new(),
        keep_inbound: false,
        root_namespace: "istio-system".to_owned(),
        images: BTreeMap::new(),
    };
    let before = Source { file: "before".to_owned(), text: text("openshift-before") };
    let migration = migrate(&[before], &options).unwrap();
    let [ours] = &resources(&[&migration.text]).extensions[..] else { panic!("one extension") };
    let [theirs] = &resources(&[&text("openshift-after")]).extensions[..] else { panic!("one extension") };
    // The documentation drops the priority, which changes the order.
    assert_eq!((ours.priority, theirs.priority), (Some(100), None));
    assert!(migration.remarks.iter().any(|remark| remark.text.contains("the priority is kept")));
    assert_eq!(Extension { priority: None, origin: theirs.origin.clone(), ..ours.clone() }, *theirs);
    let differences: Vec<String> = migration.differences.iter().map(ToString::to_string).collect();
    assert_eq!(
        differences,
        [
            "sidecar `httpbin` in namespace `istio-system`, outbound: before nothing, after `-> istio-system/header-append`"
        ]
    );
}

#[test]
fn in_the_control_planes_namespace_openshifts_extension_counts_everywhere() {
    let resources = resources(&[&text("openshift-before")]);
    let inbound = Listener { direction: Some(Direction::Inbound), port: None, layer: Layer::Http, protocol: None };
    for (app, expected) in [("httpbin", "-> header-append -> router"), ("other", "-> router")] {
        let proxy = proxy(ProxyKind::Sidecar, "bookinfo", ("app", app));
        assert_eq!(drawn(&resolve(&resources, &proxy, &inbound, &MeshOptions::default())), expected);
    }
}

#[test]
fn tetrates_extension_runs_where_a_tenant_that_may_use_it_does() {
    let entry = text("tetrate");
    assert_eq!(resources(&[&entry]).unattached.len(), 1);
    let gateway = |tenant: &str| {
        format!(
            "apiVersion: gateway.tsb.tetrate.io/v2\nkind: IngressGateway\n\
             metadata: {{organization: org, tenant: {tenant}, workspace: w, group: g, name: gw}}\n\
             spec:\n  workloadSelector: {{namespace: istio-ingress, labels: {{istio: ingressgateway}}}}\n  \
             extension:\n  - fqn: organizations/org/extensions/wasm-auth\n"
        )
    };
    let used = resources(&[&entry, &gateway("tenant1"), AUTHENTICATION]);
    assert_eq!(drawn(&chain(&used, &ingress())), "-> istio.authn -> wasm-auth -> router");
    let [extension] = &used.extensions[..] else { panic!("one use") };
    assert_eq!((extension.phase, extension.priority), (Phase::Authz, Some(1000)));
    assert_eq!(extension.wasm().unwrap().plugin_config.as_deref(), Some(r#"{"some_key":"some_value"}"#));
    assert!(reading(&[&entry, &gateway("tenant2")]).errors[0].to_string().contains("may not use this extension"));
}
