//! A scenario as both proxies are given it: one plan.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use mesh::model::{
    Attach, EnvValue, EnvVar, Extension, ExtensionFilter, FailStrategy, Filter, FilterKind, Layer, Origin, Phase,
    PullPolicy, WasmFilter,
};
use mesh::plan::{Module, Plan};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::probe::compile;
use crate::scenario::{self, Scenario, Wasm};
use crate::upstream::{self, Seen};

/// A variable that Envoy's process and the plans' host environment both have.
pub(crate) const ON_HOST: (&str, &str) = ("ON_HOST", "from the host");

/// A scenario's plan for one of the two, and what its upstream saw.
pub(crate) struct Site {
    pub(crate) plan: Plan,
    pub(crate) seen: Seen,
}

/// `s007`: in every log line of the scenario, as its plugins' namespace and root id.
pub(crate) fn id(index: usize) -> String {
    format!("s{index:03}")
}

impl Site {
    pub(crate) fn new(folder: &Path, index: usize, scenario: &Scenario) -> Self {
        let id = id(index);
        let network = scenario.filters.iter().any(|filter| matches!(filter, scenario::Filter::Wasm(w) if w.network));
        let tcp = network && scenario.is_tcp();
        let (address, seen) = upstream::start(&scenario.upstream, tcp);
        let mut modules = BTreeMap::new();
        let mut filters = Vec::new();
        for (at, filter) in scenario.filters.iter().enumerate() {
            let (name, filter) = match filter {
                scenario::Filter::Lua(code) => {
                    (format!("lua{at}"), ExtensionFilter::Lua { inline_code: code.replace('@', &id) })
                }
                scenario::Filter::Wasm(wasm) => {
                    (wasm.name.clone(), ExtensionFilter::Wasm(Box::new(wasm_filter(wasm, &id))))
                }
            };
            let extension = extension(&id, &name, filter);
            if let Some(scenario::Filter::Wasm(wasm)) = scenario.filters.get(at) {
                modules.insert(extension.id(), module(folder, &id, wasm, scenario));
            }
            filters.push(FilterKind::Extension(Box::new(extension)));
        }
        let end = if tcp { "envoy.filters.network.tcp_proxy" } else { "envoy.filters.http.router" };
        filters.push(FilterKind::BuiltIn(end.to_owned()));
        let filters: Vec<_> = filters.into_iter().map(|kind| Filter { kind, reason: String::new() }).collect();
        let clusters: BTreeMap<String, String> = scenario
            .clusters
            .iter()
            .map(|(name, answers)| {
                let closed = answers.iter().all(|answer| answer.pieces.is_empty() && answer.close);
                let address = if closed { upstream::nobody() } else { upstream::start(answers, false).0 };
                (format!("{name}-{id}"), url(address))
            })
            .collect();
        let unreachable = scenario.upstream.iter().any(|answer| answer.pieces.is_empty() && answer.close);
        let address = if unreachable { upstream::nobody() } else { address };
        // As it travels to the harness: what a plan has beside this has its default.
        let plan = json!({
            "chain": {
                "proxy": {
                    "name": "web",
                    "namespace": "default",
                    "labels": {"app": "web"},
                    "kind": if scenario.gateway { "gateway" } else { "sidecar" },
                },
                "listener": {
                    "direction": null,
                    "port": 20_000 + index,
                    "layer": if tcp { Layer::Network } else { Layer::Http },
                },
                "filters": filters,
                "left_out": [],
            },
            "modules": modules,
            "host_env": {ON_HOST.0: ON_HOST.1},
            "listen": "127.0.0.1:0",
            "upstream": url(address),
            "clusters": clusters,
            "workers": 1,
        });
        let plan = serde_json::from_value(plan).unwrap();
        Self { plan, seen }
    }
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

    /// Bare TCP instead of HTTP.
    pub(crate) fn is_tcp(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, scenario::Step::Send(request) if request.read.is_some()))
    }
}
