//! Every rule of validation, each broken once.

use crate::model::{
    Attach, Dialect, EnvValue, EnvVar, Extension, ExtensionFilter, FailStrategy, Layer, Origin, Phase, PullPolicy,
    TargetRef, TrafficSelector, WasmFilter, WorkloadMode,
};
use crate::resources::{Reading, Source, read};

fn reading(text: &str) -> Reading {
    read(&[Source { file: "f".to_owned(), text: text.to_owned() }])
}

fn plugin(spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: p}}\nspec:\n  {spec}\n")
}

/// The spec's errors and warnings, each with line and column within the spec.
#[track_caller]
fn check(spec: &str, errors: &[&str], warnings: &[&str]) {
    let reading = reading(&plugin(spec));
    let show = |problems: &[crate::Problem]| -> Vec<String> {
        let show = |problem: &crate::Problem| {
            let place = &problem.place;
            let text = problem.to_string();
            let message = text.strip_prefix(&format!("{place}: ")).unwrap();
            let hint = problem.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
            format!("{}:{}: {message}{hint}", place.line - 4, place.column - 2)
        };
        problems.iter().map(show).collect()
    };
    assert_eq!(show(&reading.errors), errors);
    assert_eq!(show(&reading.warnings), warnings);
    assert_eq!(reading.resources.extensions.len(), usize::from(errors.is_empty()));
}

#[track_caller]
fn check_errors(spec: &str, errors: &[&str]) {
    check(&format!("url: oci://h/x\n{spec}"), errors, &[]);
}

#[track_caller]
fn extension(text: &str) -> Extension {
    let mut reading = reading(text);
    assert_eq!(reading.errors, []);
    reading.resources.extensions.pop().unwrap()
}

#[track_caller]
fn wasm(spec: &str) -> WasmFilter {
    match extension(&plugin(spec)).filter {
        ExtensionFilter::Wasm(wasm) => *wasm,
        ExtensionFilter::Lua { .. } => panic!("a WasmPlugin is no Lua"),
    }
}

#[test]
fn every_field_is_read() {
    let text = "
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata:
  name: openid-connect
  namespace: istio-ingress
  creationTimestamp: \"2024-01-31T00:00:00Z\"
spec:
  selector:
    matchLabels: {istio: ingressgateway}
  url: oci://private-registry:5000/openid-connect/openid:latest
  sha256: 1ef0c9a92b0420cf25f7fe5d481b231464bc88f486ca3b9c83ed5cc21d2f6210
  imagePullPolicy: IfNotPresent
  imagePullSecret: pull-secret
  phase: AUTHN
  priority: -7
  pluginName: root
  failStrategy: FAIL_RELOAD
  type: NETWORK
  pluginConfig: {openid_server: authn, k: 1}
  vmConfig:
    env:
    - {name: POD_NAME, valueFrom: HOST}
    - {name: TRUST_DOMAIN, value: cluster.local}
    - {name: EMPTY, valueFrom: INLINE}
  match:
  - mode: SERVER
    ports: [{number: 80}, {number: 443}]
  - {}
";
    let expected = Extension {
        origin: Origin { kind: "WasmPlugin".into(), file: "f".into(), document: 0, line: 2 },
        name: "openid-connect".into(),
        namespace: "istio-ingress".into(),
        created: Some(1_706_659_200_000_000_000),
        resource_version: None,
        phase: Phase::Authn,
        priority: Some(-7),
        attach: Attach::Selector([("istio".to_owned(), "ingressgateway".to_owned())].into()),
        traffic: vec![
            TrafficSelector { mode: WorkloadMode::Server, ports: vec![80, 443] },
            TrafficSelector { mode: WorkloadMode::ClientAndServer, ports: vec![] },
        ],
        filter: ExtensionFilter::Wasm(Box::new(WasmFilter {
            url: "oci://private-registry:5000/openid-connect/openid:latest".into(),
            sha256: Some("1ef0c9a92b0420cf25f7fe5d481b231464bc88f486ca3b9c83ed5cc21d2f6210".into()),
            pull_policy: PullPolicy::IfNotPresent,
            pull_secret: Some("pull-secret".into()),
            plugin_config: Some(r#"{"k":1,"openid_server":"authn"}"#.into()),
            plugin_name: "root".into(),
            fail_strategy: FailStrategy::FailReload,
            env: vec![
                EnvVar { name: "POD_NAME".into(), value: EnvValue::Host },
                EnvVar { name: "TRUST_DOMAIN".into(), value: EnvValue::Inline("cluster.local".into()) },
                EnvVar { name: "EMPTY".into(), value: EnvValue::Inline(String::new()) },
            ],
            layer: Layer::Network,
        })),
        dialect: Dialect::Istio,
    };
    assert_eq!(extension(text), expected);
}

#[test]
fn everything_but_the_url_has_a_default() {
    let read = extension(&plugin("url: h/x"));
    assert_eq!(read.namespace, "default");
    assert_eq!((read.created, read.phase, read.priority), (None, Phase::Unspecified, None));
    assert_eq!((read.attach, read.traffic), (Attach::Namespace, vec![]));
    let wasm = wasm("url: h/x\npluginConfig: {}\nsha256: ''");
    assert_eq!((wasm.sha256, wasm.plugin_config, wasm.plugin_name.as_str()), (None, None, ""));
    assert_eq!((wasm.pull_policy, wasm.fail_strategy), (PullPolicy::Unspecified, FailStrategy::FailClose));
    assert_eq!((wasm.layer, wasm.env), (Layer::Http, vec![]));
}

#[test]
fn named_defaults_are_the_defaults() {
    let read = extension(&plugin("url: h/x\nphase: UNSPECIFIED_PHASE\npriority: null\nmatch: [{mode: UNDEFINED}]"));
    assert_eq!(
        (read.phase, read.priority, read.traffic[0].mode),
        (Phase::Unspecified, None, WorkloadMode::ClientAndServer)
    );
    let wasm = wasm("url: h/x\ntype: UNSPECIFIED_PLUGIN_TYPE\nimagePullPolicy: UNSPECIFIED_POLICY");
    assert_eq!((wasm.layer, wasm.pull_policy), (Layer::Http, PullPolicy::Unspecified));
}

#[test]
fn unknown_fields_are_errors_at_every_level() {
    check_errors(
        "plugin_config: {}
selector: {labels: {a: b}}
vmConfig: {envs: [], env: [{name: A, valuefrom: HOST}]}
match: [{port: 1, ports: [{num: 1, number: 1}]}]
",
        &[
            "2:1: `spec.plugin_config`: unknown field, did you mean `pluginConfig`?",
            "3:12: `spec.selector.labels`: unknown field, did you mean `matchLabels`?",
            "4:12: `spec.vmConfig.envs`: unknown field, did you mean `env`?",
            "4:38: `spec.vmConfig.env[0].valuefrom`: unknown field, did you mean `valueFrom`?",
            "5:10: `spec.match[0].port`: unknown field, did you mean `ports`?",
            "5:28: `spec.match[0].ports[0].num`: unknown field, did you mean `number`?",
        ],
    );
}

#[test]
fn url_is_required_and_has_rules() {
    check("phase: AUTHN", &["1:1: `spec.url`: required, but missing"], &[]);
    check("url: ''", &["1:6: `spec.url`: must not be empty"], &[]);
    check("url: 1", &["1:6: `spec.url`: must be a string, is a number; hint: put the value in quotes"], &[]);
    check(
        "url: registry:5000/x",
        &["1:6: `spec.url`: Istio reads what stands before the first `:` of `registry:5000/x` as a URL scheme, and \
         rejects it; hint: write `oci://registry:5000/x`"],
        &[],
    );
}

#[test]
fn sha256_is_64_lower_case_hex_digits_and_agrees_with_the_url() {
    let hex = "ab".repeat(32);
    check_errors(&format!("sha256: {hex}"), &[]);
    check_errors("sha256: abc", &["2:9: `spec.sha256`: `abc` is not a checksum of 64 lower-case hex digits"]);
    let shout = hex.to_uppercase();
    let expected =
        format!("2:9: `spec.sha256`: `{shout}` is not a checksum of 64 lower-case hex digits; hint: write `{hex}`");
    check_errors(&format!("sha256: {shout}"), &[&expected]);
    let expected = format!(
        "2:9: `spec.sha256`: `sha256:{hex}` is not a checksum of 64 lower-case hex digits; hint: write `{hex}`"
    );
    check_errors(&format!("sha256: sha256:{hex}"), &[&expected]);

    let other = "cd".repeat(32);
    check(&format!("url: h/x@sha256:{hex}\nsha256: {hex}"), &[], &[]);
    let expected = format!("2:9: `spec.sha256`: differs from the digest in `url`, sha256:{hex}");
    check(&format!("url: h/x@sha256:{hex}\nsha256: {other}"), &[&expected], &[]);
}

#[test]
fn enumerations_name_their_values() {
    check_errors(
        "phase: AUTHENTICATION
type: TCP
failStrategy: FAIL-OPEN
imagePullPolicy: always
match: [{mode: INBOUND}]
vmConfig: {env: [{name: A, valueFrom: host}]}
",
        &[
            "2:8: `spec.phase`: `AUTHENTICATION` is not one of UNSPECIFIED_PHASE, AUTHN, AUTHZ, STATS",
            "3:7: `spec.type`: `TCP` is not one of UNSPECIFIED_PLUGIN_TYPE, HTTP, NETWORK",
            "4:15: `spec.failStrategy`: `FAIL-OPEN` is not one of FAIL_CLOSE, FAIL_OPEN, FAIL_RELOAD, did you mean \
             `FAIL_OPEN`?",
            "5:18: `spec.imagePullPolicy`: `always` is not one of UNSPECIFIED_POLICY, IfNotPresent, Always, did you \
             mean `Always`?",
            "6:16: `spec.match[0].mode`: `INBOUND` is not one of UNDEFINED, CLIENT, SERVER, CLIENT_AND_SERVER",
            "7:39: `spec.vmConfig.env[0].valueFrom`: `host` is not one of INLINE, HOST, did you mean `HOST`?",
        ],
    );
}

#[test]
fn priority_is_an_integer_of_32_bits() {
    check_errors("priority: 2147483647", &[]);
    check_errors("priority: 1.0", &[]);
    check_errors(
        "priority: 2147483648",
        &["2:11: `spec.priority`: 2147483648 is not between -2147483648 and 2147483647"],
    );
    check_errors(
        "priority: 99999999999999999999999",
        &["2:11: `spec.priority`: 1e23 is not between -2147483648 and 2147483647"],
    );
    check_errors("priority: '1'", &["2:11: `spec.priority`: must be a whole number, is a string"]);
}

#[test]
fn null_is_no_value_except_for_the_priority() {
    check_errors(
        "phase: null\nselector:\npluginConfig: ~\npriority: ~",
        &[
            "2:8: `spec.phase`: must be a string, is null",
            "3:9: `spec.selector`: must be a mapping, is null",
            "4:15: `spec.pluginConfig`: must be a mapping, is null",
        ],
    );
}

#[test]
fn secret_and_plugin_names_have_lengths() {
    let (longest, too_long) = ("n".repeat(253), "n".repeat(254));
    check_errors(&format!("imagePullSecret: {longest}\npluginName: {}", "é".repeat(256)), &[]);
    check_errors(
        &format!("imagePullSecret: {too_long}\npluginName: {}", "é".repeat(257)),
        &[
            "2:18: `spec.imagePullSecret`: has 254 characters, must have 1 to 253",
            "3:13: `spec.pluginName`: has 257 characters, must have 1 to 256",
        ],
    );
    check_errors(
        "imagePullSecret: ''\npluginName: ''",
        &[
            "2:18: `spec.imagePullSecret`: has 0 characters, must have 1 to 253",
            "3:13: `spec.pluginName`: has 0 characters, must have 1 to 256",
        ],
    );
}

#[test]
fn verification_key_is_accepted_and_warned_of() {
    check(
        "url: h/x\nverificationKey: k",
        &[],
        &["2:18: `spec.verificationKey`: Istio does not verify signatures: it accepts this field and ignores it"],
    );
}

#[test]
fn at_most_one_way_of_attaching() {
    let target = "{kind: Gateway, group: gateway.networking.k8s.io, name: g}";
    let says = |place: &str| format!("{place}: at most one of `selector`, `targetRef` and `targetRefs` can be set");
    let selector = "selector: {matchLabels: {a: b}}";
    check_errors(&format!("{selector}\ntargetRef: {target}"), &[&says("3:12: `spec.targetRef`")]);
    check_errors(&format!("{selector}\ntargetRefs: [{target}]"), &[&says("3:13: `spec.targetRefs`")]);
    check_errors(&format!("targetRef: {target}\ntargetRefs: [{target}]"), &[&says("3:13: `spec.targetRefs`")]);
}

#[test]
fn empty_selector_is_a_warning_and_a_wildcard_an_error() {
    let says = "the selector is empty, so it selects every workload in scope; hint: leave `selector` out, which means the same";
    let empty = format!("2:11: `spec.selector`: {says}");
    check("url: h/x\nselector: {}", &[], &[&empty]);
    check("url: h/x\nselector: {matchLabels: {}}", &[], &[&empty]);
    check_errors(
        "selector: {matchLabels: {a: b*, 'c*': d}}",
        &[
            "2:29: `spec.selector.matchLabels.a`: `b*` has a `*`: wildcards are not allowed in a selector",
            "2:39: `spec.selector.matchLabels[\"c*\"]`: `c*` has a `*`: wildcards are not allowed in a selector",
        ],
    );
}

#[test]
fn labels_have_keys_and_short_string_values_and_are_not_too_many() {
    check_errors(
        &format!("selector: {{matchLabels: {{'': b, v: {}, w: 1}}}}", "x".repeat(64)),
        &[
            "2:30: `spec.selector.matchLabels[\"\"]`: must not be empty",
            "2:36: `spec.selector.matchLabels.v`: has 64 characters, must have 0 to 63",
            "2:105: `spec.selector.matchLabels.w`: must be a string, is a number; hint: put the value in quotes",
        ],
    );
    let many = |count: usize| {
        let labels: Vec<_> = (0..count).map(|n| format!("    k{n}: v")).collect();
        format!("selector:\n  matchLabels:\n{}", labels.join("\n"))
    };
    check_errors(&many(4096), &[]);
    check_errors(&many(4097), &["4:5: `spec.selector.matchLabels`: has 4097 entries, at most 4096 are allowed"]);
}

#[test]
fn the_four_kinds_of_target_are_read() {
    let read = extension(&plugin(
        "url: h/x
targetRefs:
- {kind: Gateway, group: gateway.networking.k8s.io, name: a, namespace: ''}
- {kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}
- {kind: Service, name: b}
- {kind: Service, group: core, name: c}
- {kind: ServiceEntry, group: networking.istio.io, name: d}",
    ));
    let target = |group: &str, kind: &str, name: &str| TargetRef {
        group: group.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let expected = Attach::TargetRefs(vec![
        target("gateway.networking.k8s.io", "Gateway", "a"),
        target("gateway.networking.k8s.io", "GatewayClass", "istio-waypoint"),
        target("", "Service", "b"),
        target("core", "Service", "c"),
        target("networking.istio.io", "ServiceEntry", "d"),
    ]);
    assert_eq!(read.attach, expected);
}

#[test]
fn the_older_target_ref_is_read() {
    let read = extension(&plugin("url: h/x\ntargetRef: {kind: Service, name: a}"));
    assert!(matches!(read.attach, Attach::TargetRefs(refs) if refs.len() == 1 && refs[0].name == "a"));
    let read = extension(&plugin("url: h/x\ntargetRefs: []"));
    assert_eq!(read.attach, Attach::Namespace);
}

#[test]
fn targets_need_name_and_kind_and_allow_no_namespace() {
    let targets = "Gateway and GatewayClass of gateway.networking.k8s.io, Service of the core group, and ServiceEntry \
                   of networking.istio.io";
    check_errors(
        "targetRefs:
- {kind: Gateway, group: gateway.networking.k8s.io}
- {name: a}
- {kind: Service, name: a, namespace: b}
- {kind: Gateway, name: a}
- {kind: Service, name: ''}
- {kind: Deployment, group: apps, name: a}
",
        &[
            "3:3: `spec.targetRefs[0].name`: required, but missing",
            "4:3: `spec.targetRefs[1].kind`: required, but missing",
            "5:39: `spec.targetRefs[2].namespace`: a target must be in the resource's own namespace, `namespace` is \
             not allowed",
            &format!(
                "6:10: `spec.targetRefs[3].kind`: cannot attach to kind `Gateway` of group ``: targets are {targets}; \
                 hint: write `group: gateway.networking.k8s.io`"
            ),
            "7:25: `spec.targetRefs[4].name`: has 0 characters, must have 1 to 253",
            &format!(
                "8:10: `spec.targetRefs[5].kind`: cannot attach to kind `Deployment` of group `apps`: targets are \
                 {targets}"
            ),
        ],
    );
}

#[test]
fn at_most_sixteen_targets() {
    let targets = |count| format!("targetRefs: [{}]", ["{kind: Service, name: a}"].repeat(count).join(", "));
    check_errors(&targets(16), &[]);
    check_errors(&targets(17), &["2:13: `spec.targetRefs`: has 17 entries, at most 16 are allowed"]);
}

#[test]
fn variables_have_unique_names_and_short_values() {
    let value = |length| "v".repeat(length);
    check_errors(&format!("vmConfig: {{env: [{{name: A, value: {}}}]}}", value(2048)), &[]);
    check_errors(
        &format!(
            "vmConfig:
  env:
  - {{name: A, valueFrom: HOST}}
  - {{name: A}}
  - {{name: ''}}
  - {{value: x}}
  - {{name: B, value: {}}}
  - {{name: C, valueFrom: HOST, value: ''}}
  - {{name: D, value: 1}}
  - {{name: {}}}
  - {{name: C}}
",
            value(2049),
            value(257)
        ),
        &[
            "5:12: `spec.vmConfig.env[1].name`: the variable `A` is given twice",
            "6:12: `spec.vmConfig.env[2].name`: has 0 characters, must have 1 to 256",
            "7:5: `spec.vmConfig.env[3].name`: required, but missing",
            "8:22: `spec.vmConfig.env[4].value`: has 2049 characters, must have 0 to 2048",
            "9:39: `spec.vmConfig.env[5].value`: `value` is not allowed with `valueFrom: HOST`, which takes the \
             proxy's own",
            "10:22: `spec.vmConfig.env[6].value`: must be a string, is a number; hint: put the value in quotes",
            "11:12: `spec.vmConfig.env[7].name`: has 257 characters, must have 1 to 256",
            "12:12: `spec.vmConfig.env[8].name`: the variable `C` is given twice",
        ],
    );
}

#[test]
fn at_most_256_variables() {
    let variables = |count: usize| {
        let each: Vec<_> = (0..count).map(|n| format!("{{name: V{n}}}")).collect();
        format!("vmConfig: {{env: [{}]}}", each.join(", "))
    };
    check_errors(&variables(256), &[]);
    check_errors(&variables(257), &["2:17: `spec.vmConfig.env`: has 257 entries, at most 256 are allowed"]);
}

#[test]
fn a_variable_name_that_is_no_c_identifier_is_a_warning() {
    let says = |place: &str, name: &str| {
        format!("{place}`{name}` is not a C identifier, as the API requires; Istio does not reject it")
    };
    check(
        "url: h/x\nvmConfig: {env: [{name: a-b}, {name: 1a}, {name: _a1}]}",
        &[],
        &[&says("2:25: `spec.vmConfig.env[0].name`: ", "a-b"), &says("2:38: `spec.vmConfig.env[1].name`: ", "1a")],
    );
}

#[test]
fn ports_are_required_unique_and_in_range() {
    check_errors(
        "match:
- ports: [{number: 1}, {number: 65535}, {number: 1}]
- ports: [{}, {number: 0}, {number: 65536}, {number: '80'}]
",
        &[
            "3:50: `spec.match[0].ports[2].number`: port 1 is given twice",
            "4:11: `spec.match[1].ports[0].number`: required, but missing",
            "4:24: `spec.match[1].ports[1].number`: 0 is not between 1 and 65535",
            "4:37: `spec.match[1].ports[2].number`: 65536 is not between 1 and 65535",
            "4:54: `spec.match[1].ports[3].number`: must be a whole number, is a string",
        ],
    );
}

#[test]
fn traffic_extension_has_exactly_one_of_wasm_and_lua() {
    let text = |spec: &str| {
        format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {{name: t}}\nspec: {{{spec}}}"
        )
    };
    let code = "inlineCode: 'function envoy_on_request(h) end'";
    let read = extension(&text(&format!("phase: UNSPECIFIED, lua: {{{code}}}")));
    assert_eq!(read.filter, ExtensionFilter::Lua { inline_code: "function envoy_on_request(h) end".to_owned() });
    let read = extension(&text("phase: STATS, wasm: {url: h/x, type: NETWORK}"));
    assert!(matches!(read.filter, ExtensionFilter::Wasm(wasm) if wasm.layer == Layer::Network));

    let errors = |spec: &str| reading(&text(spec)).errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(errors("phase: AUTHN"), ["f:4:7: `spec`: exactly one of `wasm` and `lua` must be set"]);
    assert_eq!(
        errors(&format!("wasm: {{url: h/x}}, lua: {{{code}}}")),
        ["f:4:7: `spec`: exactly one of `wasm` and `lua` must be set"]
    );
    assert_eq!(
        errors("lua: {inlineCode: 'return'}"),
        ["f:4:26: `spec.lua.inlineCode`: the script must define `envoy_on_request` or `envoy_on_response`"]
    );
    assert_eq!(
        errors("lua: {inlineCode: ''}"),
        ["f:4:26: `spec.lua.inlineCode`: has 0 characters, must have 1 to 65536"]
    );
    assert_eq!(
        errors("url: h/x, wasm: {url: h/x}, targetRef: {kind: Service, name: a}, phase: UNSPECIFIED_PHASE"),
        [
            "f:4:8: `spec.url`: unknown field",
            "f:4:36: `spec.targetRef`: unknown field, did you mean `targetRefs`?",
            "f:4:80: `spec.phase`: `UNSPECIFIED_PHASE` is not one of UNSPECIFIED, AUTHN, AUTHZ, STATS, did you mean \
             `UNSPECIFIED`?",
        ]
    );
}
