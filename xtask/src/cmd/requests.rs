//! From a resource to what it asks the fetcher for.

use mesh::model::{Extension, Origin, PullPolicy as Policy, WasmFilter};
use mesh::{FieldPath, Resources, wasm_field};
use packager::credentials::Credentials;
use packager::digest::Digest;
use packager::fetch::{Cache, ModuleRequest, PullPolicy};
use packager::verify::Asked;

use crate::environment;
use crate::report::{Failure, printable};

/// Modules that were pulled, kept between runs.
pub(crate) fn cache() -> Result<Cache, Failure> {
    Ok(Cache::new(&environment::cache()?.join("modules")))
}

/// What a resource asks for. Its secret is one of its own namespace.
pub(crate) fn asked(extension: &Extension, filter: &WasmFilter, resources: &Resources) -> Asked {
    let secret = filter.pull_secret.as_deref();
    let found = secret.and_then(|name| {
        resources.pull_secrets.iter().find(|secret| secret.name == name && secret.namespace == extension.namespace)
    });
    let pull_secret = secret.map(|name| format!("{}/{name}", extension.namespace));
    let read = found.map(|secret| {
        let name = format!("Secret {}/{}", secret.namespace, secret.name);
        Credentials::from_docker_config(&name, secret.docker_config.expose())
    });
    let (credentials, secret_error) = match read {
        Some(Ok(credentials)) => (Some(credentials), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, None),
    };
    let request = ModuleRequest {
        url: filter.url.clone(),
        sha256: filter.sha256.clone(),
        pull_policy: match filter.pull_policy {
            Policy::Unspecified => PullPolicy::Unspecified,
            Policy::IfNotPresent => PullPolicy::IfNotPresent,
            Policy::Always => PullPolicy::Always,
        },
        resource: extension.id(),
        resource_version: version(extension),
        credentials,
    };
    Asked { request, pull_secret, secret_error }
}

/// A root id that the module does not answer to.
pub(crate) struct UnknownRootId {
    /// Where the resource says it.
    pub(crate) path: FieldPath,
    pub(crate) what: String,
    /// What to write instead, where that can be said.
    pub(crate) fix: Option<String>,
}

impl UnknownRootId {
    /// Why anybody should care.
    pub(crate) const WHY: &str = "a module that does not know its root id has a context that does nothing, or none: \
                                  requests pass without the plugin, or the proxy refuses the chain";

    /// Looks for an extension's root id among those that its image names. An image that names none takes any.
    pub(crate) fn of(extension: &Extension, filter: &WasmFilter, known: &[String]) -> Option<Self> {
        let id = &filter.plugin_name;
        if known.is_empty() || known.contains(id) {
            return None;
        }
        let shown = |id: &str| format!("`{}`", printable(&id.chars().take(100).collect::<String>()));
        let mut list = known.iter().take(10).map(|id| shown(id)).collect::<Vec<_>>().join(", ");
        if known.len() > 10 {
            list.push_str(", …");
        }
        // Other kinds have no field for it: theirs is made of the name, or empty.
        let has_field = ["WasmPlugin", "TrafficExtension"].contains(&extension.origin.kind.as_str());
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let nearest = mesh::nearest(id, &names).or(match names.as_slice() {
            [only] => Some(*only),
            _ => None,
        });
        Some(Self {
            path: if has_field { wasm_field(extension, "pluginName") } else { FieldPath::keys(&["metadata", "name"]) },
            what: match (id.as_str(), has_field) {
                ("", true) => format!("is not set, and the image's module answers to {list}"),
                ("", false) => format!("there is no root id, and the image's module answers to {list}"),
                (_, true) => format!("{} is no root id of the image's module, which answers to {list}", shown(id)),
                (_, false) => format!(
                    "the root id that is made of it, {}, is none of the image's module, which answers to {list}",
                    shown(id)
                ),
            },
            fix: nearest.filter(|_| has_field).map(|nearest| format!("write {}", shown(nearest))),
        })
    }
}

/// A resource that does not come from a cluster has no version; its content stands for one, since in a cluster each
/// change would give another version.
fn version(extension: &Extension) -> String {
    if let Some(version) = &extension.resource_version {
        return version.clone();
    }
    let origin = Origin { file: String::new(), document: 0, line: 0, ..extension.origin.clone() };
    let content = serde_json::to_vec(&Extension { origin, ..extension.clone() }).unwrap_or_default();
    format!("content-{}", &Digest::of(&content).hex()[..16])
}
