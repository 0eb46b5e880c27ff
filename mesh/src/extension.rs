//! `WasmPlugin` and `TrafficExtension`, read and validated into an [`Extension`].

use std::collections::BTreeSet;

use crate::attach;
use crate::config::plugin_config;
use crate::fault::{Fault, is_sha256};
use crate::fields::{Field, Object, Report};
use crate::metadata::Metadata;
use crate::model::{
    Dialect, EnvValue, EnvVar, Extension, ExtensionFilter, FailStrategy, Layer, Origin, Phase, PullPolicy,
    TrafficSelector, WasmFilter, WorkloadMode,
};
use crate::url;

const MAX_VARIABLES: usize = 256;
const MAX_VALUE: usize = 2048;
const MAX_SCRIPT: usize = 65_536;

/// Where and when an extension applies: the fields that both kinds have.
const PLACEMENT: [&str; 5] = ["selector", "targetRefs", "phase", "priority", "match"];
/// The fields of a wasm extension: under `spec` in a `WasmPlugin`, under `spec.wasm` in a `TrafficExtension`.
pub(crate) const WASM: [&str; 10] = [
    "url",
    "sha256",
    "imagePullPolicy",
    "imagePullSecret",
    "verificationKey",
    "pluginConfig",
    "pluginName",
    "failStrategy",
    "vmConfig",
    "type",
];

/// Reads the `spec` of a `WasmPlugin`. `None` when something was wrong, which is then in the report.
pub(crate) fn wasm_plugin(
    spec: &Object<'_>,
    metadata: Metadata,
    origin: Origin,
    report: &mut Report<'_>,
) -> Option<Extension> {
    let errors_before = report.errors.len();
    let known: Vec<_> = PLACEMENT.into_iter().chain(WASM).chain(["targetRef"]).collect();
    spec.only(&known, report);
    let filter = wasm(spec, report).map(|wasm| ExtensionFilter::Wasm(Box::new(wasm)));
    let extension = placed(spec, "UNSPECIFIED_PHASE", filter, metadata, origin, report);
    extension.filter(|_| report.errors.len() == errors_before)
}

/// Reads the `spec` of a `TrafficExtension`. `None` when something was wrong, which is then in the report.
pub(crate) fn traffic_extension(
    spec: &Object<'_>,
    metadata: Metadata,
    origin: Origin,
    report: &mut Report<'_>,
) -> Option<Extension> {
    let errors_before = report.errors.len();
    let known: Vec<_> = PLACEMENT.into_iter().chain(["wasm", "lua"]).collect();
    spec.only(&known, report);
    let filter = match (spec.get("wasm"), spec.get("lua")) {
        (Some(field), None) => field.object(report).and_then(|object| {
            object.only(&WASM, report);
            wasm(&object, report).map(|wasm| ExtensionFilter::Wasm(Box::new(wasm)))
        }),
        (None, Some(field)) => field.object(report).and_then(|object| lua(&object, report)),
        _ => {
            report.error(spec.at, &spec.path, Fault::WasmOrLua);
            None
        }
    };
    let extension = placed(spec, "UNSPECIFIED", filter, metadata, origin, report);
    extension.filter(|_| report.errors.len() == errors_before)
}

fn placed(
    spec: &Object<'_>,
    unspecified: &'static str,
    filter: Option<ExtensionFilter>,
    metadata: Metadata,
    origin: Origin,
    report: &mut Report<'_>,
) -> Option<Extension> {
    let phase = phase(spec, unspecified, report);
    let priority = priority(spec, report);
    let attach = attach::read(spec, report);
    let traffic = spec.get("match").map(|field| traffic(&field, report)).unwrap_or_default();
    Some(Extension {
        origin,
        name: metadata.name?,
        namespace: metadata.namespace?,
        created: metadata.created,
        resource_version: metadata.resource_version,
        phase,
        priority,
        attach,
        traffic,
        filter: filter?,
        dialect: Dialect::Istio,
    })
}

/// `phase`, whose default has one name in each kind.
pub(crate) fn phase(spec: &Object<'_>, unspecified: &'static str, report: &mut Report<'_>) -> Phase {
    let phases =
        [(unspecified, Phase::Unspecified), ("AUTHN", Phase::Authn), ("AUTHZ", Phase::Authz), ("STATS", Phase::Stats)];
    spec.get("phase").and_then(|field| field.choice(&phases, report)).unwrap_or_default()
}

/// `priority`, the only field that the CRDs declare nullable.
pub(crate) fn priority(spec: &Object<'_>, report: &mut Report<'_>) -> Option<i32> {
    spec.get("priority")
        .filter(|field| !field.is_null())
        .and_then(|field| field.integer(i32::MIN.into(), i32::MAX.into(), report))
        .and_then(|value| i32::try_from(value).ok())
}

/// `imagePullPolicy` in Istio's words.
pub(crate) fn pull_policy(spec: &Object<'_>, report: &mut Report<'_>) -> PullPolicy {
    let policies = [
        ("UNSPECIFIED_POLICY", PullPolicy::Unspecified),
        ("IfNotPresent", PullPolicy::IfNotPresent),
        ("Always", PullPolicy::Always),
    ];
    spec.get("imagePullPolicy").and_then(|field| field.choice(&policies, report)).unwrap_or_default()
}

/// `imagePullSecret`.
pub(crate) fn pull_secret(spec: &Object<'_>, report: &mut Report<'_>) -> Option<String> {
    spec.get("imagePullSecret").and_then(|field| field.text_of(1, 253, report)).map(str::to_owned)
}

fn wasm(object: &Object<'_>, report: &mut Report<'_>) -> Option<WasmFilter> {
    let url = object.required("url", report).and_then(|field| module_url(&field, report));
    let fail_strategies = [
        ("FAIL_CLOSE", FailStrategy::FailClose),
        ("FAIL_OPEN", FailStrategy::FailOpen),
        ("FAIL_RELOAD", FailStrategy::FailReload),
    ];
    let layers = [("UNSPECIFIED_PLUGIN_TYPE", Layer::Http), ("HTTP", Layer::Http), ("NETWORK", Layer::Network)];
    let sha256 = object.get("sha256").and_then(|field| sha256(&field, url, report));
    if let Some(field) = object.get("verificationKey") {
        field.text(report);
        field.warning(report, Fault::VerificationKeyIgnored);
    }
    let name = object.get("pluginName").and_then(|field| field.text_of(1, 256, report)).unwrap_or_default();
    Some(WasmFilter {
        sha256,
        pull_policy: pull_policy(object, report),
        pull_secret: pull_secret(object, report),
        plugin_config: object.get("pluginConfig").and_then(|field| plugin_config(&field, report)),
        plugin_name: name.to_owned(),
        fail_strategy: object
            .get("failStrategy")
            .and_then(|field| field.choice(&fail_strategies, report))
            .unwrap_or_default(),
        env: object.get("vmConfig").map(|field| variables(&field, EnvRules::Istio, report)).unwrap_or_default(),
        layer: object.get("type").and_then(|field| field.choice(&layers, report)).unwrap_or_default(),
        url: url?.to_owned(),
    })
}

pub(crate) fn module_url<'n>(field: &Field<'n>, report: &mut Report<'_>) -> Option<&'n str> {
    let text = field.text(report)?;
    if text.is_empty() {
        field.error(report, Fault::Empty);
        return None;
    }
    url::check(text).map_err(|fault| field.error(report, fault)).ok()?;
    Some(text)
}

fn sha256(field: &Field<'_>, url: Option<&str>, report: &mut Report<'_>) -> Option<String> {
    // The CRD's pattern lets the empty string through, and Istio takes it as absent.
    let value = field.text(report).filter(|text| !text.is_empty())?;
    if !is_sha256(value) {
        field.error(report, Fault::Sha256 { value: value.to_owned() });
        return None;
    }
    if let Some(in_url) = url.and_then(url::digest).filter(|in_url| *in_url != value) {
        field.error(report, Fault::DigestMismatch { in_url: in_url.to_owned() });
    }
    Some(value.to_owned())
}

/// Whose rules `vmConfig.env` follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EnvRules {
    Istio,
    /// A name must be a C identifier, and `value` is ignored beside `valueFrom: HOST`.
    Tetrate,
}

/// `vmConfig`.
pub(crate) fn variables(field: &Field<'_>, rules: EnvRules, report: &mut Report<'_>) -> Vec<EnvVar> {
    let Some(object) = field.object(report) else { return Vec::new() };
    object.only(&["env"], report);
    let Some(list) = object.get("env") else { return Vec::new() };
    let mut names = BTreeSet::new();
    let mut variables = Vec::new();
    for item in list.list_of_at_most(MAX_VARIABLES, report) {
        let Some(object) = item.object(report) else { continue };
        object.only(&["name", "valueFrom", "value"], report);
        let from_host = object
            .get("valueFrom")
            .and_then(|field| field.choice(&[("INLINE", false), ("HOST", true)], report))
            .unwrap_or_default();
        let value = object.get("value");
        let value = match (from_host, value) {
            (true, Some(field)) if rules == EnvRules::Istio => {
                field.error(report, Fault::ValueWithHost);
                EnvValue::Host
            }
            (true, Some(field)) => {
                field.warning(report, Fault::ValueIgnored);
                EnvValue::Host
            }
            (true, None) => EnvValue::Host,
            (false, value) => {
                let text = value.and_then(|field| field.text_of(0, MAX_VALUE, report));
                EnvValue::Inline(text.unwrap_or_default().to_owned())
            }
        };
        let Some(field) = object.required("name", report) else { continue };
        let Some(name) = field.text_of(1, 256, report) else { continue };
        if !names.insert(name) {
            field.error(report, Fault::DuplicateVariable { name: name.to_owned() });
        } else if !is_c_identifier(name) {
            match rules {
                EnvRules::Istio => field.warning(report, Fault::VariableName { name: name.to_owned() }),
                EnvRules::Tetrate => field.error(report, Fault::NotAnIdentifier { name: name.to_owned() }),
            }
        }
        variables.push(EnvVar { name: name.to_owned(), value });
    }
    variables
}

fn is_c_identifier(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `match`.
pub(crate) fn traffic(field: &Field<'_>, report: &mut Report<'_>) -> Vec<TrafficSelector> {
    let modes = [
        ("UNDEFINED", WorkloadMode::ClientAndServer),
        ("CLIENT", WorkloadMode::Client),
        ("SERVER", WorkloadMode::Server),
        ("CLIENT_AND_SERVER", WorkloadMode::ClientAndServer),
    ];
    let mut selectors = Vec::new();
    for item in field.list(report).unwrap_or_default() {
        let Some(object) = item.object(report) else { continue };
        object.only(&["mode", "ports"], report);
        let mode = object.get("mode").and_then(|field| field.choice(&modes, report)).unwrap_or_default();
        let ports = object.get("ports").map(|field| ports(&field, report)).unwrap_or_default();
        selectors.push(TrafficSelector { mode, ports });
    }
    selectors
}

fn ports(field: &Field<'_>, report: &mut Report<'_>) -> Vec<u16> {
    let mut ports = Vec::new();
    for item in field.list(report).unwrap_or_default() {
        let Some(object) = item.object(report) else { continue };
        object.only(&["number"], report);
        let Some(field) = object.required("number", report) else { continue };
        let number = field.integer(1, u16::MAX.into(), report);
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        if ports.contains(&number) {
            field.error(report, Fault::DuplicatePort { number });
        }
        ports.push(number);
    }
    ports
}

fn lua(object: &Object<'_>, report: &mut Report<'_>) -> Option<ExtensionFilter> {
    object.only(&["inlineCode"], report);
    let field = object.required("inlineCode", report)?;
    let inline_code = field.text_of(1, MAX_SCRIPT, report)?;
    if !inline_code.contains("envoy_on_request") && !inline_code.contains("envoy_on_response") {
        field.error(report, Fault::LuaWithoutCallback);
        return None;
    }
    Some(ExtensionFilter::Lua { inline_code: inline_code.to_owned() })
}

#[cfg(test)]
mod tests;
