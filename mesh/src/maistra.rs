//! `ServiceMeshExtension` of Maistra (`OpenShift` Service Mesh up to 2.2), read and validated into an [`Extension`].

use std::collections::BTreeMap;

use crate::config::plugin_config;
use crate::extension::priority;
use crate::fault::Fault;
use crate::fields::{Field, Object, Report};
use crate::metadata::Metadata;
use crate::model::{
    Attach, Dialect, Extension, ExtensionFilter, FailStrategy, Layer, MaistraPhase, Origin, PullPolicy, WasmFilter,
};
use crate::url;

pub(crate) const VERSION: &str = "maistra.io/v1";

pub(crate) const PHASES: [(&str, MaistraPhase); 6] = [
    ("PreAuthN", MaistraPhase::PreAuthN),
    ("PostAuthN", MaistraPhase::PostAuthN),
    ("PreAuthZ", MaistraPhase::PreAuthZ),
    ("PostAuthZ", MaistraPhase::PostAuthZ),
    ("PreStats", MaistraPhase::PreStats),
    ("PostStats", MaistraPhase::PostStats),
];
const FIELDS: [&str; 7] =
    ["workloadSelector", "image", "imagePullPolicy", "imagePullSecrets", "phase", "priority", "config"];

/// Envoy's root id, which Maistra makes of the resource's name.
pub(crate) fn root_id(name: &str) -> String {
    format!("{name}_root")
}

/// Reads the `spec`. `None` when something was wrong, which is then in the report.
pub(crate) fn service_mesh_extension(
    spec: &Object<'_>,
    metadata: Metadata,
    origin: Origin,
    report: &mut Report<'_>,
) -> Option<Extension> {
    let errors_before = report.errors.len();
    spec.only(&FIELDS, report);
    let image = spec.required("image", report).and_then(|field| image(&field, report));
    let attach = match spec.get("workloadSelector").filter(|field| !field.is_null()) {
        Some(field) => selector(&field, report),
        None => Attach::Namespace,
    };
    let phase = spec.get("phase").filter(|field| !field.is_null());
    if let (None, Some(field)) = (&phase, spec.get("image")) {
        Field { node: field.node, path: "spec.phase".to_owned() }.warning(report, Fault::PhaseOfImage);
    }
    let phase = phase.and_then(|field| field.choice(&PHASES, report));
    // A pod's third policy, Never, cannot be carried out by a proxy that has no other way to the module.
    let policies = [("IfNotPresent", PullPolicy::IfNotPresent), ("Always", PullPolicy::Always)];
    let pull_policy = spec.get("imagePullPolicy").and_then(|field| field.choice(&policies, report)).unwrap_or_default();
    let pull_secret = spec.get("imagePullSecrets").and_then(|field| first_secret(&field, report));
    let config = spec.get("config").filter(|field| !field.is_null());
    let plugin_config = config.and_then(|field| plugin_config(&field, report));
    let priority = priority(spec, report);
    if report.errors.len() > errors_before {
        return None;
    }
    let name = metadata.name?;
    Some(Extension {
        origin,
        namespace: metadata.namespace?,
        created: metadata.created,
        resource_version: metadata.resource_version,
        phase: phase.map(MaistraPhase::istio).unwrap_or_default(),
        priority,
        attach,
        traffic: Vec::new(),
        filter: ExtensionFilter::Wasm(Box::new(WasmFilter {
            url: image?,
            sha256: None,
            pull_policy,
            pull_secret,
            plugin_config,
            plugin_name: root_id(&name),
            fail_strategy: FailStrategy::FailClose,
            env: Vec::new(),
            layer: Layer::Http,
        })),
        name,
        dialect: Dialect::Maistra { phase },
    })
}

/// A container image as a pod has it, without scheme; as the URL that Istio takes.
fn image(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let image = field.text(report)?;
    if image.is_empty() {
        field.error(report, Fault::Empty);
        return None;
    }
    if image.contains("://") {
        field.error(report, Fault::ImageWithScheme { image: image.to_owned() });
        return None;
    }
    let url = format!("oci://{image}");
    url::check(&url).map_err(|fault| field.error(report, fault)).ok()?;
    Some(url)
}

fn selector(field: &Field<'_>, report: &mut Report<'_>) -> Attach {
    let Some(object) = field.object(report) else { return Attach::Namespace };
    object.only(&["labels"], report);
    let Some(field) = object.get("labels").filter(|field| !field.is_null()) else { return Attach::Namespace };
    let labels: BTreeMap<String, String> = field
        .object(report)
        .iter()
        .flat_map(Object::fields)
        .filter_map(|(key, field)| Some((key.to_owned(), field.text(report)?.to_owned())))
        .collect();
    if labels.is_empty() { Attach::Namespace } else { Attach::Selector(labels) }
}

fn first_secret(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let secrets = field.list(report)?;
    let mut names = Vec::new();
    for secret in &secrets {
        let Some(object) = secret.object(report) else { continue };
        object.only(&["name"], report);
        names.extend(object.required("name", report).and_then(|field| field.text_of(1, 253, report)));
    }
    if names.len() > 1 {
        field.warning(report, Fault::SeveralSecrets);
    }
    names.first().map(|name| (*name).to_owned())
}

#[cfg(test)]
mod tests;
