//! The product's bootstrap of a chain, with what tests need: servers of theirs, and an account of each request.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mesh::envoy::EnvoyError;
use mesh::plan::Plan;
use serde_json::{Value, json};

use super::log::ACCESS;

/// Writes it. `documents` is the server of everything that the proxy itself fetches.
pub(crate) fn of(
    plan: &Plan,
    upstream: String,
    clusters: BTreeMap<String, String>,
    documents: Option<SocketAddr>,
) -> Result<Value, EnvoyError> {
    let mut plan = plan.clone();
    "127.0.0.1:0".clone_into(&mut plan.listen);
    plan.upstream = Some(upstream);
    plan.clusters = clusters;
    let mut bootstrap = mesh::envoy::bootstrap(&plan)?;
    each(&mut bootstrap, "access_log", &mut |log| {
        if let Some(line) = log.pointer_mut("/0/typed_config/log_format/text_format_source/inline_string") {
            *line = ACCESS.into();
        }
    });
    if let (Some(documents), Some(all)) =
        (documents, bootstrap.pointer_mut("/static_resources/clusters").and_then(Value::as_array_mut))
    {
        let own = |cluster: &Value| {
            let name = cluster["name"].as_str().unwrap_or_default();
            name.starts_with("jwks-") && !plan.clusters.contains_key(name)
        };
        for cluster in all.iter_mut().filter(|cluster| own(cluster)) {
            redirect(cluster, documents);
        }
    }
    Ok(bootstrap)
}

/// Has a cluster lead to a server of the test's, in the clear.
fn redirect(cluster: &mut Value, to: SocketAddr) {
    cluster["type"] = "STATIC".into();
    let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    if let Some(address) = cluster.pointer_mut(endpoint) {
        *address = json!({"address": to.ip().to_string(), "port_value": to.port()});
    }
    if let Some(fields) = cluster.as_object_mut() {
        fields.remove("transport_socket");
    }
}

/// Visits every value with a name, however deep.
pub(crate) fn each(value: &mut Value, name: &str, visit: &mut impl FnMut(&mut Value)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| each(item, name, visit)),
        Value::Object(members) => {
            for (key, member) in members {
                if key == name {
                    visit(member);
                }
                each(member, name, visit);
            }
        }
        _ => {}
    }
}
