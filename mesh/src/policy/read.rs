//! Reading a policy: what all of them have, and the values their fields share.

use super::fault::PolicyFault;
use super::model::{Action, PolicySpec};
use super::{authorization, jwt};
use crate::attach;
use crate::fault::Fault;
use crate::fields::{Field, Object, Report};
use crate::metadata;
use crate::model::{Attach, Origin};
use crate::resources::{Policy, PolicyKind};
use crate::yaml::Value;

const VERSION: &str = "security.istio.io/v1";
/// Older name of the same version.
const BETA: &str = "security.istio.io/v1beta1";
const DRY_RUN: &str = "istio.io/dry-run";

/// Reads a `RequestAuthentication` or an `AuthorizationPolicy`. `None` when something was wrong, which is then in the
/// report: a policy that is half understood would let pass what it is there to stop.
pub(crate) fn read(
    object: &Object<'_>,
    version: &str,
    kind: &str,
    origin: Origin,
    report: &mut Report<'_>,
) -> Option<Policy> {
    let errors_before = report.errors.len();
    if version != VERSION && version != BETA {
        let (kind, version) = (kind.to_owned(), version.to_owned());
        report.error(object.at, "apiVersion", Fault::UnknownVersion { kind, version, supported: VERSION });
        return None;
    }
    object.only(&["apiVersion", "kind", "metadata", "spec", "status"], report);
    let metadata = metadata::read(object, report);
    let dry_run = dry_run(object, report);
    let spec = object.get("spec").filter(|field| !field.is_null());
    let spec = spec.map(|field| field.object(report).ok_or(())).transpose().ok()?;
    let attach = spec.as_ref().map_or(Attach::Namespace, |spec| attach::read(spec, report));
    let (name, namespace) = (metadata.name?, metadata.namespace?);
    let (kind, spec) = if kind == "RequestAuthentication" {
        let rules = spec.map(|spec| jwt::read(&spec, &format!("{namespace}/{name}"), report)).unwrap_or_default();
        (PolicyKind::RequestAuthentication, PolicySpec::Jwt(rules))
    } else {
        let (action, rules) = spec.map_or((Action::Allow, Vec::new()), |spec| authorization::read(&spec, report));
        let kind = if action == Action::Custom { PolicyKind::CustomAuthorization } else { PolicyKind::Authorization };
        let (namespace, name) = (namespace.clone(), name.clone());
        let policy = super::AuthorizationPolicy { namespace, name, action, dry_run, rules };
        (kind, PolicySpec::Authorization(policy))
    };
    (report.errors.len() == errors_before).then_some(Policy { origin, kind, name, namespace, attach, spec })
}

/// The annotation, as Go's `ParseBool` reads it.
fn dry_run(object: &Object<'_>, report: &mut Report<'_>) -> bool {
    let Some(field) = object.at(&["metadata", "annotations", DRY_RUN]) else { return false };
    match field.text(report) {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") | None => false,
        Some(value) => {
            field.warning(report, PolicyFault::DryRun { value: value.to_owned() }.into());
            false
        }
    }
}

impl From<PolicyFault> for Fault {
    fn from(fault: PolicyFault) -> Self {
        Self::Policy(fault)
    }
}

/// A list of strings, none of them empty, each checked by `check`.
pub(super) fn texts(
    object: &Object<'_>,
    name: &str,
    check: impl Fn(&str) -> Result<(), PolicyFault>,
    report: &mut Report<'_>,
) -> Vec<String> {
    let Some(field) = present(object, name) else { return Vec::new() };
    let mut texts = Vec::new();
    for item in field.list(report).unwrap_or_default() {
        let Some(text) = item.text(report) else { continue };
        if text.is_empty() {
            item.error(report, Fault::Empty);
        } else if let Err(fault) = check(text) {
            item.error(report, fault.into());
        } else {
            texts.push(text.to_owned());
        }
    }
    texts
}

/// Any text will do.
#[expect(clippy::unnecessary_wraps, reason = "a check like the others")]
pub(super) fn any(_: &str) -> Result<(), PolicyFault> {
    Ok(())
}

/// The field, unless it is `null`, which the API server drops.
pub(super) fn present<'n>(object: &Object<'n>, name: &str) -> Option<Field<'n>> {
    object.get(name).filter(|field| !field.is_null())
}

pub(super) fn boolean(object: &Object<'_>, name: &str, report: &mut Report<'_>) -> bool {
    let Some(field) = present(object, name) else { return false };
    if let Value::Bool(value) = field.node.value {
        return value;
    }
    let actual = field.node.value.type_name();
    field.error(report, Fault::WrongType { expected: "a boolean", actual });
    false
}
