//! Brings Tetrate's catalogue and its uses together, once everything has been read.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, Reach, Scope, Tetrate, Use, UseConfig};
use crate::fault::{Fault, Problem};
use crate::model::{Attach, Dialect, Extension, ExtensionFilter, LeftOut, WasmFilter};

/// The answer of [`Tetrate::join`].
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) extensions: Vec<Extension>,
    pub(crate) unattached: Vec<LeftOut>,
    pub(crate) errors: Vec<Problem>,
}

/// Where one use runs.
struct Target {
    namespace: String,
    attach: Attach,
}

impl Tetrate {
    /// Makes an extension of each use, and says why catalogue entries are not used.
    ///
    /// A gateway's extensions run on the workloads it selects; a setting's in the namespaces of what it is for, except
    /// where a more specific setting with extensions of its own replaces it: organization, tenant, workspace, security
    /// group, in this order.
    pub(crate) fn join(self) -> Joined {
        let mut joined = Joined::default();
        let entries: BTreeMap<&str, &Entry> = self.entries.iter().map(|entry| (entry.fqn.as_str(), entry)).collect();
        let replaced = replaced(&self.uses, &self.scopes);
        // Why the uses of an entry run nowhere, by its name.
        let mut nowhere: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut used: BTreeSet<&str> = BTreeSet::new();
        for one in &self.uses {
            let problem = |fault| Problem { place: one.place.clone(), path: one.path.clone(), fault };
            let Some(entry) = entries.get(one.fqn.as_str()) else {
                joined.errors.push(problem(Fault::UnknownExtension { fqn: one.fqn.clone() }));
                continue;
            };
            if let Some(tenant) = one.tenant.as_ref().filter(|tenant| !allows(entry, tenant)) {
                let allowed = entry.allowed_in.iter().map(|tenant| format!("`{tenant}`")).collect::<Vec<_>>();
                let fault = Fault::NotAllowedIn { tenant: tenant.clone(), allowed: allowed.join(", ") };
                joined.errors.push(problem(fault));
                continue;
            }
            match targets(one, entry, &self.scopes, &replaced) {
                Ok(targets) => {
                    used.insert(&entry.fqn);
                    joined.extensions.extend(targets.into_iter().map(|target| extension(entry, one, target)));
                }
                Err(reason) => nowhere.entry(&entry.fqn).or_default().push(reason),
            }
        }
        for entry in self.entries.iter().filter(|entry| !used.contains(entry.fqn.as_str())) {
            let reason = nowhere.remove(entry.fqn.as_str()).map_or_else(
                || {
                    "A WasmExtension attaches only where it is used, and no gateway or setting of the input uses it."
                        .to_owned()
                },
                |reasons| reasons.join(" "),
            );
            joined.unattached.push(LeftOut {
                kind: entry.origin.kind.clone(),
                namespace: entry.organization.clone(),
                name: entry.name.clone(),
                reason,
            });
        }
        joined
    }
}

fn allows(entry: &Entry, tenant: &str) -> bool {
    entry.allowed_in.is_empty() || entry.allowed_in.iter().any(|allowed| allowed == tenant)
}

/// How specific a setting is: an organization's name has 2 parts, a security group's 8.
fn depth(fqn: &str) -> usize {
    fqn.split('/').count()
}

/// The tenant that a workspace or security group belongs to.
fn tenant_of(fqn: &str) -> String {
    fqn.split('/').take(4).collect::<Vec<_>>().join("/")
}

/// Each namespace within a scope, with the workspace or group that has it.
fn namespaces<'s>(fqn: &'s str, scopes: &'s [Scope]) -> impl Iterator<Item = (&'s str, &'s Scope)> {
    // A security group has its own namespaces; the others have those of their workspaces.
    let is_group = fqn.contains("/securitygroups/");
    scopes
        .iter()
        .filter(move |scope| {
            let within = scope.fqn == fqn || scope.fqn.strip_prefix(fqn).is_some_and(|rest| rest.starts_with('/'));
            within && (is_group || !scope.fqn.contains("/securitygroups/"))
        })
        .flat_map(|scope| scope.namespaces.iter().map(move |namespace| (namespace.as_str(), scope)))
}

/// The depth of the most specific setting with extensions, for each namespace.
fn replaced(uses: &[Use], scopes: &[Scope]) -> BTreeMap<String, usize> {
    let mut deepest = BTreeMap::new();
    for one in uses {
        let Reach::Scope(fqn) = &one.reach else { continue };
        for (namespace, _) in namespaces(fqn, scopes) {
            let known = deepest.entry(namespace.to_owned()).or_insert(0);
            *known = depth(fqn).max(*known);
        }
    }
    deepest
}

fn targets(
    one: &Use,
    entry: &Entry,
    scopes: &[Scope],
    replaced: &BTreeMap<String, usize>,
) -> Result<Vec<Target>, String> {
    let fqn = match &one.reach {
        Reach::Workloads { namespace, labels } => {
            let attach = if labels.is_empty() { Attach::Namespace } else { Attach::Selector(labels.clone()) };
            return Ok(vec![Target { namespace: namespace.clone(), attach }]);
        }
        Reach::Scope(fqn) => fqn,
    };
    let mut found: BTreeSet<&str> = BTreeSet::new();
    let mut reasons: BTreeSet<String> = BTreeSet::new();
    for (namespace, scope) in namespaces(fqn, scopes) {
        let tenant = tenant_of(&scope.fqn);
        if namespace == "*" {
            reasons.insert(format!("`{}` has every namespace, of which there is no list.", scope.fqn));
        } else if !allows(entry, &tenant) {
            reasons.insert(format!("Its `allowedIn` does not have `{tenant}`."));
        } else if replaced.get(namespace).is_some_and(|deepest| *deepest > depth(fqn)) {
            reasons
                .insert(format!("In namespace `{namespace}` a more specific setting replaces that of {}.", one.user));
        } else {
            found.insert(namespace);
        }
    }
    if found.is_empty() {
        let none =
            format!("{} uses it, and no Workspace or Group of the input says which namespaces that has.", one.user);
        return Err(if reasons.is_empty() { none } else { reasons.into_iter().collect::<Vec<_>>().join(" ") });
    }
    let target = |namespace: &str| Target { namespace: namespace.to_owned(), attach: Attach::Namespace };
    Ok(found.into_iter().map(target).collect())
}

fn extension(entry: &Entry, one: &Use, target: Target) -> Extension {
    let wasm = WasmFilter {
        plugin_config: match &one.config {
            UseConfig::OfTheEntry => entry.wasm.plugin_config.clone(),
            UseConfig::Own(config) => config.clone(),
        },
        ..entry.wasm.clone()
    };
    Extension {
        origin: entry.origin.clone(),
        name: entry.name.clone(),
        namespace: target.namespace,
        // Between equal priorities the name decides, whatever the age.
        created: None,
        resource_version: entry.resource_version.clone(),
        phase: entry.phase,
        priority: entry.priority,
        attach: target.attach,
        traffic: one.traffic.clone().unwrap_or_else(|| entry.traffic.clone()),
        filter: ExtensionFilter::Wasm(Box::new(wasm)),
        dialect: Dialect::Tetrate { fqn: entry.fqn.clone(), used_by: one.user.clone() },
    }
}
