//! Which proxy is assumed, and which is found by name.

use super::{Assumption, ProxyError, assume_proxy, services_of, workload};
use crate::attach::{GATEWAY_NAME_LABEL, MeshOptions};
use crate::chain::resolve;
use crate::model::{Direction, Layer, Listener, ProxyKind};
use crate::resources::{Resources, Source, read};

const GATEWAY: &str = include_str!("../../../examples/ambient/gateway.yaml");
const WAYPOINT: &str = include_str!("../../../examples/ambient/waypoint.yaml");
const SERVICE: &str = include_str!("../../../examples/ambient/service.yaml");

const BOTH_GATEWAYS: &str = "
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: bookinfo-gateway}, spec: {gatewayClassName: istio}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint}, spec: {gatewayClassName: istio-waypoint}}
";

fn resources(texts: &[&str]) -> Resources {
    let source = |text: &&str| Source { file: "f".to_owned(), text: (*text).to_owned() };
    let reading = read(&texts.iter().map(source).collect::<Vec<_>>());
    assert_eq!(reading.errors, []);
    reading.resources
}

fn plugin(namespace: &str, name: &str, attach: &str) -> String {
    format!(
        "{{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {{name: {name}, namespace: \
         {namespace}}}, spec: {{url: h/x{attach}}}}}"
    )
}

fn selecting(labels: &str) -> String {
    format!(", selector: {{matchLabels: {{{labels}}}}}")
}

fn pod(namespace: &str, name: &str, labels: &str) -> String {
    format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}}}")
}

fn assume(texts: &[&str]) -> Result<Assumption, ProxyError> {
    assume_proxy(&resources(texts), &MeshOptions::default())
}

/// The assumed proxy as `kind namespace/name`, and the sentence.
#[track_caller]
fn check(texts: &[&str], expected: &str, sentence: &str) {
    let assumed = assume(texts).unwrap();
    let proxy = &assumed.proxy;
    assert_eq!(format!("{:?} {}/{}", proxy.kind, proxy.namespace, proxy.name), expected);
    assert_eq!(assumed.sentence, sentence);
    let direction = if proxy.kind == ProxyKind::Gateway { Direction::Outbound } else { Direction::Inbound };
    assert_eq!(
        assumed.listener,
        Listener { direction: Some(direction), port: None, layer: Layer::Http, protocol: None }
    );
}

#[track_caller]
fn check_several(texts: &[&str], expected: &[&str]) {
    let expected = expected.iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(assume(texts).unwrap_err(), ProxyError::Several { candidates: expected });
}

#[test]
fn each_ambient_manifest_names_its_proxy() {
    check(
        &[GATEWAY],
        "Gateway default/bookinfo-gateway",
        "Assuming the outbound traffic of gateway `bookinfo-gateway` in namespace `default`, which \
         basic-auth-at-gateway is for (taken for a gateway by its name, since the Gateway is not given).",
    );
    check(
        &[WAYPOINT],
        "Waypoint default/waypoint",
        "Assuming the inbound traffic of waypoint `waypoint` in namespace `default`, which basic-auth-at-waypoint is \
         for (taken for a waypoint by its name, since the Gateway is not given).",
    );
    check(
        &[SERVICE],
        "Waypoint default/reviews-svc-waypoint",
        "Assuming the inbound traffic of waypoint `reviews-svc-waypoint` in namespace `default`, which \
         basic-auth-for-service is for (taken for a waypoint by its name, since the Gateway is not given).",
    );
}

#[test]
fn a_given_gateways_class_says_what_it_is() {
    check(
        &[WAYPOINT, BOTH_GATEWAYS],
        "Waypoint default/waypoint",
        "Assuming the inbound traffic of waypoint `waypoint` in namespace `default`, which basic-auth-at-waypoint is \
         for.",
    );
    let misnamed = BOTH_GATEWAYS.replace("gatewayClassName: istio-waypoint", "gatewayClassName: istio");
    assert_eq!(assume(&[WAYPOINT, &misnamed]).unwrap().proxy.kind, ProxyKind::Gateway);
}

#[test]
fn the_ambient_manifests_together_are_for_three_proxies() {
    check_several(
        &[GATEWAY, WAYPOINT, SERVICE],
        &[
            "gateway default/bookinfo-gateway (basic-auth-at-gateway)",
            "waypoint default/waypoint (basic-auth-at-waypoint)",
            "waypoint default/reviews-svc-waypoint (basic-auth-for-service)",
        ],
    );
    let message = assume(&[GATEWAY, WAYPOINT]).unwrap_err().to_string();
    assert_eq!(
        message,
        "the extensions are for several proxies: gateway default/bookinfo-gateway (basic-auth-at-gateway), waypoint \
         default/waypoint (basic-auth-at-waypoint); choose one with `--workload NS/NAME`"
    );
}

/// Resolves the three ambient manifests for a named proxy: only its own plugin runs there.
#[track_caller]
fn check_ambient(context: &str, name: &str, kind: ProxyKind, expected: &str) {
    let resources = resources(&[GATEWAY, WAYPOINT, SERVICE, context]);
    let proxy = workload(&resources, name).unwrap();
    assert_eq!(proxy.kind, kind);
    let listener = super::assumed_listener(&resources, &proxy);
    let chain = resolve(&resources, &proxy, &listener, &MeshOptions::default());
    let names: Vec<_> = chain.filters.iter().map(crate::model::Filter::name).collect();
    let extensions: Vec<_> = names.iter().filter(|name| name.starts_with("basic-auth")).collect();
    assert_eq!(extensions, [&expected]);
    assert_eq!(chain.left_out.len(), 2);
    assert_eq!(names.last(), Some(&"envoy.filters.http.router"));
}

#[test]
fn an_ambient_proxy_is_found_by_name_with_and_without_the_gateways() {
    for context in ["", BOTH_GATEWAYS] {
        check_ambient(context, "default/bookinfo-gateway", ProxyKind::Gateway, "basic-auth-at-gateway");
        check_ambient(context, "default/waypoint", ProxyKind::Waypoint, "basic-auth-at-waypoint");
        check_ambient(context, "default/reviews-svc-waypoint", ProxyKind::Waypoint, "basic-auth-for-service");
    }
}

#[test]
fn the_ambient_configuration_reaches_the_plugin_as_sorted_compact_json() {
    let resources = resources(&[SERVICE]);
    let crate::model::ExtensionFilter::Wasm(wasm) = &resources.extensions[0].filter else { panic!("it is wasm") };
    assert_eq!(
        wasm.plugin_config.as_deref(),
        Some(
            r#"{"basic_auth_rules":[{"credentials":["ok:test","MXQtaW4zOmFkbWluMw=="],"prefix":"/reviews","request_methods":["GET","POST"]}]}"#
        )
    );
}

#[test]
fn a_selector_names_the_workload_it_selects() {
    let web = plugin("shop", "a", &selecting("app: web"));
    check(
        &[
            &web,
            &pod("shop", "web-1", "app: web, pod-template-hash: x"),
            &pod("shop", "web-2", "app: web, pod-template-hash: z, service.istio.io/canonical-name: web"),
            &pod("other", "web", "app: web"),
        ],
        "Sidecar shop/web-1",
        "Assuming the inbound traffic of sidecar `web-1` in namespace `shop`, which a is for.",
    );
    let cart = pod("shop", "cart", "app: web, version: v2");
    check_several(
        &[&web, &pod("shop", "web", "app: web, version: v1"), &cart],
        &["sidecar shop/web (a)", "sidecar shop/cart (a)"],
    );
}

#[test]
fn a_selector_that_selects_nothing_given_names_a_pod_with_its_labels() {
    check(
        &[&plugin("shop", "a", &selecting("app: web, version: v1"))],
        "Sidecar shop/web",
        "Assuming the inbound traffic of sidecar `web` in namespace `shop`, which a is for (a sidecar with the labels \
         it selects, since no such pod is given).",
    );
    let assumed = assume(&[&plugin("shop", "a", &selecting("tier: front"))]).unwrap();
    assert_eq!((assumed.proxy.name.as_str(), assumed.proxy.labels["tier"].as_str()), ("a", "front"));
}

#[test]
fn istios_own_gateway_labels_name_a_gateway() {
    for labels in ["istio: ingressgateway", "istio: egressgateway", "app: istio-ingressgateway"] {
        let assumed = assume(&[&plugin("istio-system", "a", &selecting(labels))]).unwrap();
        assert_eq!(assumed.proxy.kind, ProxyKind::Gateway);
    }
    let assumed = assume(&[&plugin("shop", "a", &selecting("app: api-gateway"))]).unwrap();
    assert_eq!(assumed.proxy.kind, ProxyKind::Sidecar);
}

#[test]
fn the_one_proxy_that_carries_everything_is_assumed() {
    let general = plugin("shop", "a", &selecting("app: web"));
    let special = plugin("shop", "b", &selecting("app: web, version: v1"));
    let assumed = assume(&[&general, &special]).unwrap();
    assert_eq!(assumed.proxy.labels.len(), 2);
    let target = |names: &[&str]| {
        let refs: Vec<_> = names
            .iter()
            .map(|name| format!("{{kind: Gateway, group: gateway.networking.k8s.io, name: {name}}}"))
            .collect();
        format!(", targetRefs: [{}]", refs.join(", "))
    };
    let assumed = assume(&[&plugin("shop", "a", &target(&["x", "z"])), &plugin("shop", "b", &target(&["z"]))]).unwrap();
    assert_eq!(assumed.proxy.name, "z");
    check_several(&[&plugin("shop", "a", &target(&["x", "z"]))], &["gateway shop/x (a)", "gateway shop/z (a)"]);
    check_several(
        &[&general, &plugin("shop", "c", &selecting("app: cart"))],
        &["sidecar shop/web (a)", "sidecar shop/cart (c)"],
    );
}

#[test]
fn namespace_wide_extensions_name_a_plain_sidecar() {
    check(
        &[&plugin("shop", "a", ""), &plugin("istio-system", "b", "")],
        "Sidecar shop/sidecar",
        "Assuming the inbound traffic of sidecar `sidecar` in namespace `shop`, which a, b are for (any workload of \
         the namespace would do).",
    );
    assert_eq!(assume(&[&plugin("istio-system", "b", "")]).unwrap().proxy.namespace, "default");
    check_several(
        &[&plugin("shop", "a", ""), &plugin("bank", "b", "")],
        &["sidecar bank/sidecar (b)", "sidecar shop/sidecar (a)"],
    );
}

#[test]
fn many_names_are_cut_short() {
    let plugins: Vec<_> = (0..7).map(|n| plugin("shop", &format!("p{n}"), "")).collect();
    let texts: Vec<_> = plugins.iter().map(String::as_str).collect();
    assert!(assume(&texts).unwrap().sentence.contains("which p0, p1, p2, p3, p4 and 2 more are for"));
    assert!(assume(&texts[..6]).unwrap().sentence.contains("p4 and 1 more are for"));
    assert!(assume(&texts[..5]).unwrap().sentence.contains("p3, p4 are for"));
}

#[test]
fn namespace_wide_extensions_do_not_stand_in_the_way() {
    assert_eq!(assume(&[GATEWAY, &plugin("default", "a", "")]).unwrap().proxy.name, "bookinfo-gateway");
}

#[test]
fn a_service_target_names_the_waypoint_that_serves_it() {
    let target = plugin("shop", "a", ", targetRefs: [{kind: Service, name: web}]");
    let assumed = assume(&[&target]).unwrap();
    assert_eq!((assumed.proxy.kind, assumed.proxy.name.as_str()), (ProxyKind::Waypoint, "waypoint"));
    let service =
        "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: w}}}";
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/use-waypoint: all, istio.io/use-waypoint-namespace: infra}}}";
    let given = resources(&[&target, service, namespace]);
    let mesh = MeshOptions::default();
    let assumed = assume_proxy(&given, &mesh).unwrap();
    assert_eq!((assumed.proxy.namespace.as_str(), assumed.proxy.name.as_str()), ("shop", "w"));
    assert_eq!(services_of(&given, &assumed.proxy), assumed.services);
    let mesh = MeshOptions { services: assumed.services, ..mesh };
    let chain = resolve(&given, &assumed.proxy, &assumed.listener, &mesh);
    assert_eq!(chain.left_out, []);

    let assumed = assume(&[&target, namespace]).unwrap();
    assert_eq!((assumed.proxy.namespace.as_str(), assumed.proxy.name.as_str()), ("infra", "all"));
}

#[test]
fn a_class_target_is_for_any_waypoint() {
    let class = plugin(
        "istio-system",
        "a",
        ", targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}]",
    );
    assert_eq!(assume(&[&class, BOTH_GATEWAYS]).unwrap().proxy.namespace, "default");
    assert_eq!(assume(&[&class, SERVICE]).unwrap().proxy.name, "reviews-svc-waypoint");
    assert_eq!(assume(&[&class]).unwrap().proxy.kind, ProxyKind::Waypoint);
}

#[test]
fn network_extensions_alone_ask_for_the_network_chain() {
    assert_eq!(assume(&[&plugin("shop", "a", ", type: NETWORK")]).unwrap().listener.layer, Layer::Network);
    let mixed = [plugin("shop", "a", ", type: NETWORK"), plugin("shop", "b", "")];
    assert_eq!(assume(&[&mixed[0], &mixed[1]]).unwrap().listener.layer, Layer::Http);
}

#[test]
fn no_extension_names_no_proxy() {
    assert_eq!(assume(&[BOTH_GATEWAYS]).unwrap_err(), ProxyError::NoExtensions);
}

#[test]
fn workloads_are_found_by_name_and_bring_their_labels() {
    let deployment = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {template: {metadata: {labels: {app: web}}}}}";
    let its_pod = pod("default", "g-1", &format!("{GATEWAY_NAME_LABEL}: bookinfo-gateway, app: edge"));
    let given = resources(&[deployment, &its_pod, BOTH_GATEWAYS]);
    let web = workload(&given, "shop/web").unwrap();
    assert_eq!((web.kind, web.labels["app"].as_str()), (ProxyKind::Sidecar, "web"));
    let gateway = workload(&given, "default/bookinfo-gateway").unwrap();
    assert_eq!((gateway.kind, gateway.labels["app"].as_str()), (ProxyKind::Gateway, "edge"));
    assert_eq!(workload(&given, "default/g-1").unwrap().kind, ProxyKind::Gateway);
}

#[test]
fn an_unknown_workload_is_an_error_with_the_names_there_are() {
    let given = resources(&[SERVICE, BOTH_GATEWAYS]);
    assert_eq!(
        workload(&given, "default/web").unwrap_err().to_string(),
        "no pod, workload or gateway of the input is called `default/web`; it has default/bookinfo-gateway, \
         default/reviews-svc-waypoint, default/waypoint"
    );
    for name in ["web", "/web", "default/", "a/b/c", ""] {
        assert_eq!(workload(&given, name).unwrap_err(), ProxyError::NotAName { given: name.to_owned() });
    }
    let nothing = workload(&Resources::default(), "a/b").unwrap_err().to_string();
    assert_eq!(nothing, "no pod, workload or gateway of the input is called `a/b`; it has none");
}

const CLUSTER: &str = include_str!("../../../examples/ambient/cluster.yaml");

/// What is said of a workload of the guide's cluster when these are given besides.
#[track_caller]
fn check_without_proxy(more: &[&str], name: &str, expected: &str) {
    let texts: Vec<&str> = [CLUSTER].iter().chain(more).copied().collect();
    assert_eq!(workload(&resources(&texts), name).unwrap_err().to_string(), expected);
}

#[test]
fn a_pod_in_ambient_mode_has_the_waypoints_of_its_services() {
    check_without_proxy(
        &[],
        "default/reviews-v1-6b8f4d7c9d-lm2nq",
        "`default/reviews-v1-6b8f4d7c9d-lm2nq` is in ambient mode and has no proxy of its own; requests to Service `reviews` \
         meet waypoint `default/reviews-svc-waypoint`",
    );
    check_without_proxy(
        &[&pod("default", "both", "app: productpage, istio.io/use-waypoint: own")],
        "default/both",
        "`default/both` is in ambient mode and has no proxy of its own; requests to it meet waypoint `default/own`, to \
         Service `productpage` meet waypoint `default/waypoint`",
    );
    check_without_proxy(
        &[],
        "default/sleep-7656cf8794-9k5dz",
        "`default/sleep-7656cf8794-9k5dz` is in ambient mode and has no proxy of its own; no waypoint of the input stands \
         before it, so its requests meet no plugin",
    );
    check_without_proxy(
        &[&pod("plain", "opted-in", "app: x, istio.io/dataplane-mode: ambient")],
        "plain/opted-in",
        "`plain/opted-in` is in ambient mode and has no proxy of its own; no waypoint of the input stands before it, so its \
         requests meet no plugin",
    );
}

#[test]
fn a_pod_with_a_proxy_of_its_own_is_not_ambient() {
    for labels in [
        "app: x, istio.io/dataplane-mode: none",
        "app: x, sidecar.istio.io/inject: 'true'",
        "app: x, security.istio.io/tlsMode: istio",
        "istio: ingressgateway",
        "gateway.networking.k8s.io/gateway-name: waypoint",
    ] {
        let given = resources(&[CLUSTER, &pod("default", "x", labels)]);
        assert!(workload(&given, "default/x").is_ok(), "{labels}");
    }
    let elsewhere = resources(&[CLUSTER, &pod("other", "x", "app: reviews")]);
    assert_eq!(workload(&elsewhere, "other/x").unwrap().kind, ProxyKind::Sidecar);
}
