//! What ports carry: the ports that Services and Gateways declare, and Istio's rules for their protocols.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attach::GATEWAY_NAME_LABEL;
use crate::fields::{Field, Object};
use crate::model::{Direction, Listener, Protocol, Proxy, ProxyKind};
use crate::resources::Resources;
use crate::yaml::Value;

/// A port that a Service or a Gateway declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredPort {
    /// Whose it is.
    pub owner: PortOwner,
    /// The owner's namespace.
    pub namespace: String,
    /// The number that clients use.
    pub number: u16,
    /// The number at the workload; `None` when it goes by a container port's name.
    pub target: Option<u16>,
    /// What it carries; `None` when nothing says it, so that Istio looks at the traffic.
    pub protocol: Option<Protocol>,
}

/// Who declares a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortOwner {
    /// A Service, with the labels of the pods that it selects.
    Service(BTreeMap<String, String>),
    /// A Gateway of gateway.networking.k8s.io, by name.
    Gateway(String),
}

/// The ports of a Service. What is not a port is passed over, since the API server has refused it.
pub(crate) fn of_service(object: &Object<'_>, namespace: &str) -> Vec<DeclaredPort> {
    let selector = selector_of(object);
    let port = |field: Field<'_>| {
        let port = field.as_object()?;
        let number = number(&port, "port")?;
        let target = match port.get("targetPort").map(|field| &field.node.value) {
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => self::number(&port, "targetPort"),
            None => Some(number),
        };
        let is_udp = matches!(port.text_at(&["protocol"]), Some("UDP" | "SCTP"));
        let protocol = match port.text_at(&["appProtocol"]) {
            _ if is_udp => Some(Protocol::Tcp),
            Some(name) => by_app_protocol(name),
            None => port.text_at(&["name"]).and_then(by_name),
        };
        let owner = PortOwner::Service(selector.clone());
        Some(DeclaredPort { owner, namespace: namespace.to_owned(), number, target, protocol })
    };
    entries(object, "ports").into_iter().filter_map(port).collect()
}

/// The labels of a Service's pods. What is no label is passed over, since the API server has refused it.
pub(crate) fn selector_of(object: &Object<'_>) -> BTreeMap<String, String> {
    let selector = object.at(&["spec", "selector"]).and_then(|field| field.as_object());
    let labels = selector.iter().flat_map(Object::fields);
    labels.filter_map(|(key, field)| Some((key.to_owned(), field.as_text()?.to_owned()))).collect()
}

/// The listeners of a Gateway.
pub(crate) fn of_gateway(object: &Object<'_>, namespace: &str, name: &str) -> Vec<DeclaredPort> {
    let port = |field: Field<'_>| {
        let listener = field.as_object()?;
        let number = number(&listener, "port")?;
        let protocol = match listener.text_at(&["protocol"])? {
            "HTTP" | "HTTPS" => Some(Protocol::Http),
            "TLS" if listener.text_at(&["tls", "mode"]) != Some("Passthrough") => None,
            "TLS" | "TCP" | "UDP" => Some(Protocol::Tcp),
            _ => None,
        };
        let owner = PortOwner::Gateway(name.to_owned());
        Some(DeclaredPort { owner, namespace: namespace.to_owned(), number, target: Some(number), protocol })
    };
    entries(object, "listeners").into_iter().filter_map(port).collect()
}

fn entries<'n>(object: &Object<'n>, name: &str) -> Vec<Field<'n>> {
    object.at(&["spec", name]).and_then(|field| field.items()).unwrap_or_default()
}

fn number(object: &Object<'_>, name: &str) -> Option<u16> {
    match object.get(name)?.node.value {
        Value::Int(number) => u16::try_from(number).ok(),
        _ => None,
    }
}

/// A Service port's `appProtocol`; HTTPS is TLS, which a sidecar passes through.
fn by_app_protocol(name: &str) -> Option<Protocol> {
    match name.to_ascii_lowercase().as_str() {
        "kubernetes.io/h2c" | "kubernetes.io/ws" => Some(Protocol::Http),
        "kubernetes.io/wss" => Some(Protocol::Tcp),
        name => by_name(name),
    }
}

/// A Service port's name: a protocol, alone or before a `-`.
fn by_name(name: &str) -> Option<Protocol> {
    let name = name.to_ascii_lowercase();
    if name == "grpc-web" || name.starts_with("grpc-web-") {
        return Some(Protocol::Http);
    }
    match name.split('-').next().unwrap_or_default() {
        "http" | "http2" | "grpc" => Some(Protocol::Http),
        "https" | "tls" | "tcp" | "mongo" | "mysql" | "redis" | "udp" => Some(Protocol::Tcp),
        _ => None,
    }
}

/// What a listener's port carries, by the Services and Gateways given; `None` when its port is not known, none of them
/// says it, or they say different things.
pub fn protocol(resources: &Resources, proxy: &Proxy, listener: Listener) -> Option<Protocol> {
    let port = listener.port?;
    let inbound = proxy.kind == ProxyKind::Sidecar && listener.direction == Some(Direction::Inbound);
    let gateway = proxy.labels.get(GATEWAY_NAME_LABEL).unwrap_or(&proxy.name);
    let is_it = |declared: &&DeclaredPort| match (&declared.owner, proxy.kind) {
        (PortOwner::Gateway(name), ProxyKind::Gateway) => {
            declared.namespace == proxy.namespace && name == gateway && declared.number == port
        }
        (PortOwner::Service(selector), ProxyKind::Sidecar) if inbound => {
            declared.namespace == proxy.namespace && is_selected(selector, proxy) && declared.target == Some(port)
        }
        (PortOwner::Service(selector), ProxyKind::Gateway) => {
            declared.namespace == proxy.namespace && is_selected(selector, proxy) && declared.number == port
        }
        (PortOwner::Service(_), ProxyKind::Sidecar | ProxyKind::Waypoint) => declared.number == port,
        (PortOwner::Gateway(_), _) => false,
    };
    let mut found = resources.ports.iter().filter(is_it).map(|declared| declared.protocol);
    let first = found.next()??;
    found.all(|protocol| protocol == Some(first)).then_some(first)
}

/// A Service without a selector has endpoints that somebody else manages.
fn is_selected(selector: &BTreeMap<String, String>, proxy: &Proxy) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| proxy.labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::protocol;
    use crate::model::{Direction, Layer, Listener, Protocol, Proxy, ProxyKind};
    use crate::resources::{Source, read};

    const GIVEN: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: apps}, spec: {selector: {app: web}, ports: [
  {name: http-main, port: 80, targetPort: 8080}, {name: grpc-web, port: 81}, {name: metrics, port: 9090},
  {name: db, port: 5432, appProtocol: tcp}, {name: up, port: 82, targetPort: '8082', appProtocol: kubernetes.io/h2c},
  {name: named, port: 83, targetPort: main}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: other, namespace: apps}, spec: {selector: {app: other}, ports: [
  {name: tcp, port: 80}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: gw, namespace: apps}, spec: {
  gatewayClassName: istio, listeners: [{port: 443, protocol: HTTPS}, {port: 9000, protocol: TCP},
  {port: 9443, protocol: TLS, tls: {mode: Passthrough}}]}}
";

    #[track_caller]
    fn check(kind: ProxyKind, direction: Direction, port: u16, expected: Option<Protocol>) {
        let reading = read(&[Source { file: "f".to_owned(), text: GIVEN.to_owned() }]);
        assert_eq!(reading.errors, []);
        let label = match kind {
            ProxyKind::Sidecar => ("app", "web"),
            _ => (crate::attach::GATEWAY_NAME_LABEL, "gw"),
        };
        let labels = [label].into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let proxy = Proxy { name: "p".to_owned(), namespace: "apps".to_owned(), labels, kind };
        let listener = Listener { direction: Some(direction), port: Some(port), layer: Layer::Network, protocol: None };
        assert_eq!(protocol(&reading.resources, &proxy, listener), expected);
    }

    #[test]
    fn an_inbound_port_is_the_workloads_and_goes_by_its_own_services() {
        use Direction::Inbound;
        check(ProxyKind::Sidecar, Inbound, 8080, Some(Protocol::Http));
        check(ProxyKind::Sidecar, Inbound, 81, Some(Protocol::Http));
        check(ProxyKind::Sidecar, Inbound, 5432, Some(Protocol::Tcp));
        check(ProxyKind::Sidecar, Inbound, 8082, Some(Protocol::Http));
        for unknown in [80, 9090, 83, 1] {
            check(ProxyKind::Sidecar, Inbound, unknown, None);
        }
    }

    #[test]
    fn an_outbound_port_on_which_services_differ_is_not_known() {
        check(ProxyKind::Sidecar, Direction::Outbound, 80, None);
        check(ProxyKind::Sidecar, Direction::Outbound, 82, Some(Protocol::Http));
    }

    #[test]
    fn a_gateways_port_goes_by_its_listeners() {
        check(ProxyKind::Gateway, Direction::Outbound, 443, Some(Protocol::Http));
        check(ProxyKind::Gateway, Direction::Outbound, 9000, Some(Protocol::Tcp));
        check(ProxyKind::Gateway, Direction::Outbound, 9443, Some(Protocol::Tcp));
        check(ProxyKind::Gateway, Direction::Outbound, 80, None);
    }
}
