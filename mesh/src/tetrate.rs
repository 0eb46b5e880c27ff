//! Tetrate Service Bridge: `WasmExtension` is an entry of a catalogue, and becomes an [`Extension`] wherever a gateway
//! or a setting uses it.
//!
//! Only what decides about extensions is read of the other kinds: what belongs to what, which namespaces a workspace or
//! a security group has, and which workloads a gateway selects.

mod join;

use std::collections::{BTreeMap, BTreeSet};

use crate::config::plugin_config;
use crate::extension::{EnvRules, module_url, phase, priority, pull_policy, pull_secret, traffic, variables};
use crate::fault::{Fault, Place};
use crate::fields::{Field, Object, Report};
use crate::metadata;
use crate::model::{FailStrategy, Layer, Origin, Phase, TrafficSelector, WasmFilter};
use crate::resources::origin;

const EXTENSION_GROUP: &str = "extension.tsb.tetrate.io";
const GATEWAY_GROUP: &str = "gateway.tsb.tetrate.io";
const SECURITY_GROUP: &str = "security.tsb.tetrate.io";
const HIERARCHY_GROUP: &str = "tsb.tetrate.io";
const VERSION: &str = "v2";

/// What tctl allows in `metadata` beside what kubectl does.
const METADATA: [&str; 4] = ["organization", "tenant", "workspace", "group"];
const FIELDS: [&str; 17] = [
    "allowedIn",
    "image",
    "url",
    "source",
    "displayName",
    "description",
    "etag",
    "fqn",
    "phase",
    "priority",
    "config",
    "imagePullPolicy",
    "imagePullSecret",
    "vmConfig",
    "match",
    "configGenerationMetadata",
    "deletionProtectionEnabled",
];
const EXTENSION_FORM: &str = "organizations/ORG/extensions/NAME";
const TENANT_FORM: &str = "organizations/ORG/tenants/NAME";

/// Says whether anything is read of a kind.
pub(crate) fn is_read(group: &str, kind: &str) -> bool {
    matches!(
        (group, kind),
        (EXTENSION_GROUP, "WasmExtension")
            | (GATEWAY_GROUP, "IngressGateway" | "EgressGateway" | "Tier1Gateway" | "Gateway")
            | (SECURITY_GROUP, "SecuritySetting" | "Group")
            | (HIERARCHY_GROUP, "OrganizationSetting" | "TenantSetting" | "WorkspaceSetting" | "Workspace")
    )
}

/// Everything of Tetrate's that was read, before it is joined.
#[derive(Debug, Default)]
pub(crate) struct Tetrate {
    entries: Vec<Entry>,
    uses: Vec<Use>,
    scopes: Vec<Scope>,
}

/// One `WasmExtension`.
#[derive(Debug)]
struct Entry {
    origin: Origin,
    resource_version: Option<String>,
    organization: String,
    name: String,
    fqn: String,
    allowed_in: Vec<String>,
    phase: Phase,
    priority: Option<i32>,
    traffic: Vec<TrafficSelector>,
    wasm: WasmFilter,
}

/// One entry of a list that says which extensions run somewhere.
#[derive(Debug)]
struct Use {
    place: Place,
    path: String,
    fqn: String,
    config: UseConfig,
    traffic: Option<Vec<TrafficSelector>>,
    /// Kind, name and home of the resource.
    user: String,
    /// The tenant it belongs to; an organization's setting has none.
    tenant: Option<String>,
    reach: Reach,
}

/// The configuration at the point of use.
#[derive(Debug)]
enum UseConfig {
    OfTheEntry,
    /// Overwritten, if only with `{}`.
    Own(Option<String>),
}

/// Where the extensions of a list run.
#[derive(Debug, Clone)]
enum Reach {
    /// On the workloads that a gateway selects.
    Workloads { namespace: String, labels: BTreeMap<String, String> },
    /// On every workload in the namespaces of an organization, tenant, workspace or security group.
    Scope(String),
}

/// A workspace or security group and its namespaces.
#[derive(Debug)]
struct Scope {
    fqn: String,
    namespaces: BTreeSet<String>,
}

/// Where a resource belongs: `metadata`'s own keys, or the annotations that stand for them in a cluster.
struct Home {
    organization: String,
    tenant: Option<String>,
    workspace: Option<String>,
    group: Option<String>,
}

impl Home {
    fn read(object: &Object<'_>, group: &str) -> Option<Self> {
        let annotation_of_group = if group == GATEWAY_GROUP { "gatewayGroup" } else { "securityGroup" };
        let part = |key: &str, annotation: &str| {
            let annotation = format!("tsb.tetrate.io/{annotation}");
            object
                .text_at(&["metadata", key])
                .or_else(|| object.text_at(&["metadata", "annotations", &annotation]))
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        Some(Self {
            organization: part("organization", "organization")?,
            tenant: part("tenant", "tenant"),
            workspace: part("workspace", "workspace"),
            group: part("group", annotation_of_group),
        })
    }

    fn organization(&self) -> String {
        format!("organizations/{}", self.organization)
    }

    fn tenant(&self) -> Option<String> {
        Some(format!("{}/tenants/{}", self.organization(), self.tenant.as_ref()?))
    }

    fn workspace(&self) -> Option<String> {
        Some(format!("{}/workspaces/{}", self.tenant()?, self.workspace.as_ref()?))
    }
}

fn missing(key: &'static str, annotation: &'static str) -> Fault {
    Fault::HierarchyMissing { key, annotation }
}

/// What a resource of each kind belongs to, and so must say.
fn place_of(home: &Home, group: &str, kind: &str) -> Result<String, Fault> {
    let workspace = home.workspace().ok_or(missing("workspace", "workspace"));
    let (collection, annotation) = match (group, kind) {
        (HIERARCHY_GROUP, "OrganizationSetting") => return Ok(home.organization()),
        (HIERARCHY_GROUP, "TenantSetting" | "Workspace") => return home.tenant().ok_or(missing("tenant", "tenant")),
        (HIERARCHY_GROUP, _) | (SECURITY_GROUP, "Group") => return workspace,
        (SECURITY_GROUP, _) => ("securitygroups", "securityGroup"),
        _ => ("gatewaygroups", "gatewayGroup"),
    };
    let group = home.group.as_ref().ok_or(missing("group", annotation));
    Ok(format!("{}/{collection}/{}", workspace?, group?))
}

/// Where under `spec` a kind has its list of extensions.
fn list_path(group: &str, kind: &str) -> Option<&'static [&'static str]> {
    match (group, kind) {
        (HIERARCHY_GROUP, "Workspace") | (SECURITY_GROUP, "Group") | (EXTENSION_GROUP, _) => None,
        (GATEWAY_GROUP, "Gateway") => Some(&["wasmPlugins"]),
        (GATEWAY_GROUP | SECURITY_GROUP, _) => Some(&["extension"]),
        _ => Some(&["defaultSecuritySetting", "extension"]),
    }
}

/// What says that it uses extensions, as [`Dialect::Tetrate`](crate::model::Dialect) has it, and where in `spec`.
pub(crate) fn user(object: &Object<'_>) -> Option<(String, &'static [&'static str])> {
    let (group, _) = object.text_at(&["apiVersion"])?.rsplit_once('/')?;
    let kind = object.text_at(&["kind"]).filter(|kind| is_read(group, kind))?;
    let path = list_path(group, kind)?;
    let place = place_of(&Home::read(object, group)?, group, kind).ok()?;
    Some((format!("{kind} {place}/{}", object.text_at(&["metadata", "name"])?), path))
}

impl Tetrate {
    /// Reads one resource of a kind that [`is_read`]. Gives what tells it from others of its kind: home and name.
    pub(crate) fn read(
        &mut self,
        object: &Object<'_>,
        version: &str,
        kind: &str,
        report: &mut Report<'_>,
    ) -> Option<(String, String)> {
        let (group, number) = version.rsplit_once('/').unwrap_or(("", version));
        if number != VERSION {
            let supported = match group {
                EXTENSION_GROUP => "extension.tsb.tetrate.io/v2",
                GATEWAY_GROUP => "gateway.tsb.tetrate.io/v2",
                SECURITY_GROUP => "security.tsb.tetrate.io/v2",
                _ => "tsb.tetrate.io/v2",
            };
            let (kind, version) = (kind.to_owned(), version.to_owned());
            report.error(object.at, "apiVersion", Fault::UnknownVersion { kind, version, supported });
            return None;
        }
        let metadata = metadata::read_with(object, &METADATA, report);
        let home = Home::read(object, group);
        let Some(home) = home else {
            report.error(object.at, "metadata", missing("organization", "organization"));
            return None;
        };
        let name = metadata.name?;
        let spec = match object.get("spec").filter(|field| !field.is_null()) {
            Some(field) => field.object(report)?,
            None => Object { at: object.at, path: "spec".to_owned(), entries: &[] },
        };
        if kind == "WasmExtension" {
            object.only(&["apiVersion", "kind", "metadata", "spec", "status"], report);
            let fqn = format!("{}/extensions/{name}", home.organization());
            let origin = origin(object, kind, report);
            let organization = home.organization.clone();
            let read = entry(&spec, origin, report);
            self.entries.extend(read.map(|entry| Entry {
                resource_version: metadata.resource_version,
                organization,
                name: name.clone(),
                fqn,
                ..entry
            }));
            return Some((home.organization, name));
        }
        let place = match place_of(&home, group, kind) {
            Ok(place) => place,
            Err(fault) => {
                report.error(object.at, "metadata", fault);
                return None;
            }
        };
        match (group, kind) {
            (HIERARCHY_GROUP, "Workspace") => self.scope(format!("{place}/workspaces/{name}"), &spec, report),
            (SECURITY_GROUP, "Group") => self.scope(format!("{place}/securitygroups/{name}"), &spec, report),
            _ => {}
        }
        let list = list_path(group, kind).and_then(|path| spec.at(path));
        if let Some(list) = list {
            let reach =
                if group == GATEWAY_GROUP { workloads(&spec, report) } else { Some(Reach::Scope(place.clone())) };
            check_propagation(&spec, report);
            let user = format!("{kind} {place}/{name}");
            let tenant = home.tenant();
            self.uses(&list, reach.as_ref(), &user, tenant.as_deref(), report);
        }
        Some((place, name))
    }

    fn scope(&mut self, fqn: String, spec: &Object<'_>, report: &mut Report<'_>) {
        let mut namespaces = BTreeSet::new();
        let names = spec.at(&["namespaceSelector", "names"]).and_then(|field| field.list(report));
        for field in names.unwrap_or_default() {
            let Some(text) = field.text(report) else { continue };
            // A cluster and a namespace, each of which may be `*`.
            match text.split_once('/') {
                Some((_, namespace)) if !namespace.is_empty() => _ = namespaces.insert(namespace.to_owned()),
                _ => field.error(report, Fault::NotAnFqn { fqn: text.to_owned(), form: "CLUSTER/NAMESPACE" }),
            }
        }
        self.scopes.push(Scope { fqn, namespaces });
    }

    fn uses(
        &mut self,
        list: &Field<'_>,
        reach: Option<&Reach>,
        user: &str,
        tenant: Option<&str>,
        report: &mut Report<'_>,
    ) {
        let mut seen = BTreeSet::new();
        for item in list.list(report).unwrap_or_default() {
            let Some(object) = item.object(report) else { continue };
            object.only(&["fqn", "config", "match"], report);
            let config = object.get("config").filter(|field| !field.is_null());
            let config = config.map_or(UseConfig::OfTheEntry, |field| UseConfig::Own(plugin_config(&field, report)));
            let traffic = object.get("match").map(|field| traffic(&field, report));
            let Some(field) = object.required("fqn", report) else { continue };
            let Some(fqn) = field.text(report) else { continue };
            if !is_fqn(fqn, "extensions") {
                field.error(report, Fault::NotAnFqn { fqn: fqn.to_owned(), form: EXTENSION_FORM });
                continue;
            }
            if !seen.insert(fqn) {
                field.error(report, Fault::DuplicateUse { fqn: fqn.to_owned() });
                continue;
            }
            let Some(reach) = reach.cloned() else { continue };
            self.uses.push(Use {
                place: report.place(field.node.at),
                path: field.path.clone(),
                fqn: fqn.to_owned(),
                config,
                traffic,
                user: user.to_owned(),
                tenant: tenant.map(str::to_owned),
                reach,
            });
        }
    }
}

/// `organizations/ORG/COLLECTION/NAME`, no part of it empty.
fn is_fqn(text: &str, collection: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    matches!(parts[..], ["organizations", organization, of, name]
        if of == collection && !organization.is_empty() && !name.is_empty())
}

/// Settings of several levels that add up are another rule than the one that [`join`] knows.
fn check_propagation(spec: &Object<'_>, report: &mut Report<'_>) {
    for path in [&["propagationStrategy"][..], &["defaultSecuritySetting", "propagationStrategy"]] {
        if let Some(field) = spec.at(path)
            && let Some(strategy) = field.text(report).filter(|strategy| *strategy != "REPLACE")
        {
            field.error(report, Fault::Propagation { strategy: strategy.to_owned() });
        }
    }
}

/// A gateway's `workloadSelector`: namespace and labels.
fn workloads(spec: &Object<'_>, report: &mut Report<'_>) -> Option<Reach> {
    let selector = spec.required("workloadSelector", report)?.object(report)?;
    selector.only(&["namespace", "labels"], report);
    let namespace = selector.required("namespace", report)?.text_of(1, 63, report)?.to_owned();
    let labels = match selector.get("labels").filter(|field| !field.is_null()) {
        Some(field) => {
            let object = field.object(report)?;
            object.fields().filter_map(|(key, field)| Some((key.to_owned(), field.text(report)?.to_owned()))).collect()
        }
        None => BTreeMap::new(),
    };
    Some(Reach::Workloads { namespace, labels })
}

/// Reads the `spec` of a `WasmExtension`; what `metadata` says is filled in by the caller.
fn entry(spec: &Object<'_>, origin: Origin, report: &mut Report<'_>) -> Option<Entry> {
    let errors_before = report.errors.len();
    spec.only(&FIELDS, report);
    for name in ["source", "displayName", "description", "etag", "fqn"] {
        spec.get(name).map(|field| field.text(report));
    }
    let url = match (spec.get("image"), spec.get("url")) {
        (Some(field), None) => image(&field, report),
        (None, Some(field)) => module_url(&field, report),
        (None, None) => {
            spec.required("image", report);
            None
        }
        (Some(_), Some(field)) => {
            field.error(report, Fault::ImageOrUrl);
            None
        }
    };
    let mut allowed_in = Vec::new();
    for field in spec.get("allowedIn").and_then(|field| field.list(report)).unwrap_or_default() {
        match field.text(report) {
            Some("") => field.error(report, Fault::Empty),
            Some(fqn) if !is_fqn(fqn, "tenants") => {
                field.error(report, Fault::NotAnFqn { fqn: fqn.to_owned(), form: TENANT_FORM });
            }
            Some(fqn) => allowed_in.push(fqn.to_owned()),
            None => {}
        }
    }
    let config = spec.get("config").filter(|field| !field.is_null());
    let entry = Entry {
        origin,
        resource_version: None,
        organization: String::new(),
        name: String::new(),
        fqn: String::new(),
        allowed_in,
        phase: phase(spec, "UNSPECIFIED_PHASE", report),
        // A plain number in Tetrate's API, so there is no unset one.
        priority: priority(spec, report).or(Some(0)),
        traffic: spec.get("match").map(|field| traffic(&field, report)).unwrap_or_default(),
        wasm: WasmFilter {
            url: String::new(),
            sha256: None,
            pull_policy: pull_policy(spec, report),
            pull_secret: pull_secret(spec, report),
            plugin_config: config.and_then(|field| plugin_config(&field, report)),
            plugin_name: String::new(),
            fail_strategy: FailStrategy::FailClose,
            env: spec.get("vmConfig").map(|field| variables(&field, EnvRules::Tetrate, report)).unwrap_or_default(),
            layer: Layer::Http,
        },
    };
    if report.errors.len() > errors_before {
        return None;
    }
    Some(Entry { wasm: WasmFilter { url: url?.to_owned(), ..entry.wasm }, ..entry })
}

fn image<'n>(field: &Field<'n>, report: &mut Report<'_>) -> Option<&'n str> {
    let image = field.text(report)?;
    if !image.starts_with("oci://") {
        field.error(report, Fault::NotOci { image: image.to_owned() });
        return None;
    }
    module_url(field, report)
}

#[cfg(test)]
mod tests;
