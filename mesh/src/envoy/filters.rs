//! Filters of a chain as Envoy's configuration has them.

use serde_json::{Map, Value, json};

use super::{EnvoyError, any, filter};
use crate::model::{EnvValue, Extension, ExtensionFilter, FailStrategy, Layer, WasmFilter};
use crate::plan::{Module, Plan};

const WASM_HTTP: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
const WASM_NETWORK: &str = "envoy.extensions.filters.network.wasm.v3.Wasm";
const LUA: &str = "envoy.extensions.filters.http.lua.v3.Lua";
const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const RBAC_NETWORK: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";

/// Built-in filters that need no settings of their own, with the type of their configuration.
const PLAIN: &[(&str, &str)] = &[
    ("envoy.filters.http.grpc_web", "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"),
    ("envoy.filters.http.grpc_stats", "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"),
    ("envoy.filters.http.fault", "envoy.extensions.filters.http.fault.v3.HTTPFault"),
    ("envoy.filters.http.cors", "envoy.extensions.filters.http.cors.v3.Cors"),
    ("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router"),
];

/// A built-in filter by its name. One that decides who may pass and is not known here is an error.
pub(super) fn built_in(name: &str) -> Result<Value, EnvoyError> {
    match PLAIN.iter().find(|(known, _)| *known == name) {
        Some((_, kind)) => Ok(filter(name, kind, json!({}))),
        None => Err(EnvoyError::NotTranslated { filter: format!("the built-in filter {name}") }),
    }
}

/// An extension: the module, or what Istio's agent puts in its place when it could not be fetched.
pub(super) fn extension(extension: &Extension, plan: &Plan) -> Result<Value, EnvoyError> {
    let name = format!("extensions.istio.io/trafficextension/{}.{}", extension.namespace, extension.name);
    let wasm = match &extension.filter {
        ExtensionFilter::Lua { inline_code } => {
            return Ok(filter(&name, LUA, json!({"default_source_code": {"inline_string": inline_code}})));
        }
        ExtensionFilter::Wasm(wasm) => wasm,
    };
    let id = extension.id();
    match plan.modules.get(&id) {
        None => Err(EnvoyError::NoModule { extension: id }),
        Some(Module::FetchFailed { .. }) => Ok(in_place_of_a_failed_fetch(&name, wasm)),
        Some(Module::File { path, .. }) => {
            let plugin = plugin(extension, wasm, &path.display().to_string());
            let kind = if wasm.layer == Layer::Network { WASM_NETWORK } else { WASM_HTTP };
            Ok(filter(&name, kind, json!({"config": plugin})))
        }
    }
}

/// No rules let everything pass; rules without a policy let nothing pass.
fn in_place_of_a_failed_fetch(name: &str, wasm: &WasmFilter) -> Value {
    let mut config = Map::new();
    if wasm.fail_strategy != FailStrategy::FailOpen {
        config.insert("rules".to_owned(), json!({}));
    }
    if wasm.layer == Layer::Network {
        config.insert("stat_prefix".to_owned(), name.into());
        return filter(name, RBAC_NETWORK, config.into());
    }
    filter(name, RBAC, config.into())
}

/// `envoy.extensions.wasm.v3.PluginConfig`.
fn plugin(extension: &Extension, wasm: &WasmFilter, file: &str) -> Value {
    let failure_policy = match wasm.fail_strategy {
        FailStrategy::FailClose => "FAIL_CLOSED",
        FailStrategy::FailOpen => "FAIL_OPEN",
        FailStrategy::FailReload => "FAIL_RELOAD",
    };
    let mut vm = json!({"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": file}}});
    let mut values = Map::new();
    let mut from_host = Vec::new();
    for variable in wasm.delivered_env() {
        match &variable.value {
            EnvValue::Inline(value) => {
                values.insert(variable.name.clone(), value.clone().into());
            }
            EnvValue::Host => from_host.push(variable.name.clone()),
        }
    }
    if !values.is_empty() || !from_host.is_empty() {
        vm["environment_variables"] = json!({"key_values": values, "host_env_keys": from_host});
    }
    let mut plugin = json!({
        "name": format!("{}.{}", extension.namespace, extension.name),
        "root_id": wasm.plugin_name,
        "vm_config": vm,
        "failure_policy": failure_policy,
    });
    if let Some(configuration) = &wasm.plugin_config {
        plugin["configuration"] = json!({"@type": any("google.protobuf.StringValue"), "value": configuration});
    }
    plugin
}
