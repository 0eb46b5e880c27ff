//! Which proxies an extension attaches to.

use std::collections::BTreeMap;

use super::{AttachedService, GATEWAY_NAME_LABEL, MeshOptions, ServiceKind, attaches, takes};
use crate::model::{Attach, Direction, Layer, Listener, Proxy, ProxyKind, TargetRef, TrafficSelector, WorkloadMode};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn proxy(kind: ProxyKind, pairs: &[(&str, &str)]) -> Proxy {
    Proxy { name: "p".to_owned(), namespace: "apps".to_owned(), labels: labels(pairs), kind }
}

fn sidecar() -> Proxy {
    proxy(ProxyKind::Sidecar, &[("app", "web"), ("version", "v1")])
}

fn gateway() -> Proxy {
    proxy(ProxyKind::Gateway, &[(GATEWAY_NAME_LABEL, "gw"), ("app", "web")])
}

fn waypoint() -> Proxy {
    proxy(ProxyKind::Waypoint, &[(GATEWAY_NAME_LABEL, "wp"), ("app", "web")])
}

fn selector(pairs: &[(&str, &str)]) -> Attach {
    Attach::Selector(labels(pairs))
}

fn targets(refs: &[(&str, &str, &str)]) -> Attach {
    let target = |(group, kind, name): &(&str, &str, &str)| TargetRef {
        group: (*group).to_owned(),
        kind: (*kind).to_owned(),
        name: (*name).to_owned(),
    };
    Attach::TargetRefs(refs.iter().map(target).collect())
}

fn to_gateway(name: &str) -> Attach {
    targets(&[("gateway.networking.k8s.io", "Gateway", name)])
}

fn class(name: &str) -> Attach {
    targets(&[("gateway.networking.k8s.io", "GatewayClass", name)])
}

fn serving(kind: ServiceKind, namespace: &str, name: &str) -> MeshOptions {
    let service = AttachedService { kind, namespace: namespace.to_owned(), name: name.to_owned() };
    MeshOptions { services: vec![service], ..MeshOptions::default() }
}

#[track_caller]
fn check(attach: &Attach, namespace: &str, proxy: &Proxy, mesh: &MeshOptions, expected: Result<&str, &str>) {
    let result = attaches(attach, namespace, proxy, mesh);
    assert_eq!(result.as_deref().map_err(String::as_str), expected);
}

#[test]
fn a_selector_must_be_a_subset_of_the_labels() {
    let mesh = MeshOptions::default();
    check(&selector(&[("app", "web")]), "apps", &sidecar(), &mesh, Ok("selects this workload by app=web"));
    let both = selector(&[("app", "web"), ("version", "v1")]);
    check(&both, "apps", &sidecar(), &mesh, Ok("selects this workload by app=web, version=v1"));
    let other = selector(&[("app", "web"), ("version", "v2")]);
    check(&other, "apps", &sidecar(), &mesh, Err("it selects version=v2, and sidecar `p` has version=v1"));
    let more = selector(&[("tier", "front")]);
    check(&more, "apps", &sidecar(), &mesh, Err("it selects tier=front, and sidecar `p` has no label `tier`"));
}

#[test]
fn no_selector_means_every_workload_in_scope() {
    let mesh = MeshOptions::default();
    for attach in [Attach::Namespace, selector(&[])] {
        check(&attach, "apps", &sidecar(), &mesh, Ok("applies to every workload of namespace `apps`"));
        check(&attach, "apps", &gateway(), &mesh, Ok("applies to every workload of namespace `apps`"));
        let everywhere = "applies to every workload, from the root namespace `istio-system`";
        check(&attach, "istio-system", &sidecar(), &mesh, Ok(everywhere));
    }
}

#[test]
fn another_namespace_is_out_of_scope_unless_it_is_the_root() {
    let out = Err("it counts in its own namespace `other`, and sidecar `p` is in `apps`");
    check(&Attach::Namespace, "other", &sidecar(), &MeshOptions::default(), out);
    let mesh = MeshOptions { root_namespace: "other".to_owned(), services: vec![] };
    let everywhere = Ok("applies to every workload, from the root namespace `other`");
    check(&Attach::Namespace, "other", &sidecar(), &mesh, everywhere);
    let out = Err("it counts in its own namespace `istio-system`, and sidecar `p` is in `apps`");
    check(&Attach::Namespace, "istio-system", &sidecar(), &mesh, out);
}

#[test]
fn a_gateway_is_selected_or_targeted() {
    let mesh = MeshOptions::default();
    check(&selector(&[("app", "web")]), "apps", &gateway(), &mesh, Ok("selects this workload by app=web"));
    check(&to_gateway("gw"), "apps", &gateway(), &mesh, Ok("targets Gateway `gw`"));
    check(&to_gateway("other"), "apps", &gateway(), &mesh, Err("it targets Gateway `other`, and this is gateway `p`"));
}

#[test]
fn a_gateway_target_must_be_in_the_same_namespace_even_for_the_root() {
    let out = "it targets Gateway `gw` of its own namespace `istio-system`, and gateway `p` is in `apps`";
    check(&to_gateway("gw"), "istio-system", &gateway(), &MeshOptions::default(), Err(out));
}

#[test]
fn a_pod_without_the_gateway_label_is_no_target() {
    let out = "it targets Gateway `gw`, and a pod without the label `gateway.networking.k8s.io/gateway-name` is no \
               target";
    check(&to_gateway("gw"), "apps", &sidecar(), &MeshOptions::default(), Err(out));
    let classic = proxy(ProxyKind::Gateway, &[("istio", "ingressgateway")]);
    check(&to_gateway("gw"), "apps", &classic, &MeshOptions::default(), Err(out));
}

#[test]
fn a_waypoint_is_only_targeted() {
    let mesh = MeshOptions::default();
    let out = Err("a waypoint carries only what targets it by `targetRefs`, whatever its labels");
    for attach in [selector(&[("app", "web")]), selector(&[]), Attach::Namespace] {
        check(&attach, "apps", &waypoint(), &mesh, out);
        check(&attach, "istio-system", &waypoint(), &mesh, out);
    }
    check(&to_gateway("wp"), "apps", &waypoint(), &mesh, Ok("targets Gateway `wp`"));
}

#[test]
fn a_service_target_is_a_waypoints_and_in_the_services_namespace() {
    let service = targets(&[("core", "Service", "web")]);
    let mesh = serving(ServiceKind::Service, "shop", "web");
    check(&service, "shop", &waypoint(), &mesh, Ok("targets Service `web`"));
    check(&service, "apps", &waypoint(), &mesh, Err("it targets Service `web`, and this is waypoint `p`"));
    let out = "it targets Service `web`, and only a waypoint carries what targets a Service";
    check(&service, "apps", &gateway(), &mesh, Err(out));
    let out = "it targets Service `web`, and this chain was asked for no particular service";
    check(&service, "apps", &waypoint(), &MeshOptions::default(), Err(out));
    let entry = targets(&[("networking.istio.io", "ServiceEntry", "web")]);
    check(&entry, "shop", &waypoint(), &mesh, Err("it targets ServiceEntry `web`, and this is waypoint `p`"));
    let mesh = serving(ServiceKind::ServiceEntry, "apps", "web");
    check(&entry, "apps", &waypoint(), &mesh, Ok("targets ServiceEntry `web`"));
}

#[test]
fn a_class_target_is_for_waypoints_and_from_the_root_namespace() {
    let mesh = MeshOptions::default();
    check(&class("istio-waypoint"), "istio-system", &waypoint(), &mesh, Ok("targets GatewayClass `istio-waypoint`"));
    let out = "what targets a GatewayClass must be in the root namespace `istio-system`, and it is in `apps`";
    check(&class("istio-waypoint"), "apps", &waypoint(), &mesh, Err(out));
    let out = "it targets GatewayClass `istio-waypoint`, and gateway `p` is no waypoint";
    check(&class("istio-waypoint"), "istio-system", &gateway(), &mesh, Err(out));
    let out = "it targets GatewayClass `istio`, and this is waypoint `p`";
    check(&class("istio"), "istio-system", &waypoint(), &mesh, Err(out));
}

#[test]
fn any_one_target_is_enough() {
    let refs = targets(&[("", "Service", "web"), ("gateway.networking.k8s.io", "Gateway", "gw")]);
    check(&refs, "apps", &gateway(), &MeshOptions::default(), Ok("targets Gateway `gw`"));
}

fn entry(mode: WorkloadMode, ports: &[u16]) -> TrafficSelector {
    TrafficSelector { mode, ports: ports.to_vec() }
}

/// Which listeners, as (direction, port), one entry takes.
#[track_caller]
fn check_takes(entry: &TrafficSelector, proxy: &Proxy, listener: (Option<Direction>, Option<u16>), expected: bool) {
    let listener = Listener { direction: listener.0, port: listener.1, layer: Layer::Http, protocol: None };
    let result = takes(std::slice::from_ref(entry), proxy, listener);
    assert_eq!(result.is_ok(), expected, "{result:?}");
}

const IN: Option<Direction> = Some(Direction::Inbound);
const OUT: Option<Direction> = Some(Direction::Outbound);

#[test]
fn a_sidecars_mode_follows_the_direction() {
    let (client, server) = (entry(WorkloadMode::Client, &[]), entry(WorkloadMode::Server, &[]));
    check_takes(&client, &sidecar(), (OUT, None), true);
    check_takes(&client, &sidecar(), (IN, None), false);
    check_takes(&server, &sidecar(), (IN, None), true);
    check_takes(&server, &sidecar(), (OUT, None), false);
    check_takes(&server, &sidecar(), (None, Some(80)), true);
    for direction in [IN, OUT] {
        check_takes(&entry(WorkloadMode::ClientAndServer, &[]), &sidecar(), (direction, None), true);
    }
}

#[test]
fn a_gateway_is_client_and_a_waypoint_server_whatever_the_direction() {
    for direction in [IN, OUT] {
        check_takes(&entry(WorkloadMode::Server, &[]), &gateway(), (direction, None), false);
        check_takes(&entry(WorkloadMode::Client, &[]), &gateway(), (direction, None), true);
        check_takes(&entry(WorkloadMode::Server, &[]), &waypoint(), (direction, None), true);
        check_takes(&entry(WorkloadMode::Client, &[]), &waypoint(), (direction, None), false);
    }
}

#[test]
fn mode_and_port_must_both_fit() {
    let server = entry(WorkloadMode::Server, &[80, 443]);
    check_takes(&server, &sidecar(), (IN, Some(443)), true);
    check_takes(&server, &sidecar(), (IN, Some(8080)), false);
    check_takes(&server, &sidecar(), (OUT, Some(443)), false);
    check_takes(&server, &sidecar(), (IN, None), true);
}

#[test]
fn a_waypoints_http_listener_has_no_port() {
    check_takes(&entry(WorkloadMode::Server, &[80]), &waypoint(), (IN, Some(80)), false);
    check_takes(&entry(WorkloadMode::Server, &[80]), &waypoint(), (IN, None), false);
}

#[test]
fn a_listener_of_which_nothing_is_known_is_taken_by_all() {
    for proxy in [sidecar(), gateway(), waypoint()] {
        for mode in [WorkloadMode::Client, WorkloadMode::Server] {
            check_takes(&entry(mode, &[1]), &proxy, (None, None), true);
        }
    }
}

#[test]
fn one_entry_of_several_is_enough_and_none_at_all_takes_everything() {
    let listener = Listener { direction: IN, port: Some(80), layer: Layer::Http, protocol: None };
    let entries = [entry(WorkloadMode::Client, &[]), entry(WorkloadMode::Server, &[80])];
    assert_eq!(takes(&entries, &sidecar(), listener), Ok(Some("`match[1]` takes this traffic".to_owned())));
    assert_eq!(takes(&[], &sidecar(), listener), Ok(None));
    let refused = takes(&entries[..1], &sidecar(), listener);
    assert_eq!(
        refused,
        Err("no `match` entry takes its traffic, which is SERVER, on port 80 at sidecar `p`".to_owned())
    );
}
