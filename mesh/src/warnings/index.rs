//! The resources by what is asked of them, so that many extensions do not each look through all of them.

use std::collections::{BTreeMap, HashMap};

use crate::attach::{GATEWAY_NAME_LABEL, MeshOptions};
use crate::model::Protocol;
use crate::resources::{GatewayClass, Resources, Workload};

pub(super) struct Index<'r> {
    pub(super) root: &'r str,
    pub(super) classes: &'r [GatewayClass],
    /// Namespace and name of each Gateway, and its class.
    pub(super) gateways: HashMap<(&'r str, &'r str), &'r str>,
    /// Namespace and name of the Gateways that a given pod says it is of.
    pub(super) gateway_pods: HashMap<(&'r str, &'r str), &'r Workload>,
    pub(super) services: HashMap<(&'r str, &'r str), &'r BTreeMap<String, String>>,
    /// What the Services of a namespace say of a port; `None` when they do not agree.
    pub(super) ports: HashMap<(&'r str, u16), Option<Protocol>>,
    by_label: HashMap<(&'r str, &'r str), Vec<&'r Workload>>,
    /// By namespace, and name or `app` label.
    by_name: HashMap<(&'r str, &'r str), &'r Workload>,
}

impl<'r> Index<'r> {
    pub(super) fn new(resources: &'r Resources, mesh: &'r MeshOptions) -> Self {
        let mut index = Self {
            root: &mesh.root_namespace,
            classes: &resources.gateway_classes,
            gateways: HashMap::new(),
            gateway_pods: HashMap::new(),
            services: HashMap::new(),
            ports: HashMap::new(),
            by_label: HashMap::new(),
            by_name: HashMap::new(),
        };
        for gateway in &resources.gateways {
            index.gateways.insert((&gateway.namespace, &gateway.name), &gateway.class);
        }
        for service in &resources.services {
            index.services.insert((&service.namespace, &service.name), &service.labels);
        }
        for port in &resources.ports {
            for number in [Some(port.number), port.target].into_iter().flatten() {
                index
                    .ports
                    .entry((&port.namespace, number))
                    .and_modify(|known| *known = known.filter(|known| Some(*known) == port.protocol))
                    .or_insert(port.protocol);
            }
        }
        for workload in &resources.workloads {
            for (key, value) in &workload.labels {
                index.by_label.entry((key, value)).or_default().push(workload);
            }
            match workload.labels.get(GATEWAY_NAME_LABEL) {
                Some(gateway) => {
                    index.gateway_pods.insert((&workload.namespace, gateway), workload);
                }
                None => {
                    let app = workload.labels.get("app").or(workload.labels.get("app.kubernetes.io/name"));
                    for name in [Some(&workload.name), app].into_iter().flatten() {
                        index.by_name.insert((&workload.namespace, name), workload);
                    }
                }
            }
        }
        index
    }

    /// The given workloads that a selector of `namespace` selects.
    pub(super) fn selected(&self, labels: &BTreeMap<String, String>, namespace: &str) -> Vec<&'r Workload> {
        // The label that the fewest have decides how many are looked at.
        let labelled = labels.iter().map(|(key, value)| self.labelled(key, value));
        let fewest = labelled.min_by_key(|workloads| workloads.len()).unwrap_or_default();
        fewest
            .iter()
            .copied()
            .filter(|workload| namespace == self.root || workload.namespace == namespace)
            .filter(|workload| labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value)))
            .collect()
    }

    fn labelled<'a>(&'a self, key: &'a str, value: &'a str) -> &'a [&'r Workload] {
        self.by_label.get(&(key, value)).map_or(&[], Vec::as_slice)
    }

    /// A given workload that is no gateway's pod, by its name or that of its app.
    pub(super) fn plain_workload(&self, namespace: &str, name: &str) -> Option<&'r Workload> {
        self.by_name.get(&(namespace, name)).copied()
    }
}
