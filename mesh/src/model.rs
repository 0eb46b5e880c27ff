//! The one model in the middle: everything an operator writes is reduced to an [`Extension`], and everything that
//! serves traffic executes a [`FilterChain`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::policy::Policies;

/// Where in the operator's input a resource was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The resource kind as written, for example `WasmPlugin`.
    pub kind: String,
    /// The file as given on the command line (`-` is standard input).
    pub file: String,
    /// Zero-based document number within the file.
    pub document: usize,
    /// One-based line on which the resource starts.
    pub line: usize,
}

/// The four places in the chain an extension can ask for, in Istio's numeric order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// `UNSPECIFIED_PHASE` (`WasmPlugin`) or `UNSPECIFIED` (`TrafficExtension`).
    #[default]
    Unspecified,
    /// Before Istio's authentication filters.
    Authn,
    /// After authentication, before Istio's authorization filters.
    Authz,
    /// After authorization, before Istio's stats filters.
    Stats,
}

/// One resource that puts code into a filter chain, whatever kind it was written as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extension {
    /// Where it was read.
    pub origin: Origin,
    /// `metadata.name`, without any marker.
    pub name: String,
    /// `metadata.namespace`; `default` when the resource leaves it out, as kubectl does.
    pub namespace: String,
    /// `metadata.creationTimestamp` as nanoseconds since the Unix epoch; `None` sorts first, as Go's zero time does.
    pub created: Option<i64>,
    /// `metadata.resourceVersion`, which only a resource that was read from a cluster has.
    pub resource_version: Option<String>,
    /// Where in the chain.
    pub phase: Phase,
    /// Order within the phase, descending. `None` sorts below every set priority.
    pub priority: Option<i32>,
    /// Which proxies carry it.
    pub attach: Attach,
    /// Which listeners on those proxies carry it: any one entry is enough, an empty list matches everything.
    #[serde(rename = "match")]
    pub traffic: Vec<TrafficSelector>,
    /// What runs.
    pub filter: ExtensionFilter,
    /// Whose rules it follows where they are not Istio's.
    #[serde(default)]
    pub dialect: Dialect,
}

/// The control plane that an extension was written for, with what only that one knows about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Dialect {
    /// `WasmPlugin` and `TrafficExtension`.
    #[default]
    Istio,
    /// `ServiceMeshExtension`: runs on inbound traffic only.
    Maistra {
        /// `spec.phase`; `None` leaves it to the image's `manifest.yaml`.
        phase: Option<MaistraPhase>,
    },
    /// `WasmExtension` of Tetrate Service Bridge, where a gateway or a setting uses it.
    Tetrate {
        /// `organizations/ORG/extensions/NAME`: decides between equal priorities.
        fqn: String,
        /// Kind and fully qualified name of what uses it.
        used_by: String,
    },
}

/// The phases of a `ServiceMeshExtension`, in the order of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are all there is to say")]
pub enum MaistraPhase {
    PreAuthN,
    PostAuthN,
    PreAuthZ,
    PostAuthZ,
    PreStats,
    PostStats,
}

impl MaistraPhase {
    /// Istio's phase at the same place. `PostAuthN` and `PreAuthZ` share one, and so do `PostAuthZ` and `PreStats`.
    pub fn istio(self) -> Phase {
        match self {
            Self::PreAuthN => Phase::Authn,
            Self::PostAuthN | Self::PreAuthZ => Phase::Authz,
            Self::PostAuthZ | Self::PreStats => Phase::Stats,
            Self::PostStats => Phase::Unspecified,
        }
    }
}

impl Extension {
    /// The wasm module it runs; `None` for Lua.
    pub fn wasm(&self) -> Option<&WasmFilter> {
        match &self.filter {
            ExtensionFilter::Wasm(wasm) => Some(wasm),
            ExtensionFilter::Lua { .. } => None,
        }
    }

    /// Which chain it runs in. Lua is an HTTP filter.
    pub fn layer(&self) -> Layer {
        self.wasm().map_or(Layer::Http, |wasm| wasm.layer)
    }

    /// Tells it from every other: `WasmPlugin default/basic-auth`.
    pub fn id(&self) -> String {
        let used_by = match &self.dialect {
            Dialect::Tetrate { used_by, .. } => format!(" of {used_by}"),
            Dialect::Istio | Dialect::Maistra { .. } => String::new(),
        };
        format!("{} {}/{}{used_by}", self.origin.kind, self.namespace, self.name)
    }
}

/// Which proxies an extension attaches to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attach {
    /// Every workload in scope: no selector and no targetRefs.
    Namespace,
    /// Workloads whose labels contain these.
    Selector(BTreeMap<String, String>),
    /// The named gateways, services or gateway classes.
    TargetRefs(Vec<TargetRef>),
}

/// One entry of `targetRefs` (`istio.type.v1beta1.PolicyTargetReference`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TargetRef {
    /// API group; empty for the core group.
    pub group: String,
    /// `Gateway`, `GatewayClass`, `Service` or `ServiceEntry`.
    pub kind: String,
    /// The object's name.
    pub name: String,
}

/// One entry of `match`: mode AND ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficSelector {
    /// Direction of the traffic.
    pub mode: WorkloadMode,
    /// Any of these ports; empty means any port.
    pub ports: Vec<u16>,
}

/// `istio.type.v1beta1.WorkloadMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    /// Sidecar outbound, and gateways.
    Client,
    /// Sidecar inbound, and waypoints.
    Server,
    /// Both; also what an unset mode means.
    #[default]
    ClientAndServer,
}

/// The code an extension runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ExtensionFilter {
    /// A proxy-wasm module.
    Wasm(Box<WasmFilter>),
    /// An inline Lua script (`TrafficExtension` only).
    Lua {
        /// The script: `lua.inlineCode`.
        inline_code: String,
    },
}

/// A proxy-wasm module and how the proxy is to run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WasmFilter {
    /// `url` as written; no scheme means `oci://`.
    pub url: String,
    /// 64 lower-case hex digits: the manifest's digest (oci) or the module's (http).
    pub sha256: Option<String>,
    /// `imagePullPolicy`.
    pub pull_policy: PullPolicy,
    /// `imagePullSecret`: a Secret in the extension's namespace.
    pub pull_secret: Option<String>,
    /// `pluginConfig` as the compact JSON that reaches the plugin; `None` when absent or `{}`.
    ///
    /// The keys of every mapping are sorted, as Istio sorts them, and not in the order they were written: a plugin that
    /// walks its configuration in order must take lists.
    pub plugin_config: Option<String>,
    /// `pluginName`, which becomes Envoy's root id; empty when absent.
    pub plugin_name: String,
    /// What a fatal error means for traffic.
    pub fail_strategy: FailStrategy,
    /// `vmConfig.env`.
    pub env: Vec<EnvVar>,
    /// HTTP filter or network filter.
    pub layer: Layer,
}

impl WasmFilter {
    /// The variables that reach the VM: Istio's agent takes its own away from modules that it fetched.
    pub fn delivered_env(&self) -> impl Iterator<Item = &EnvVar> {
        let from_proxy = self.url.starts_with("file://");
        self.env.iter().filter(move |variable| from_proxy || !variable.name.starts_with("ISTIO_META_"))
    }
}

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum PullPolicy {
    /// Decided by the URL.
    #[default]
    Unspecified,
    /// Use what was pulled before.
    IfNotPresent,
    /// Pull again when the resource changes.
    Always,
}

/// `failStrategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailStrategy {
    /// A crashed plugin answers 503 from then on.
    #[default]
    FailClose,
    /// A crashed plugin is skipped from the next request on.
    FailOpen,
    /// A crashed plugin gets a new VM after the back-off.
    FailReload,
}

/// One environment variable of the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// A C identifier.
    pub name: String,
    /// Where its value comes from.
    pub value: EnvValue,
}

/// `valueFrom` and `value` of an [`EnvVar`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvValue {
    /// The value itself.
    Inline(String),
    /// The proxy's own variable of the same name; ignored when the proxy has none.
    Host,
}

/// Where a wasm extension sits: `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Layer {
    /// An HTTP filter.
    #[default]
    Http,
    /// A network filter.
    Network,
}

/// The proxy a chain is resolved for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// The proxy's name (pod or Gateway), for messages only.
    pub name: String,
    /// The proxy's namespace.
    pub namespace: String,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// What it does in the mesh.
    pub kind: ProxyKind,
}

impl Proxy {
    /// Its node as Istio's agent would describe it, in Envoy's JSON form.
    pub fn node(&self) -> serde_json::Value {
        let Self { name, namespace, labels, kind } = self;
        let kind = match kind {
            ProxyKind::Sidecar => "sidecar",
            ProxyKind::Gateway => "router",
            ProxyKind::Waypoint => "waypoint",
        };
        serde_json::json!({
            "id": format!("{kind}~127.0.0.1~{name}.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{name}.{namespace}"),
            "metadata": {"NAME": name, "NAMESPACE": namespace, "LABELS": labels},
        })
    }
}

/// The three kinds of proxy that carry extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyKind {
    /// A sidecar beside a workload.
    Sidecar,
    /// An ingress or egress gateway.
    Gateway,
    /// An ambient waypoint.
    Waypoint,
}

/// The listener a chain is resolved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Inbound or outbound; `None` lets every `match` entry count.
    pub direction: Option<Direction>,
    /// The port; `None` lets every `match` entry count.
    pub port: Option<u16>,
    /// Which chain is asked for.
    pub layer: Layer,
    /// What the port carries, which says how its network chain ends; `None` when nothing says it.
    #[serde(default)]
    pub protocol: Option<Protocol>,
}

/// What a port carries, as far as its chains differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP of any version, gRPC included: the network chain ends in the HTTP connection manager.
    Http,
    /// Everything else: the network chain ends in the TCP proxy.
    Tcp,
}

/// Traffic direction at a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

/// The answer: what runs, in order, and what does not, each with its reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilterChain {
    /// For whom it was resolved.
    pub proxy: Proxy,
    /// For which listener.
    pub listener: Listener,
    /// Filters in request order, the terminal one last.
    pub filters: Vec<Filter>,
    /// Extensions that are not in the chain.
    pub left_out: Vec<LeftOut>,
    /// What its authentication and authorization filters enforce.
    #[serde(default, skip_serializing_if = "Policies::is_empty")]
    pub policies: Policies,
}

/// One place in the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// What runs here.
    pub kind: FilterKind,
    /// Why it is here, as a sentence.
    pub reason: String,
}

/// An extension, or one of the proxy's own filters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FilterKind {
    /// A built-in filter, by Envoy's or Istio's name, for example `envoy.filters.http.router`.
    BuiltIn(String),
    /// An operator's extension.
    Extension(Box<Extension>),
}

/// An extension that is not in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The resource's kind.
    pub kind: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Why not, as a sentence.
    pub reason: String,
}
