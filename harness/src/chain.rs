//! A resolved chain made executable: modules compiled, configurations tried, the rest refused by name.

mod known;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use mesh::model::{
    Direction, EnvValue, Extension, ExtensionFilter, FailStrategy, FilterChain, FilterKind, Layer, ProxyKind,
    WasmFilter,
};
use mesh::policy::{JwtRule, Policies};

use crate::abi::LogLevel;
use crate::builtin::BuiltIn;
use crate::builtin::jwt::keys::{Keys, Web};
use crate::engine::Engine;
use crate::log::Sink;
use crate::lua::{self, LuaPlugin};
use crate::module::{LoadError, Module};
use crate::native::{DenyAll, NativePlugin};
use crate::nature::{Nature, Real};
use crate::offline::Modules;
use crate::plugin::{Plugin, VmConfig};
use crate::shared::Shared;
use crate::source::{Fetched, ModuleSource, SourceError};
use crate::stream::state::ProxyFacts;
use crate::vm::{StartError, Surroundings};
use crate::worker;
use known::Known;

/// The terminal filter.
const ROUTER: &str = "envoy.filters.http.router";

/// The proxy's own network filters that decide who may pass. A chain that has one is refused rather than served
/// without it.
const NETWORK_DECIDING: &[&str] = &["envoy.filters.network.rbac", "envoy.filters.network.ext_authz"];

/// Why a chain cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// A filter of the chain is not executed by the harness, and serving without it would be something else.
    #[error("{filter} is not yet executed by the harness")]
    NotExecuted {
        /// What it is, by name.
        filter: String,
    },
    /// Inline keys of which none can be used: Envoy refuses such a configuration.
    #[error("RequestAuthentication {policy}: none of the keys in `jwks` of issuer {issuer} can be used")]
    Keys {
        /// `namespace/name`
        policy: String,
        /// The issuer.
        issuer: String,
    },
    /// A certificate to trust is none.
    #[error("read the certificates to trust: {0}")]
    Certificates(String),
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
    /// A script has errors, or its top level fails. Envoy rejects such a configuration, too.
    #[error("load the script of {extension}: {reason}")]
    Script {
        /// As [`mesh::model::Extension::id`] has it.
        extension: String,
        /// `script load error: …`, with the script's line.
        reason: String,
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

/// A filter of a network chain.
pub(crate) enum NetworkFilter {
    Wasm(Arc<Plugin>),
    /// Closes every connection: its module could not be fetched, and it does not fail open.
    Deny {
        name: String,
    },
}

/// What a proxy has from elsewhere than from its resources.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Its `xds.node` in Envoy's JSON form; by default it is made from the chain's proxy.
    pub node: Option<serde_json::Value>,
    /// Certificates to trust beside the public roots where JSON Web Keys are fetched over `https://`, in PEM.
    pub ca_certificates: Vec<String>,
}

/// A chain whose plugins have all accepted their configuration.
pub struct Chain {
    pub(crate) filters: Vec<ChainFilter>,
    /// What sees connections, before HTTP or a TCP upstream.
    pub(crate) network: Vec<NetworkFilter>,
    /// It is a network chain, whose end is a TCP upstream.
    pub(crate) is_tcp: bool,
    pub(crate) proxy: Arc<ProxyFacts>,
    pub(crate) surroundings: Surroundings,
    keys: Keys,
    rules: Vec<JwtRule>,
    roots: Arc<[String]>,
    /// What the native filters were made from, so that a chain after this one need not make them again.
    natives: Vec<(String, Arc<dyn NativePlugin>)>,
}

impl Chain {
    /// Fetches the keys of its `RequestAuthentication` policies again, at once instead of when they are due.
    pub fn refresh_keys(&self) -> impl Fn() + use<> {
        let keys = self.keys.clone();
        move || keys.refresh()
    }

    /// The values of its plugins' environments.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let http = self.filters.iter().filter_map(|filter| match filter {
            ChainFilter::Wasm(plugin) => Some(plugin),
            ChainFilter::Native(_) => None,
        });
        let network = self.network.iter().filter_map(|filter| match filter {
            NetworkFilter::Wasm(plugin) => Some(plugin),
            NetworkFilter::Deny { .. } => None,
        });
        http.chain(network).flat_map(|plugin| &plugin.vm.env).map(|(_, value)| value.clone()).collect()
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
        Self::load_with(engine, chain, source, host_env, sink, log_level, Given::default())
    }

    /// As [`Self::load`], for a proxy that is given more.
    pub fn load_with(
        engine: &Engine,
        chain: &FilterChain,
        source: &dyn ModuleSource,
        host_env: &BTreeMap<String, String>,
        sink: Arc<dyn Sink>,
        log_level: LogLevel,
        Given { node, ca_certificates }: Given,
    ) -> Result<Self, ChainError> {
        let proxy = Arc::new(facts(chain, node));
        let (shared, nature) = (Arc::new(Shared::default()), Arc::new(Real));
        let surroundings = Surroundings { sink, shared, log_level, proxy, nature };
        let mut known = Known::with_roots(ca_certificates.into());
        Self::assemble(engine, chain, source, host_env, surroundings, &mut known)
    }

    /// What surrounds a chain in a world of a test's.
    pub(crate) fn surroundings(
        chain: &FilterChain,
        node: Option<serde_json::Value>,
        sink: Arc<dyn Sink>,
        log_level: LogLevel,
        nature: Arc<dyn Nature>,
    ) -> Surroundings {
        Surroundings { sink, shared: Arc::default(), log_level, proxy: Arc::new(facts(chain, node)), nature }
    }

    /// As [`Self::load`], with these surroundings, keys and compiled modules, and network filters in front.
    pub(crate) fn around(
        engine: &Engine,
        (chain, network): (&FilterChain, Option<&FilterChain>),
        source: &dyn ModuleSource,
        host_env: &BTreeMap<String, String>,
        surroundings: Surroundings,
        keys: Keys,
        modules: &mut Modules,
    ) -> Result<Self, ChainError> {
        let mut known = Known::with(modules.0.clone(), &chain.policies.jwt_rules, keys);
        let mut loaded = Self::assemble(engine, chain, source, host_env, surroundings, &mut known)?;
        if let Some(network) = network {
            loaded.put_in_front(engine, network, source, host_env, &mut known)?;
        }
        modules.0 = known.into_modules();
        Ok(loaded)
    }

    /// The chain that takes this one's place. What is the same in both is the same: a plugin whose module and settings
    /// have not changed keeps its VMs, and is not tried again. Shared data, queues and metrics are those of before, and so
    /// are the certificates to trust.
    ///
    /// `network` are the filters in front of it, as for [`Self::in_front`].
    pub fn succeed(
        &self,
        engine: &Engine,
        (chain, network): (&FilterChain, Option<&FilterChain>),
        source: &dyn ModuleSource,
        host_env: &BTreeMap<String, String>,
        node: Option<serde_json::Value>,
    ) -> Result<Self, ChainError> {
        let facts = facts(chain, node);
        // What another proxy's filters have learnt of it is not true of this one.
        let (proxy, mut known) = if facts == *self.proxy {
            (self.proxy.clone(), Known::of(self))
        } else {
            (Arc::new(facts), Known::with_roots(self.roots.clone()))
        };
        let surroundings = Surroundings { proxy, ..self.surroundings.clone() };
        let mut next = Self::assemble(engine, chain, source, host_env, surroundings, &mut known)?;
        if let Some(network) = network {
            next.put_in_front(engine, network, source, host_env, &mut known)?;
        }
        Ok(next)
    }

    fn assemble(
        engine: &Engine,
        chain: &FilterChain,
        source: &dyn ModuleSource,
        host_env: &BTreeMap<String, String>,
        surroundings: Surroundings,
        known: &mut Known,
    ) -> Result<Self, ChainError> {
        let (policies, sink) = (&chain.policies, &surroundings.sink);
        let keys = match known.keys.take() {
            Some((rules, keys)) if rules == policies.jwt_rules => keys,
            _ => {
                let web = Web::new(&policies.jwt_rules, &known.roots, sink.clone())?;
                Keys::new(&policies.jwt_rules, Box::new(web), sink.clone())?
            }
        };
        let is_tcp = chain.listener.layer == Layer::Network;
        let mut loaded = Self {
            filters: Vec::new(),
            network: Vec::new(),
            is_tcp,
            proxy: surroundings.proxy.clone(),
            surroundings,
            keys,
            rules: policies.jwt_rules.clone(),
            roots: known.roots.clone(),
            natives: Vec::new(),
        };
        if is_tcp {
            loaded.put_in_front(engine, chain, source, host_env, known)?;
            return Ok(loaded);
        }
        for filter in &chain.filters {
            let surroundings = &loaded.surroundings;
            let extension = match &filter.kind {
                FilterKind::BuiltIn(name) if name == ROUTER => break,
                FilterKind::BuiltIn(name) => {
                    let key = built_in_key(name, policies);
                    let proxy = &loaded.proxy;
                    let built_in = BuiltIn { policies, proxy, surroundings, keys: loaded.keys.clone() };
                    let made = || built_in.filter(name).map_err(|filter| ChainError::NotExecuted { filter });
                    if let Some(native) = known.native(&key, made)? {
                        loaded.natives.push((key, native.clone()));
                        loaded.filters.push(ChainFilter::Native(native));
                    }
                    continue;
                }
                FilterKind::Extension(extension) => extension,
            };
            let wasm = match &extension.filter {
                ExtensionFilter::Lua { inline_code } => {
                    let key = format!("lua {} {inline_code}", extension.id());
                    let made = || load_script(engine, extension, inline_code, surroundings).map(Some);
                    if let Some(native) = known.native(&key, made)? {
                        loaded.natives.push((key, native.clone()));
                        loaded.filters.push(ChainFilter::Native(native));
                    }
                    continue;
                }
                ExtensionFilter::Wasm(wasm) if wasm.layer == Layer::Network => {
                    let filter = format!("{}, of type NETWORK in an HTTP chain,", extension.id());
                    return Err(ChainError::NotExecuted { filter });
                }
                ExtensionFilter::Wasm(wasm) => wasm,
            };
            loaded.filters.extend(match load_plugin(engine, extension, wasm, source, host_env, surroundings, known)? {
                Loaded::Plugin(plugin) => Some(ChainFilter::Wasm(plugin)),
                Loaded::Denied { name } => Some(ChainFilter::Native(Arc::new(DenyAll { name }))),
                Loaded::Open => None,
            });
        }
        Ok(loaded)
    }

    /// The same chain with the filters of the network chain `chain` in front, which see connections as bytes.
    pub fn in_front(
        mut self,
        engine: &Engine,
        chain: &FilterChain,
        source: &dyn ModuleSource,
        host_env: &BTreeMap<String, String>,
    ) -> Result<Self, ChainError> {
        self.put_in_front(engine, chain, source, host_env, &mut Known::default())?;
        Ok(self)
    }

    fn put_in_front(
        &mut self,
        engine: &Engine,
        chain: &FilterChain,
        source: &dyn ModuleSource,
        host_env: &BTreeMap<String, String>,
        known: &mut Known,
    ) -> Result<(), ChainError> {
        for filter in &chain.filters {
            let extension = match &filter.kind {
                FilterKind::BuiltIn(name) if NETWORK_DECIDING.contains(&name.as_str()) => {
                    return Err(ChainError::NotExecuted { filter: format!("the built-in filter {name}") });
                }
                FilterKind::BuiltIn(_) => continue,
                FilterKind::Extension(extension) => extension,
            };
            let wasm = match &extension.filter {
                ExtensionFilter::Wasm(wasm) if wasm.layer == Layer::Network => wasm,
                _ => {
                    let filter = format!("{}, an HTTP filter in a network chain,", extension.id());
                    return Err(ChainError::NotExecuted { filter });
                }
            };
            match load_plugin(engine, extension, wasm, source, host_env, &self.surroundings, known)? {
                Loaded::Plugin(plugin) => self.network.push(NetworkFilter::Wasm(plugin)),
                Loaded::Denied { name } => self.network.push(NetworkFilter::Deny { name }),
                Loaded::Open => {}
            }
        }
        Ok(())
    }
}

/// What an extension's module came to.
enum Loaded {
    Plugin(Arc<Plugin>),
    /// It could not be fetched, and traffic passes without it.
    Open,
    /// It could not be fetched, and nothing passes.
    Denied {
        name: String,
    },
}

fn load_script(
    engine: &Engine,
    extension: &Extension,
    code: &str,
    surroundings: &Surroundings,
) -> Result<Arc<dyn NativePlugin>, ChainError> {
    let setting = lua::Setting {
        sink: surroundings.sink.clone(),
        shared: surroundings.shared.clone(),
        log_level: surroundings.log_level,
        nature: surroundings.nature.clone(),
        callback: engine.limits.callback,
        startup: engine.limits.startup,
    };
    let name = format!("{}.{}", extension.namespace, extension.name);
    match LuaPlugin::load(name, code, setting) {
        Ok(plugin) => Ok(Arc::new(plugin)),
        Err(reason) => Err(ChainError::Script { extension: extension.id(), reason }),
    }
}

fn load_plugin(
    engine: &Engine,
    extension: &Extension,
    wasm: &WasmFilter,
    source: &dyn ModuleSource,
    host_env: &BTreeMap<String, String>,
    surroundings: &Surroundings,
    known: &mut Known,
) -> Result<Loaded, ChainError> {
    let key = extension.id();
    let name = format!("{}.{}", extension.namespace, extension.name);
    let fetched = source.module(&key).map_err(|source| ChainError::Source { extension: key.clone(), source })?;
    let bytes = match fetched {
        Fetched::Bytes(bytes) => bytes,
        Fetched::Failed { reason } => {
            let open = wasm.fail_strategy == FailStrategy::FailOpen;
            let effect = if open { "FAIL_OPEN: traffic passes without it" } else { "all traffic is denied" };
            surroundings.sink.log(LogLevel::Warn, &format!("fetching the module of {key} failed ({reason}); {effect}"));
            return Ok(if open { Loaded::Open } else { Loaded::Denied { name } });
        }
    };
    let compile =
        || Module::compile(engine, &bytes).map_err(|source| ChainError::Load { extension: key.clone(), source });
    let module = known.module(&bytes, compile)?;
    let plugin = Arc::new(Plugin {
        name,
        root_id: wasm.plugin_name.clone(),
        vm: Arc::new(VmConfig { env: env(wasm, host_env), ..VmConfig::default() }),
        configuration: wasm.plugin_config.clone().map(Bytes::from).unwrap_or_default(),
        fail_strategy: wasm.fail_strategy,
        module,
    });
    if let Some(same) = known.plugin(&plugin) {
        return Ok(Loaded::Plugin(same));
    }
    worker::canary(&plugin, surroundings).map_err(|source| ChainError::Start { extension: key, source })?;
    Ok(Loaded::Plugin(plugin))
}

/// What decides about a built-in filter beside its name.
fn built_in_key(name: &str, policies: &Policies) -> String {
    // Maps of these types have texts for keys, so that they can be written.
    format!("{name} {}", serde_json::to_string(policies).unwrap_or_default())
}

/// The VM's environment.
fn env(wasm: &WasmFilter, host_env: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let value = |variable: &mesh::model::EnvVar| match &variable.value {
        EnvValue::Inline(value) => Some(value.clone()),
        EnvValue::Host => host_env.get(&variable.name).cloned(),
    };
    wasm.delivered_env().filter_map(|variable| Some((variable.name.clone(), value(variable)?))).collect()
}

fn facts(chain: &FilterChain, node: Option<serde_json::Value>) -> ProxyFacts {
    let inbound = match chain.listener.direction {
        Some(direction) => direction == Direction::Inbound,
        None => chain.proxy.kind != ProxyKind::Gateway,
    };
    let port = chain.listener.port.unwrap_or(80);
    let mut facts = ProxyFacts {
        name: chain.proxy.name.clone(),
        namespace: chain.proxy.namespace.clone(),
        labels: chain.proxy.labels.clone().into_iter().collect(),
        direction: if inbound { 1 } else { 2 },
        cluster: format!("{}|{port}||", if inbound { "inbound" } else { "outbound" }),
        node: serde_json::Value::Null,
        kind: Some(chain.proxy.kind),
        port: chain.listener.port,
    };
    facts.node = node.unwrap_or_else(|| node_of(&facts, chain.proxy.kind));
    facts
}

/// The node as Istio's agent would describe the proxy.
fn node_of(facts: &ProxyFacts, kind: ProxyKind) -> serde_json::Value {
    let ProxyFacts { name, namespace, labels, .. } = facts;
    let kind = match kind {
        ProxyKind::Sidecar => "sidecar",
        ProxyKind::Gateway => "router",
        ProxyKind::Waypoint => "waypoint",
    };
    let labels: BTreeMap<_, _> = labels.iter().cloned().collect();
    serde_json::json!({
        "id": format!("{kind}~127.0.0.1~{name}.{namespace}~{namespace}.svc.cluster.local"),
        "cluster": format!("{name}.{namespace}"),
        "metadata": {"NAME": name, "NAMESPACE": namespace, "LABELS": labels},
    })
}
