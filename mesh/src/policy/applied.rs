//! Which policies one chain enforces.

use super::model::{Policies, PolicySpec};
use crate::resources::Policy;

/// Gathers what `policies` say, in the control plane's order: the root namespace's before all others.
pub(crate) fn applied<'p>(policies: impl Iterator<Item = &'p Policy>, root_namespace: &str) -> Policies {
    let mut sorted: Vec<&Policy> = policies.collect();
    sorted.sort_by_key(|policy| policy.namespace != root_namespace);
    let mut applied = Policies::default();
    for policy in sorted {
        match &policy.spec {
            PolicySpec::Jwt(rules) => applied.jwt_rules.extend(rules.iter().cloned()),
            PolicySpec::Authorization(policy) => applied.authorization.push(policy.clone()),
        }
    }
    applied.jwt_rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    applied
}
