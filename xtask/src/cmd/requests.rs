//! From a resource to what it asks the fetcher for.

use mesh::Resources;
use mesh::model::{Extension, Origin, PullPolicy as Policy, WasmFilter};
use packager::credentials::Credentials;
use packager::digest::Digest;
use packager::fetch::{Cache, ModuleRequest, PullPolicy};
use packager::verify::Asked;

use crate::environment;
use crate::report::Failure;

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
