//! Bootstraps as they are written, and what cannot be written. `xtask/tests/envoy.rs` shows them to a real Envoy.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{EnvoyError, bootstrap};
use crate::model::{Direction, FilterKind, Layer, Listener, Proxy, ProxyKind};
use crate::plan::{Module, Plan};
use crate::{GATEWAY_NAME_LABEL, MeshOptions, Source, read, resolve};

fn plan(text: &str, kind: ProxyKind) -> Plan {
    let reading = read(&[Source { file: "f".to_owned(), text: text.to_owned() }]);
    assert_eq!(reading.errors, []);
    let labels = match kind {
        ProxyKind::Sidecar => BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        _ => BTreeMap::from([(GATEWAY_NAME_LABEL.to_owned(), "web".to_owned())]),
    };
    let proxy = Proxy { name: "web".to_owned(), namespace: "apps".to_owned(), labels, kind };
    let direction = (kind == ProxyKind::Sidecar).then_some(Direction::Inbound);
    let listener = json!({"direction": direction, "port": 9080, "layer": Layer::Http});
    let listener: Listener = serde_json::from_value(listener).unwrap();
    let chain = resolve(&reading.resources, &proxy, &listener, &MeshOptions::default());
    let modules = chain.filters.iter().filter_map(|filter| match &filter.kind {
        FilterKind::Extension(extension) if extension.wasm().is_some() => {
            let failed = ["missing", "optional"].contains(&extension.name.as_str());
            let module = if failed {
                Module::FetchFailed { reason: "no such image".to_owned() }
            } else {
                Module::File { path: "/modules/probe.wasm".into(), sha256: "0".repeat(64) }
            };
            Some((extension.id(), module))
        }
        _ => None,
    });
    let modules: BTreeMap<String, Module> = modules.collect();
    let plan = json!({"chain": chain, "modules": modules, "host_env": {}, "listen": "127.0.0.1:8080"});
    serde_json::from_value(plan).unwrap()
}

/// What is written equals the file; on a difference, what is written is put beside the build for a comparison.
#[track_caller]
fn check(plan: &Plan, name: &str) {
    let written = serde_json::to_string_pretty(&bootstrap(plan).unwrap()).unwrap() + "\n";
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/envoy/golden/{name}.json"));
    if std::fs::read_to_string(&golden).unwrap_or_default() != written {
        let new = std::env::temp_dir().join(format!("plugwright-{name}.json"));
        std::fs::write(&new, written).unwrap();
        panic!("compare {} with {}, and copy it there when it is right", new.display(), golden.display());
    }
}

#[test]
fn a_sidecar_with_everything() {
    let mut plan = plan(include_str!("golden/sidecar.yaml"), ProxyKind::Sidecar);
    plan.upstream = Some("http://127.0.0.1:9080".to_owned());
    plan.clusters = BTreeMap::from([
        ("backend".to_owned(), "http://backend.example".to_owned()),
        ("six".to_owned(), "http://[::1]:81/".to_owned()),
        ("tls".to_owned(), "https://tls.example".to_owned()),
    ]);
    check(&plan, "sidecar");
}

#[test]
fn certificates_to_trust_are_in_every_cluster_with_tls() {
    let manifest = "{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: jwt, namespace: apps}, \
                    spec: {jwtRules: [{issuer: i, jwksUri: 'https://keys.example/keys'}]}}\n";
    let mut plan = plan(manifest, ProxyKind::Sidecar);
    plan.upstream = Some("http://127.0.0.1:9080".to_owned());
    plan.clusters = BTreeMap::from([("tls".to_owned(), "https://tls.example".to_owned())]);
    plan.ca_certificates = vec!["one".to_owned(), "two\n".to_owned()];
    let written = bootstrap(&plan).unwrap();
    let clusters = written["static_resources"]["clusters"].as_array().unwrap();
    let trusted = "/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca";
    let trusted: Vec<_> = clusters.iter().filter_map(|cluster| cluster.pointer(trusted)).collect();
    assert_eq!(trusted, [&json!({"inline_string": "one\ntwo\n"}), &json!({"inline_string": "one\ntwo\n"})]);
    assert_eq!(clusters.len(), 3);
}

#[test]
fn a_gateway_with_the_echo() {
    check(&plan(include_str!("golden/gateway.yaml"), ProxyKind::Gateway), "gateway");
}

#[test]
fn a_filter_that_decides_is_never_left_out() {
    let authorizer = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ask, namespace: apps}\n\
                      spec: {action: CUSTOM, provider: {name: p}, rules: [{}]}";
    let error = bootstrap(&plan(authorizer, ProxyKind::Sidecar)).unwrap_err();
    assert!(matches!(&error, EnvoyError::NotTranslated { filter } if filter.contains("CUSTOM")), "{error}");
    let discovery = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: t, namespace: apps}\n\
                     spec: {jwtRules: [{issuer: \"https://a.example\"}]}";
    let error = bootstrap(&plan(discovery, ProxyKind::Sidecar)).unwrap_err();
    assert!(matches!(&error, EnvoyError::NotTranslated { filter } if filter.contains("apps/t")), "{error}");
}

#[test]
fn a_module_that_is_not_in_the_plan_is_an_error() {
    let mut plan = plan(include_str!("golden/gateway.yaml"), ProxyKind::Gateway);
    plan.modules.clear();
    assert_eq!(bootstrap(&plan), Err(EnvoyError::NoModule { extension: "WasmPlugin apps/headers".to_owned() }));
}

#[test]
fn addresses_and_urls_that_are_none_are_refused_by_name() {
    let with = |adjust: fn(&mut Plan)| {
        let mut plan = plan(include_str!("golden/gateway.yaml"), ProxyKind::Gateway);
        adjust(&mut plan);
        bootstrap(&plan).map(|_: Value| ()).map_err(|error| error.to_string())
    };
    assert_eq!(with(|plan| plan.listen = "localhost:80".to_owned()), Ok(()));
    assert_eq!(
        with(|plan| plan.listen = "host:80".to_owned()),
        Err("host:80 is not an IP address and a port".to_owned())
    );
    for url in ["ftp://h", "http://", "http://h/path", "http://h:x", "h:80", "http://a:b:1"] {
        let mut plan = plan(include_str!("golden/gateway.yaml"), ProxyKind::Gateway);
        plan.upstream = Some(url.to_owned());
        let error = bootstrap(&plan).unwrap_err();
        assert_eq!(error, EnvoyError::Url { what: "the upstream".to_owned(), url: url.to_owned() });
    }
    let refused = with(|plan| plan.upstream = Some("http://ann:hunter2@h/?hunter2".to_owned())).unwrap_err();
    assert!(refused.starts_with("the upstream http://<redacted>@h/?<redacted> is not of the form"), "{refused}");
    assert_eq!(
        with(|plan| plan.chain.listener.layer = Layer::Network),
        Err("a network chain needs an upstream".to_owned())
    );
}
