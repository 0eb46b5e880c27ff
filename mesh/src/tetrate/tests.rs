//! Tetrate's catalogue: what an entry says, who may use it, and where it then runs.

use crate::chain::resolve;
use crate::model::{Attach, Dialect, Direction, Extension, FilterKind, Layer, Listener, Phase, Proxy, ProxyKind};
use crate::resources::{Reading, Source, read};
use crate::{MeshOptions, Resources};

fn reading(text: &str) -> Reading {
    read(&[Source { file: "f".to_owned(), text: text.to_owned() }])
}

fn errors(text: &str) -> Vec<String> {
    let reading = reading(text);
    let hinted = |problem: &crate::Problem| match problem.hint() {
        Some(hint) => format!("{problem}; hint: {hint}"),
        None => problem.to_string(),
    };
    reading.errors.iter().map(hinted).collect()
}

#[track_caller]
fn resources(texts: &[String]) -> Resources {
    let reading = reading(&texts.concat());
    assert_eq!(reading.errors, []);
    reading.resources
}

fn document(version: &str, kind: &str, home: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: {version}.tetrate.io/v2\nkind: {kind}\nmetadata: {{organization: org, name: {name}{home}}}\nspec: {{{spec}}}\n"
    )
}

fn entry(name: &str, spec: &str) -> String {
    document("extension.tsb", "WasmExtension", "", name, &format!("image: 'oci://h/{name}:1'{spec}"))
}

fn gateway(kind: &str, name: &str, tenant: &str, list: &str) -> String {
    let field = if kind == "Gateway" { "wasmPlugins" } else { "extension" };
    document(
        "gateway.tsb",
        kind,
        &format!(", tenant: {tenant}, workspace: w, group: g"),
        name,
        &format!("workloadSelector: {{namespace: apps, labels: {{app: gw}}}}, http: [{{name: x}}], {field}: [{list}]"),
    )
}

fn workspace(name: &str, tenant: &str, namespaces: &str) -> String {
    let home = format!(", tenant: {tenant}");
    document("tsb", "Workspace", &home, name, &format!("namespaceSelector: {{names: [{namespaces}]}}"))
}

fn tenant_setting(tenant: &str, list: &str) -> String {
    let spec = format!("defaultSecuritySetting: {{authenticationSettings: {{}}, extension: [{list}]}}");
    document("tsb", "TenantSetting", &format!(", tenant: {tenant}"), "default-setting", &spec)
}

fn workspace_setting(list: &str) -> String {
    let spec = format!("defaultSecuritySetting: {{extension: [{list}]}}");
    document("tsb", "WorkspaceSetting", ", tenant: t, workspace: w", "ws", &spec)
}

fn fqn(name: &str) -> String {
    format!("{{fqn: organizations/org/extensions/{name}}}")
}

/// Each extension as `namespace/name configuration`.
fn briefly(resources: &Resources) -> Vec<String> {
    let brief = |extension: &Extension| {
        let config = extension.wasm().and_then(|wasm| wasm.plugin_config.clone()).unwrap_or_default();
        format!("{}/{} {config}", extension.namespace, extension.name)
    };
    resources.extensions.iter().map(brief).collect()
}

#[test]
fn an_entry_that_nothing_uses_is_left_out_with_the_reason() {
    let resources = resources(&[entry("auth", ", phase: AUTHZ")]);
    assert_eq!(resources.extensions, []);
    let left_out = &resources.unattached[0];
    assert_eq!((left_out.namespace.as_str(), left_out.name.as_str()), ("org", "auth"));
    let proxy =
        Proxy { name: "p".to_owned(), namespace: "apps".to_owned(), labels: [].into(), kind: ProxyKind::Sidecar };
    let listener = Listener { direction: Some(Direction::Inbound), port: None, layer: Layer::Http, protocol: None };
    let chain = resolve(&resources, &proxy, &listener, &MeshOptions::default());
    assert_eq!(chain.left_out.len(), 1);
    assert!(chain.left_out[0].reason.contains("no gateway or setting of the input uses it"));
}

#[test]
fn a_gateway_uses_an_entry_and_may_overwrite_its_configuration() {
    let both =
        format!("{}, {{fqn: organizations/org/extensions/b, config: {{k: 2}}, match: [{{mode: CLIENT}}]}}", fqn("a"));
    for kind in ["IngressGateway", "EgressGateway", "Tier1Gateway", "Gateway"] {
        let resources = resources(&[
            entry("a", ", phase: AUTHZ, priority: 7, config: {k: 1}, vmConfig: {env: [{name: A, valueFrom: HOST}]}"),
            entry("b", ", config: {k: 1, l: 1}"),
            gateway(kind, "gw", "t", &both),
        ]);
        assert_eq!(briefly(&resources), [r#"apps/a {"k":1}"#, r#"apps/b {"k":2}"#]);
        let [a, b] = &resources.extensions[..] else { panic!("two uses") };
        assert_eq!((a.phase, a.priority, b.priority), (Phase::Authz, Some(7), Some(0)));
        assert_eq!(a.attach, Attach::Selector([("app".to_owned(), "gw".to_owned())].into()));
        assert_eq!((a.traffic.len(), b.traffic.len()), (0, 1));
        let used_by = format!("{kind} organizations/org/tenants/t/workspaces/w/gatewaygroups/g/gw");
        let fqn = "organizations/org/extensions/a".to_owned();
        assert_eq!(a.dialect, Dialect::Tetrate { fqn, used_by: used_by.clone() });
        assert_eq!(a.id(), format!("WasmExtension apps/a of {used_by}"));
    }
}

#[test]
fn an_empty_configuration_at_the_point_of_use_overwrites_too() {
    let list = "{fqn: organizations/org/extensions/a, config: {}}";
    let resources = resources(&[entry("a", ", config: {k: 1}"), gateway("Gateway", "gw", "t", list)]);
    assert_eq!(briefly(&resources), ["apps/a "]);
}

#[test]
fn a_setting_reaches_the_namespaces_of_its_workspaces_unless_a_more_specific_one_replaces_it() {
    let tenant = [
        entry("a", ""),
        entry("b", ""),
        workspace("w", "t", "'*/one', 'c/two'"),
        workspace("v", "t", "'*/three'"),
        workspace("w", "other", "'*/four'"),
        tenant_setting("t", &fqn("a")),
    ];
    assert_eq!(briefly(&resources(&tenant)), ["one/a ", "three/a ", "two/a "]);
    let replaced = [&tenant[..], &[workspace_setting(&fqn("b"))]].concat();
    assert_eq!(briefly(&resources(&replaced)), ["three/a ", "one/b ", "two/b "]);
    let home = ", tenant: t, workspace: w";
    let group = document("security.tsb", "Group", home, "g", "namespaceSelector: {names: ['*/two']}");
    let list = format!("extension: [{}]", fqn("a"));
    let setting = document("security.tsb", "SecuritySetting", &format!("{home}, group: g"), "s", &list);
    let with_group = [&replaced[..], &[group, setting]].concat();
    assert_eq!(briefly(&resources(&with_group)), ["three/a ", "one/b ", "two/a "]);
}

#[test]
fn a_setting_without_known_namespaces_leaves_its_extensions_out_with_the_reason() {
    let reason = |texts: &[String]| resources(texts).unattached[0].reason.clone();
    let setting = tenant_setting("t", &fqn("a"));
    assert_eq!(
        reason(&[entry("a", ""), setting.clone()]),
        "TenantSetting organizations/org/tenants/t/default-setting uses it, and no Workspace or Group of the input says \
         which namespaces that has."
    );
    assert_eq!(
        reason(&[entry("a", ""), workspace("w", "t", "'*/*'"), setting]),
        "`organizations/org/tenants/t/workspaces/w` has every namespace, of which there is no list."
    );
}

#[test]
fn only_the_tenants_of_allowed_in_may_use_an_entry() {
    let limited = entry("a", ", allowedIn: [organizations/org/tenants/t1]");
    assert_eq!(briefly(&resources(&[limited.clone(), gateway("Gateway", "gw", "t1", &fqn("a"))])), ["apps/a "]);
    assert_eq!(
        errors(&[limited.clone(), gateway("Gateway", "gw", "t2", &fqn("a"))].concat()),
        ["f:10:103: `spec.wasmPlugins[0].fqn`: `organizations/org/tenants/t2` may not use this extension: its \
          `allowedIn` has `organizations/org/tenants/t1`; hint: add the tenant to the extension's `allowedIn`"]
    );
    let list = format!("defaultSecuritySetting: {{extension: [{}]}}", fqn("a"));
    let setting = document("tsb", "OrganizationSetting", "", "o", &list);
    let all = [limited, setting, workspace("w", "t1", "'*/one'"), workspace("w", "t2", "'*/two'")];
    assert_eq!(briefly(&resources(&all)), ["one/a "]);
}

#[test]
fn equal_priorities_are_ordered_by_the_fully_qualified_name() {
    let list = [fqn("foo-bar"), fqn("foo"), fqn("z")].join(", ");
    let resources = resources(&[
        entry("z", ", priority: 1"),
        entry("foo-bar", ""),
        entry("foo", ""),
        gateway("Gateway", "gw", "t", &list),
    ]);
    let proxy = Proxy {
        name: "p".to_owned(),
        namespace: "apps".to_owned(),
        labels: [("app".to_owned(), "gw".to_owned())].into(),
        kind: ProxyKind::Gateway,
    };
    let listener = Listener { direction: None, port: None, layer: Layer::Http, protocol: None };
    let chain = resolve(&resources, &proxy, &listener, &MeshOptions::default());
    let extensions = chain.filters.iter().filter(|filter| matches!(filter.kind, FilterKind::Extension(_)));
    assert_eq!(extensions.map(crate::model::Filter::name).collect::<Vec<_>>(), ["z", "foo", "foo-bar"]);
}

#[test]
fn the_hierarchy_may_be_in_annotations() {
    let annotated = |text: String| {
        text.replace(
            "organization: org, ",
            "annotations: {tsb.tetrate.io/organization: org, tsb.tetrate.io/tenant: t, \
                      tsb.tetrate.io/workspace: w, tsb.tetrate.io/gatewayGroup: g}, ",
        )
        .replace(", tenant: t, workspace: w, group: g", "")
    };
    let texts = [annotated(entry("a", "")), annotated(gateway("IngressGateway", "gw", "t", &fqn("a")))];
    assert_eq!(briefly(&resources(&texts)), ["apps/a "]);
    assert_eq!(
        errors(&entry("a", "").replace("organization: org, ", "")),
        [
            "f:2:1: `metadata`: required: `metadata.organization` (tctl) or the annotation `tsb.tetrate.io/organization` \
          (kubectl)"
        ]
    );
    let homeless = gateway("IngressGateway", "gw", "t", "").replace(", group: g", "");
    assert_eq!(
        errors(&homeless),
        [
            "f:2:1: `metadata`: required: `metadata.group` (tctl) or the annotation `tsb.tetrate.io/gatewayGroup` (kubectl)"
        ]
    );
}

#[test]
fn an_entry_has_rules() {
    #[track_caller]
    fn check(spec: &str, expected: &[&str]) {
        let text = document("extension.tsb", "WasmExtension", "", "a", spec);
        assert_eq!(errors(&text), expected, "{spec}");
    }
    let image = "image: 'oci://h/x'";
    check("", &["f:5:7: `spec.image`: required, but missing"]);
    check("image: h/x", &["f:5:15: `spec.image`: must start with `oci://`, is `h/x`; hint: write `oci://h/x`"]);
    check(
        "image: 'docker://h/x'",
        &["f:5:15: `spec.image`: must start with `oci://`, is `docker://h/x`; hint: write `oci://h/x`"],
    );
    check("url: 'http://h/x.wasm'", &[]);
    check(&format!("{image}, url: 'oci://h/x'"), &["f:5:33: `spec.url`: exactly one of `image` and `url` must be set"]);
    check(
        &format!("{image}, phase: UNSPECIFIED"),
        &["f:5:35: `spec.phase`: `UNSPECIFIED` is not one of UNSPECIFIED_PHASE, AUTHN, AUTHZ, STATS, did you mean \
           `UNSPECIFIED_PHASE`?"],
    );
    check(
        &format!("{image}, allowedIn: ['', tenant1]"),
        &[
            "f:5:40: `spec.allowedIn[0]`: must not be empty",
            "f:5:44: `spec.allowedIn[1]`: `tenant1` is not of the form organizations/ORG/tenants/NAME",
        ],
    );
    check(
        &format!("{image}, vmConfig: {{env: [{{name: 1-a, value: x}}, {{name: _A1, valueFrom: HOST}}]}}"),
        &["f:5:52: `spec.vmConfig.env[0].name`: `1-a` does not match [A-Za-z_][A-Za-z0-9_]*"],
    );
    check(
        &format!("{image}, imagePullPolicy: Never, pluginConfig: {{}}"),
        &[
            "f:5:45: `spec.imagePullPolicy`: `Never` is not one of UNSPECIFIED_POLICY, IfNotPresent, Always",
            "f:5:52: `spec.pluginConfig`: unknown field, did you mean `config`?",
        ],
    );
    let ignored = document(
        "extension.tsb",
        "WasmExtension",
        "",
        "a",
        &format!("{image}, vmConfig: {{env: [{{name: A, valueFrom: HOST, value: x}}]}}"),
    );
    assert_eq!(
        reading(&ignored).warnings[0].to_string(),
        "f:5:79: `spec.vmConfig.env[0].value`: `value` is ignored with `valueFrom: HOST`"
    );
}

#[test]
fn a_use_has_rules() {
    let all = format!("{}, {}, {{fqn: a}}, {{name: a}}, {}", fqn("a"), fqn("a"), fqn("gone"));
    assert_eq!(
        errors(&[entry("a", ""), gateway("IngressGateway", "gw", "t", &all)].concat()),
        [
            "f:10:140: `spec.extension[1].fqn`: the extension `organizations/org/extensions/a` is given twice",
            "f:10:179: `spec.extension[2].fqn`: `a` is not of the form organizations/ORG/extensions/NAME",
            "f:10:183: `spec.extension[3].fqn`: required, but missing",
            "f:10:184: `spec.extension[3].name`: unknown field",
            "f:10:200: `spec.extension[4].fqn`: there is no WasmExtension `organizations/org/extensions/gone` in the \
             input, and leaving it out would give another chain; hint: give the file with that WasmExtension as well",
        ]
    );
    let stricter = tenant_setting("t", &fqn("a")).replace("extension:", "propagationStrategy: STRICTER, extension:");
    assert_eq!(
        errors(&[entry("a", ""), stricter].concat()),
        [
            "f:10:82: `spec.defaultSecuritySetting.propagationStrategy`: extensions under propagation strategy STRICTER are \
          not supported, only under REPLACE"
        ]
    );
    assert_eq!(
        errors(&[entry("a", ""), entry("a", "")].concat()),
        ["f:7:1: WasmExtension org/a is given twice, first at f:2:1"]
    );
    assert_eq!(
        errors(&entry("a", "").replace("tetrate.io/v2", "tetrate.io/v1")),
        ["f:2:1: `apiVersion`: WasmExtension has no version `extension.tsb.tetrate.io/v1`, only \
          `extension.tsb.tetrate.io/v2`"]
    );
}
