//! A scenario as both proxies are given it: one plan.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use mesh::model::{
    Attach, Direction, EnvValue, EnvVar, Extension, ExtensionFilter, FailStrategy, Filter, FilterKind, Layer, Listener,
    Origin, Phase, Proxy, PullPolicy, WasmFilter,
};
use mesh::plan::{Module, Plan};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::http2_server;
use crate::probe::compile;
use crate::scenario::{self, Scenario, Wasm};
use crate::upstream::{self, Seen};

/// A variable that Envoy's process and the plans' host environment both have.
pub(crate) const ON_HOST: (&str, &str) = ("ON_HOST", "from the host");

/// A scenario's plan for one of the two, and what its upstream saw.
pub(crate) struct Site {
    pub(crate) plan: Plan,
    pub(crate) seen: Seen,
    /// What the clusters saw, by their names.
    pub(crate) called: Vec<(String, Seen)>,
}

/// `s007`: in every log line of the scenario, as its plugins' namespace and root id.
pub(crate) fn id(index: usize) -> String {
    format!("s{index:03}")
}

impl Site {
    pub(crate) fn new(folder: &Path, index: usize, scenario: &Scenario) -> Self {
        let id = id(index);
        let tcp = scenario.has_network_filters() && scenario.is_tcp();
        let (address, seen) = match scenario.http2_upstream.as_slice() {
            [] => upstream::start(&scenario.upstream, tcp),
            answers => http2_server::start(answers),
        };
        let mut modules = BTreeMap::new();
        let (mut filters, mut in_front) = (Vec::new(), Vec::new());
        for (at, filter) in scenario.filters.iter().enumerate() {
            let (name, filter) = match filter {
                scenario::Filter::BuiltIn(name) => {
                    filters.push(FilterKind::BuiltIn(name.clone()));
                    continue;
                }
                scenario::Filter::Lua(code) => (
                    format!("lua{at}"),
                    ExtensionFilter::Lua { inline_code: format!("-- {id}\n{}", code.replace('@', &id)) },
                ),
                scenario::Filter::Wasm(wasm) => {
                    (wasm.name.clone(), ExtensionFilter::Wasm(Box::new(wasm_filter(wasm, &id))))
                }
            };
            let extension = extension(&id, &name, filter);
            if let Some(scenario::Filter::Wasm(wasm)) = scenario.filters.get(at) {
                modules.insert(extension.id(), module(folder, &id, wasm, scenario));
            }
            let before_http = !tcp && extension.wasm().is_some_and(|wasm| wasm.layer == Layer::Network);
            let list = if before_http { &mut in_front } else { &mut filters };
            list.push(FilterKind::Extension(Box::new(extension)));
        }
        let end = if tcp { "envoy.filters.network.tcp_proxy" } else { "envoy.filters.http.router" };
        filters.push(FilterKind::BuiltIn(end.to_owned()));
        let mut clusters = BTreeMap::new();
        let mut called = Vec::new();
        for (name, answers) in &scenario.clusters {
            let closed = answers.iter().all(|answer| answer.pieces.is_empty() && answer.close);
            let address = if closed {
                upstream::nobody()
            } else {
                let (address, seen) = upstream::start(answers, false);
                called.push((name.clone(), seen));
                address
            };
            clusters.insert(format!("{name}-{id}"), url(address));
        }
        for (name, answers) in &scenario.grpc {
            let (address, seen) = http2_server::start(answers);
            called.push((name.clone(), seen));
            clusters.insert(format!("{name}-{id}"), format!("h2c://{address}"));
        }
        let proxy = json!({
            "name": "web",
            "namespace": "default",
            "labels": {"app": "web"},
            "kind": if scenario.gateway { "gateway" } else { "sidecar" },
        });
        let chain = |layer: Layer, filters: Vec<FilterKind>| {
            let filters: Vec<_> = filters.into_iter().map(|kind| Filter { kind, reason: String::new() }).collect();
            json!({
                "proxy": proxy,
                "listener": {"direction": null, "port": 20_000 + index, "layer": layer},
                "filters": filters,
                "left_out": [],
                "policies": policies(&scenario.policies, &proxy, index),
            })
        };
        let scheme = match (tcp, scenario.http2_upstream.is_empty()) {
            (true, _) => "tcp",
            (false, true) => "http",
            (false, false) => "h2c",
        };
        let unreachable = scenario.upstream.iter().any(|answer| answer.pieces.is_empty() && answer.close);
        let address = if unreachable { upstream::nobody() } else { address };
        // As it travels to the harness: what a plan has beside this has its default.
        let plan = json!({
            "chain": chain(if tcp { Layer::Network } else { Layer::Http }, filters),
            "network": (!in_front.is_empty()).then(|| chain(Layer::Network, in_front)),
            "modules": modules,
            "host_env": {ON_HOST.0: ON_HOST.1},
            "listen": "127.0.0.1:0",
            "upstream": format!("{scheme}://{address}"),
            "clusters": clusters,
            "workers": 1,
        });
        let plan = serde_json::from_value(plan).unwrap();
        Self { plan, seen, called }
    }
}

/// What the resources make for the built-in filters.
fn policies(resources: &str, proxy: &serde_json::Value, index: usize) -> mesh::policy::Policies {
    let reading = mesh::read(&[mesh::Source { file: "scenario".to_owned(), text: resources.to_owned() }]);
    assert_eq!(reading.errors, [], "{resources}");
    let proxy: Proxy = serde_json::from_value(proxy.clone()).unwrap();
    let port = u16::try_from(20_000 + index).ok();
    let listener = Listener { direction: Some(Direction::Inbound), port, layer: Layer::Http, protocol: None };
    mesh::resolve(&reading.resources, &proxy, &listener, &mesh::MeshOptions::default()).policies
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn extension(id: &str, name: &str, filter: ExtensionFilter) -> Extension {
    Extension {
        origin: Origin { kind: "WasmPlugin".to_owned(), file: "scenarios".to_owned(), document: 0, line: 1 },
        name: name.to_owned(),
        namespace: id.to_owned(),
        created: None,
        resource_version: None,
        phase: Phase::Unspecified,
        priority: None,
        attach: Attach::Namespace,
        traffic: Vec::new(),
        dialect: mesh::model::Dialect::Istio,
        filter,
    }
}

fn wasm_filter(wasm: &Wasm, id: &str) -> WasmFilter {
    let env = |(name, value): &(String, Option<String>)| EnvVar {
        name: name.clone(),
        value: value.clone().map_or(EnvValue::Host, EnvValue::Inline),
    };
    WasmFilter {
        url: wasm.url.clone().unwrap_or_else(|| "oci://example.com/probe".to_owned()),
        sha256: None,
        pull_policy: PullPolicy::Unspecified,
        pull_secret: None,
        plugin_config: wasm.configuration.clone(),
        plugin_name: format!("{id}.{}", wasm.name),
        fail_strategy: match wasm.fail.as_str() {
            "" | "close" => FailStrategy::FailClose,
            "open" => FailStrategy::FailOpen,
            "reload" => FailStrategy::FailReload,
            other => panic!("no fail strategy {other}"),
        },
        env: wasm.env.iter().map(env).collect(),
        layer: if wasm.network { Layer::Network } else { Layer::Http },
    }
}

fn module(folder: &Path, id: &str, wasm: &Wasm, scenario: &Scenario) -> Module {
    if wasm.unfetched {
        return Module::FetchFailed { reason: "the registry is on fire".to_owned() };
    }
    let from = wasm.same_as.as_ref().map_or(wasm, |same| scenario.wasm(same));
    // The marker in front makes the two filters' modules different even when their scripts are the same.
    let marker = format!("{id}.{}", from.name);
    let bytes = from.bytes.clone().unwrap_or_else(|| {
        let mut script = from.script.clone();
        script.raw.push_str(&format!("\n(data \"{marker}\")"));
        compile(&script, id)
    });
    let path = folder.join(format!("{marker}.wasm"));
    std::fs::write(&path, &bytes).unwrap();
    let digest = Sha256::digest(&bytes);
    Module::File { path, sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect() }
}

impl Scenario {
    pub(crate) fn wasm(&self, name: &str) -> &Wasm {
        let found = self.filters.iter().find_map(|filter| match filter {
            scenario::Filter::Wasm(wasm) if wasm.name == name => Some(&**wasm),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no filter {name}"))
    }

    pub(crate) fn has_network_filters(&self) -> bool {
        self.filters.iter().any(|filter| matches!(filter, scenario::Filter::Wasm(wasm) if wasm.network))
    }

    /// Bare TCP instead of HTTP.
    pub(crate) fn is_tcp(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, scenario::Step::Send(request) if request.read.is_some()))
    }
}
