//! Where the chains differ before and after.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::{Options, Step};
use crate::attach::{GATEWAY_NAME_LABEL, MeshOptions, described};
use crate::chain::resolve;
use crate::model::{Attach, Direction, Extension, FilterKind, Layer, Listener, Proxy, ProxyKind};
use crate::proxy::{kind_of_pod, services_of, workload};
use crate::resources::Resources;

/// A chain that is not the same afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which proxy and traffic: ``sidecar `httpbin` in namespace `apps`, outbound``.
    pub place: String,
    /// How many further proxies it is the same for.
    pub further: usize,
    /// The extensions in order, before.
    pub before: Vec<String>,
    /// And after.
    pub after: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.further > 0 { format!(" (and {} more)", self.further) } else { String::new() };
        write!(f, "{}{more}: before {}, after {}", self.place, chain(&self.before), chain(&self.after))
    }
}

fn chain(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { format!("`-> {}`", names.join(" -> ")) }
}

/// Compares the chains of every proxy that the resources name.
pub(super) fn differences(before: &Resources, after: &Resources, steps: &[Step], options: &Options) -> Vec<Difference> {
    let renamed: BTreeMap<String, String> =
        steps.iter().filter_map(|step| Some((step.before.id(), name(step.after.last()?)))).collect();
    let all = |resources: &Resources, proxy: &Proxy, listener: Listener, root: &str| -> Vec<(String, String)> {
        let mut mesh = MeshOptions { root_namespace: root.to_owned(), ..MeshOptions::default() };
        mesh.services = services_of(resources, proxy);
        let chain = resolve(resources, proxy, &listener, &mesh);
        let label = |kind: &FilterKind| match kind {
            FilterKind::BuiltIn(name) => (String::new(), name.clone()),
            FilterKind::Extension(extension) => (extension.id(), name(extension)),
        };
        chain.filters.iter().map(|filter| label(&filter.kind)).collect()
    };
    let network = before.extensions.iter().any(|one| one.wasm().is_some_and(|wasm| wasm.layer == Layer::Network));
    let mut found: Vec<Difference> = Vec::new();
    let mut known: HashMap<(&str, Vec<String>, Vec<String>), usize> = HashMap::new();
    for proxy in proxies(before, options) {
        let moved = Proxy { namespace: options.namespace(&proxy.namespace), ..proxy.clone() };
        for (listener, traffic) in listeners(&proxy, network) {
            let old = all(before, &proxy, listener, &options.root_namespace);
            let new = all(after, &moved, listener, &options.namespace(&options.root_namespace));
            let old: Vec<_> =
                old.into_iter().map(|(id, name)| (id.is_empty(), renamed.get(&id).cloned().unwrap_or(name))).collect();
            let new: Vec<_> = new.into_iter().map(|(id, name)| (id.is_empty(), name)).collect();
            if old != new {
                let extensions = |chain: Vec<(bool, String)>| {
                    chain.into_iter().filter(|(built_in, _)| !built_in).map(|(_, name)| name).collect()
                };
                let (old, new): (Vec<String>, Vec<String>) = (extensions(old), extensions(new));
                match known.get(&(traffic, old.clone(), new.clone())).and_then(|index| found.get_mut(*index)) {
                    Some(same) => same.further += 1,
                    None => {
                        known.insert((traffic, old.clone(), new.clone()), found.len());
                        let place = format!("{} in namespace `{}`, {traffic}", described(&proxy), proxy.namespace);
                        found.push(Difference { place, further: 0, before: old, after: new });
                    }
                }
            }
        }
    }
    found
}

fn name(extension: &Extension) -> String {
    format!("{}/{}", extension.namespace, extension.name)
}

fn listeners(proxy: &Proxy, network: bool) -> Vec<(Listener, &'static str)> {
    let listener = |direction, layer| Listener { direction: Some(direction), port: None, layer, protocol: None };
    let mut listeners = match proxy.kind {
        ProxyKind::Sidecar => vec![
            (listener(Direction::Inbound, Layer::Http), "inbound"),
            (listener(Direction::Outbound, Layer::Http), "outbound"),
        ],
        ProxyKind::Gateway => vec![(listener(Direction::Outbound, Layer::Http), "every request")],
        ProxyKind::Waypoint => vec![(listener(Direction::Inbound, Layer::Http), "every request")],
    };
    if network {
        listeners.extend([
            (listener(Direction::Inbound, Layer::Network), "inbound connections"),
            (listener(Direction::Outbound, Layer::Network), "outbound connections"),
        ]);
    }
    listeners
}

/// Every proxy that is given, and one for each selector and namespace that none of them stands for.
fn proxies(resources: &Resources, options: &Options) -> Vec<Proxy> {
    let mut found: Vec<Proxy> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut add = |proxy: Proxy| {
        if seen.insert((proxy.namespace.clone(), proxy.labels.clone())) {
            found.push(proxy);
        }
    };
    let workloads = resources.workloads.iter().map(|one| (&one.namespace, &one.name));
    let gateways = resources.gateways.iter().map(|one| (&one.namespace, &one.name));
    for (namespace, name) in workloads.chain(gateways) {
        if let Ok(proxy) = workload(resources, &format!("{namespace}/{name}")) {
            add(proxy);
        }
    }
    let namespaces: BTreeSet<&String> = resources
        .extensions
        .iter()
        .map(|extension| &extension.namespace)
        .chain(resources.workloads.iter().map(|workload| &workload.namespace))
        .collect();
    let mut pod = |namespace: &str, labels: &BTreeMap<String, String>| {
        let own =
            ["app.kubernetes.io/name", "app", "istio", GATEWAY_NAME_LABEL].iter().find_map(|key| labels.get(*key));
        add(Proxy {
            name: own.cloned().unwrap_or_else(|| "any workload".to_owned()),
            namespace: namespace.to_owned(),
            kind: kind_of_pod(resources, namespace, labels),
            labels: labels.clone(),
        });
    };
    for namespace in &namespaces {
        pod(namespace, &BTreeMap::new());
    }
    for extension in &resources.extensions {
        let everywhere = extension.namespace == options.root_namespace;
        let scope = namespaces.iter().filter(|namespace| everywhere || ***namespace == extension.namespace);
        match &extension.attach {
            Attach::Selector(labels) => scope.for_each(|namespace| pod(namespace, labels)),
            Attach::TargetRefs(refs) => {
                for target in refs.iter().filter(|target| target.kind == "Gateway") {
                    let labels = BTreeMap::from([(GATEWAY_NAME_LABEL.to_owned(), target.name.clone())]);
                    pod(&extension.namespace, &labels);
                }
            }
            Attach::Namespace => {}
        }
    }
    found
}
