//! What a resource asks for, with its own url, pin, pull policy and secret.

use crate::fetch::{FetchError, FetchOptions, ModuleRequest, PullPolicy};
use crate::module::EnvoyVersion;
use crate::reference::{Reference, ReferenceError, without_secrets};

use super::{Check, Outcome, Report, verify};

/// A resource's request, and what is known about its secret.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What it asks for.
    pub request: ModuleRequest,
    /// `imagePullSecret` as `namespace/name`.
    pub pull_secret: Option<String>,
    /// Why the secret cannot be used, where it was found and cannot.
    pub secret_error: Option<String>,
}

/// Verify what a resource asks for, in Istio's order: the url, the secret, what [`verify`] checks. The pull policy only
/// says when to ask, so that nothing can be wrong with it; what it means for this url is told.
pub fn verify_request(asked: &Asked, options: &FetchOptions, envoy: EnvoyVersion) -> Result<Report, FetchError> {
    let request = &asked.request;
    let mut checks = Vec::new();
    let mut add = |name, istio, outcome, detail: String| checks.push(Check { name, istio, outcome, detail });
    let reference = match Reference::parse_istio(&request.url) {
        Ok(reference) => reference,
        Err(error) => {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            // Go's client would log in with them.
            let istio = !matches!(error, ReferenceError::Credentials { .. });
            add("url", istio, Outcome::Failed, format!("{error}{hint}"));
            let reference = without_secrets(&request.url);
            return Ok(Report { resource: Some(request.resource.clone()), checks, ..Report::of(reference) });
        }
    };
    add("url", true, Outcome::Passed, reference.shown());
    let (outcome, detail) = secret(asked, &reference);
    add("pull-secret", true, outcome, detail);
    let usable = outcome != Outcome::Failed;
    let (outcome, detail) = policy(request, &reference);
    add("pull-policy", true, outcome, detail);
    let resource = Some(request.resource.clone());
    if !usable {
        return Ok(Report { resource, checks, ..Report::of(reference.shown()) });
    }
    let options = match (&request.credentials, &reference) {
        (Some(credentials), Reference::Image(_)) => &options.with_credentials(credentials.clone()),
        _ => options,
    };
    if let Reference::File(path) = &reference
        && !path.is_file()
    {
        let detail =
            format!("{} is on the proxy and not on this machine, so nothing can be said of it", path.display());
        checks.push(Check { name: "download", istio: false, outcome: Outcome::Warning, detail });
        return Ok(Report { resource, checks, ..Report::of(reference.shown()) });
    }
    let report = verify(&reference, request.sha256.as_deref(), options, envoy)?;
    checks.extend(report.checks.into_iter().filter(|check| check.name != "reference"));
    Ok(Report { resource, checks, ..report })
}

fn secret(asked: &Asked, reference: &Reference) -> (Outcome, String) {
    match (&asked.pull_secret, &asked.secret_error, &asked.request.credentials) {
        (None, ..) if !matches!(reference, Reference::Image(_)) => {
            (Outcome::Skipped, "none, and only images are pulled with one".to_owned())
        }
        (None, ..) => (Outcome::Skipped, "none; the credentials of this machine's docker config are shown".to_owned()),
        (Some(_), Some(reason), _) => (Outcome::Failed, reason.clone()),
        (Some(name), None, Some(_)) if matches!(reference, Reference::Image(_)) => {
            (Outcome::Passed, format!("Secret {name}, and no other credentials"))
        }
        (Some(name), None, Some(_)) => (Outcome::Warning, format!("Secret {name} is used for images only")),
        (Some(name), None, None) => {
            let detail = format!(
                "Secret {name} is not in the given files, so this machine's docker config stands in for it; without it, Istio refuses to fetch"
            );
            (Outcome::Warning, detail)
        }
    }
}

fn policy(request: &ModuleRequest, reference: &Reference) -> (Outcome, String) {
    let image = match reference {
        Reference::File(_) => return (Outcome::Skipped, "a file is not pulled".to_owned()),
        Reference::Image(image) => Some(image),
        _ => None,
    };
    let pinned = request.sha256.as_deref().is_some_and(|text| !text.is_empty());
    if pinned || image.is_some_and(|image| image.digest().is_some()) {
        return (Outcome::Passed, format!("{}, which does not count for what is pinned", request.pull_policy));
    }
    let latest = image.is_some() && request.url.ends_with(":latest");
    let always = "pulled again when the resource's version changes, and not when the tag moves";
    let once = "pulled once; a proxy that has it does not see what is published under the same url later";
    match request.pull_policy {
        PullPolicy::Always => (Outcome::Passed, format!("Always: {always}")),
        PullPolicy::IfNotPresent => (Outcome::Passed, format!("IfNotPresent: {once}")),
        PullPolicy::Unspecified if latest => {
            (Outcome::Passed, format!("unspecified, with `:latest` like Always: {always}"))
        }
        PullPolicy::Unspecified => (Outcome::Passed, format!("unspecified, like IfNotPresent: {once}")),
    }
}
