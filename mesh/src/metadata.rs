//! `metadata`, which every resource has.

use crate::fault::Fault;
use crate::fields::{Field, Object, Report};
use crate::time;

/// The fields of Kubernetes' `ObjectMeta`.
const KNOWN: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "selfLink",
];

/// What is used of `metadata`. `None` in a name means that it was wrong and is in the report.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    pub(crate) name: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) created: Option<i64>,
    pub(crate) resource_version: Option<String>,
}

/// Reads the `metadata` of a resource whose fields are all checked.
pub(crate) fn read(resource: &Object<'_>, report: &mut Report<'_>) -> Metadata {
    read_with(resource, &[], report)
}

/// The same for resources that have further fields in `metadata`.
pub(crate) fn read_with(resource: &Object<'_>, further: &[&'static str], report: &mut Report<'_>) -> Metadata {
    let mut metadata = Metadata { name: None, namespace: None, created: None, resource_version: None };
    let Some(object) = resource.required("metadata", report).and_then(|field| field.object(report)) else {
        return metadata;
    };
    object.only(&[&KNOWN, further].concat(), report);
    metadata.name = object.required("name", report).and_then(|field| name(&field, ". and -", 253, report));
    metadata.namespace = match object.get("namespace").filter(|field| !field.is_null() && field.as_text() != Some("")) {
        Some(field) => name(&field, "-", 63, report),
        None => Some("default".to_owned()),
    };
    if let Some(field) = object.get("creationTimestamp").filter(|field| !field.is_null()) {
        metadata.created = field.text(report).and_then(|text| {
            let created = time::nanoseconds(text);
            if created.is_none() {
                field.error(report, Fault::InvalidTime { value: text.to_owned() });
            }
            created
        });
    }
    // What kubectl prints is always text; whatever else stands there cannot be a version, and the API server ignores it.
    metadata.resource_version = object
        .get("resourceVersion")
        .and_then(|field| field.as_text())
        .filter(|text| !text.is_empty())
        .map(str::to_owned);
    metadata
}

fn name(field: &Field<'_>, allowed: &'static str, max: usize, report: &mut Report<'_>) -> Option<String> {
    let text = field.text(report)?;
    let dots = allowed.contains('.');
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let valid = text.len() <= max && if dots { text.split('.').all(label) } else { label(text) };
    if !valid {
        field.error(report, Fault::InvalidName { value: text.to_owned(), allowed, max });
        return None;
    }
    Some(text.to_owned())
}
