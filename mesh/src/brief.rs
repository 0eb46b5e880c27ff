//! A chain as one short line, as Istio's documentation writes it.

use crate::model::{FilterChain, FilterKind};

impl FilterChain {
    /// Writes what an operator put into the chain: `-> openid-connect -> istio.authn -> acl-check -> router`.
    ///
    /// Extensions have their own names. Of the proxy's filters it has those that policies put there
    /// (`RequestAuthentication` is `istio.authn`, `AuthorizationPolicy` is `istio.authz`, with action CUSTOM
    /// `istio.ext_authz`) and the last one, without its prefix. The whole chain is what `Display` writes.
    pub fn brief(&self) -> String {
        let name = |index: usize| match &self.filters.get(index)?.kind {
            FilterKind::Extension(extension) => Some(extension.name.as_str()),
            FilterKind::BuiltIn(name) => {
                let next = self.filters.get(index + 1).map_or("", |next| next.name());
                policy(name, next).or_else(|| (index + 1 == self.filters.len()).then(|| short(name)))
            }
        };
        let names = (0..self.filters.len()).filter_map(name);
        names.map(|name| format!("-> {name}")).collect::<Vec<_>>().join(" ")
    }
}

/// What a policy's filter goes by. The two filters of an external authorizer go by one name, the second's.
fn policy(name: &str, next: &str) -> Option<&'static str> {
    match short(name) {
        "jwt_authn" => Some("istio.authn"),
        "ext_authz" => Some("istio.ext_authz"),
        "rbac" if short(next) != "ext_authz" => Some("istio.authz"),
        _ => None,
    }
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use crate::attach::MeshOptions;
    use crate::chain::resolve;
    use crate::model::{Direction, Layer, Listener, Protocol, Proxy, ProxyKind};
    use crate::resources::{Source, read};

    const POLICIES: &str = "
{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: jwt, namespace: apps}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a, namespace: apps}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: c, namespace: apps}, spec: {action: CUSTOM}}
---
{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {name: x, namespace: apps}, spec: {url: h/x}}
";

    #[track_caller]
    fn check(layer: Layer, protocol: Option<Protocol>, expected: &str) {
        let resources = read(&[Source { file: "f".to_owned(), text: POLICIES.to_owned() }]).resources;
        let labels = std::collections::BTreeMap::new();
        let proxy = Proxy { name: "p".to_owned(), namespace: "apps".to_owned(), labels, kind: ProxyKind::Sidecar };
        let listener = Listener { direction: Some(Direction::Inbound), port: None, layer, protocol };
        assert_eq!(resolve(&resources, &proxy, &listener, &MeshOptions::default()).brief(), expected);
    }

    #[test]
    fn policies_and_the_last_filter_have_short_names_and_the_rest_is_left_out() {
        check(Layer::Http, None, "-> istio.ext_authz -> istio.authn -> istio.authz -> x -> router");
        check(Layer::Network, None, "-> istio.ext_authz -> istio.authz -> tcp_proxy");
        check(Layer::Network, Some(Protocol::Http), "-> http_connection_manager");
    }
}
