use super::{Action, Condition, Key, PolicySpec};
use crate::model::{Direction, Layer, Listener, Proxy, ProxyKind};
use crate::{MeshOptions, Reading, Source, read, resolve};

fn reading(text: &str) -> Reading {
    read(&[Source { file: "f".to_owned(), text: text.to_owned() }])
}

fn policy(kind: &str, spec: &str) -> String {
    format!("{{apiVersion: security.istio.io/v1, kind: {kind}, metadata: {{name: p, namespace: ns}},\nspec: {spec}}}\n")
}

/// Each error and warning without its file, line and column.
#[track_caller]
fn check(kind: &str, spec: &str, expected: &[&str]) {
    let reading = reading(&policy(kind, spec));
    let problems = reading.errors.iter().chain(&reading.warnings);
    let shown: Vec<String> = problems.map(|p| p.to_string().splitn(4, ':').nth(3).unwrap().trim().to_owned()).collect();
    assert_eq!(shown, expected, "{spec}");
    assert_eq!(reading.resources.policies.is_empty(), !reading.errors.is_empty(), "{spec}");
}

#[track_caller]
fn jwt_rule(rule: &str, expected: &[&str]) {
    check("RequestAuthentication", &format!("{{jwtRules: [{rule}]}}"), expected);
}

#[track_caller]
fn rule(rule: &str, expected: &[&str]) {
    check("AuthorizationPolicy", &format!("{{rules: [{rule}]}}"), expected);
}

#[test]
fn a_jwt_rule_has_every_field() {
    let text = policy(
        "RequestAuthentication",
        r#"{jwtRules: [{issuer: i, audiences: [a], jwks: '{"keys": []}', fromHeaders: [{name: X-T, prefix: "T "}],
            fromParams: [q], fromCookies: [c], forwardOriginalToken: true, outputPayloadToHeader: x-p, timeout: 1.5s,
            outputClaimToHeaders: [{header: x-c, claim: a.b}], spaceDelimitedClaims: [roles]},
            {jwks_uri: "http://keys/jwks"}]}"#,
    );
    let reading = reading(&text);
    assert_eq!(reading.errors, []);
    let PolicySpec::Jwt(rules) = &reading.resources.policies[0].spec else { panic!("not jwt") };
    let one = &rules[0];
    assert_eq!((one.policy.as_str(), one.issuer.as_str(), one.timeout), ("ns/p", "i", Some(1500)));
    assert_eq!((one.from_headers[0].name.as_str(), one.from_headers[0].prefix.as_str()), ("X-T", "T "));
    assert_eq!((&one.audiences[0], &one.from_params[0], &one.from_cookies[0]), (&"a".into(), &"q".into(), &"c".into()));
    assert!(one.forward_original_token);
    assert_eq!(one.output_payload_to_header.as_deref(), Some("x-p"));
    assert_eq!((one.output_claim_to_headers[0].claim.as_str(), one.spaces()), ("a.b", vec!["roles"]));
    assert_eq!(rules[1].jwks_uri.as_deref(), Some("http://keys/jwks"));
}

impl super::JwtRule {
    fn spaces(&self) -> Vec<&str> {
        self.space_delimited_claims.iter().map(String::as_str).collect()
    }
}

#[test]
fn wrong_jwt_rules_are_refused_by_field() {
    jwt_rule("{issuer: i, jwkUri: x}", &["`spec.jwtRules[0].jwkUri`: unknown field, did you mean `jwksUri`?"]);
    jwt_rule("{audiences: [a]}", &["`spec.jwtRules[0]`: one of `issuer` and `jwksUri` must be set"]);
    jwt_rule(
        "{issuer: i, jwks: '{}', jwksUri: 'http://x'}",
        &["`spec.jwtRules[0].jwksUri`: only one of `jwks` and `jwksUri` can be set"],
    );
    jwt_rule("{issuer: i, jwksUri: ftp://x}", &["`spec.jwtRules[0].jwksUri`: `ftp://x` is not an http or https URL"]);
    jwt_rule(
        "{issuer: i, jwks: 'secret'}",
        &["`spec.jwtRules[0].jwks`: is not a JSON Web Key Set: line 1 column 1 is not JSON"],
    );
    jwt_rule(
        "{issuer: i, outputClaimToHeaders: [{header: 'x y', claim: c}]}",
        &[
            "`spec.jwtRules[0].outputClaimToHeaders[0].header`: `x y` is not a header name: letters, digits, `-` and `_`",
        ],
    );
    jwt_rule(
        "{issuer: i, timeout: 5m}",
        &[
            "`spec.jwtRules[0].timeout`: `5m` is not a duration of at least 1 ms: expected seconds, for example `5s` or \
           `0.5s`",
        ],
    );
    jwt_rule(
        "{issuer: i, forwardOriginalToken: 'true'}",
        &["`spec.jwtRules[0].forwardOriginalToken`: must be a boolean, is a string"],
    );
    jwt_rule(
        "{issuer: i, fromHeaders: [{prefix: x}]}",
        &["`spec.jwtRules[0].fromHeaders[0].name`: required, but missing"],
    );
    check(
        "RequestAuthentication",
        "{jwtRules: [], rules: []}",
        &["`spec.rules`: unknown field, did you mean `jwtRules`?"],
    );
}

#[test]
fn wrong_rules_are_refused_by_field() {
    rule("{form: []}", &["`spec.rules[0].form`: unknown field, did you mean `from`?"]);
    rule("{from: []}", &["`spec.rules[0].from`: must not be an empty list; leave it out to match everything"]);
    rule("{from: [{source: {}}]}", &["`spec.rules[0].from[0].source`: must set at least one field"]);
    rule("{to: [{}]}", &["`spec.rules[0].to[0].operation`: required, but missing"]);
    rule("{to: [{operation: {methods: []}}]}", &["`spec.rules[0].to[0].operation`: must set at least one field"]);
    rule(
        "{from: [{source: {ipBlocks: [10.0.0.0/33, 1.2.3]}}]}",
        &[
            "`spec.rules[0].from[0].source.ipBlocks[0]`: `10.0.0.0/33` is neither an IP address nor a CIDR range",
            "`spec.rules[0].from[0].source.ipBlocks[1]`: `1.2.3` is neither an IP address nor a CIDR range",
        ],
    );
    rule(
        "{to: [{operation: {ports: ['80', '65536']}}]}",
        &["`spec.rules[0].to[0].operation.ports[1]`: `65536` is not a port between 0 and 65535"],
    );
    rule(
        "{to: [{operation: {ports: [80]}}]}",
        &["`spec.rules[0].to[0].operation.ports[0]`: must be a string, is a number"],
    );
    rule(
        "{to: [{operation: {paths: ['/{*}/{**}/{*}', '/x{*}', '/{*}/a*', '/a/*/{**}']}}]}",
        &[
            "`spec.rules[0].to[0].operation.paths[0]`: `/{*}/{**}/{*}` is not a path template: nothing but text can \
             follow `{**}`",
            "`spec.rules[0].to[0].operation.paths[1]`: `/x{*}` is not a path template: `{*}` and `{**}` are whole \
             segments, and there are no others",
            "`spec.rules[0].to[0].operation.paths[2]`: `/{*}/a*` is not a path template: `{*}` and `{**}` are whole \
             segments, and there are no others",
            "`spec.rules[0].to[0].operation.paths[3]`: `/a/*/{**}` is not a path template: `{*}` and `{**}` are whole \
             segments, and there are no others",
        ],
    );
    rule(
        "{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}",
        &["`spec.rules[0].from[0].source`: `serviceAccounts` cannot be used with `principals` or `namespaces`"],
    );
    rule(
        "{when: [{key: request.header, values: [a]}]}",
        &["`spec.rules[0].when[0].key`: `request.header` is not an attribute that a condition can use"],
    );
    rule(
        "{when: [{key: 'request.headers[]', values: [a]}]}",
        &["`spec.rules[0].when[0].key`: `request.headers[]` must have the form request.headers[NAME]"],
    );
    rule(
        "{when: [{key: source.ip}]}",
        &["`spec.rules[0].when[0]`: at least one of `values` and `notValues` must be set"],
    );
    rule("{when: [{key: connection.sni, values: ['']}]}", &["`spec.rules[0].when[0].values[0]`: must not be empty"]);
    rule(
        "{when: [{key: source.ip, values: [nowhere]}]}",
        &["`spec.rules[0].when[0].values[0]`: `nowhere` is neither an IP address nor a CIDR range"],
    );
}

#[test]
fn actions_have_rules_of_their_own() {
    let kind = "AuthorizationPolicy";
    check(kind, "{}", &[]);
    check(
        kind,
        "{action: ALOW}",
        &["`spec.action`: `ALOW` is not one of ALLOW, DENY, AUDIT, CUSTOM, did you mean `ALLOW`?"],
    );
    check(
        kind,
        "{action: DENY}",
        &["`spec`: DENY without `rules` never matches; write `rules: [{}]` to match every request"],
    );
    check(kind, "{action: CUSTOM, rules: [{}]}", &["`spec.provider`: required, but missing"]);
    check(kind, "{provider: {name: p}}", &["`spec.provider`: `provider` needs `action: CUSTOM`"]);
    check(
        kind,
        "{action: CUSTOM, provider: {name: p}, rules: [{from: [{source: {principals: [a]}}]}]}",
        &["`spec.rules[0].from[0].source`: cannot be used with `action: CUSTOM`"],
    );
    check(
        kind,
        "{action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}]}",
        &[
            "`spec.rules[0]`: the rule has HTTP attributes only, so Istio denies all traffic to TCP ports; name the ports \
           it is for",
        ],
    );
    check(kind, "{action: DENY, rules: [{to: [{operation: {ports: ['80']}}]}]}", &[]);
}

#[test]
fn fields_become_conditions() {
    let text = policy(
        "AuthorizationPolicy",
        "{rules: [{from: [{source: {principals: [a], notIpBlocks: [10.0.0.0/8]}}], to: [{operation: {notPaths: [/x]}}],
         when: [{key: 'request.auth.claims[a][b]', values: [v]}, {key: 'request.headers[X-A]', notValues: [w]},
         {key: 'experimental.envoy.filters.http.x[k]', values: [v]}]}]}",
    );
    let reading = reading(&text);
    assert_eq!(reading.errors, []);
    let PolicySpec::Authorization(policy) = &reading.resources.policies[0].spec else { panic!("not authorization") };
    let condition = |key, values: &[&str], not_values: &[&str]| Condition {
        key,
        values: values.iter().map(|v| (*v).to_owned()).collect(),
        not_values: not_values.iter().map(|v| (*v).to_owned()).collect(),
    };
    assert_eq!((policy.action, policy.dry_run), (Action::Allow, false));
    let rule = &policy.rules[0];
    assert_eq!(
        rule.from,
        [[condition(Key::SourcePrincipal, &["a"], &[]), condition(Key::SourceIp, &[], &["10.0.0.0/8"])]]
    );
    assert_eq!(rule.to, [[condition(Key::Path, &[], &["/x"])]]);
    let filter = "envoy.filters.http.x".to_owned();
    assert_eq!(
        rule.when,
        [
            condition(Key::RequestClaim(vec!["a".to_owned(), "b".to_owned()]), &["v"], &[]),
            condition(Key::RequestHeader("X-A".to_owned()), &[], &["w"]),
            condition(Key::FilterMetadata { filter, key: "k".to_owned() }, &["v"], &[]),
        ]
    );
}

#[test]
fn a_dry_run_is_an_annotation() {
    let with = |value: &str| {
        reading(&format!(
            "{{apiVersion: security.istio.io/v1beta1, kind: AuthorizationPolicy, metadata: {{name: p, annotations: \
             {{istio.io/dry-run: '{value}'}}}}}}"
        ))
    };
    let dry_run = |reading: &Reading| match &reading.resources.policies[0].spec {
        PolicySpec::Authorization(policy) => policy.dry_run,
        PolicySpec::Jwt(_) => panic!("not authorization"),
    };
    assert!(dry_run(&with("true")));
    assert!(!dry_run(&with("False")));
    let odd = with("yes");
    assert!(!dry_run(&odd));
    assert_eq!(
        odd.warnings[0].to_string(),
        "f:1:120: `metadata.annotations[\"istio.io/dry-run\"]`: `yes` is not a boolean, so Istio enforces the policy"
    );
}

#[test]
fn a_version_that_does_not_exist_is_refused() {
    let reading = reading("{apiVersion: security.istio.io/v2, kind: AuthorizationPolicy, metadata: {name: p}}");
    assert_eq!(
        reading.errors[0].to_string(),
        "f:1:1: `apiVersion`: AuthorizationPolicy has no version `security.istio.io/v2`, only `security.istio.io/v1`"
    );
}

#[test]
fn a_chain_carries_the_policies_that_apply_root_namespace_first() {
    let policy = |namespace: &str, name: &str, spec: &str| {
        let kind = if spec.contains("jwtRules") { "RequestAuthentication" } else { "AuthorizationPolicy" };
        format!(
            "---\n{{apiVersion: security.istio.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, \
             spec: {{{spec}}}}}\n"
        )
    };
    let text = [
        policy("apps", "own", "rules: [{}]"),
        policy("istio-system", "root", "action: DENY, rules: [{}]"),
        policy("apps", "others", "selector: {matchLabels: {app: other}}, rules: [{}]"),
        policy("elsewhere", "far", "rules: [{}]"),
        policy("apps", "b", "jwtRules: [{issuer: z}, {issuer: a}]"),
        policy("istio-system", "a", "jwtRules: [{issuer: m}]"),
    ];
    let resources = reading(&text.concat()).resources;
    let proxy = Proxy {
        name: "p".to_owned(),
        namespace: "apps".to_owned(),
        labels: [("app".to_owned(), "p".to_owned())].into(),
        kind: ProxyKind::Sidecar,
    };
    let chain = |direction| {
        let listener = Listener { direction: Some(direction), port: None, layer: Layer::Http, protocol: None };
        resolve(&resources, &proxy, &listener, &MeshOptions::default()).policies
    };
    let policies = chain(Direction::Inbound);
    let names: Vec<_> = policies.authorization.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["root", "own"]);
    let issuers: Vec<_> = policies.jwt_rules.iter().map(|rule| rule.issuer.as_str()).collect();
    assert_eq!(issuers, ["a", "m", "z"]);
    assert!(chain(Direction::Outbound).is_empty());
}
