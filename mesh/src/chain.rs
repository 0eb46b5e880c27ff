//! Resolution: the filter chain that Istio would build for a proxy and listener, each filter with its reason.

use std::fmt;

use crate::attach::{MeshOptions, attaches, takes};
use crate::model::{
    Dialect, Direction, Extension, ExtensionFilter, Filter, FilterChain, FilterKind, Layer, LeftOut, Listener, Phase,
    Protocol, Proxy, ProxyKind,
};
use crate::order;
use crate::policy::{self, PolicySpec};
use crate::proxy::few;
use crate::resources::{Policy, PolicyKind, Resources};

/// Resolves the chain of one listener of one proxy.
///
/// Every extension of `resources` is either in the chain or in `left_out`, and has its reason there. The order is
/// Istio's own: see `istio.io/istio/pilot/pkg/networking/core`, and where its documentation differs, the code counts
/// (an unset priority sorts below negative ones). A sidecar's listener of unknown direction is taken as inbound where
/// the proxy's own filters differ.
///
/// The proxy's own authentication and authorization filters are there when a `RequestAuthentication` or
/// `AuthorizationPolicy` among the resources applies to the proxy.
pub fn resolve(resources: &Resources, proxy: &Proxy, listener: &Listener, mesh: &MeshOptions) -> FilterChain {
    let mut left_out = resources.unattached.clone();
    let mut attached = Vec::new();
    for extension in &resources.extensions {
        match why(extension, proxy, *listener, mesh) {
            Ok(reason) => attached.push((extension, reason)),
            Err(reason) => left_out.push(LeftOut {
                kind: extension.origin.kind.clone(),
                namespace: extension.namespace.clone(),
                name: extension.name.clone(),
                reason: sentence(&reason),
            }),
        }
    }
    let mut namespaces = vec![proxy.namespace.as_str()];
    let further = mesh.services.iter().map(|service| service.namespace.as_str());
    for namespace in [mesh.root_namespace.as_str()].into_iter().chain(further) {
        if !namespaces.contains(&namespace) {
            namespaces.push(namespace);
        }
    }
    let extensions = order::ordered(attached, &namespaces);
    left_out.sort_by(|a, b| (&a.namespace, &a.name, &a.kind).cmp(&(&b.namespace, &b.name, &b.kind)));
    let chain = Chain { resources, proxy, listener: *listener, mesh, extensions, filters: Vec::new() };
    let policies = policy::applied(chain.applying(), &mesh.root_namespace);
    FilterChain { proxy: proxy.clone(), listener: *listener, filters: chain.build(), left_out, policies }
}

/// The network filters in front of an HTTP listener's own chain, or `None` when there are none.
///
/// Istio puts network extensions of all phases there, and none of its own network filters: what would decide about a
/// connection's bytes decides about its requests.
pub fn resolve_in_front(
    resources: &Resources,
    proxy: &Proxy,
    listener: &Listener,
    mesh: &MeshOptions,
) -> Option<FilterChain> {
    let listener = Listener { layer: Layer::Network, protocol: Some(Protocol::Http), ..*listener };
    let chain = resolve(resources, proxy, &listener, mesh);
    let any = chain.filters.iter().any(|filter| matches!(filter.kind, FilterKind::Extension(_)));
    any.then_some(chain)
}

/// Why an extension is in the chain, or why it is not.
fn why(extension: &Extension, proxy: &Proxy, listener: Listener, mesh: &MeshOptions) -> Result<String, String> {
    let attached = attaches(&extension.attach, &extension.namespace, proxy, mesh)?;
    match (&extension.filter, extension.layer(), listener.layer) {
        (_, Layer::Network, Layer::Http) => {
            return Err("its type is NETWORK: it runs in the network chain, before HTTP is parsed".to_owned());
        }
        (ExtensionFilter::Lua { .. }, _, Layer::Network) => {
            return Err("it is Lua, which runs in HTTP chains only, and this is the network chain".to_owned());
        }
        (_, Layer::Http, Layer::Network) => {
            return Err("it is an HTTP filter, and this is the network chain".to_owned());
        }
        _ => {}
    }
    let outbound = proxy.kind == ProxyKind::Sidecar && listener.direction == Some(Direction::Outbound);
    if outbound && matches!(extension.dialect, Dialect::Maistra { .. }) {
        return Err("a ServiceMeshExtension runs on inbound traffic only".to_owned());
    }
    let taken = takes(&extension.traffic, proxy, listener)?;
    let priority =
        extension.priority.map_or("no priority, below every set one".to_owned(), |p| format!("priority {p}"));
    let phase = phase_name(extension.phase);
    let taken = taken.map(|taken| format!("{taken}; ")).unwrap_or_default();
    Ok(format!("{attached}; {taken}{phase}, {priority}"))
}

/// The phases in the order of the chain.
const PHASES: [Phase; 4] = [Phase::Authn, Phase::Authz, Phase::Stats, Phase::Unspecified];

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "no phase",
        Phase::Authn => "phase AUTHN",
        Phase::Authz => "phase AUTHZ",
        Phase::Stats => "phase STATS",
    }
}

fn sentence(clause: &str) -> String {
    let mut letters = clause.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

struct Chain<'r> {
    resources: &'r Resources,
    proxy: &'r Proxy,
    listener: Listener,
    mesh: &'r MeshOptions,
    /// In order, each with its reason.
    extensions: Vec<(&'r Extension, String)>,
    filters: Vec<Filter>,
}

impl Chain<'_> {
    fn build(mut self) -> Vec<Filter> {
        match (self.listener.layer, self.proxy.kind) {
            (Layer::Network, _) => self.network(),
            (Layer::Http, ProxyKind::Waypoint) => self.waypoint(),
            (Layer::Http, ProxyKind::Sidecar | ProxyKind::Gateway) => self.http(),
        }
        self.filters
    }

    fn http(&mut self) {
        let inbound = self.is_inbound();
        self.built_in("istio.metadata_exchange", "exchanges workload metadata with the other side");
        self.custom("envoy.filters.http.rbac", "envoy.filters.http.ext_authz");
        self.phase(Phase::Authn);
        self.authentication();
        self.phase(Phase::Authz);
        self.authorization("envoy.filters.http.rbac");
        self.phase(Phase::Stats);
        self.phase(Phase::Unspecified);
        self.built_in("envoy.filters.http.grpc_web", "translates gRPC-Web");
        self.built_in("envoy.filters.http.grpc_stats", "counts gRPC messages");
        if !inbound {
            self.built_in("istio.alpn", "offers Istio's protocols to the upstream; not on inbound listeners");
        }
        self.built_in("envoy.filters.http.fault", "injects the faults of a VirtualService");
        self.built_in("envoy.filters.http.cors", "applies the CORS policy of a VirtualService");
        self.built_in("istio.stats", "records Istio's metrics");
        self.built_in("envoy.filters.http.router", "sends the request upstream; always last");
    }

    fn waypoint(&mut self) {
        self.custom("envoy.filters.http.rbac", "envoy.filters.http.ext_authz");
        self.phase(Phase::Authn);
        self.authentication();
        self.phase(Phase::Authz);
        self.authorization("envoy.filters.http.rbac");
        self.built_in("envoy.filters.http.grpc_stats", "counts gRPC messages");
        self.built_in("envoy.filters.http.fault", "injects the faults of a VirtualService");
        self.built_in(
            "envoy.filters.http.cors",
            "applies the CORS policy of a VirtualService; before STATS at a waypoint",
        );
        self.phase(Phase::Stats);
        self.phase(Phase::Unspecified);
        self.built_in("istio.stats", "records Istio's metrics");
        self.built_in("envoy.filters.http.router", "sends the request upstream; always last");
    }

    /// An HTTP port's network chain has the extensions of every phase and then HTTP, which has the rest.
    fn network(&mut self) {
        if self.listener.protocol == Some(Protocol::Http) {
            for phase in PHASES {
                self.phase(phase);
            }
            self.built_in(
                "envoy.filters.network.http_connection_manager",
                "runs the HTTP chain, which has the policies and the metrics; always last on an HTTP port",
            );
            return;
        }
        self.custom("envoy.filters.network.rbac", "envoy.filters.network.ext_authz");
        self.phase(Phase::Authn);
        self.phase(Phase::Authz);
        self.authorization("envoy.filters.network.rbac");
        self.phase(Phase::Stats);
        self.phase(Phase::Unspecified);
        self.built_in("istio.stats", "records Istio's metrics");
        self.built_in("envoy.filters.network.tcp_proxy", "sends the connection upstream; always last");
    }

    fn is_inbound(&self) -> bool {
        self.proxy.kind != ProxyKind::Gateway && self.listener.direction != Some(Direction::Outbound)
    }

    /// A sidecar checks what comes in, not what goes out.
    fn checks_requests(&self) -> bool {
        self.proxy.kind != ProxyKind::Sidecar || self.is_inbound()
    }

    fn built_in(&mut self, name: &str, does: &str) {
        let reason = sentence(&format!("part of every {} chain: {does}", self.chain_name()));
        self.filters.push(Filter { kind: FilterKind::BuiltIn(name.to_owned()), reason });
    }

    fn chain_name(&self) -> &'static str {
        match (self.listener.layer, self.proxy.kind) {
            (Layer::Network, _) => "network",
            (Layer::Http, ProxyKind::Sidecar) => "sidecar",
            (Layer::Http, ProxyKind::Gateway) => "gateway",
            (Layer::Http, ProxyKind::Waypoint) => "waypoint",
        }
    }

    fn phase(&mut self, phase: Phase) {
        let (here, rest) = std::mem::take(&mut self.extensions).into_iter().partition(|(e, _)| e.phase == phase);
        self.extensions = rest;
        self.filters.extend(Vec::into_iter(here).map(|(extension, reason): (&Extension, String)| Filter {
            kind: FilterKind::Extension(Box::new(extension.clone())),
            reason: sentence(&reason),
        }));
    }

    fn custom(&mut self, rbac: &str, ext_authz: &str) {
        if let Some(policies) = self.policies(PolicyKind::CustomAuthorization) {
            self.policy_filter(rbac, &format!("decides which requests go to the external authorizer, for {policies}"));
            self.policy_filter(ext_authz, &format!("asks the external authorizer, for {policies}"));
        }
    }

    fn authentication(&mut self) {
        if let Some(policies) = self.policies(PolicyKind::RequestAuthentication) {
            self.policy_filter("envoy.filters.http.jwt_authn", &format!("checks JSON web tokens, for {policies}"));
        }
    }

    fn authorization(&mut self, rbac: &str) {
        if let Some(policies) = self.policies(PolicyKind::Authorization) {
            self.policy_filter(rbac, &format!("allows or denies, for {policies}"));
        }
    }

    fn policy_filter(&mut self, name: &str, reason: &str) {
        self.filters.push(Filter { kind: FilterKind::BuiltIn(name.to_owned()), reason: sentence(reason) });
    }

    /// The policies that apply here.
    fn applying(&self) -> impl Iterator<Item = &Policy> {
        let applies = |policy: &&Policy| attaches(&policy.attach, &policy.namespace, self.proxy, self.mesh).is_ok();
        // Without rules there is nothing to check tokens against, and no filter.
        let says_something = |policy: &&Policy| policy.spec != PolicySpec::Jwt(Vec::new());
        let policies = self.resources.policies.iter().filter(|_| self.checks_requests());
        policies.filter(says_something).filter(applies)
    }

    /// Names the policies of one kind that apply here; `None` when there are none.
    fn policies(&self, kind: PolicyKind) -> Option<String> {
        let names: Vec<String> = self
            .applying()
            .filter(|policy| policy.kind == kind)
            .map(|policy| format!("{} {}/{}", policy.origin.kind, policy.namespace, policy.name))
            .collect();
        (!names.is_empty()).then(|| few(&names))
    }
}

/// Writes the chain as one line: `-> openid-connect -> envoy.filters.http.jwt_authn -> …`.
impl fmt::Display for FilterChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.filters.iter().map(|filter| format!("-> {}", filter.name())).collect();
        f.write_str(&names.join(" "))
    }
}

impl Filter {
    /// `wasm`, `lua` or `builtin`.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            FilterKind::BuiltIn(_) => "builtin",
            FilterKind::Extension(extension) if extension.wasm().is_some() => "wasm",
            FilterKind::Extension(_) => "lua",
        }
    }

    /// The extension's own name, or the built-in filter's.
    pub fn name(&self) -> &str {
        match &self.kind {
            FilterKind::BuiltIn(name) => name,
            FilterKind::Extension(extension) => &extension.name,
        }
    }
}

#[cfg(test)]
mod tests;
