//! Traps in where an extension attaches: what its `match`, selector or targets mean at the proxies it is for.

use std::collections::BTreeMap;

use super::index::Index;
use super::{Rule, Warning};
use crate::attach::{GATEWAY_NAME_LABEL, Target, target};
use crate::locate::FieldPath;
use crate::model::{
    Attach, Extension, ExtensionFilter, Layer, Protocol, Proxy, ProxyKind, TargetRef, TrafficSelector, WorkloadMode,
};
use crate::proxy::{is_classic_gateway, kind_by_class, waypoint_of};
use crate::resources::{Resources, Workload};

const AMBIENT_LABEL: &str = "istio.io/dataplane-mode";

/// Judges an extension by the proxies that it names.
pub(super) fn check(extension: &Extension, resources: &Resources, index: &Index<'_>, warnings: &mut Vec<Warning>) {
    let namespace = extension.namespace.as_str();
    let mut named: Vec<(ProxyKind, String)> = Vec::new();
    match &extension.attach {
        Attach::Selector(labels) if !labels.is_empty() => {
            let selected = index.selected(labels, namespace);
            if selected.is_empty() {
                named.push(by_labels(labels, namespace, index));
                if !resources.workloads.is_empty() {
                    warnings.push(selects_nothing(extension, labels, index));
                }
            }
            named.extend(selected.iter().map(|workload| by_labels(&workload.labels, &workload.namespace, index)));
            if let Some((_, waypoint)) = named.iter().find(|(kind, _)| *kind == ProxyKind::Waypoint) {
                warnings.push(selector_on_waypoint(extension, waypoint));
            } else if let Some(workload) = ambient(&selected, resources) {
                warnings.push(selector_in_ambient(extension, workload));
            }
        }
        Attach::TargetRefs(refs) => {
            for (position, one) in refs.iter().enumerate() {
                match target(&one.group, &one.kind) {
                    Some(Target::Gateway) => {
                        let pod = index.gateway_pods.get(&(namespace, one.name.as_str()));
                        let class = index.gateways.get(&(namespace, one.name.as_str())).copied();
                        let none = BTreeMap::new();
                        let labels = pod.map_or(&none, |pod| &pod.labels);
                        let kind = kind_by_class(class, &one.name, labels, &resources.gateway_classes);
                        named.push((kind, one.name.clone()));
                        if class.is_none() && pod.is_none() {
                            warnings.extend(no_gateway(extension, position, one, resources, index));
                        }
                    }
                    Some(Target::Service(_)) => {
                        named.push((ProxyKind::Waypoint, format!("the waypoint of {} `{}`", one.kind, one.name)));
                        let labels = index.services.get(&(namespace, one.name.as_str())).copied();
                        let known = labels.is_some() && resources.namespaces.contains_key(namespace);
                        if known && waypoint_of(resources, namespace, labels).is_none() {
                            let what = format!("it targets Service `{}`, which uses no waypoint", one.name);
                            let fix =
                                "label the Service or its namespace with `istio.io/use-waypoint`, or write a selector";
                            warnings.push(target_warning(Rule::TargetOnPod, extension, position, what, fix));
                        }
                    }
                    Some(Target::GatewayClass) => named.push((ProxyKind::Waypoint, "every waypoint".to_owned())),
                    None => {}
                }
            }
        }
        Attach::Selector(_) | Attach::Namespace => {}
    }
    if let Some((kind, name)) = named.first().filter(|(kind, _)| named.iter().all(|(other, _)| other == kind)) {
        check_entries(extension, *kind, name, warnings);
    }
    lua_on_tcp(extension, index, warnings);
}

/// Judges the `match` entries at a kind of proxy; `name` is one such, for the message.
pub(super) fn check_entries(extension: &Extension, kind: ProxyKind, name: &str, warnings: &mut Vec<Warning>) {
    let path = |index: usize, field: &str| FieldPath::keys(&["spec", "match"]).then(index).then(field);
    let http = extension.layer() == Layer::Http;
    let mut never = 0;
    for (index, entry) in extension.traffic.iter().enumerate() {
        let TrafficSelector { mode, ports } = entry;
        let found = match kind {
            ProxyKind::Gateway if *mode == WorkloadMode::Server => {
                let what = format!("match[{index}] is for SERVER traffic, at gateway `{name}`");
                let fix = "write `mode: CLIENT`, or leave mode out";
                Some((Rule::ServerOnGateway, "mode", what, fix))
            }
            ProxyKind::Waypoint if *mode == WorkloadMode::Client => {
                let what = format!("match[{index}] is for CLIENT traffic, at {}", waypoint(name));
                Some((Rule::ClientOnWaypoint, "mode", what, "write `mode: SERVER`, or leave mode out"))
            }
            ProxyKind::Waypoint if http && !ports.is_empty() => {
                let what = format!("match[{index}] names ports, at {}", waypoint(name));
                let fix = "leave ports out; to tell ports apart, target the Service that has them";
                Some((Rule::PortsOnWaypoint, "ports", what, fix))
            }
            _ => None,
        };
        if let Some((rule, field, what, fix)) = found {
            never += 1;
            warnings.push(Warning::new(rule, extension, path(index, field), what, fix));
        }
    }
    if never > 0 && never == extension.traffic.len() {
        let entries = if never == 1 { "the only entry" } else { "every entry" };
        let what = format!("{entries} of `match` is one that can never hold there, so it never runs");
        let fix = "correct the entries, or leave match out, which takes everything";
        warnings.push(Warning::new(Rule::MatchNeverHolds, extension, FieldPath::keys(&["spec", "match"]), what, fix));
    }
}

pub(super) fn selector_on_waypoint(extension: &Extension, name: &str) -> Warning {
    let what = format!("its selector selects {}", waypoint(name));
    let fix = "write `targetRefs` with the waypoint's Gateway, or with the Service that it is for";
    Warning::new(Rule::SelectorOnWaypoint, extension, FieldPath::keys(&["spec", "selector"]), what, fix)
}

/// What targets something of which nothing is given, asked for a pod that nothing can target.
pub(super) fn target_on_pod(
    extension: &Extension,
    refs: &[TargetRef],
    resources: &Resources,
    proxy: &Proxy,
) -> Option<Warning> {
    let namespace = extension.namespace.as_str();
    let is_given = |one: &TargetRef| match target(&one.group, &one.kind) {
        Some(Target::Gateway) => {
            let pods = resources.workloads.iter().filter(|workload| workload.namespace == namespace);
            let mut labels = pods.filter_map(|workload| workload.labels.get(GATEWAY_NAME_LABEL));
            resources.gateways.iter().any(|gateway| gateway.namespace == namespace && gateway.name == one.name)
                || labels.any(|name| *name == one.name)
        }
        Some(Target::Service(_)) => {
            let mut services = resources.services.iter();
            let service = services.find(|service| service.namespace == namespace && service.name == one.name);
            waypoint_of(resources, namespace, service.map(|service| &service.labels)).is_some()
        }
        Some(Target::GatewayClass) => true,
        None => false,
    };
    let one = refs.first().filter(|_| !refs.iter().any(is_given))?;
    let what = format!("it targets {} `{}`, and `{}` is a pod without that label", one.kind, one.name, proxy.name);
    let fix = "write a selector with the pod's labels instead";
    Some(target_warning(Rule::TargetOnPod, extension, 0, what, fix))
}

fn no_gateway(
    extension: &Extension,
    position: usize,
    one: &TargetRef,
    resources: &Resources,
    index: &Index<'_>,
) -> Option<Warning> {
    let namespace = &extension.namespace;
    if let Some(workload) = index.plain_workload(namespace, &one.name) {
        let what =
            format!("it targets Gateway `{}`, and {} `{}` is no gateway", one.name, workload.kind, workload.name);
        let fix = "write a selector with the labels of its pods instead";
        return Some(target_warning(Rule::TargetOnPod, extension, position, what, fix));
    }
    // Where no Gateway is given at all, the files are not meant to have them.
    (!resources.gateways.is_empty()).then(|| {
        let what = format!("it targets Gateway `{}`, and no given Gateway of `{namespace}` is called so", one.name);
        let fix = "correct the name, or put the extension into the Gateway's namespace";
        target_warning(Rule::TargetNotGiven, extension, position, what, fix)
    })
}

fn target_warning(rule: Rule, extension: &Extension, position: usize, what: String, fix: &str) -> Warning {
    let path = FieldPath::keys(&["spec", "targetRefs"]).then(position).then("name");
    Warning::new(rule, extension, path, what, fix)
}

fn selects_nothing(extension: &Extension, labels: &BTreeMap<String, String>, index: &Index<'_>) -> Warning {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let place = if extension.namespace == index.root {
        "any namespace".to_owned()
    } else {
        format!("namespace `{}`", extension.namespace)
    };
    let what = format!("it selects {}, which no given workload of {place} has", labels.join(", "));
    let fix = "correct the labels, or put the extension into the workload's namespace";
    let path = FieldPath::keys(&["spec", "selector", "matchLabels"]);
    Warning::new(Rule::SelectorMatchesNothing, extension, path, what, fix)
}

/// One of the selected workloads, if all of them are in ambient mode, where pods have no proxy of their own.
fn ambient<'w>(selected: &[&'w Workload], resources: &Resources) -> Option<&'w Workload> {
    let is_ambient = |workload: &&Workload| {
        let of_namespace = resources.namespaces.get(&workload.namespace);
        let mode = workload.labels.get(AMBIENT_LABEL).or_else(|| of_namespace?.get(AMBIENT_LABEL));
        let gateway = workload.labels.contains_key(GATEWAY_NAME_LABEL) || is_classic_gateway(&workload.labels);
        mode.is_some_and(|mode| mode == "ambient") && !gateway
    };
    selected.first().copied().filter(|_| selected.iter().all(is_ambient))
}

fn selector_in_ambient(extension: &Extension, workload: &Workload) -> Warning {
    let what = format!(
        "it selects {} `{}`, which is in ambient mode and has no proxy of its own",
        workload.kind, workload.name
    );
    let fix = "write `targetRefs` with the Service whose waypoint is to carry it";
    Warning::new(Rule::SelectorOnWaypoint, extension, FieldPath::keys(&["spec", "selector"]), what, fix)
}

fn by_labels(labels: &BTreeMap<String, String>, namespace: &str, index: &Index<'_>) -> (ProxyKind, String) {
    if let Some(gateway) = labels.get(GATEWAY_NAME_LABEL) {
        let class = index.gateways.get(&(namespace, gateway.as_str())).copied();
        return (kind_by_class(class, gateway, labels, index.classes), gateway.clone());
    }
    let name = ["app.kubernetes.io/name", "app", "istio"].iter().find_map(|key| labels.get(*key));
    let kind = if is_classic_gateway(labels) { ProxyKind::Gateway } else { ProxyKind::Sidecar };
    (kind, name.cloned().unwrap_or_default())
}

/// Lua all of whose ports carry something else than HTTP.
fn lua_on_tcp(extension: &Extension, index: &Index<'_>, warnings: &mut Vec<Warning>) {
    let ExtensionFilter::Lua { .. } = &extension.filter else { return };
    let is_tcp =
        |port: &u16| index.ports.get(&(extension.namespace.as_str(), *port)).copied().flatten() == Some(Protocol::Tcp);
    let all_tcp = |entry: &TrafficSelector| !entry.ports.is_empty() && entry.ports.iter().all(is_tcp);
    if extension.traffic.is_empty() || !extension.traffic.iter().all(all_tcp) {
        return;
    }
    let ports: Vec<String> = extension.traffic.iter().flat_map(|entry| &entry.ports).map(u16::to_string).collect();
    let what = format!("it is for port {}, which carries no HTTP by the given Services", ports.join(", "));
    let fix = "write it as a wasm extension of type NETWORK, or correct the ports' names or appProtocol";
    let path = FieldPath::keys(&["spec", "match"]).then(0).then("ports");
    warnings.push(Warning::new(Rule::LuaInNetwork, extension, path, what, fix));
}

fn waypoint(name: &str) -> String {
    if name.contains(' ') { name.to_owned() } else { format!("waypoint `{name}`") }
}
