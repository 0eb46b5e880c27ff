//! A resolved chain made executable: modules compiled, configurations tried, the rest refused by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use mesh::model::{
    Direction, EnvValue, Extension, ExtensionFilter, FailStrategy, FilterChain, FilterKind, Layer, ProxyKind,
    WasmFilter,
};

use crate::abi::LogLevel;
use crate::builtin::BuiltIn;
use crate::builtin::jwt::keys::{Keys, Web};
use crate::engine::Engine;
use crate::log::Sink;
use crate::module::{LoadError, Module};
use crate::native::{DenyAll, NativePlugin};
use crate::plugin::{Plugin, VmConfig};
use crate::shared::Shared;
use crate::source::{Fetched, ModuleSource, SourceError};
use crate::stream::state::ProxyFacts;
use crate::vm::{StartError, Surroundings};
use crate::worker;

/// The terminal filter.
const ROUTER: &str = "envoy.filters.http.router";

/// Why a chain cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// A filter of the chain is not executed by the harness, and serving without it would be something else.
    #[error("{filter} is not yet executed by the harness")]
    NotExecuted {
        /// What it is, by name.
        filter: String,
    },
    /// A module's bytes could not be had.
    #[error("get the module of {extension}")]
    Source {
        /// As [`mesh::model::Extension::id`] has it.
        extension: String,
        /// Why not.
        #[source]
        source: SourceError,
    },
    /// A module was not accepted.
    #[error("load the module of {extension}")]
    Load {
        /// As [`mesh::model::Extension::id`] has it.
        extension: String,
        /// Why not.
        #[source]
        source: LoadError,
    },
    /// The plugin did not start, or refused its configuration. Envoy rejects such an update whatever the fail
    /// strategy, and with no earlier configuration answers 500.
    #[error("configure the plugin {extension}")]
    Start {
        /// As [`mesh::model::Extension::id`] has it.
        extension: String,
        /// Why not.
        #[source]
        source: StartError,
    },
}

pub(crate) enum ChainFilter {
    Wasm(Arc<Plugin>),
    Native(Arc<dyn NativePlugin>),
}

/// A chain whose plugins have all accepted their configuration.
pub struct Chain {
    pub(crate) filters: Vec<ChainFilter>,
    pub(crate) proxy: Arc<ProxyFacts>,
    pub(crate) surroundings: Surroundings,
    keys: Keys,
}

impl Chain {
    /// Fetches the keys of its `RequestAuthentication` policies again, at once instead of when they are due.
    pub fn refresh_keys(&self) -> impl Fn() + use<> {
        let keys = self.keys.clone();
        move || keys.refresh()
    }

    /// Compiles the modules of `chain` and tries each plugin's configuration in a VM that is then dropped.
    pub fn load(
        engine: &Engine,
        chain: &FilterChain,
        source: &dyn ModuleSource,
        host_env: &BTreeMap<String, String>,
        sink: Arc<dyn Sink>,
        log_level: LogLevel,
    ) -> Result<Self, ChainError> {
        let surroundings = Surroundings { sink, shared: Arc::new(Shared::default()), log_level };
        let proxy = Arc::new(facts(chain));
        let policies = &chain.policies;
        let not_executed = |filter| ChainError::NotExecuted { filter };
        let keys = Keys::new(&policies.jwt_rules, Box::new(Web), surroundings.sink.clone()).map_err(not_executed)?;
        let built_in = BuiltIn { policies, proxy: &proxy, surroundings: &surroundings, keys: keys.clone() };
        let mut compiled = HashMap::new();
        let mut filters = Vec::new();
        for filter in &chain.filters {
            let extension = match &filter.kind {
                FilterKind::BuiltIn(name) if name == ROUTER => break,
                FilterKind::BuiltIn(name) => {
                    filters.extend(built_in.filter(name).map_err(not_executed)?.map(ChainFilter::Native));
                    continue;
                }
                FilterKind::Extension(extension) => extension,
            };
            filters.extend(load_extension(engine, extension, source, host_env, &surroundings, &mut compiled)?);
        }
        Ok(Self { filters, proxy, surroundings, keys })
    }
}

/// The filter for an extension; `None` when a failed fetch is to let everything pass.
fn load_extension(
    engine: &Engine,
    extension: &Extension,
    source: &dyn ModuleSource,
    host_env: &BTreeMap<String, String>,
    surroundings: &Surroundings,
    compiled: &mut HashMap<Vec<u8>, Arc<Module>>,
) -> Result<Option<ChainFilter>, ChainError> {
    let key = extension.id();
    let name = format!("{}.{}", extension.namespace, extension.name);
    let wasm = match &extension.filter {
        ExtensionFilter::Lua { .. } => {
            return Err(ChainError::NotExecuted { filter: format!("{key}, which is Lua,") });
        }
        ExtensionFilter::Wasm(wasm) if wasm.layer == Layer::Network => {
            return Err(ChainError::NotExecuted { filter: format!("{key}, of type NETWORK,") });
        }
        ExtensionFilter::Wasm(wasm) => wasm,
    };
    let fetched = source.module(&key).map_err(|source| ChainError::Source { extension: key.clone(), source })?;
    let bytes = match fetched {
        Fetched::Bytes(bytes) => bytes,
        Fetched::Failed { reason } => {
            let open = wasm.fail_strategy == FailStrategy::FailOpen;
            let effect = if open { "FAIL_OPEN: requests pass without it" } else { "all requests are denied" };
            surroundings.sink.log(LogLevel::Warn, &format!("fetching the module of {key} failed ({reason}); {effect}"));
            return Ok((!open).then(|| ChainFilter::Native(Arc::new(DenyAll { name }))));
        }
    };
    let module = if let Some(module) = compiled.get(&bytes) {
        Arc::clone(module)
    } else {
        let module =
            Module::compile(engine, &bytes).map_err(|source| ChainError::Load { extension: key.clone(), source })?;
        let module = Arc::new(module);
        compiled.insert(bytes, module.clone());
        module
    };
    let plugin = Arc::new(Plugin {
        name,
        root_id: wasm.plugin_name.clone(),
        vm: Arc::new(VmConfig { env: env(wasm, host_env), ..VmConfig::default() }),
        configuration: wasm.plugin_config.clone().map(Bytes::from).unwrap_or_default(),
        fail_strategy: wasm.fail_strategy,
        module,
    });
    worker::canary(&plugin, surroundings).map_err(|source| ChainError::Start { extension: key, source })?;
    Ok(Some(ChainFilter::Wasm(plugin)))
}

/// The VM's environment.
fn env(wasm: &WasmFilter, host_env: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let value = |variable: &mesh::model::EnvVar| match &variable.value {
        EnvValue::Inline(value) => Some(value.clone()),
        EnvValue::Host => host_env.get(&variable.name).cloned(),
    };
    wasm.delivered_env().filter_map(|variable| Some((variable.name.clone(), value(variable)?))).collect()
}

fn facts(chain: &FilterChain) -> ProxyFacts {
    let inbound = match chain.listener.direction {
        Some(direction) => direction == Direction::Inbound,
        None => chain.proxy.kind != ProxyKind::Gateway,
    };
    let port = chain.listener.port.unwrap_or(80);
    ProxyFacts {
        name: chain.proxy.name.clone(),
        namespace: chain.proxy.namespace.clone(),
        labels: chain.proxy.labels.clone().into_iter().collect(),
        direction: if inbound { 1 } else { 2 },
        cluster: format!("{}|{port}||", if inbound { "inbound" } else { "outbound" }),
        kind: Some(chain.proxy.kind),
        port: chain.listener.port,
    }
}
