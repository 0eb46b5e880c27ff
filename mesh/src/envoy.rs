//! The Envoy bootstrap that runs the same chain as the harness does.
//!
//! What Istio's control plane and agent would have sent over xDS is written as a static configuration: JSON, which
//! Envoy reads from files that end in `.json` or `.yaml`.

mod filters;
mod jwt;
mod rbac;
mod upstream;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::model::{Direction, FilterKind, Layer, ProxyKind};
use crate::plan::{self, Plan};
use upstream::Endpoint;
pub(crate) use upstream::{SERVERS, is_server};

/// A request on which nothing happens for this long is answered with 504: Envoy's default and the harness's.
const IDLE_TIMEOUT: &str = "300s";

/// Filters of Istio's own build that a stock Envoy does not have. None of them decides about a request.
const ISTIO_ONLY: &[&str] = &["istio.metadata_exchange", "istio.alpn", "istio.stats"];

/// Why a plan has no Envoy bootstrap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvoyError {
    /// A filter of the chain has no translation, and without it the chain would be another one.
    #[error("{filter} cannot be written for Envoy")]
    NotTranslated {
        /// What it is, by name.
        filter: String,
    },
    /// The plan has no module for an extension of its chain.
    #[error("the plan has no module for {extension}")]
    NoModule {
        /// As [`Extension::id`](crate::model::Extension::id) has it.
        extension: String,
    },
    /// Envoy listens on IP addresses only.
    #[error("{listen} is not an IP address and a port")]
    Listen {
        /// As given.
        listen: String,
    },
    /// An upstream or cluster is not a URL of a server.
    #[error("{what} {url} is not of the form {SERVERS}")]
    Url {
        /// Which one.
        what: String,
        /// As given, without credentials.
        url: String,
    },
    /// A TCP chain has nowhere to send its connections.
    #[error("a network chain needs an upstream")]
    NoUpstream,
}

/// Writes the bootstrap for a plan. Module paths are taken as they are, so that Envoy must run on this machine; they
/// should be absolute.
///
/// `plan.workers` is not part of a bootstrap: it is Envoy's `--concurrency`. Envoy has one bundle of certificates to trust:
/// the system's or, where the plan has some, those alone.
pub fn bootstrap(plan: &Plan) -> Result<Value, EnvoyError> {
    let proxy = &plan.chain.proxy;
    let mut clusters = Vec::new();
    for (name, url) in &plan.clusters {
        clusters.push(Endpoint::parse(&format!("the cluster {name}"), url)?.cluster(name));
    }
    let mut listeners = vec![listener(plan, &mut clusters)?];
    let upstream = upstream_cluster(plan);
    if fixed_response(plan).is_some() {
        // It is the route's own.
    } else if let Some(url) = &plan.upstream {
        clusters.push(Endpoint::parse("the upstream", url)?.cluster(&upstream));
    } else if plan.chain.listener.layer == Layer::Network {
        return Err(EnvoyError::NoUpstream);
    } else {
        listeners.push(upstream::echo_listener());
        clusters.push(upstream::echo_cluster(&upstream));
    }
    if !plan.ca_certificates.is_empty() {
        let roots = json!({"inline_string": plan.ca_certificates.join("\n")});
        let trusted = "/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca";
        for place in clusters.iter_mut().filter_map(|cluster: &mut Value| cluster.pointer_mut(trusted)) {
            place.clone_from(&roots);
        }
    }
    let mut bootstrap = json!({
        "node": plan.node.clone().unwrap_or_else(|| proxy.node()),
        "admin": {"address": socket_address(([127, 0, 0, 1], 0).into())},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    });
    if plan.upstream.is_none()
        && let Some(fields) = bootstrap.as_object_mut()
    {
        fields.insert("bootstrap_extensions".to_owned(), upstream::internal_listeners());
    }
    Ok(bootstrap)
}

fn any(kind: &str) -> String {
    format!("type.googleapis.com/{kind}")
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// An HTTP or network filter with a typed configuration. `config` is an object without its `@type`.
fn filter(name: &str, kind: &str, config: Value) -> Value {
    let mut typed = json!({"@type": any(kind)});
    if let (Some(typed), Value::Object(config)) = (typed.as_object_mut(), config) {
        typed.extend(config);
    }
    json!({"name": name, "typed_config": typed})
}

fn is_inbound(plan: &Plan) -> bool {
    match plan.chain.listener.direction {
        Some(direction) => direction == Direction::Inbound,
        None => plan.chain.proxy.kind != ProxyKind::Gateway,
    }
}

fn port(plan: &Plan) -> u16 {
    plan.chain.listener.port.unwrap_or(80)
}

/// The upstream's name in the properties that plugins read: Istio's for the port.
fn upstream_cluster(plan: &Plan) -> String {
    format!("{}|{}||", if is_inbound(plan) { "inbound" } else { "outbound" }, port(plan))
}

/// The upstream's answer when it is the same to everything. A network chain needs a server.
fn fixed_response(plan: &Plan) -> Option<(u16, &str)> {
    let upstream = plan.upstream.as_deref().filter(|_| plan.chain.listener.layer == Layer::Http)?;
    plan::fixed_response(upstream)
}

/// Adds the clusters that its filters need.
fn listener(plan: &Plan, clusters: &mut Vec<Value>) -> Result<Value, EnvoyError> {
    let listen = plan.listen.replace("localhost:", "127.0.0.1:");
    let address: SocketAddr = listen.parse().map_err(|_| EnvoyError::Listen { listen: plan.listen.clone() })?;
    let mut network = Vec::new();
    let mut http = Vec::new();
    for place in plan.network.iter().flat_map(|chain| &chain.filters) {
        // What ends it is the connection manager below.
        if let FilterKind::Extension(extension) = &place.kind {
            network.push(filters::extension(extension, plan)?);
        }
    }
    for place in &plan.chain.filters {
        match &place.kind {
            FilterKind::BuiltIn(name) if ISTIO_ONLY.contains(&name.as_str()) => {}
            FilterKind::BuiltIn(name) if name == "envoy.filters.network.tcp_proxy" => {
                let cluster = upstream_cluster(plan);
                let kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
                network.push(filter(name, kind, json!({"stat_prefix": cluster, "cluster": cluster})));
            }
            FilterKind::BuiltIn(name) if name == "envoy.filters.http.jwt_authn" => {
                let (filter, further) = jwt::jwt_authn(&plan.chain.policies.jwt_rules)?;
                http.push(filter);
                clusters.extend(further);
            }
            FilterKind::BuiltIn(name) if name == "envoy.filters.http.rbac" => {
                http.extend(rbac::rbac(&plan.chain.policies.authorization, port(plan))?);
            }
            FilterKind::BuiltIn(name) => http.push(filters::built_in(name)?),
            FilterKind::Extension(extension) => {
                let written = filters::extension(extension, plan)?;
                if extension.wasm().is_some_and(|wasm| wasm.layer == Layer::Network) {
                    network.push(written);
                } else {
                    http.push(written);
                }
            }
        }
    }
    if plan.chain.listener.layer == Layer::Http {
        network.push(connection_manager(plan, &http));
    }
    Ok(json!({
        "name": format!("{}_{}", address.ip(), port(plan)),
        "address": socket_address(address),
        "traffic_direction": if is_inbound(plan) { "INBOUND" } else { "OUTBOUND" },
        "filter_chains": [{"filters": network}],
    }))
}

/// The HTTP connection manager with what Istio sets and the harness does alike.
fn connection_manager(plan: &Plan, http_filters: &[Value]) -> Value {
    let port = port(plan);
    let mut route = json!({"name": "default", "match": {"prefix": "/"}});
    match fixed_response(plan) {
        Some((status, "")) => route["direct_response"] = json!({"status": status}),
        Some((status, body)) => route["direct_response"] = json!({"status": status, "body": {"inline_string": body}}),
        None => route["route"] = json!({"cluster": upstream_cluster(plan), "timeout": "0s"}),
    }
    let virtual_host = if is_inbound(plan) { format!("inbound|http|{port}") } else { "*:*".to_owned() };
    filter(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": upstream_cluster(plan),
            "server_name": "istio-envoy",
            "normalize_path": true,
            "use_remote_address": plan.chain.proxy.kind == ProxyKind::Gateway,
            "stream_idle_timeout": IDLE_TIMEOUT,
            "http_filters": http_filters,
            "route_config": {
                "name": upstream_cluster(plan),
                "validate_clusters": false,
                "virtual_hosts": [{"name": virtual_host, "domains": ["*"], "routes": [route]}],
            },
            "access_log": [access_log()],
        }),
    )
}

/// A line for each request, as the harness prints one: without query and headers, which may hold secrets.
fn access_log() -> Value {
    let line = "%REQ(:METHOD)% %PATH(NQ)% → %RESPONSE_CODE% (%RESPONSE_CODE_DETAILS%) %DURATION% ms\n";
    filter(
        "envoy.access_loggers.stderr",
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
        json!({"log_format": {"text_format_source": {"inline_string": line}}}),
    )
}

#[cfg(test)]
mod tests;
