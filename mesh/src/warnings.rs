//! Traps: what Istio accepts and the operator has probably not meant, each with the reason and the way out.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::attach::{GATEWAY_NAME_LABEL, MeshOptions, attaches};
use crate::fault::Place;
use crate::locate::{FieldPath, Locator};
use crate::model::{Attach, Extension, FilterChain, FilterKind, Layer, ProxyKind};
use crate::resources::Resources;

mod alone;
mod index;
mod order;
mod proxies;
mod secrets;
#[cfg(test)]
mod tests;

use index::Index;

/// One warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Which trap.
    pub rule: Rule,
    /// Whose it is, as [`Extension::id`] has it.
    pub resource: String,
    /// Where; the resource's first line until [`locate`] is asked for the field's own.
    #[serde(flatten)]
    pub place: Place,
    /// The field.
    pub path: FieldPath,
    /// What there is, as a clause.
    pub what: String,
    /// Why that is a trap, as a clause.
    pub why: String,
    /// What to do, as a clause.
    pub fix: String,
    #[serde(skip)]
    key: (String, String),
}

impl Warning {
    fn new(rule: Rule, extension: &Extension, path: FieldPath, what: String, fix: impl Into<String>) -> Self {
        let origin = &extension.origin;
        Self {
            rule,
            resource: extension.id(),
            place: Place { file: origin.file.clone(), document: origin.document, line: origin.line, column: 1 },
            path,
            what,
            why: rule.why().to_owned(),
            fix: fix.into(),
            key: (extension.namespace.clone(), extension.name.clone()),
        }
    }

    /// Finds the field's own line and column.
    pub fn locate(&mut self, locator: &Locator) {
        let kind = self.resource.split(' ').next().unwrap_or_default().to_owned();
        let Place { file, document, line, .. } = self.place.clone();
        let origin = crate::model::Origin { kind, file, document, line };
        self.place = locator.place(&origin, &self.key.0, &self.key.1, &self.path);
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, resource, place, path, what, why, fix, .. } = self;
        write!(f, "{place}: {resource}: `{path}`: {what} [{rule}]\n  why: {why}\n  fix: {fix}")
    }
}

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident = $id:literal: $why:literal;)+) => {
        /// The traps.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name, which stays the same from version to version.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)+ }
            }

            /// Why it is a trap, as a clause.
            pub fn why(self) -> &'static str {
                match self { $(Self::$name => $why,)+ }
            }
        }
    };
}

rules! {
    /// No priority, beside extensions with one that is 0 or less.
    UnsetPriority = "unset-priority":
        "the API documentation says that priority defaults to 0, but Istio sorts an unset one below every set one, even \
         a negative one";
    /// The same priority twice in a phase.
    EqualPriority = "equal-priority":
        "then the workload's own namespace comes before the root namespace, the older resource before the newer, and the \
         names decide the rest: whoever deletes and creates one of them again changes the order";
    /// `mode: SERVER` at a gateway.
    ServerOnGateway = "server-on-gateway":
        "what a gateway serves counts as CLIENT, so that this entry never holds there";
    /// Ports at a waypoint.
    PortsOnWaypoint = "ports-on-waypoint":
        "a waypoint's HTTP listener has no port of its own, so that this entry never holds there";
    /// `mode: CLIENT` at a waypoint.
    ClientOnWaypoint = "client-on-waypoint":
        "what a waypoint serves counts as SERVER, so that this entry never holds there";
    /// A selector that selects a waypoint.
    SelectorOnWaypoint = "selector-on-waypoint":
        "a waypoint carries only what targets it by `targetRefs`; it looks at no selector";
    /// `targetRefs` for a pod that is no gateway.
    TargetOnPod = "target-on-pod":
        "only gateways and waypoints carry what has `targetRefs`; a pod without the label \
         `gateway.networking.k8s.io/gateway-name` never does";
    /// A target that is not among the given resources.
    TargetNotGiven = "target-not-given":
        "what targets a Gateway that is not there runs nowhere";
    /// A selector that selects nothing that is given.
    SelectorMatchesNothing = "selector-matches-nothing":
        "an extension that selects no workload runs nowhere, and nothing else says so";
    /// A tag that moves, pulled only once.
    StaleTag = "stale-tag":
        "with IfNotPresent, which is also the default unless the url ends in `:latest`, each proxy keeps what it pulled \
         first, so that proxies differ by the time they were started";
    /// `sha256` of a file.
    Sha256OnFile = "sha256-on-file":
        "Istio does not check a file on the proxy against it";
    /// FAIL_OPEN where access is decided.
    FailOpenAuth = "fail-open-auth":
        "once it has crashed, or when it cannot be fetched, every request passes without being checked";
    /// FAIL_OPEN and the request that crashes.
    FailOpenCrash = "fail-open-crash":
        "the request during which the plugin crashes is answered with 503 all the same; only later ones pass it by, and \
         whoever can crash it can switch it off";
    /// A number that a double cannot hold.
    NumberPrecision = "number-precision":
        "pluginConfig's numbers are doubles, so that beyond 2^53 the last digits are lost on the way to the plugin";
    /// A secret in plain text.
    SecretInConfig = "secret-in-config":
        "everybody who may read the resource reads it, and so do its backups, the repository and the proxy's config dump";
    /// A variable that Istio strips.
    IstioMetaEnv = "istio-meta-env":
        "Istio strips variables whose names start with `ISTIO_META_` from modules that it fetches";
    /// A kind that has a successor.
    WasmPluginSuperseded = "wasm-plugin-superseded":
        "TrafficExtension takes its place, and Istio makes one of each WasmPlugin, called \
         `NAME~istio-translated-wasmplugin`, by which it sorts";
    /// `match` that takes nothing.
    MatchNeverHolds = "match-never-holds":
        "an extension none of whose `match` entries can hold never runs";
    /// Lua for traffic that is not HTTP.
    LuaInNetwork = "lua-in-network":
        "Lua runs in HTTP chains only; a network chain skips it without a word";
    /// One root id for two extensions of one VM.
    SharedPluginName = "shared-plugin-name":
        "Envoy runs the same module with the same variables in one VM, where the plugin name is the root id: log lines \
         and metrics of the two cannot be told apart, and a module that keeps things by root id mixes them up";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|rule| rule.id() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|rule| rule.id()).collect();
            let nearest = crate::fault::nearest(text, &known).map(|rule| format!(", did you mean `{rule}`?"));
            format!("there is no rule `{text}`{}", nearest.unwrap_or_default())
        })
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// Every trap in the resources, in the order in which they were read.
///
/// Which extensions meet in a chain is judged by what they select and target; which proxies an extension is for, by the
/// workloads and Gateways among the resources, else by its labels and names as [`crate::assume_proxy`] does.
///
/// ```
/// let text = "
/// apiVersion: extensions.istio.io/v1alpha1
/// kind: TrafficExtension
/// metadata: {name: x}
/// spec: {phase: AUTHN, wasm: {url: 'oci://h/x:1', failStrategy: FAIL_OPEN}}
/// ";
/// let reading = mesh::read(&[mesh::Source { file: "x.yaml".into(), text: text.into() }]);
/// let warnings = mesh::warnings::all(&reading.resources, &mesh::MeshOptions::default());
/// let rules: Vec<_> = warnings.iter().map(|warning| warning.rule.id()).collect();
/// assert_eq!(rules, ["fail-open-auth", "fail-open-crash"]);
/// ```
pub fn all(resources: &Resources, mesh: &MeshOptions) -> Vec<Warning> {
    let index = Index::new(resources, mesh);
    let mut warnings = Vec::new();
    for extension in &resources.extensions {
        alone::check(extension, &mut warnings);
        proxies::check(extension, resources, &index, &mut warnings);
    }
    order::check(&resources.extensions, &mesh.root_namespace, &mut warnings);
    sorted(warnings)
}

/// The traps that have to do with one chain: those of the extensions in it, of their order, and of those that the trap
/// keeps out of it.
pub fn of_chain(resources: &Resources, chain: &FilterChain, mesh: &MeshOptions) -> Vec<Warning> {
    let proxy = &chain.proxy;
    let mut warnings = Vec::new();
    let in_chain: Vec<&Extension> = chain
        .filters
        .iter()
        .filter_map(|filter| match &filter.kind {
            FilterKind::Extension(extension) => Some(&**extension),
            FilterKind::BuiltIn(_) => None,
        })
        .collect();
    for extension in &in_chain {
        alone::check(extension, &mut warnings);
    }
    order::check_chain(&in_chain, &mut warnings);
    for extension in &resources.extensions {
        let path = || FieldPath::keys(&["spec"]);
        if attaches(&extension.attach, &extension.namespace, proxy, mesh).is_ok() {
            proxies::check_entries(extension, proxy.kind, &proxy.name, &mut warnings);
            if chain.listener.layer == Layer::Network && extension.wasm().is_none() {
                let what = "this Lua script applies here, and the chain asked for is the network chain".to_owned();
                let fix = "write it as a wasm extension of type NETWORK, or look at the HTTP chain";
                warnings.push(Warning::new(Rule::LuaInNetwork, extension, path().then("lua"), what, fix));
            }
            continue;
        }
        if extension.namespace != proxy.namespace && extension.namespace != mesh.root_namespace {
            continue;
        }
        match &extension.attach {
            Attach::Selector(labels)
                if proxy.kind == ProxyKind::Waypoint
                    && !labels.is_empty()
                    && labels.iter().all(|(key, value)| proxy.labels.get(key) == Some(value)) =>
            {
                warnings.push(proxies::selector_on_waypoint(extension, &proxy.name));
            }
            Attach::TargetRefs(refs) if !proxy.labels.contains_key(GATEWAY_NAME_LABEL) => {
                warnings.extend(proxies::target_on_pod(extension, refs, resources, proxy));
            }
            _ => {}
        }
    }
    sorted(warnings)
}

/// Finds each warning's own line, and sorts the warnings by it.
pub fn locate(warnings: &mut [Warning], locator: &Locator) {
    for warning in &mut *warnings {
        warning.locate(locator);
    }
    warnings.sort_by(|a, b| (&a.place, &a.resource, a.rule).cmp(&(&b.place, &b.resource, b.rule)));
}

fn sorted(mut warnings: Vec<Warning>) -> Vec<Warning> {
    warnings.sort_by(|a, b| (&a.place, &a.resource, a.rule, &a.what).cmp(&(&b.place, &b.resource, b.rule, &b.what)));
    warnings.dedup_by(|a, b| a.rule == b.rule && a.resource == b.resource && a.path == b.path && a.what == b.what);
    warnings
}
