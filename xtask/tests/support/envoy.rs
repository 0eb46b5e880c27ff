//! A real Envoy with one chain of wasm filters in front of one upstream.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::repository;

/// One wasm filter: a module and its configuration.
pub(crate) struct WasmFilter<'a> {
    pub(crate) name: &'a str,
    pub(crate) module: &'a Path,
    pub(crate) configuration: &'a str,
}

/// A running Envoy. It is killed when dropped.
pub(crate) struct Envoy {
    child: Child,
    pub(crate) address: String,
}

impl Envoy {
    /// Start it with these filters and wait until it serves.
    pub(crate) fn start(folder: &Path, filters: &[WasmFilter<'_>], upstream: SocketAddr) -> Self {
        match Self::try_start(folder, filters, upstream) {
            Ok(envoy) => envoy,
            Err(log) => panic!("Envoy did not start:\n{log}"),
        }
    }

    /// As `start`; what Envoy logged when it refuses the configuration.
    pub(crate) fn try_start(folder: &Path, filters: &[WasmFilter<'_>], upstream: SocketAddr) -> Result<Self, String> {
        let bootstrap = folder.join("envoy.json");
        let admin = folder.join("admin-address");
        std::fs::write(&bootstrap, self::bootstrap(filters, upstream).to_string()).unwrap();
        let mut command = Command::new(program());
        command.arg("--config-path").arg(&bootstrap).arg("--admin-address-path").arg(&admin);
        command.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "info"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = String::new();
        let mut reader = BufReader::new(child.stderr.take().unwrap());
        while !log.contains("starting main dispatch loop") {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                let _ = child.wait();
                return Err(log);
            }
            log.push_str(&line);
        }
        std::thread::spawn(move || std::io::copy(&mut reader.take(u64::MAX), &mut std::io::sink()));
        let admin = std::fs::read_to_string(&admin).unwrap();
        let listeners = super::request(admin.trim(), "GET", "/listeners?format=json", &[]);
        // The admin interface answers in chunks: the JSON is what is between the first and the last brace.
        let text = String::from_utf8(listeners.body).unwrap();
        let json = &text[text.find('{').unwrap()..=text.rfind('}').unwrap()];
        let listeners: Value = serde_json::from_str(json).unwrap();
        let port = listeners.pointer("/listener_statuses/0/local_address/socket_address/port_value").unwrap();
        Ok(Self { child, address: format!("127.0.0.1:{port}") })
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn program() -> PathBuf {
    let program = repository().join("target/tools/envoy-1.40.0/envoy/_bin/envoy");
    assert!(program.is_file(), "no Envoy at {}: run `cargo xtask ci --prepare`", program.display());
    program
}

fn bootstrap(filters: &[WasmFilter<'_>], upstream: SocketAddr) -> Value {
    let any = |kind: &str| format!("type.googleapis.com/{kind}");
    let socket = |address: SocketAddr| {
        json!({"socket_address": {
        "address": address.ip().to_string(), "port_value": address.port()}})
    };
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut chain: Vec<Value> = filters
        .iter()
        .map(|filter| {
            json!({"name": filter.name, "typed_config": {
            "@type": any("envoy.extensions.filters.http.wasm.v3.Wasm"),
            "config": {
                "name": filter.name,
                "root_id": "",
                "vm_config": {"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": filter.module}}},
                "configuration": {"@type": any("google.protobuf.StringValue"), "value": filter.configuration},
            }}})
        })
        .collect();
    chain.push(json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": any("envoy.extensions.filters.http.router.v3.Router")}}));
    json!({
        "admin": {"address": socket(nowhere)},
        "static_resources": {
            "listeners": [{
                "name": "listener",
                "address": socket(nowhere),
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": any("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                        "stat_prefix": "http",
                        "server_name": "istio-envoy",
                        "normalize_path": true,
                        "delayed_close_timeout": "0s",
                        "http_filters": chain,
                        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                            {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]}]},
                    }}]}],
            }],
            "clusters": [{
                "name": "upstream",
                "type": "STATIC",
                "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": socket(upstream)}}]}]},
            }],
        },
    })
}
