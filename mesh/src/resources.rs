//! What the operator's files hold, read and validated.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::extension::{traffic_extension, wasm_plugin};
use crate::fault::{Fault, Place, Problem, nearest};
use crate::fields::{Field, Object, Report};
use crate::locate::Locator;
use crate::maistra::{self, service_mesh_extension};
use crate::metadata::{self, Metadata};
use crate::model::{Attach, Extension, LeftOut, Origin};
use crate::policy::{self, PolicySpec};
use crate::ports::{self, DeclaredPort};
use crate::secret::{self, PullSecret};
use crate::tetrate::{self, Tetrate};
use crate::yaml::{self, Value};

pub(crate) const ISTIO_VERSION: &str = "extensions.istio.io/v1alpha1";

/// Reads the `spec` of one kind of extension; `None` when something was wrong, which is then in the report.
type ReadSpec = fn(&Object<'_>, Metadata, Origin, &mut Report<'_>) -> Option<Extension>;

/// One input: a file's text, or standard input's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file as given on the command line (`-` is standard input); only used in messages.
    pub file: String,
    /// Its text: YAML or JSON, any number of documents, Lists among them.
    pub text: String,
}

/// What was read, and everything that was wrong with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The resources without errors.
    pub resources: Resources,
    /// Why the other resources are missing. A chain resolved in spite of these is not the cluster's chain.
    pub errors: Vec<Problem>,
    /// What Istio accepts and the operator may not have meant.
    pub warnings: Vec<Problem>,
}

/// Extension resources, and the resources that say which proxies there are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// `WasmPlugin`, `TrafficExtension` and `ServiceMeshExtension` in the order they were read, then each use of a
    /// `WasmExtension`.
    pub extensions: Vec<Extension>,
    /// Each `WasmExtension` that attaches to no proxy at all, with the reason. Its namespace is its organization.
    pub unattached: Vec<LeftOut>,
    /// Pods, and everything with a pod template.
    pub workloads: Vec<Workload>,
    /// Gateways of gateway.networking.k8s.io.
    pub gateways: Vec<Gateway>,
    /// Gateway classes of gateway.networking.k8s.io.
    pub gateway_classes: Vec<GatewayClass>,
    /// Services.
    pub services: Vec<Service>,
    /// Istio's `ServiceEntry` resources.
    pub service_entries: Vec<Service>,
    /// The ports that Services and Gateways declare.
    #[serde(default)]
    pub ports: Vec<DeclaredPort>,
    /// Namespaces' labels, by name.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// `RequestAuthentication` and `AuthorizationPolicy`: which of the proxy's own filters there are.
    pub policies: Vec<Policy>,
    /// Secrets of type `kubernetes.io/dockerconfigjson`, which a `WasmPlugin` may name as its `imagePullSecret`.
    #[serde(skip)]
    pub pull_secrets: Vec<PullSecret>,
    /// How many resources of each other kind were skipped, by kind and group (`ConfigMap`, `Gateway.networking.istio.io`).
    pub skipped: BTreeMap<String, usize>,
}

/// A pod, or a resource that makes pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// For example `Deployment`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, `default` when left out.
    pub namespace: String,
    /// The labels of its pods.
    pub labels: BTreeMap<String, String>,
}

/// A Gateway of gateway.networking.k8s.io.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, `default` when left out.
    pub namespace: String,
    /// `spec.gatewayClassName`: `istio-waypoint` makes it a waypoint.
    pub class: String,
}

/// A `GatewayClass` of gateway.networking.k8s.io.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayClass {
    /// `metadata.name`.
    pub name: String,
    /// `spec.controllerName`: `istio.io/mesh-controller` makes its Gateways waypoints.
    pub controller: String,
}

/// A Service or a `ServiceEntry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, `default` when left out.
    pub namespace: String,
    /// `metadata.labels`, `istio.io/use-waypoint` among them.
    pub labels: BTreeMap<String, String>,
    /// The labels of its pods; empty when somebody else manages its endpoints.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
}

/// A policy whose presence puts one of the proxy's own filters into the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Where it was read.
    pub origin: Origin,
    /// Which filter it needs.
    pub kind: PolicyKind,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// Which proxies it applies to.
    pub attach: Attach,
    /// What it says.
    pub spec: PolicySpec,
}

/// What a [`Policy`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `RequestAuthentication`.
    RequestAuthentication,
    /// `AuthorizationPolicy` with ALLOW, DENY or AUDIT.
    Authorization,
    /// `AuthorizationPolicy` with CUSTOM.
    CustomAuthorization,
}

/// Reads resources from any number of texts.
///
/// Takes what `kubectl apply` and `kubectl get -o yaml` take and print: YAML (typed by kubectl's YAML 1.1 rules) or
/// JSON, several documents, `kind: List`. Reports every error of every document, not only the first: text that is not
/// YAML, repeated keys, unknown fields and invalid values in extensions. Of other kinds only what is needed is read.
/// Never panics; nesting and aliases are bounded.
///
/// ```
/// use mesh::{Source, read};
///
/// let text = "
/// apiVersion: extensions.istio.io/v1alpha1
/// kind: WasmPlugin
/// metadata: {name: basic-auth}
/// spec:
///   url: oci://ghcr.io/x/basic-auth:1
///   phase: AUHTN
/// ";
/// let reading = read(&[Source { file: "plugin.yaml".into(), text: text.into() }]);
/// assert_eq!(
///     reading.errors[0].to_string(),
///     "plugin.yaml:7:10: `spec.phase`: `AUHTN` is not one of UNSPECIFIED_PHASE, AUTHN, AUTHZ, STATS, \
///      did you mean `AUTHN`?"
/// );
/// ```
pub fn read(sources: &[Source]) -> Reading {
    read_documents(sources, |_, _| true, |_, _, _| {})
}

/// The same of some documents, by file and zero-based number. The others may be whatever they are.
pub fn read_some(sources: &[Source], is_wanted: impl Fn(&str, usize) -> bool) -> Reading {
    read_documents(sources, is_wanted, |_, _, _| {})
}

/// The same, with what finds the place of any field afterwards.
pub fn read_located(sources: &[Source]) -> (Reading, Locator) {
    let mut locator = Locator::default();
    let reading = read_documents(sources, |_, _| true, |file, document, root| locator.keep(file, document, root));
    (reading, locator.sorted())
}

fn read_documents(
    sources: &[Source],
    is_wanted: impl Fn(&str, usize) -> bool,
    mut done: impl FnMut(&str, usize, yaml::Node),
) -> Reading {
    let mut reader = Reader::default();
    for source in sources {
        for document in yaml::documents(&source.text) {
            if !is_wanted(&source.file, document.number) {
                continue;
            }
            let mut report = Report::new(&source.file, document.number);
            for (at, fault) in document.faults {
                report.error(at, "", fault);
            }
            match document.root {
                Ok(node) if node.value == Value::Null => {}
                Ok(node) => {
                    reader.resource(&Field::root(&node), None, &mut report);
                    done(&source.file, document.number, node);
                }
                Err((at, fault)) => report.error(at, "", fault),
            }
            report.errors.sort_by(|a, b| a.place.cmp(&b.place));
            report.warnings.sort_by(|a, b| a.place.cmp(&b.place));
            reader.reading.errors.append(&mut report.errors);
            reader.reading.warnings.append(&mut report.warnings);
        }
    }
    let Reader { mut reading, tetrate, .. } = reader;
    let joined = tetrate.join();
    reading.resources.extensions.extend(joined.extensions);
    reading.resources.unattached = joined.unattached;
    reading.errors.extend(joined.errors);
    reading
}

#[derive(Default)]
struct Reader {
    reading: Reading,
    tetrate: Tetrate,
    /// Kind, namespace and name of what may exist only once, and where it was first.
    seen: HashMap<(String, String, String), Place>,
}

impl Reader {
    /// Reads one resource; `inherited` is the apiVersion and kind that a typed list gives its items.
    fn resource(&mut self, field: &Field<'_>, inherited: Option<(&str, &str)>, report: &mut Report<'_>) {
        let Some(object) = field.as_object() else {
            field.error(report, Fault::NotAResource { actual: field.node.value.type_name() });
            return;
        };
        let typed = inherited.filter(|_| object.get("kind").is_none() && object.get("apiVersion").is_none());
        let (version, kind) = if let Some(typed) = typed {
            typed
        } else {
            let kind = object.required("kind", report).and_then(|field| field.text(report));
            let version = object.required("apiVersion", report).and_then(|field| field.text(report));
            let (Some(version), Some(kind)) = (version, kind) else { return };
            (version, kind)
        };
        let group = version.rsplit_once('/').map_or("", |(group, _)| group);
        let item_kind = kind.strip_suffix("List").filter(|_| object.get("items").is_some());
        if let Some(item_kind) = item_kind {
            let items = object.get("items").and_then(|items| items.list(report));
            let inherited = Some((version, item_kind)).filter(|_| !item_kind.is_empty());
            for item in items.unwrap_or_default() {
                self.resource(&item, inherited, report);
            }
            return;
        }
        match (group, kind) {
            ("extensions.istio.io", "WasmPlugin") => {
                self.extension(&object, version, kind, ISTIO_VERSION, wasm_plugin, report);
            }
            ("extensions.istio.io", "TrafficExtension") => {
                self.extension(&object, version, kind, ISTIO_VERSION, traffic_extension, report);
            }
            // The group has no others, so that this is a typing error and nothing to be passed over.
            ("extensions.istio.io", _) => {
                let known = vec!["WasmPlugin", "TrafficExtension"];
                let nearest = nearest(kind, &known);
                let place = object.get("kind").unwrap_or_else(|| field.clone());
                place.error(report, Fault::UnknownValue { value: kind.to_owned(), known, nearest });
            }
            ("maistra.io", "ServiceMeshExtension") => {
                self.extension(&object, version, kind, maistra::VERSION, service_mesh_extension, report);
            }
            (group, kind) if tetrate::is_read(group, kind) => {
                if let Some((organization, name)) = self.tetrate.read(&object, version, kind, report) {
                    self.once(&object, kind, &organization, &name, report);
                }
            }
            ("security.istio.io", "RequestAuthentication" | "AuthorizationPolicy") => {
                self.policy(&object, version, kind, report);
            }
            ("", "Pod") => self.workload(&object, kind, &["metadata", "labels"], report),
            ("", "ReplicationController")
            | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
            | ("batch", "Job") => {
                self.workload(&object, kind, &["spec", "template", "metadata", "labels"], report);
            }
            ("batch", "CronJob") => {
                let path = ["spec", "jobTemplate", "spec", "template", "metadata", "labels"];
                self.workload(&object, kind, &path, report);
            }
            ("gateway.networking.k8s.io", "Gateway") => {
                let class = object.text_at(&["spec", "gatewayClassName"]).unwrap_or_default().to_owned();
                if let Some((namespace, name)) = identity(&object, report) {
                    self.reading.resources.ports.extend(ports::of_gateway(&object, &namespace, &name));
                    self.reading.resources.gateways.push(Gateway { name, namespace, class });
                }
            }
            ("", "Secret") if object.text_at(&["type"]) == Some(secret::TYPE) => {
                if let Some((namespace, name)) = identity(&object, report) {
                    self.once(&object, kind, &namespace, &name, report);
                    self.reading.resources.pull_secrets.extend(secret::read(&object, namespace, name, report));
                }
            }
            ("gateway.networking.k8s.io", "GatewayClass") => {
                let controller = object.text_at(&["spec", "controllerName"]).unwrap_or_default().to_owned();
                if let Some((_, name)) = identity(&object, report) {
                    self.reading.resources.gateway_classes.push(GatewayClass { name, controller });
                }
            }
            ("", "Service") => {
                if let Some(service) = service(&object, report) {
                    self.reading.resources.ports.extend(ports::of_service(&object, &service.namespace));
                    self.reading.resources.services.push(service);
                }
            }
            ("networking.istio.io", "ServiceEntry") => {
                self.reading.resources.service_entries.extend(service(&object, report));
            }
            ("", "Namespace") => {
                if let Some((_, name)) = identity(&object, report) {
                    let labels = labels(&object, &["metadata", "labels"], report);
                    self.reading.resources.namespaces.insert(name, labels);
                }
            }
            _ => {
                let name = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
                *self.reading.resources.skipped.entry(name).or_default() += 1;
            }
        }
    }

    fn extension(
        &mut self,
        object: &Object<'_>,
        version: &str,
        kind: &str,
        supported: &'static str,
        read: ReadSpec,
        report: &mut Report<'_>,
    ) {
        if version != supported {
            let (kind, version) = (kind.to_owned(), version.to_owned());
            report.error(object.at, "apiVersion", Fault::UnknownVersion { kind, version, supported });
            return;
        }
        object.only(&["apiVersion", "kind", "metadata", "spec", "status"], report);
        let metadata = metadata::read(object, report);
        let origin = origin(object, kind, report);
        if let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) {
            self.once(object, kind, namespace, name, report);
        }
        let Some(spec) = object.required("spec", report).and_then(|field| field.object(report)) else { return };
        self.reading.resources.extensions.extend(read(&spec, metadata, origin, report));
    }

    fn policy(&mut self, object: &Object<'_>, version: &str, kind: &str, report: &mut Report<'_>) {
        let Some((namespace, name)) = identity(object, report) else { return };
        self.once(object, kind, &namespace, &name, report);
        let origin = origin(object, kind, report);
        self.reading.resources.policies.extend(policy::read(object, version, kind, origin, report));
    }

    fn workload(&mut self, object: &Object<'_>, kind: &str, path: &[&str], report: &mut Report<'_>) {
        let Some((namespace, name)) = identity(object, report) else { return };
        let labels = labels(object, path, report);
        self.reading.resources.workloads.push(Workload { kind: kind.to_owned(), name, namespace, labels });
    }

    /// Reports a resource that was read before: which of the two counts would depend on the order of files.
    fn once(&mut self, object: &Object<'_>, kind: &str, namespace: &str, name: &str, report: &mut Report<'_>) {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let place = report.place(object.at);
        if let Some(first) = self.seen.get(&key).cloned() {
            let ((kind, namespace, name), first) = (key, Box::new(first));
            report.error(object.at, &object.path, Fault::DuplicateResource { kind, namespace, name, first });
        } else {
            self.seen.insert(key, place);
        }
    }
}

pub(crate) fn origin(object: &Object<'_>, kind: &str, report: &Report<'_>) -> Origin {
    let Place { file, document, line, .. } = report.place(object.at);
    Origin { kind: kind.to_owned(), file, document, line }
}

/// Namespace and name of a resource whose other fields are not checked.
fn identity(object: &Object<'_>, report: &mut Report<'_>) -> Option<(String, String)> {
    let metadata = object.required("metadata", report)?.object(report)?;
    let name = metadata.required("name", report)?.text(report)?;
    let namespace = match metadata.get("namespace").filter(|field| !field.is_null()) {
        Some(field) => field.text(report)?,
        None => "",
    };
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    Some((namespace.to_owned(), name.to_owned()))
}

fn service(object: &Object<'_>, report: &mut Report<'_>) -> Option<Service> {
    let (namespace, name) = identity(object, report)?;
    let labels = labels(object, &["metadata", "labels"], report);
    Some(Service { name, namespace, labels, selector: ports::selector_of(object) })
}

fn labels(object: &Object<'_>, path: &[&str], report: &mut Report<'_>) -> BTreeMap<String, String> {
    let Some(field) = object.at(path).filter(|field| !field.is_null()) else { return BTreeMap::new() };
    let Some(object) = field.object(report) else { return BTreeMap::new() };
    object.fields().filter_map(|(key, field)| Some((key.to_owned(), field.text(report)?.to_owned()))).collect()
}

#[cfg(test)]
mod tests;
