//! `envoy.filters.http.rbac` as Istio's control plane writes it for `AuthorizationPolicy`: one filter for each action.

use serde_json::{Map, Value, json};

use super::{EnvoyError, any, filter};
use crate::policy::{Action, AuthorizationPolicy, Condition, Key, Rule};

const NAME: &str = "envoy.filters.http.rbac";
const KIND: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";
const PAYLOAD: &str = "payload";

/// The filters, in order. `port` is the one that the chain is for.
pub(super) fn rbac(policies: &[AuthorizationPolicy], port: u16) -> Result<Vec<Value>, EnvoyError> {
    if let Some(custom) = policies.iter().find(|policy| policy.action == Action::Custom) {
        let filter = format!("AuthorizationPolicy {}/{}, whose action is CUSTOM,", custom.namespace, custom.name);
        return Err(EnvoyError::NotTranslated { filter });
    }
    let mut filters = Vec::new();
    for (action, name, prefix) in [
        (Action::Audit, "LOG", "istio_dry_run_audit_"),
        (Action::Deny, "DENY", "istio_dry_run_deny_"),
        (Action::Allow, "ALLOW", "istio_dry_run_allow_"),
    ] {
        let mut config = Map::new();
        for (dry_run, field) in [(false, "rules"), (true, "shadow_rules")] {
            let of: Vec<_> = policies.iter().filter(|p| p.action == action && p.dry_run == dry_run).collect();
            if of.is_empty() {
                continue;
            }
            let mut rules = Map::new();
            for policy in of {
                for (index, rule) in policy.rules.iter().enumerate() {
                    let name = format!("ns[{}]-policy[{}]-rule[{index}]", policy.namespace, policy.name);
                    rules.insert(name, written(rule, policy, port)?);
                }
            }
            config.insert(field.to_owned(), json!({"action": name, "policies": rules}));
            if dry_run {
                config.insert("shadow_rules_stat_prefix".to_owned(), prefix.into());
            }
        }
        if !config.is_empty() {
            filters.push(filter(NAME, KIND, config.into()));
        }
    }
    Ok(filters)
}

/// Any of `to`, any of `from`, and all of `when`, which are split by what they ask about.
fn written(rule: &Rule, policy: &AuthorizationPolicy, port: u16) -> Result<Value, EnvoyError> {
    let all = |conditions: &[Condition], permission: bool| -> Result<Vec<Value>, EnvoyError> {
        let of = conditions.iter().filter(|condition| is_permission(&condition.key) == permission);
        of.map(|condition| matcher(condition, policy, permission, port)).collect()
    };
    let side = |entries: &[Vec<Condition>], permission: bool| -> Result<Value, EnvoyError> {
        let (ands, ors, list) =
            if permission { ("and_rules", "or_rules", "rules") } else { ("and_ids", "or_ids", "ids") };
        let mut conjunction = Vec::new();
        let mut alternatives = Vec::new();
        for entry in entries {
            // Methods, paths and hosts are permissions; an entry of `to` has nothing else.
            let entry = entry.iter().map(|condition| matcher(condition, policy, permission, port));
            alternatives.push(nested(ands, list, &entry.collect::<Result<Vec<_>, _>>()?));
        }
        if !alternatives.is_empty() {
            conjunction.push(nested(ors, list, &alternatives));
        }
        conjunction.extend(all(&rule.when, permission)?);
        Ok(nested(ands, list, &conjunction))
    };
    Ok(json!({"permissions": [side(&rule.to, true)?], "principals": [side(&rule.from, false)?]}))
}

/// An empty conjunction is no restriction.
fn nested(kind: &str, list: &str, of: &[Value]) -> Value {
    if of.is_empty() { json!({"any": true}) } else { json!({kind: {list: of}}) }
}

fn is_permission(key: &Key) -> bool {
    matches!(
        key,
        Key::Host
            | Key::Method
            | Key::Path
            | Key::DestinationIp
            | Key::DestinationPort
            | Key::ConnectionSni
            | Key::FilterMetadata { .. }
    )
}

fn matcher(
    condition: &Condition,
    policy: &AuthorizationPolicy,
    permission: bool,
    port: u16,
) -> Result<Value, EnvoyError> {
    let (ors, not, list) = if permission { ("or_rules", "not_rule", "rules") } else { ("or_ids", "not_id", "ids") };
    let any_of = |values: &[String]| -> Result<Value, EnvoyError> {
        let each = values.iter().map(|value| {
            one(&condition.key, value, &policy.namespace, port).ok_or_else(|| EnvoyError::NotTranslated {
                filter: format!("AuthorizationPolicy {}/{} with the value `{value}`", policy.namespace, policy.name),
            })
        });
        Ok(json!({ors: {list: each.collect::<Result<Vec<_>, _>>()?}}))
    };
    let mut both = Vec::new();
    if !condition.values.is_empty() {
        both.push(any_of(&condition.values)?);
    }
    if !condition.not_values.is_empty() {
        both.push(json!({not: any_of(&condition.not_values)?}));
    }
    Ok(nested(if permission { "and_rules" } else { "and_ids" }, list, &both))
}

/// One value of one attribute, in the forms of Istio's generators; `None` when it has not its attribute's form.
fn one(key: &Key, value: &str, namespace: &str, port: u16) -> Option<Value> {
    Some(match key {
        Key::SourceIp => json!({"direct_remote_ip": range(value)?}),
        Key::RemoteIp => json!({"remote_ip": range(value)?}),
        Key::DestinationIp => json!({"destination_ip": range(value)?}),
        // The listener of a test has another port than the one it stands for.
        Key::DestinationPort if value.parse::<u16>().ok()? == port => json!({"any": true}),
        Key::DestinationPort => json!({"not_rule": {"any": true}}),
        Key::SourcePrincipal => json!({"authenticated": {"principal_name": principal(value)}}),
        Key::SourceNamespace => authenticated(&format!(".*/ns/{}/.*", value.replace('*', ".*"))),
        Key::SourceServiceAccount => {
            let (namespace, account) = value.split_once('/').unwrap_or((namespace, value));
            authenticated(&format!("spiffe://.+/ns/{namespace}/(.+/|)sa/{account}(/.+)?"))
        }
        Key::RequestPrincipal => request_principal(value),
        Key::RequestAudiences => claim(&["aud"], value),
        Key::RequestPresenter => claim(&["azp"], value),
        Key::RequestClaim(path) => claim(&path.iter().map(String::as_str).collect::<Vec<_>>(), value),
        Key::RequestHeader(name) => header(name, value, false),
        Key::Method => header(":method", value, false),
        Key::Host => header(":authority", value, true),
        Key::Path if value.contains("{*}") || value.contains("{**}") => {
            let template = value.replace("{*}", "*").replace("{**}", "**");
            json!({"uri_template": {
                "name": "uri-template",
                "typed_config": {
                    "@type": any("envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"),
                    "path_template": template,
                },
            }})
        }
        Key::Path => json!({"url_path": {"path": text(value)}}),
        Key::ConnectionSni => json!({"requested_server_name": text(value)}),
        Key::FilterMetadata { filter, key } => metadata(filter, &[key], value.trim_matches(['[', ']'])),
    })
}

/// Exact, `*suffix`, `prefix*`, or `*` for anything but nothing.
fn text(value: &str) -> Value {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => json!({"safe_regex": {"regex": ".+"}}),
        (Some(suffix), _) => json!({"suffix": suffix}),
        (_, Some(prefix)) => json!({"prefix": prefix}),
        _ => json!({"exact": value}),
    }
}

fn principal(value: &str) -> Value {
    match value.strip_prefix('*') {
        Some("") => text("*"),
        Some(rest) => json!({"safe_regex": {"regex": format!("spiffe://.*{rest}")}}),
        None => text(&format!("spiffe://{value}")),
    }
}

fn authenticated(regex: &str) -> Value {
    json!({"authenticated": {"principal_name": {"safe_regex": {"regex": regex}}}})
}

fn header(name: &str, value: &str, ignore_case: bool) -> Value {
    if value == "*" {
        return json!({"header": {"name": name, "present_match": true}});
    }
    let mut matcher = text(value);
    if ignore_case {
        matcher["ignore_case"] = true.into();
    }
    json!({"header": {"name": name, "string_match": matcher}})
}

fn range(value: &str) -> Option<Value> {
    let (address, bits) = value.split_once('/').map_or((value, None), |(address, bits)| (address, Some(bits)));
    let address: std::net::IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits: u32 = bits.map_or(Some(all), |bits| bits.parse().ok())?;
    Some(json!({"address_prefix": address.to_string(), "prefix_len": bits}))
}

fn claim(path: &[&str], value: &str) -> Value {
    let path: Vec<&str> = [PAYLOAD].iter().chain(path).copied().collect();
    metadata(JWT_AUTHN, &path, value)
}

/// A text, or a list that has it.
fn metadata(filter: &str, path: &[&str], value: &str) -> Value {
    let path: Vec<Value> = path.iter().map(|key| json!({"key": key})).collect();
    let one = json!({"string_match": text(value)});
    let list = json!({"list_match": {"one_of": one}});
    let matcher = json!({"filter": filter, "path": path, "value": {"or_match": {"value_matchers": [one, list]}}});
    json!({"sourced_metadata": {"metadata_matcher": matcher}})
}

/// `iss/sub`, where the issuer may have slashes. One side's `*` is the other's own.
fn request_principal(value: &str) -> Value {
    let both =
        |issuer: &str, subject: &str| json!({"and_ids": {"ids": [claim(&["iss"], issuer), claim(&["sub"], subject)]}});
    match (value, value.rsplit_once('/')) {
        ("*", _) => both("*", "*"),
        (_, Some((issuer, subject))) => both(issuer, subject),
        (_, None) if value.starts_with('*') => both("*", value),
        (_, None) if value.ends_with('*') => both(value, "*"),
        (_, None) => both(value, ""),
    }
}
