//! Which proxy a chain is resolved for: the one the operator names, or the one the extensions themselves name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::attach::{
    AttachedService, GATEWAY_NAME_LABEL, MeshOptions, ServiceKind, Target, WAYPOINT_CLASS, attaches, described, target,
};
use crate::model::{Attach, Direction, Extension, Layer, Listener, Proxy, ProxyKind, TargetRef};
use crate::resources::{GatewayClass, Resources, Service, Workload};

mod ambient;
mod stated;

pub use ambient::{Ambient, WaypointBefore};
pub use stated::stated;

const GATEWAY_CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";
/// Istio's controller for waypoints, whatever a class of it is called.
const WAYPOINT_CONTROLLER: &str = "istio.io/mesh-controller";
const USE_WAYPOINT_LABEL: &str = "istio.io/use-waypoint";
const USE_WAYPOINT_NAMESPACE_LABEL: &str = "istio.io/use-waypoint-namespace";
/// Labels that tell pods of one workload apart, but not workloads.
const POD_LABELS: [&str; 9] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    // The sidecar injector's.
    "security.istio.io/tlsMode",
    "service.istio.io/canonical-name",
    "service.istio.io/canonical-revision",
];

/// The proxy that the extensions themselves name.
#[derive(Debug, Clone, PartialEq)]
pub struct Assumption {
    /// For whom to resolve.
    pub proxy: Proxy,
    /// For which listener.
    pub listener: Listener,
    /// What to put into [`MeshOptions::services`]: the services that the extensions target.
    pub services: Vec<AttachedService>,
    /// What was assumed and why, as a sentence for the operator.
    pub sentence: String,
}

/// Why there is no proxy to resolve for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// No extension, so nothing names a proxy.
    #[error("there is no WasmPlugin or TrafficExtension in the input")]
    NoExtensions,
    /// No single proxy carries all the extensions.
    #[error("the extensions are for several proxies: {}; choose one with `--workload NS/NAME`", candidates.join(", "))]
    Several {
        /// Each proxy with the extensions that name it, for example
        /// ``gateway default/bookinfo-gateway (basic-auth-at-gateway)``.
        candidates: Vec<String>,
    },
    /// Not of the form `namespace/name`.
    #[error("`{given}` is not of the form NS/NAME, for example default/{}", given.rsplit('/').find(|part| !part.is_empty()).unwrap_or("web"))]
    NotAName {
        /// What was given.
        given: String,
    },
    /// A workload that has no proxy.
    #[error("{0}")]
    Ambient(Ambient),
    /// Nothing in the input has that name.
    #[error("no pod, workload or gateway of the input is called `{given}`; {}", Known(.known))]
    NotFound {
        /// What was given.
        given: String,
        /// What there is, as `namespace/name`.
        known: Vec<String>,
    },
}

struct Known<'n>(&'n [String]);

impl fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("it has none") } else { write!(f, "it has {}", self.0.join(", ")) }
    }
}

/// Finds the proxy that the extensions themselves name, when the operator names none.
///
/// - A `Gateway` target names that gateway; a given Gateway of class `istio-waypoint` is a waypoint. When the Gateway
///   is not given, a name that is or ends in `waypoint` is taken for a waypoint's.
/// - A `Service` target names the waypoint that the service, or its namespace, is labelled to use.
/// - A selector names the given workloads that it selects, or a pod with exactly its labels when none is given.
/// - Extensions for whole namespaces fit any proxy there; alone they name a sidecar without labels.
///
/// The proxy must be the only one that carries every extension which names one.
///
/// # Errors
/// [`ProxyError::NoExtensions`] and [`ProxyError::Several`].
pub fn assume_proxy(resources: &Resources, mesh: &MeshOptions) -> Result<Assumption, ProxyError> {
    if resources.extensions.is_empty() {
        return Err(ProxyError::NoExtensions);
    }
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut specific: Vec<&Extension> = Vec::new();
    let workloads = distinct(&resources.workloads);
    for extension in &resources.extensions {
        let named = named_by(extension, &workloads, resources, mesh);
        if !named.is_empty() {
            specific.push(extension);
        }
        for candidate in named {
            match candidates.iter_mut().find(|known| known.proxy == candidate.proxy) {
                Some(known) => known.join(candidate),
                None => candidates.push(candidate),
            }
        }
    }
    if specific.is_empty() {
        candidates = namespace_wide(resources, mesh);
    }
    let carries_all = |candidate: &&Candidate| {
        let mesh = MeshOptions { services: candidate.services.clone(), ..mesh.clone() };
        specific
            .iter()
            .all(|extension| attaches(&extension.attach, &extension.namespace, &candidate.proxy, &mesh).is_ok())
    };
    let complete: Vec<&Candidate> = candidates.iter().filter(carries_all).collect();
    match complete[..] {
        [one] => Ok(one.clone().assume(resources)),
        _ => Err(ProxyError::Several { candidates: candidates.iter().map(Candidate::describe).collect() }),
    }
}

/// Finds the proxy of a pod, a workload with a pod template, or a gateway, by `namespace/name`.
///
/// A Gateway that only an extension's `targetRefs` names, and that is not given, counts as well.
///
/// # Errors
/// [`ProxyError::NotAName`], [`ProxyError::NotFound`] with the names there are, and [`ProxyError::Ambient`] for a pod or
/// workload of ambient mode, with the waypoints that stand before it.
pub fn workload(resources: &Resources, name: &str) -> Result<Proxy, ProxyError> {
    let given = name;
    let (namespace, name) = match given.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            (namespace, name)
        }
        _ => return Err(ProxyError::NotAName { given: given.to_owned() }),
    };
    let is_wanted = |ns: &str, n: &str| ns == namespace && n == name;
    if resources.gateways.iter().any(|gateway| is_wanted(&gateway.namespace, &gateway.name)) {
        return Ok(gateway_proxy(resources, namespace, name));
    }
    if let Some(workload) = resources.workloads.iter().find(|workload| is_wanted(&workload.namespace, &workload.name)) {
        return match ambient::ambient(resources, workload) {
            Some(ambient) => Err(ProxyError::Ambient(ambient)),
            None => Ok(workload_proxy(resources, workload)),
        };
    }
    let targeted = targeted_gateways(resources);
    if targeted.contains(&(namespace, name)) {
        return Ok(gateway_proxy(resources, namespace, name));
    }
    let gateways = resources.gateways.iter().map(|gateway| (gateway.namespace.as_str(), gateway.name.as_str()));
    let workloads = resources.workloads.iter().map(|workload| (workload.namespace.as_str(), workload.name.as_str()));
    let known: BTreeSet<_> = gateways.chain(workloads).chain(targeted).collect();
    let known = known.into_iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
    Err(ProxyError::NotFound { given: given.to_owned(), known })
}

/// The listener that is meant when none is asked for: inbound at sidecars and waypoints, outbound (which is what
/// CLIENT means) at gateways; the network chain when every extension is a network filter.
pub fn assumed_listener(resources: &Resources, proxy: &Proxy) -> Listener {
    let direction = if proxy.kind == ProxyKind::Gateway { Direction::Outbound } else { Direction::Inbound };
    let is_network = |extension: &Extension| extension.layer() == Layer::Network;
    let all_network = !resources.extensions.is_empty() && resources.extensions.iter().all(is_network);
    let layer = if all_network { Layer::Network } else { Layer::Http };
    Listener { direction: Some(direction), port: None, layer, protocol: None }
}

/// The given Services and `ServiceEntry`s whose traffic goes through a waypoint, by `istio.io/use-waypoint` on them or
/// their namespace.
pub fn services_of(resources: &Resources, waypoint: &Proxy) -> Vec<AttachedService> {
    let name = waypoint.labels.get(GATEWAY_NAME_LABEL).map_or(waypoint.name.as_str(), String::as_str);
    let services = resources.services.iter().map(|service| (ServiceKind::Service, service));
    let entries = resources.service_entries.iter().map(|entry| (ServiceKind::ServiceEntry, entry));
    services
        .chain(entries)
        .filter(|(_, service)| {
            let used = waypoint_of(resources, &service.namespace, Some(&service.labels));
            used == Some((&waypoint.namespace, name))
        })
        .map(|(kind, Service { namespace, name, .. })| AttachedService {
            kind,
            namespace: namespace.clone(),
            name: name.clone(),
        })
        .collect()
}

#[derive(Debug, Clone)]
struct Candidate {
    proxy: Proxy,
    services: Vec<AttachedService>,
    /// The extensions that name it.
    named_by: Vec<String>,
    /// Why it is what it is taken for, when that is a guess.
    guess: Option<String>,
}

impl Candidate {
    fn join(&mut self, other: Self) {
        // One extension with two targets names a proxy twice in a row.
        if other.named_by.last() != self.named_by.last() {
            self.named_by.extend(other.named_by);
        }
        self.services.extend(other.services);
        self.services.sort();
        self.services.dedup();
    }

    fn describe(&self) -> String {
        let Proxy { name, namespace, kind, .. } = &self.proxy;
        format!("{} {namespace}/{name} ({})", kind_name(*kind), few(&self.named_by))
    }

    fn assume(self, resources: &Resources) -> Assumption {
        let listener = assumed_listener(resources, &self.proxy);
        let direction = if listener.direction == Some(Direction::Inbound) { "inbound" } else { "outbound" };
        let guess = self.guess.map(|guess| format!(" ({guess})")).unwrap_or_default();
        let sentence = format!(
            "Assuming the {direction} traffic of {} in namespace `{}`, which {} {} for{guess}.",
            described(&self.proxy),
            self.proxy.namespace,
            few(&self.named_by),
            if self.named_by.len() == 1 { "is" } else { "are" }
        );
        Assumption { proxy: self.proxy, listener, services: self.services, sentence }
    }
}

/// Lists names, the first of them when there are many.
pub(crate) fn few(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}

fn kind_name(kind: ProxyKind) -> &'static str {
    match kind {
        ProxyKind::Sidecar => "sidecar",
        ProxyKind::Gateway => "gateway",
        ProxyKind::Waypoint => "waypoint",
    }
}

/// The proxies one extension names; none when it fits any proxy in its scope.
fn named_by(
    extension: &Extension,
    workloads: &[&Workload],
    resources: &Resources,
    mesh: &MeshOptions,
) -> Vec<Candidate> {
    match &extension.attach {
        Attach::Namespace => Vec::new(),
        Attach::Selector(labels) if labels.is_empty() => Vec::new(),
        Attach::TargetRefs(refs) => {
            refs.iter().flat_map(|target| targeted(target, extension, resources, mesh)).collect()
        }
        Attach::Selector(labels) => {
            let given: Vec<Candidate> = workloads
                .iter()
                .filter(|workload| {
                    workload.namespace == extension.namespace || extension.namespace == mesh.root_namespace
                })
                .filter(|workload| labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value)))
                .map(|workload| candidate(workload_proxy(resources, workload), extension, None))
                .collect();
            if given.is_empty() { vec![selected_pod(labels, extension, resources)] } else { given }
        }
    }
}

fn candidate(proxy: Proxy, extension: &Extension, guess: Option<String>) -> Candidate {
    Candidate { proxy, services: Vec::new(), named_by: vec![extension.name.clone()], guess }
}

fn targeted(
    target_ref: &TargetRef,
    extension: &Extension,
    resources: &Resources,
    mesh: &MeshOptions,
) -> Vec<Candidate> {
    let namespace = extension.namespace.as_str();
    match target(&target_ref.group, &target_ref.kind) {
        None => Vec::new(),
        Some(Target::Gateway) => {
            let proxy = gateway_proxy(resources, namespace, &target_ref.name);
            let guess = gateway_guess(resources, &proxy);
            vec![candidate(proxy, extension, guess)]
        }
        Some(Target::Service(kind)) => {
            let name = target_ref.name.clone();
            let given = match kind {
                ServiceKind::Service => &resources.services,
                ServiceKind::ServiceEntry => &resources.service_entries,
            };
            let service = given.iter().find(|service| service.namespace == namespace && service.name == name);
            let found = waypoint_of(resources, namespace, service.map(|service| &service.labels));
            let guess = found.is_none().then(|| format!("nothing given says which waypoint {kind:?} `{name}` uses"));
            let (waypoint_namespace, waypoint) = found.unwrap_or((namespace, "waypoint"));
            let mut proxy = gateway_proxy(resources, waypoint_namespace, waypoint);
            proxy.kind = ProxyKind::Waypoint;
            let service = AttachedService { kind, namespace: namespace.to_owned(), name };
            vec![Candidate { services: vec![service], ..candidate(proxy, extension, guess) }]
        }
        Some(Target::GatewayClass) => {
            let given: Vec<_> = resources
                .gateways
                .iter()
                .filter(|gateway| {
                    let proxy = gateway_proxy(resources, &gateway.namespace, &gateway.name);
                    proxy.kind == ProxyKind::Waypoint && target_ref.name == WAYPOINT_CLASS
                })
                .map(|gateway| candidate(gateway_proxy(resources, &gateway.namespace, &gateway.name), extension, None))
                .collect();
            if !given.is_empty() {
                return given;
            }
            // It fits any waypoint, so the others may name one; one in its own namespace stands for all.
            let others =
                resources.extensions.iter().any(|other| !std::ptr::eq(other, extension) && names_waypoint(other));
            let proxy = gateway_proxy(resources, &mesh.root_namespace, "waypoint");
            let guess = Some("any waypoint would do".to_owned());
            if others { Vec::new() } else { vec![candidate(proxy, extension, guess)] }
        }
    }
}

fn names_waypoint(extension: &Extension) -> bool {
    let Attach::TargetRefs(refs) = &extension.attach else { return false };
    refs.iter().any(|one| matches!(target(&one.group, &one.kind), Some(Target::Gateway | Target::Service(_))))
}

fn selected_pod(labels: &BTreeMap<String, String>, extension: &Extension, resources: &Resources) -> Candidate {
    let name = ["app.kubernetes.io/name", "app", "istio", GATEWAY_NAME_LABEL].iter().find_map(|key| labels.get(*key));
    let proxy = Proxy {
        name: name.cloned().unwrap_or_else(|| extension.name.clone()),
        namespace: extension.namespace.clone(),
        kind: kind_of_pod(resources, &extension.namespace, labels),
        labels: labels.clone(),
    };
    let guess = format!("a {} with the labels it selects, since no such pod is given", kind_name(proxy.kind));
    candidate(proxy, extension, Some(guess))
}

/// A sidecar for each namespace, when all that is given is for whole namespaces.
fn namespace_wide(resources: &Resources, mesh: &MeshOptions) -> Vec<Candidate> {
    let namespaces: BTreeSet<&str> =
        resources.extensions.iter().map(|extension| extension.namespace.as_str()).collect();
    let own: Vec<&str> = namespaces.iter().copied().filter(|namespace| *namespace != mesh.root_namespace).collect();
    let namespaces = if own.is_empty() { vec!["default"] } else { own };
    let sidecar = |namespace: &str| Candidate {
        proxy: Proxy {
            name: "sidecar".to_owned(),
            namespace: namespace.to_owned(),
            labels: BTreeMap::new(),
            kind: ProxyKind::Sidecar,
        },
        services: Vec::new(),
        named_by: resources
            .extensions
            .iter()
            .filter(|extension| extension.namespace == namespace || extension.namespace == mesh.root_namespace)
            .map(|extension| extension.name.clone())
            .collect(),
        guess: Some("any workload of the namespace would do".to_owned()),
    };
    namespaces.into_iter().map(sidecar).collect()
}

/// One workload of each namespace and set of labels, so that the pods of a Deployment count once.
fn distinct(workloads: &[Workload]) -> Vec<&Workload> {
    let mut seen = BTreeSet::new();
    let lasting = |workload: &Workload| {
        let labels = workload.labels.iter().filter(|(key, _)| !POD_LABELS.contains(&key.as_str()));
        (workload.namespace.clone(), labels.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>())
    };
    workloads.iter().filter(|workload| seen.insert(lasting(workload))).collect()
}

/// The proxy of a gateway, with the labels of its pods when they are given.
fn gateway_proxy(resources: &Resources, namespace: &str, name: &str) -> Proxy {
    let is_its_pod = |workload: &&Workload| {
        workload.namespace == namespace && workload.labels.get(GATEWAY_NAME_LABEL).is_some_and(|label| label == name)
    };
    let mut labels = resources.workloads.iter().find(is_its_pod).map(|pod| pod.labels.clone()).unwrap_or_default();
    labels.insert(GATEWAY_NAME_LABEL.to_owned(), name.to_owned());
    let kind = kind_of_gateway(resources, namespace, name, &labels);
    Proxy { name: name.to_owned(), namespace: namespace.to_owned(), labels, kind }
}

fn workload_proxy(resources: &Resources, workload: &Workload) -> Proxy {
    Proxy {
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        labels: workload.labels.clone(),
        kind: kind_of_pod(resources, &workload.namespace, &workload.labels),
    }
}

pub(crate) fn kind_of_pod(resources: &Resources, namespace: &str, labels: &BTreeMap<String, String>) -> ProxyKind {
    if let Some(gateway) = labels.get(GATEWAY_NAME_LABEL) {
        return kind_of_gateway(resources, namespace, gateway, labels);
    }
    if is_classic_gateway(labels) { ProxyKind::Gateway } else { ProxyKind::Sidecar }
}

/// Istio's own charts label their gateways `istio: ingressgateway` and `app: istio-ingressgateway`.
pub(crate) fn is_classic_gateway(labels: &BTreeMap<String, String>) -> bool {
    let is_gateway = |key: &str, prefix: &str| {
        labels.get(key).is_some_and(|value| value.starts_with(prefix) && value.ends_with("gateway"))
    };
    is_gateway("istio", "") || is_gateway("app", "istio-")
}

fn kind_of_gateway(resources: &Resources, namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> ProxyKind {
    let given = resources.gateways.iter().find(|gateway| gateway.namespace == namespace && gateway.name == name);
    kind_by_class(given.map(|gateway| gateway.class.as_str()), name, labels, &resources.gateway_classes)
}

/// What a Gateway's class makes of it; without one, what its pods' labels or its name do.
pub(crate) fn kind_by_class(
    class: Option<&str>,
    name: &str,
    labels: &BTreeMap<String, String>,
    classes: &[GatewayClass],
) -> ProxyKind {
    let class = class.or(labels.get(GATEWAY_CLASS_LABEL).map(String::as_str));
    let is_waypoint_class = |class: &str| {
        let mut of_controller = classes.iter().filter(|given| given.controller == WAYPOINT_CONTROLLER);
        class == WAYPOINT_CLASS || of_controller.any(|given| given.name == class)
    };
    let is_waypoint = class.map_or_else(|| is_waypoint_name(name), is_waypoint_class);
    if is_waypoint { ProxyKind::Waypoint } else { ProxyKind::Gateway }
}

fn gateway_guess(resources: &Resources, proxy: &Proxy) -> Option<String> {
    let given =
        resources.gateways.iter().any(|gateway| gateway.namespace == proxy.namespace && gateway.name == proxy.name);
    let known = given || proxy.labels.contains_key(GATEWAY_CLASS_LABEL);
    (!known).then(|| format!("taken for a {} by its name, since the Gateway is not given", kind_name(proxy.kind)))
}

/// `istioctl waypoint apply` calls a waypoint `waypoint` unless told otherwise.
fn is_waypoint_name(name: &str) -> bool {
    name == "waypoint" || name.ends_with("-waypoint")
}

/// Namespace and name of the waypoint that a service uses; the service's own label comes before its namespace's.
pub(crate) fn waypoint_of<'r>(
    resources: &'r Resources,
    namespace: &'r str,
    service: Option<&'r BTreeMap<String, String>>,
) -> Option<(&'r str, &'r str)> {
    let own = service.filter(|labels| labels.contains_key(USE_WAYPOINT_LABEL));
    let labels = own.or_else(|| resources.namespaces.get(namespace))?;
    let waypoint = labels.get(USE_WAYPOINT_LABEL).filter(|waypoint| *waypoint != "none")?;
    let waypoint_namespace = labels.get(USE_WAYPOINT_NAMESPACE_LABEL).map_or(namespace, String::as_str);
    Some((waypoint_namespace, waypoint))
}

fn targeted_gateways(resources: &Resources) -> BTreeSet<(&str, &str)> {
    let refs = resources.extensions.iter().filter_map(|extension| match &extension.attach {
        Attach::TargetRefs(refs) => Some((extension, refs)),
        _ => None,
    });
    refs.flat_map(|(extension, refs)| refs.iter().map(move |one| (extension, one)))
        .filter(|(_, one)| target(&one.group, &one.kind) == Some(Target::Gateway))
        .map(|(extension, one)| (extension.namespace.as_str(), one.name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests;
