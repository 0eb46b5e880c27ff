//! Workloads in ambient mode, which have no proxy of their own: their requests meet the waypoints of their Services.

use std::collections::BTreeMap;
use std::fmt;

use super::{USE_WAYPOINT_LABEL, is_classic_gateway, waypoint_of};
use crate::attach::GATEWAY_NAME_LABEL;
use crate::resources::{Resources, Workload};

const DATAPLANE_MODE_LABEL: &str = "istio.io/dataplane-mode";

/// Who asks for a sidecar, and what the injector leaves behind. Ambient mode then keeps away.
const SIDECAR_LABELS: [(&str, Option<&str>); 2] =
    [("sidecar.istio.io/inject", Some("true")), ("security.istio.io/tlsMode", None)];

/// A waypoint that requests to a workload meet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaypointBefore {
    /// The Service that the requests are for; none when they are for the workload itself.
    pub service: Option<String>,
    /// The waypoint, as `namespace/name`.
    pub waypoint: String,
}

/// How requests get to a workload in ambient mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ambient {
    /// As it was asked for, `namespace/name`.
    pub workload: String,
    /// What its requests meet; nothing of that runs plugins when this is empty.
    pub waypoints: Vec<WaypointBefore>,
}

impl fmt::Display for Ambient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is in ambient mode and has no proxy of its own; ", self.workload)?;
        if self.waypoints.is_empty() {
            return f.write_str("no waypoint of the input stands before it, so its requests meet no plugin");
        }
        f.write_str("requests to ")?;
        for (index, WaypointBefore { service, waypoint }) in self.waypoints.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", to " })?;
            match service {
                Some(service) => write!(f, "Service `{service}`")?,
                None => f.write_str("it")?,
            }
            write!(f, " meet waypoint `{waypoint}`")?;
        }
        Ok(())
    }
}

/// Tells how requests get to a workload without a proxy; `None` when it has one.
pub(super) fn ambient(resources: &Resources, workload: &Workload) -> Option<Ambient> {
    let Workload { namespace, name, labels, .. } = workload;
    let mode = |labels: &BTreeMap<String, String>| labels.get(DATAPLANE_MODE_LABEL).cloned();
    let mode = mode(labels).or_else(|| resources.namespaces.get(namespace).and_then(mode));
    let has_proxy = labels.contains_key(GATEWAY_NAME_LABEL)
        || is_classic_gateway(labels)
        || SIDECAR_LABELS
            .iter()
            .any(|(key, wanted)| labels.get(*key).is_some_and(|value| wanted.is_none_or(|wanted| wanted == value)));
    if mode.as_deref() != Some("ambient") || has_proxy {
        return None;
    }
    let mut waypoints = Vec::new();
    for service in resources.services.iter().filter(|service| service.namespace == *namespace) {
        let selects =
            !service.selector.is_empty() && service.selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        if let Some((in_namespace, waypoint)) =
            waypoint_of(resources, namespace, Some(&service.labels)).filter(|_| selects)
        {
            let waypoint = format!("{in_namespace}/{waypoint}");
            waypoints.push(WaypointBefore { service: Some(service.name.clone()), waypoint });
        }
    }
    if labels.contains_key(USE_WAYPOINT_LABEL)
        && let Some((in_namespace, waypoint)) = waypoint_of(resources, namespace, Some(labels))
    {
        waypoints.push(WaypointBefore { service: None, waypoint: format!("{in_namespace}/{waypoint}") });
    }
    waypoints.sort();
    waypoints.dedup();
    Some(Ambient { workload: format!("{namespace}/{name}"), waypoints })
}
