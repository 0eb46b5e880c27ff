//! Where requests go: clusters, and an echo that answers as the harness's does.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{EnvoyError, filter};
use crate::url::shown_url;

/// How the URL of a server looks.
pub(crate) const SERVERS: &str = "http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or tcp://HOST:PORT";

/// Whether it is one.
pub(crate) fn is_server(url: &str) -> bool {
    Endpoint::parse("", url).is_ok()
}

/// A server, from its URL.
pub(super) struct Endpoint {
    host: String,
    port: u16,
    tls: bool,
    /// HTTP/2 without asking.
    http2: bool,
}

impl Endpoint {
    /// Reads `http://`, `https://`, `h2c://` or `tcp://HOST:PORT`. The port may be left out; nothing else may follow but a slash.
    pub(super) fn parse(what: &str, url: &str) -> Result<Self, EnvoyError> {
        let refused = || EnvoyError::Url { what: what.to_owned(), url: shown_url(url) };
        let (scheme, rest) = url.split_once("://").ok_or_else(refused)?;
        let tls = match scheme {
            "http" | "h2c" | "tcp" => false,
            "https" => true,
            _ => return Err(refused()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            // A colon inside brackets belongs to an IPv6 address.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| refused())?),
            _ => (authority, if tls { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let bare = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
        let address = host.parse::<IpAddr>().is_ok() || !host.contains(':');
        if bare && address {
            Ok(Self { host: host.to_owned(), port, tls, http2: scheme == "h2c" })
        } else {
            Err(refused())
        }
    }

    /// A cluster of this one server. Istio's time to connect is 10 s.
    pub(super) fn cluster(&self, name: &str) -> Value {
        let kind = if self.host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
        let mut cluster = json!({
            "name": name,
            "type": kind,
            "connect_timeout": "10s",
            "load_assignment": load(name, &json!({"socket_address": {"address": self.host, "port_value": self.port}})),
        });
        if self.http2 {
            cluster["typed_extension_protocol_options"] = json!({
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            });
        }
        if self.tls {
            let roots = "/etc/ssl/certs/ca-certificates.crt";
            cluster["transport_socket"] = filter(
                "envoy.transport_sockets.tls",
                "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                json!({
                    "sni": self.host,
                    "common_tls_context": {"validation_context": {
                        "trusted_ca": {"filename": roots},
                        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": self.host}}],
                    }},
                }),
            );
        }
        cluster
    }
}

fn load(cluster: &str, address: &Value) -> Value {
    json!({"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]})
}

const ECHO: &str = "echo";

/// Answers with the request that reached it, field by field as `harness::echo` does.
const ECHO_SCRIPT: &str = include_str!("echo.lua");

/// The extension that lets a cluster lead to a listener of the same Envoy.
pub(super) fn internal_listeners() -> Value {
    json!([filter(
        "envoy.bootstrap.internal_listener",
        "envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
        json!({}),
    )])
}

pub(super) fn echo_cluster(name: &str) -> Value {
    let address = json!({"envoy_internal_address": {"server_listener_name": ECHO}});
    json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": load(name, &address),
        "transport_socket": filter(
            "envoy.transport_sockets.internal_upstream",
            "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            json!({"transport_socket": filter(
                "envoy.transport_sockets.raw_buffer",
                "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
                json!({}),
            )}),
        ),
    })
}

pub(super) fn echo_listener() -> Value {
    let lua = filter(
        "echo",
        "envoy.extensions.filters.http.lua.v3.Lua",
        json!({"default_source_code": {"inline_string": ECHO_SCRIPT}}),
    );
    let router = filter("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", json!({}));
    let manager = filter(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": ECHO,
            "http_filters": [lua, router],
            "http_protocol_options": {"enable_trailers": true},
            "route_config": {"virtual_hosts": [{"name": ECHO, "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}]},
        }),
    );
    json!({"name": ECHO, "internal_listener": {}, "filter_chains": [{"filters": [manager]}]})
}
