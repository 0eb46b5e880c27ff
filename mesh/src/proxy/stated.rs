//! A proxy of which the operator says what it is, rather than naming one that is given.

use std::collections::BTreeMap;

use super::kind_of_gateway;
use crate::attach::GATEWAY_NAME_LABEL;
use crate::model::{Proxy, ProxyKind};
use crate::resources::Resources;

/// The name that `istioctl waypoint apply` gives a waypoint unless told otherwise.
const DEFAULT_WAYPOINT: &str = "waypoint";

/// A proxy of a kind in a namespace, with these labels.
///
/// A waypoint always has its Gateway's name as a label; without one it gets that of the namespace's only given waypoint,
/// else `waypoint`.
pub fn stated(resources: &Resources, namespace: &str, mut labels: BTreeMap<String, String>, kind: ProxyKind) -> Proxy {
    if kind == ProxyKind::Waypoint && !labels.contains_key(GATEWAY_NAME_LABEL) {
        let in_namespace = resources.gateways.iter().filter(|gateway| gateway.namespace == namespace);
        let mut waypoints = in_namespace
            .filter(|gateway| kind_of_gateway(resources, namespace, &gateway.name, &BTreeMap::new()) == kind)
            .map(|gateway| gateway.name.as_str());
        let name = match (waypoints.next(), waypoints.next()) {
            (Some(only), None) => only,
            _ => DEFAULT_WAYPOINT,
        };
        labels.insert(GATEWAY_NAME_LABEL.to_owned(), name.to_owned());
    }
    let mut known = [GATEWAY_NAME_LABEL, "app.kubernetes.io/name", "app", "istio"].into_iter();
    let name = known.find_map(|key| labels.get(key));
    let name = name.cloned().unwrap_or_else(|| super::kind_name(kind).to_owned());
    Proxy { name, namespace: namespace.to_owned(), labels, kind }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::stated;
    use crate::attach::GATEWAY_NAME_LABEL;
    use crate::model::ProxyKind;
    use crate::resources::{Source, read};

    #[track_caller]
    fn check(gateways: &[(&str, &str)], kind: ProxyKind, expected: Option<&str>) {
        let gateway = |(name, class): &(&str, &str)| {
            format!(
                "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: {name}, namespace: a}}, \
                 spec: {{gatewayClassName: {class}}}}}\n"
            )
        };
        let text = gateways.iter().map(gateway).collect();
        let resources = read(&[Source { file: "f".to_owned(), text }]).resources;
        let proxy = stated(&resources, "a", BTreeMap::new(), kind);
        assert_eq!(proxy.labels.get(GATEWAY_NAME_LABEL).map(String::as_str), expected);
    }

    #[test]
    fn a_waypoint_has_the_name_of_the_only_one_there_is() {
        check(&[("gw", "istio"), ("wp", "istio-waypoint")], ProxyKind::Waypoint, Some("wp"));
        check(&[("a", "istio-waypoint"), ("b", "istio-waypoint")], ProxyKind::Waypoint, Some("waypoint"));
        check(&[("gw", "istio")], ProxyKind::Waypoint, Some("waypoint"));
        check(&[("gw", "istio")], ProxyKind::Gateway, None);
    }
}
