//! What is read from files, and what is said of the rest.

use proptest::prelude::*;

use super::{PolicyKind, Reading, Source, read};

fn source(file: &str, text: &str) -> Source {
    Source { file: file.to_owned(), text: text.to_owned() }
}

fn reading(text: &str) -> Reading {
    read(&[source("f", text)])
}

#[track_caller]
fn check_errors(text: &str, expected: &[&str]) {
    let errors: Vec<_> = reading(text).errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, expected);
}

fn plugin(name: &str) -> String {
    format!(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: {name}}}\nspec: {{url: h/x}}\n"
    )
}

fn names(reading: &Reading) -> Vec<&str> {
    reading.resources.extensions.iter().map(|extension| extension.name.as_str()).collect()
}

#[test]
fn files_documents_and_lists_are_read_in_order() {
    let list = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n- apiVersion: extensions.istio.io/v1alpha1\n  kind: WasmPlugin\n  metadata: {name: c}\n  spec: {url: h/x}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: m}}\n";
    let reading = read(&[source("one", &format!("{}---\n{}", plugin("a"), plugin("b"))), source("two", list)]);
    assert_eq!(reading.errors, []);
    assert_eq!(names(&reading), ["a", "b", "c"]);
    let origins: Vec<_> = reading
        .resources
        .extensions
        .iter()
        .map(|extension| (extension.origin.file.as_str(), extension.origin.document, extension.origin.line))
        .collect();
    assert_eq!(origins, [("one", 0, 1), ("one", 1, 6), ("two", 0, 5)]);
}

#[test]
fn what_kubectl_get_prints_is_read() {
    let text = "
apiVersion: v1
items:
- apiVersion: extensions.istio.io/v1alpha1
  kind: WasmPlugin
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {\"apiVersion\":\"extensions.istio.io/v1alpha1\"}
    creationTimestamp: \"2024-05-01T10:00:00Z\"
    generation: 2
    labels: {a: b}
    managedFields: [{manager: kubectl, fieldsV1: {'f:spec': {}}}]
    name: p
    namespace: shop
    resourceVersion: \"123\"
    uid: 0e0e0e0e-0000-0000-0000-000000000000
  spec: {url: 'oci://h/x'}
  status: {anything: [1]}
kind: List
metadata:
  resourceVersion: \"\"
";
    let reading = reading(text);
    assert_eq!((reading.errors, reading.warnings), (vec![], vec![]));
    let extension = &reading.resources.extensions[0];
    assert_eq!((extension.namespace.as_str(), extension.created), ("shop", Some(1_714_557_600_000_000_000)));
}

#[test]
fn items_of_a_typed_list_inherit_its_kind() {
    let text = r#"{"apiVersion":"extensions.istio.io/v1alpha1","kind":"WasmPluginList","items":[{"metadata":{"name":"p"},"spec":{"url":"h/x"}}]}"#;
    let reading = reading(text);
    assert_eq!(reading.errors, []);
    assert_eq!(names(&reading), ["p"]);
    assert_eq!(reading.resources.extensions[0].origin.kind, "WasmPlugin");
}

#[test]
fn other_kinds_are_skipped_and_counted() {
    let text = "
{apiVersion: v1, kind: ConfigMap}
---
{apiVersion: v1, kind: ConfigMap, data: []}
---
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: old}}
---
{apiVersion: extensions.higress.io/v1alpha1, kind: WasmPlugin}
";
    let reading = reading(text);
    assert_eq!(reading.errors, []);
    let skipped: Vec<_> = reading.resources.skipped.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(
        skipped,
        [("ConfigMap", 2), ("Gateway.networking.istio.io", 1), ("WasmPlugin.extensions.higress.io", 1)]
    );
}

#[test]
fn an_unknown_version_is_refused() {
    check_errors(
        "{apiVersion: extensions.istio.io/v1, kind: WasmPlugin}",
        &[
            "f:1:1: `apiVersion`: WasmPlugin has no version `extensions.istio.io/v1`, only `extensions.istio.io/v1alpha1`",
        ],
    );
}

#[test]
fn what_is_no_resource_is_refused() {
    check_errors(
        "[1]\n---\nhello\n---\nkind: Pod\n---\n{kind: 1, apiVersion: v1}\n---\n# nothing\n",
        &[
            "f:1:1: a resource must be a mapping, this is a list",
            "f:3:1: a resource must be a mapping, this is a string",
            "f:5:1: `apiVersion`: required, but missing",
            "f:7:8: `kind`: must be a string, is a number",
        ],
    );
}

#[test]
fn errors_of_all_documents_and_files_are_reported() {
    let broken = format!("a: [\n---\n{}---\nkind: WasmPlugin\nkind: Pod\n", plugin("p").replace("url", "URL"));
    let reading = read(&[source("one", &broken), source("two", "%")]);
    let places: Vec<_> = reading
        .errors
        .iter()
        .map(|error| (error.place.file.as_str(), error.place.document, error.place.line))
        .collect();
    assert_eq!(places, [("one", 0, 2), ("one", 1, 6), ("one", 1, 6), ("one", 2, 8), ("one", 2, 9), ("two", 0, 1)]);
}

#[test]
fn metadata_is_checked() {
    let text = |metadata: &str| plugin("p").replace("{name: p}", metadata);
    check_errors(&text("{}"), &["f:3:11: `metadata.name`: required, but missing"]);
    check_errors(&text("{name: 1}"), &["f:3:18: `metadata.name`: must be a string, is a number"]);
    check_errors(
        &text("{name: Plugin}"),
        &["f:3:18: `metadata.name`: `Plugin` is not a valid name: lower-case letters, digits, . and -, at most 253 \
         characters"],
    );
    check_errors(
        &text("{name: a.b-c, namespace: a.b}"),
        &[
            "f:3:36: `metadata.namespace`: `a.b` is not a valid name: lower-case letters, digits, -, at most 63 characters",
        ],
    );
    check_errors(
        &text("{name: p, creationTimestamp: 2024-01-31}"),
        &["f:3:40: `metadata.creationTimestamp`: `2024-01-31` is not an RFC 3339 time such as 2024-01-31T12:00:00Z"],
    );
    check_errors(&text("{name: p, lables: {}}"), &["f:3:21: `metadata.lables`: unknown field, did you mean `labels`?"]);
    check_errors(&text("{name: p, creationTimestamp: null, namespace: ''}"), &[]);
    check_errors(
        &plugin("p").replace("spec: {url: h/x}\n", "spce: {}"),
        &["f:1:1: `spec`: required, but missing", "f:4:1: `spce`: unknown field, did you mean `spec`?"],
    );
}

#[test]
fn the_same_resource_twice_is_an_error_that_names_the_first() {
    let reading = read(&[source("one", &plugin("p")), source("two", &plugin("p"))]);
    assert_eq!(reading.errors[0].to_string(), "two:1:1: WasmPlugin default/p is given twice, first at one:1:1");
    let same_name = format!("{}---\n{}", plugin("p"), plugin("p").replace("{name: p}", "{name: p, namespace: a}"));
    check_errors(&same_name, &[]);
}

#[test]
fn pods_and_templates_give_labels() {
    let text = "
{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: x}}, spec: {unknown: field}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: b, namespace: ns, labels: {not: these}}, spec: {template: {metadata: {labels: {app: w}}}}}
---
{apiVersion: batch/v1, kind: CronJob, metadata: {name: c}, spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: z}}}}}}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: d}, spec: {template: {}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: e, labels: {k: 1}}}
";
    let reading = reading(text);
    let workloads: Vec<_> = reading
        .resources
        .workloads
        .iter()
        .map(|workload| {
            let app = workload.labels.get("app").map_or("-", String::as_str);
            format!("{} {}/{} {app} {}", workload.kind, workload.namespace, workload.name, workload.labels.len())
        })
        .collect();
    assert_eq!(
        workloads,
        [
            "Pod default/a x 1",
            "Deployment ns/b w 1",
            "CronJob default/c z 1",
            "StatefulSet default/d - 0",
            "Pod default/e - 0",
        ]
    );
    let errors: Vec<_> = reading.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["f:10:61: `metadata.labels.k`: must be a string, is a number"]);
}

#[test]
fn a_name_that_yaml_1_1_takes_for_a_boolean_is_an_error() {
    check_errors(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}}",
        &["f:1:60: `metadata.namespace`: must be a string, is a boolean"],
    );
}

#[test]
fn gateways_services_and_namespaces_are_read() {
    let text = "
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g, namespace: ns}, spec: {gatewayClassName: istio-waypoint}}
---
{apiVersion: v1, kind: Service, metadata: {name: s, labels: {istio.io/use-waypoint: w}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ns, labels: {istio.io/use-waypoint: w}}}
";
    let reading = reading(text);
    assert_eq!(reading.errors, []);
    let resources = reading.resources;
    assert_eq!((resources.gateways[0].name.as_str(), resources.gateways[0].class.as_str()), ("g", "istio-waypoint"));
    assert_eq!(resources.services[0].labels["istio.io/use-waypoint"], "w");
    assert_eq!(resources.namespaces["ns"]["istio.io/use-waypoint"], "w");
}

#[test]
fn policies_are_read_for_their_place_and_their_proxies() {
    let text = "
{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: a}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: b}, spec: {action: CUSTOM, provider: {name: p}, rules: [{}]}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: c}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: d}, spec: {selector: {matchLabels: {a: b*}}}}
";
    let reading = reading(text);
    let kinds: Vec<_> = reading.resources.policies.iter().map(|policy| policy.kind).collect();
    assert_eq!(kinds, [PolicyKind::RequestAuthentication, PolicyKind::CustomAuthorization, PolicyKind::Authorization]);
    assert_eq!(reading.errors.len(), 1);
}

/// Text that is likely to get past the scanner.
fn yamlish() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "a",
        "kind",
        "apiVersion",
        ": ",
        "- ",
        "\n",
        "  ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&x ",
        "*x",
        "!!int ",
        "!t ",
        "|",
        ">",
        "\"",
        "'",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "#",
        "? ",
        "<<",
        "\t",
        "WasmPlugin",
        "spec",
        "é",
        "\u{feff}",
        "\r",
        "1",
        "~",
        "\\",
        "\u{2028}",
        "- - ",
        "@",
        "`",
    ]);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

/// A plugin with one part replaced, which gets past everything but validation.
fn damaged() -> impl Strategy<Value = String> {
    let whole = include_str!("../../../examples/ambient/gateway.yaml");
    let len = whole.len();
    (0..len, 0..40usize, yamlish()).prop_map(move |(start, length, with)| {
        let end = (start + length).min(len);
        format!("{}{with}{}", &whole[..start], &whole[end..])
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), yaml in yamlish(), damaged in damaged()) {
        for text in [String::from_utf8_lossy(&bytes).as_ref(), &yaml, &damaged] {
            let reading = reading(text);
            for problem in reading.errors.iter().chain(&reading.warnings) {
                prop_assert!(problem.place.line >= 1 && problem.place.column >= 1);
                prop_assert!(!problem.to_string().is_empty());
            }
        }
    }
}

#[test]
fn a_misspelt_kind_of_istios_group_is_an_error_and_not_skipped() {
    let one = |kind: &str| {
        let text = format!(
            "{{apiVersion: extensions.istio.io/v1alpha1, kind: {kind}, metadata: {{name: x}}, spec: {{url: h/x}}}}"
        );
        let reading = read(&[Source { file: "f".to_owned(), text }]);
        assert!(reading.resources.skipped.is_empty());
        reading.errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        one("wasmplugin"),
        ["f:1:50: `kind`: `wasmplugin` is not one of WasmPlugin, TrafficExtension, did you mean `WasmPlugin`?"]
    );
    assert_eq!(one("Telemetry"), ["f:1:50: `kind`: `Telemetry` is not one of WasmPlugin, TrafficExtension"]);
}
