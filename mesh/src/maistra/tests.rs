//! `ServiceMeshExtension`: every field, every rule, and its place in the chain.

use crate::chain::resolve;
use crate::model::{
    Attach, Dialect, Direction, Extension, Layer, Listener, MaistraPhase, Phase, Proxy, ProxyKind, PullPolicy,
};
use crate::resources::{Reading, Source, read};
use crate::{MeshOptions, Resources};

fn reading(text: &str) -> Reading {
    read(&[Source { file: "f".to_owned(), text: text.to_owned() }])
}

fn extension(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: maistra.io/v1\nkind: ServiceMeshExtension\nmetadata: {{name: {name}, namespace: apps}}\nspec: {{{spec}}}\n"
    )
}

#[track_caller]
fn check_errors(spec: &str, errors: &[&str]) {
    let reading = reading(&extension("p", spec));
    assert_eq!(reading.errors.iter().map(ToString::to_string).collect::<Vec<_>>(), errors);
    assert_eq!(reading.resources.extensions.len(), usize::from(errors.is_empty()));
}

fn one(spec: &str) -> Extension {
    let mut reading = reading(&extension("p", spec));
    assert_eq!(reading.errors, []);
    reading.resources.extensions.pop().unwrap()
}

#[test]
fn every_field_is_read() {
    let read = one("workloadSelector: {labels: {app: httpbin}}, image: 'quay.io/x/y:2.1', phase: PostAuthZ, \
                    priority: 100, config: {b: 1, a: x}, imagePullPolicy: Always, imagePullSecrets: [{name: s}]");
    assert_eq!(read.attach, Attach::Selector([("app".to_owned(), "httpbin".to_owned())].into()));
    assert_eq!((read.phase, read.priority), (Phase::Stats, Some(100)));
    assert_eq!(read.dialect, Dialect::Maistra { phase: Some(MaistraPhase::PostAuthZ) });
    let wasm = read.wasm().unwrap();
    assert_eq!((wasm.url.as_str(), wasm.plugin_name.as_str()), ("oci://quay.io/x/y:2.1", "p_root"));
    assert_eq!(wasm.plugin_config.as_deref(), Some(r#"{"a":"x","b":1}"#));
    assert_eq!((wasm.pull_policy, wasm.pull_secret.as_deref()), (PullPolicy::Always, Some("s")));
}

#[test]
fn without_a_phase_the_image_decides_and_that_is_said() {
    let reading = reading(&extension("p", "image: h/x"));
    assert_eq!(
        reading.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "f:5:15: `spec.phase`: without `phase`, the manifest.yaml of the image decides; here it counts as unspecified"
        ]
    );
    assert!(reading.warnings[0].hint().is_some());
    let read = &reading.resources.extensions[0];
    assert_eq!((&read.attach, read.priority, read.phase), (&Attach::Namespace, None, Phase::Unspecified));
}

#[test]
fn the_image_has_rules() {
    check_errors("phase: PreAuthN", &["f:5:7: `spec.image`: required, but missing"]);
    check_errors("phase: PreAuthN, image: ''", &["f:5:32: `spec.image`: must not be empty"]);
    check_errors("phase: PreAuthN, image: 'localhost:5000/x'", &[]);
    check_errors(
        "phase: PreAuthN, image: 'oci://h/x'",
        &["f:5:32: `spec.image`: `oci://h/x` is not a container image: no scheme can stand before its registry"],
    );
    check_errors(
        "phase: PreAuthN, image: 'h:x/y'",
        &["f:5:32: `spec.image`: `oci://h:x/y` is not a URL: the port is not a number"],
    );
}

#[test]
fn the_six_phases_and_no_others() {
    check_errors(
        "image: h/x, phase: AUTHN",
        &[
            "f:5:27: `spec.phase`: `AUTHN` is not one of PreAuthN, PostAuthN, PreAuthZ, PostAuthZ, PreStats, PostStats, \
           did you mean `PreAuthN`?",
        ],
    );
    let phases = super::PHASES.map(|(name, _)| one(&format!("image: h/x, phase: {name}")).phase);
    let expected = [Phase::Authn, Phase::Authz, Phase::Authz, Phase::Stats, Phase::Stats, Phase::Unspecified];
    assert_eq!(phases, expected);
}

#[test]
fn unknown_fields_and_wrong_types_are_errors() {
    check_errors(
        "image: h/x, phase: PreAuthN, selector: {}, workloadSelector: {matchLabels: {}}, priority: high, config: [1], \
         imagePullPolicy: Never, imagePullSecrets: [{nam: s}]",
        &[
            "f:5:37: `spec.selector`: unknown field, did you mean `workloadSelector`?",
            "f:5:70: `spec.workloadSelector.matchLabels`: unknown field, did you mean `labels`?",
            "f:5:98: `spec.priority`: must be a whole number, is a string",
            "f:5:112: `spec.config`: must be a mapping, is a list",
            "f:5:134: `spec.imagePullPolicy`: `Never` is not one of IfNotPresent, Always",
            "f:5:160: `spec.imagePullSecrets[0].name`: required, but missing",
            "f:5:161: `spec.imagePullSecrets[0].nam`: unknown field, did you mean `name`?",
        ],
    );
    let several = reading(&extension("p", "image: h/x, phase: PreAuthN, imagePullSecrets: [{name: a}, {name: b}]"));
    assert_eq!(
        several.warnings[0].to_string(),
        "f:5:55: `spec.imagePullSecrets`: only the first of several pull secrets is used"
    );
}

#[test]
fn another_version_is_refused() {
    let text = extension("p", "image: h/x").replace("maistra.io/v1", "maistra.io/v1alpha1");
    assert_eq!(
        reading(&text).errors[0].to_string(),
        "f:2:1: `apiVersion`: ServiceMeshExtension has no version `maistra.io/v1alpha1`, only `maistra.io/v1`"
    );
}

fn names(resources: &Resources, direction: Direction, namespace: &str) -> Vec<String> {
    let proxy =
        Proxy { name: "p".to_owned(), namespace: namespace.to_owned(), labels: [].into(), kind: ProxyKind::Sidecar };
    let listener = Listener { direction: Some(direction), port: None, layer: Layer::Http, protocol: None };
    let chain = resolve(
        resources,
        &proxy,
        &listener,
        &MeshOptions { root_namespace: "apps".to_owned(), ..MeshOptions::default() },
    );
    let wasm = chain.filters.iter().filter(|filter| matches!(filter.kind, crate::model::FilterKind::Extension(_)));
    wasm.map(|filter| filter.name().to_owned()).collect()
}

#[test]
fn phases_come_before_priorities_and_only_inbound_traffic_counts() {
    let phases = ["PreAuthN", "PostAuthN", "PreAuthZ", "PostAuthZ", "PreStats", "PostStats"];
    let text: String = phases
        .iter()
        .enumerate()
        .rev()
        .map(|(n, phase)| extension(&phase.to_lowercase(), &format!("image: h/x, phase: {phase}, priority: {n}")))
        .collect();
    let resources = reading(&text).resources;
    let expected = phases.map(str::to_lowercase);
    assert_eq!(names(&resources, Direction::Inbound, "apps"), expected);
    // The control plane's namespace counts everywhere.
    assert_eq!(names(&resources, Direction::Inbound, "shop"), expected);
    assert_eq!(names(&resources, Direction::Outbound, "apps"), Vec::<String>::new());
}
