//! Attachment: which proxies an extension is meant for, and which of their listeners.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::fields::{Field, Object, Report};
use crate::model::{Attach, Direction, Layer, Listener, Proxy, ProxyKind, TargetRef, TrafficSelector, WorkloadMode};

/// The label that makes a pod a Gateway's: its value is the Gateway's name.
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// The gateway class of waypoints.
pub const WAYPOINT_CLASS: &str = "istio-waypoint";

const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
const MAX_TARGETS: usize = 16;
const MAX_LABELS: usize = 4096;
const MAX_LABEL_VALUE: usize = 63;

/// What is true of the whole mesh, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshOptions {
    /// The namespace whose extensions count everywhere; Istio's default is `istio-system`.
    pub root_namespace: String,
    /// The services whose requests a waypoint's chain is asked for. Istio builds that chain per service; with none,
    /// extensions that target a Service or `ServiceEntry` are left out.
    pub services: Vec<AttachedService>,
}

impl Default for MeshOptions {
    fn default() -> Self {
        Self { root_namespace: "istio-system".to_owned(), services: Vec::new() }
    }
}

/// A service behind a waypoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachedService {
    /// What it is in the cluster.
    pub kind: ServiceKind,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// The two kinds of service that a `targetRefs` entry can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ServiceKind {
    /// Kubernetes' Service.
    Service,
    /// Istio's `ServiceEntry`.
    ServiceEntry,
}

/// What a valid `targetRefs` entry means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Gateway,
    GatewayClass,
    Service(ServiceKind),
}

/// Classifies a group and kind; `None` when nothing can attach to it.
pub(crate) fn target(group: &str, kind: &str) -> Option<Target> {
    Some(match (group, kind) {
        (GATEWAY_GROUP, "Gateway") => Target::Gateway,
        (GATEWAY_GROUP, "GatewayClass") => Target::GatewayClass,
        ("" | "core", "Service") => Target::Service(ServiceKind::Service),
        ("networking.istio.io", "ServiceEntry") => Target::Service(ServiceKind::ServiceEntry),
        _ => return None,
    })
}

/// Reads `selector`, `targetRefs` and the older `targetRef`, which counts only when `targetRefs` is empty.
pub(crate) fn read(spec: &Object<'_>, report: &mut Report<'_>) -> Attach {
    let selector = spec.get("selector");
    let single = spec.get("targetRef");
    let several = spec.get("targetRefs");
    let given: Vec<_> = [&selector, &single, &several].into_iter().flatten().collect();
    if let [_, second, ..] = given[..] {
        second.error(report, Fault::SelectorAndTargetRefs);
    }
    let mut refs: Vec<TargetRef> = Vec::new();
    for item in several.map(|field| field.list_of_at_most(MAX_TARGETS, report)).unwrap_or_default() {
        refs.extend(target_ref(&item, report));
    }
    if refs.is_empty() {
        refs.extend(single.and_then(|field| target_ref(&field, report)));
    }
    let selector = selector.and_then(|field| self::selector(&field, report));
    match (refs.is_empty(), selector) {
        (false, _) => Attach::TargetRefs(refs),
        (true, Some(labels)) => Attach::Selector(labels),
        (true, None) => Attach::Namespace,
    }
}

fn selector(field: &Field<'_>, report: &mut Report<'_>) -> Option<BTreeMap<String, String>> {
    let errors_before = report.errors.len();
    let object = field.object(report)?;
    object.only(&["matchLabels"], report);
    let mut labels = BTreeMap::new();
    let matched = object.get("matchLabels");
    if let Some((field, object)) = matched.and_then(|field| Some((field.clone(), field.object(report)?))) {
        if object.entries.len() > MAX_LABELS {
            field.error(report, Fault::TooMany { count: object.entries.len(), max: MAX_LABELS });
        }
        for (key, field) in object.fields() {
            if key.is_empty() {
                field.error(report, Fault::Empty);
            }
            let Some(value) = field.text_of(0, MAX_LABEL_VALUE, report) else { continue };
            if let Some(value) = [key, value].into_iter().find(|text| text.contains('*')) {
                field.error(report, Fault::Wildcard { value: value.to_owned() });
            }
            labels.insert(key.to_owned(), value.to_owned());
        }
    }
    if labels.is_empty() && report.errors.len() == errors_before {
        field.warning(report, Fault::EmptySelector);
    }
    Some(labels)
}

fn target_ref(field: &Field<'_>, report: &mut Report<'_>) -> Option<TargetRef> {
    let object = field.object(report)?;
    object.only(&["group", "kind", "name", "namespace"], report);
    if let Some(namespace) = object.get("namespace").filter(|field| field.as_text() != Some("")) {
        namespace.error(report, Fault::TargetNamespace);
    }
    let group = object.get("group").and_then(|field| field.text_of(0, 253, report)).unwrap_or_default();
    let kind = object.required("kind", report).and_then(|field| Some((field.text_of(1, 63, report)?, field)));
    let name = object.required("name", report).and_then(|field| field.text_of(1, 253, report));
    let (kind, kind_field) = kind?;
    if target(group, kind).is_none() {
        kind_field.error(report, Fault::TargetKind { group: group.to_owned(), kind: kind.to_owned() });
    }
    Some(TargetRef { group: group.to_owned(), kind: kind.to_owned(), name: name?.to_owned() })
}

/// Decides whether something of `namespace` attaches to a proxy; either way with the reason, as a clause.
pub(crate) fn attaches(attach: &Attach, namespace: &str, proxy: &Proxy, mesh: &MeshOptions) -> Result<String, String> {
    let everywhere = namespace == mesh.root_namespace;
    let serves = mesh.services.iter().any(|service| service.namespace == namespace);
    if namespace != proxy.namespace && !everywhere && !(proxy.kind == ProxyKind::Waypoint && serves) {
        return Err(format!(
            "it counts in its own namespace `{namespace}`, and {} is in `{}`",
            described(proxy),
            proxy.namespace
        ));
    }
    let gateway = proxy.labels.get(GATEWAY_NAME_LABEL);
    match (attach, gateway) {
        (Attach::TargetRefs(refs), None) => {
            Err(format!("it targets {}, and a pod without the label `{GATEWAY_NAME_LABEL}` is no target", list(refs)))
        }
        (Attach::TargetRefs(refs), Some(gateway)) => refs
            .iter()
            .find_map(|target| hits(target, namespace, proxy, gateway, mesh))
            .ok_or_else(|| why_missed(refs, namespace, proxy, mesh)),
        (Attach::Selector(_) | Attach::Namespace, _) if proxy.kind == ProxyKind::Waypoint => {
            Err("a waypoint carries only what targets it by `targetRefs`, whatever its labels".to_owned())
        }
        (Attach::Selector(labels), _) if !labels.is_empty() => selects(labels, proxy),
        (Attach::Selector(_) | Attach::Namespace, _) if everywhere => {
            Ok(format!("applies to every workload, from the root namespace `{namespace}`"))
        }
        (Attach::Selector(_) | Attach::Namespace, _) => {
            Ok(format!("applies to every workload of namespace `{namespace}`"))
        }
    }
}

fn selects(labels: &BTreeMap<String, String>, proxy: &Proxy) -> Result<String, String> {
    match labels.iter().find(|(key, value)| proxy.labels.get(*key) != Some(*value)) {
        None => {
            let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            Ok(format!("selects this workload by {}", labels.join(", ")))
        }
        Some((key, wanted)) => Err(match proxy.labels.get(key) {
            Some(value) => format!("it selects {key}={wanted}, and {} has {key}={value}", described(proxy)),
            None => format!("it selects {key}={wanted}, and {} has no label `{key}`", described(proxy)),
        }),
    }
}

fn hits(target_ref: &TargetRef, namespace: &str, proxy: &Proxy, gateway: &str, mesh: &MeshOptions) -> Option<String> {
    let waypoint = proxy.kind == ProxyKind::Waypoint;
    let hit = match target(&target_ref.group, &target_ref.kind)? {
        Target::Gateway => namespace == proxy.namespace && target_ref.name == gateway,
        Target::GatewayClass => waypoint && namespace == mesh.root_namespace && target_ref.name == WAYPOINT_CLASS,
        Target::Service(kind) => {
            waypoint
                && mesh.services.iter().any(|service| {
                    service.kind == kind && service.namespace == namespace && service.name == target_ref.name
                })
        }
    };
    hit.then(|| format!("targets {} `{}`", target_ref.kind, target_ref.name))
}

fn why_missed(refs: &[TargetRef], namespace: &str, proxy: &Proxy, mesh: &MeshOptions) -> String {
    let this = described(proxy);
    let one = match refs {
        [one] => target(&one.group, &one.kind).map(|target| (target, one)),
        _ => None,
    };
    match one {
        Some((Target::Service(kind), _)) if proxy.kind != ProxyKind::Waypoint => {
            format!("it targets {}, and only a waypoint carries what targets a {kind:?}", list(refs))
        }
        Some((Target::Service(_), _)) if mesh.services.is_empty() => {
            format!("it targets {}, and this chain was asked for no particular service", list(refs))
        }
        Some((Target::GatewayClass, _)) if proxy.kind != ProxyKind::Waypoint => {
            format!("it targets {}, and {this} is no waypoint", list(refs))
        }
        Some((Target::GatewayClass, one)) if one.name == WAYPOINT_CLASS => format!(
            "what targets a GatewayClass must be in the root namespace `{}`, and it is in `{namespace}`",
            mesh.root_namespace
        ),
        Some((Target::Gateway, _)) if namespace != proxy.namespace => format!(
            "it targets {} of its own namespace `{namespace}`, and {this} is in `{}`",
            list(refs),
            proxy.namespace
        ),
        _ => format!("it targets {}, and this is {this}", list(refs)),
    }
}

fn list(refs: &[TargetRef]) -> String {
    refs.iter().map(|target| format!("{} `{}`", target.kind, target.name)).collect::<Vec<_>>().join(", ")
}

/// Names a proxy in a sentence.
pub(crate) fn described(proxy: &Proxy) -> String {
    let kind = match proxy.kind {
        ProxyKind::Sidecar => "sidecar",
        ProxyKind::Gateway => "gateway",
        ProxyKind::Waypoint => "waypoint",
    };
    format!("{kind} `{}`", proxy.name)
}

/// Decides whether one of the `match` entries takes the listener's traffic; either way with the reason, as a clause.
///
/// Nothing to say when there is no `match`. A listener of which neither direction nor port is known is taken by all.
pub(crate) fn takes(traffic: &[TrafficSelector], proxy: &Proxy, listener: Listener) -> Result<Option<String>, String> {
    if traffic.is_empty() {
        return Ok(None);
    }
    let own_mode = match (proxy.kind, listener.direction) {
        (ProxyKind::Gateway, _) | (ProxyKind::Sidecar, Some(Direction::Outbound)) => Some(WorkloadMode::Client),
        (ProxyKind::Waypoint, _) | (ProxyKind::Sidecar, Some(Direction::Inbound)) => Some(WorkloadMode::Server),
        (ProxyKind::Sidecar, None) => None,
    };
    let unknown = listener.direction.is_none() && listener.port.is_none();
    let portless = proxy.kind == ProxyKind::Waypoint && listener.layer == Layer::Http;
    let fits = |entry: &TrafficSelector| {
        let mode = entry.mode == WorkloadMode::ClientAndServer || own_mode.is_none_or(|mode| mode == entry.mode);
        let port =
            entry.ports.is_empty() || (!portless && listener.port.is_none_or(|port| entry.ports.contains(&port)));
        unknown || (mode && port)
    };
    if let Some(index) = traffic.iter().position(fits) {
        let ports: Vec<String> = traffic[index].ports.iter().map(u16::to_string).collect();
        let only = match listener.port {
            None if !ports.is_empty() => format!(" on port {}", ports.join(", ")),
            _ => String::new(),
        };
        return Ok(Some(format!("`match[{index}]` takes this traffic{only}")));
    }
    let side = match own_mode {
        Some(WorkloadMode::Client) => "CLIENT",
        Some(_) => "SERVER",
        None => "of either mode",
    };
    let port = match listener.port {
        _ if portless => ", and has no port".to_owned(),
        Some(port) => format!(", on port {port}"),
        None => String::new(),
    };
    Err(format!("no `match` entry takes its traffic, which is {side}{port} at {}", described(proxy)))
}

#[cfg(test)]
mod tests;
