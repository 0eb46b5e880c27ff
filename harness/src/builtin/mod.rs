//! The proxy's own filters that decide or measure: `jwt_authn`, `rbac`, `istio.stats`.
//!
//! They execute the [`Policies`] of a chain with the outcomes, bodies and metadata that Envoy has under the
//! configuration that Istio's control plane writes for them.

pub(crate) mod jwt;
pub(crate) mod rbac;
pub(crate) mod remote;
pub(crate) mod stats;

use std::sync::Arc;

use mesh::policy::Policies;

use crate::abi::LogLevel;
use crate::native::NativePlugin;
use crate::stream::state::ProxyFacts;
use crate::vm::Surroundings;
use jwt::keys::Keys;

const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";
const RBAC: &str = "envoy.filters.http.rbac";
const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
const STATS: &str = "istio.stats";

/// What a chain's built-in filters need.
pub(crate) struct BuiltIn<'a> {
    pub(crate) policies: &'a Policies,
    pub(crate) proxy: &'a Arc<ProxyFacts>,
    pub(crate) surroundings: &'a Surroundings,
    pub(crate) keys: Keys,
}

impl BuiltIn<'_> {
    /// The filter of that name; `None` for one that lets everything pass here.
    ///
    /// The error says why the chain cannot be served: a filter that decides about access is never left out.
    pub(crate) fn filter(&self, name: &str) -> Result<Option<Arc<dyn NativePlugin>>, String> {
        Ok(Some(match name {
            JWT_AUTHN if self.policies.jwt_rules.is_empty() => return Err(without_policies(name)),
            JWT_AUTHN => Arc::new({
                let nature = self.surroundings.nature.clone();
                jwt::Filter::new(&self.policies.jwt_rules, self.keys.clone(), nature)
            }),
            RBAC if self.policies.authorization.is_empty() => return Err(without_policies(name)),
            RBAC => {
                let filter = rbac::Filter::new(&self.policies.authorization)?;
                if filter.asks_for_peer() {
                    let line = "the authorization policies ask for principals, namespaces or service accounts, which \
                                come from mTLS: connections here are plain, so none of these match, and their \
                                negations do";
                    self.surroundings.sink.log(LogLevel::Warn, line);
                }
                Arc::new(filter)
            }
            EXT_AUTHZ => {
                return Err(format!("the built-in filter {name}, which asks the provider of a CUSTOM policy,"));
            }
            STATS => Arc::new(stats::Filter::new(self.proxy, self.surroundings.shared.clone())),
            _ => return Ok(None),
        }))
    }
}

fn without_policies(name: &str) -> String {
    format!("the built-in filter {name} without policies")
}
