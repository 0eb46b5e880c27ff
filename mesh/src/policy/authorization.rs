//! `action` and `rules` of an `AuthorizationPolicy`.

use std::net::IpAddr;

use super::fault::PolicyFault;
use super::model::{Action, Condition, Key, Rule};
use super::read::{any, present, texts};
use crate::fields::{Field, Object, Report};

const MAX_RULES: usize = 512;
const ACTIONS: [(&str, Action); 4] =
    [("ALLOW", Action::Allow), ("DENY", Action::Deny), ("AUDIT", Action::Audit), ("CUSTOM", Action::Custom)];

type Check = fn(&str) -> Result<(), PolicyFault>;

/// A field of a source or an operation: its name, the name of its negation, what it is about, and its values' form.
type Member = (&'static str, &'static str, Key, Check);

const SOURCE: [Member; 6] = [
    ("principals", "notPrincipals", Key::SourcePrincipal, any),
    ("requestPrincipals", "notRequestPrincipals", Key::RequestPrincipal, any),
    ("namespaces", "notNamespaces", Key::SourceNamespace, any),
    ("serviceAccounts", "notServiceAccounts", Key::SourceServiceAccount, service_account),
    ("ipBlocks", "notIpBlocks", Key::SourceIp, address),
    ("remoteIpBlocks", "notRemoteIpBlocks", Key::RemoteIp, address),
];
const OPERATION: [Member; 4] = [
    ("hosts", "notHosts", Key::Host, any),
    ("ports", "notPorts", Key::DestinationPort, port),
    ("methods", "notMethods", Key::Method, any),
    ("paths", "notPaths", Key::Path, path),
];

pub(super) fn read(spec: &Object<'_>, report: &mut Report<'_>) -> (Action, Vec<Rule>) {
    spec.only(&["selector", "targetRef", "targetRefs", "action", "rules", "provider"], report);
    let action = present(spec, "action").map_or(Some(Action::Allow), |field| field.choice(&ACTIONS, report));
    let action = action.unwrap_or(Action::Allow);
    let rules = present(spec, "rules");
    if let (Action::Deny | Action::Custom, None) = (action, &rules) {
        let action = if action == Action::Deny { "DENY" } else { "CUSTOM" };
        report.error(spec.at, &spec.path, PolicyFault::WithoutRules { action }.into());
    }
    match (action, present(spec, "provider")) {
        (Action::Custom, None) => _ = spec.required("provider", report),
        (Action::Custom, Some(field)) => {
            let object = field.object(report);
            let name = object.and_then(|object| {
                object.only(&["name"], report);
                object.required("name", report)
            });
            _ = name.and_then(|name| name.text_of(1, usize::MAX, report));
        }
        (_, Some(field)) => field.error(report, PolicyFault::ProviderWithoutCustom.into()),
        (_, None) => {}
    }
    let rules = rules.map(|field| field.list_of_at_most(MAX_RULES, report)).unwrap_or_default();
    (action, rules.iter().filter_map(|field| rule(field, action, report)).collect())
}

fn rule(field: &Field<'_>, action: Action, report: &mut Report<'_>) -> Option<Rule> {
    let object = field.object(report)?;
    object.only(&["from", "to", "when"], report);
    let from = entries(&object, "from", "source", &SOURCE, action, report);
    let to = entries(&object, "to", "operation", &OPERATION, action, report);
    let when = present(&object, "when").and_then(|field| field.list(report)).unwrap_or_default();
    let when = when.iter().filter_map(|field| condition(field, action, report)).collect();
    let any_of = |entries: &[Vec<Condition>], key: fn(&Key) -> bool| entries.iter().flatten().any(|c| key(&c.key));
    let tcp_from = any_of(&from, |key| *key != Key::RequestPrincipal);
    let tcp_to = any_of(&to, |key| *key == Key::DestinationPort);
    let http_only = if to.is_empty() { !from.is_empty() && !tcp_from } else { !tcp_to };
    if action == Action::Deny && http_only {
        field.warning(report, PolicyFault::DeniesTcp.into());
    }
    Some(Rule { from, to, when })
}

/// `from` or `to`: a list of objects with one member each.
fn entries(
    rule: &Object<'_>,
    list: &str,
    member: &'static str,
    known: &[Member],
    action: Action,
    report: &mut Report<'_>,
) -> Vec<Vec<Condition>> {
    let Some(field) = present(rule, list) else { return Vec::new() };
    let items = field.list_of_at_most(MAX_RULES, report);
    if items.is_empty() && field.items().is_some() {
        field.error(report, PolicyFault::EmptyList.into());
    }
    let mut entries = Vec::new();
    for item in items {
        let Some(object) = item.object(report) else { continue };
        object.only(&[member], report);
        let Some(inner) = object.required(member, report) else { continue };
        let Some(object) = inner.object(report) else { continue };
        let names: Vec<&'static str> = known.iter().flat_map(|(name, not, ..)| [*name, *not]).collect();
        object.only(&names, report);
        let mut conditions = Vec::new();
        for (name, not, key, check) in known {
            let (values, not_values) = (texts(&object, name, check, report), texts(&object, not, check, report));
            if values.is_empty() && not_values.is_empty() {
                continue;
            }
            let before_asking = !matches!(key, Key::SourceIp | Key::RemoteIp) && member == "source";
            if action == Action::Custom && before_asking {
                inner.error(report, PolicyFault::NotWithCustom.into());
            }
            conditions.push(Condition { key: key.clone(), values, not_values });
        }
        let set = |name: &str| object.get(name).and_then(|field| field.items()).is_some_and(|items| !items.is_empty());
        if !names.iter().any(|name| set(name)) {
            inner.error(report, PolicyFault::NothingSet.into());
        }
        let accounts = ["serviceAccounts", "notServiceAccounts"].iter().any(|name| set(name));
        let others = ["principals", "notPrincipals", "namespaces", "notNamespaces"].iter().any(|name| set(name));
        if accounts && others {
            inner.error(report, PolicyFault::ServiceAccountsWithOthers.into());
        }
        entries.push(conditions);
    }
    entries
}

fn condition(field: &Field<'_>, action: Action, report: &mut Report<'_>) -> Option<Condition> {
    let object = field.object(report)?;
    object.only(&["key", "values", "notValues"], report);
    let key_field = object.required("key", report)?;
    let (key, check) = match key(key_field.text(report)?) {
        Ok(found) => found,
        Err(fault) => {
            key_field.error(report, fault.into());
            return None;
        }
    };
    let identity = matches!(
        key,
        Key::SourcePrincipal
            | Key::SourceNamespace
            | Key::SourceServiceAccount
            | Key::RequestPrincipal
            | Key::RequestAudiences
            | Key::RequestPresenter
            | Key::RequestClaim(_)
    );
    if action == Action::Custom && identity {
        key_field.error(report, PolicyFault::NotWithCustom.into());
    }
    let (values, not_values) = (texts(&object, "values", check, report), texts(&object, "notValues", check, report));
    let given = |name| present(&object, name).and_then(|field| field.items()).is_some_and(|items| !items.is_empty());
    if !given("values") && !given("notValues") {
        field.error(report, PolicyFault::NoValues.into());
    }
    Some(Condition { key, values, not_values })
}

/// The attribute of a condition, and the form of its values.
fn key(text: &str) -> Result<(Key, Check), PolicyFault> {
    let named = |prefix: &str, form: &'static str| {
        let fault = || PolicyFault::KeyForm { key: text.to_owned(), form };
        let inside =
            text[prefix.len()..].strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or_else(fault)?;
        if inside.is_empty() { Err(fault()) } else { Ok(inside) }
    };
    Ok(match text {
        "source.ip" => (Key::SourceIp, address as Check),
        "remote.ip" => (Key::RemoteIp, address),
        "source.namespace" => (Key::SourceNamespace, any),
        "source.principal" => (Key::SourcePrincipal, any),
        "source.serviceAccount" => (Key::SourceServiceAccount, service_account),
        "request.auth.principal" => (Key::RequestPrincipal, any),
        "request.auth.audiences" => (Key::RequestAudiences, any),
        "request.auth.presenter" => (Key::RequestPresenter, any),
        "destination.ip" => (Key::DestinationIp, address),
        "destination.port" => (Key::DestinationPort, port),
        "connection.sni" => (Key::ConnectionSni, any),
        _ if text.starts_with("request.headers") => {
            (Key::RequestHeader(named("request.headers", "request.headers[NAME]")?.to_owned()), any)
        }
        _ if text.starts_with("request.auth.claims") => {
            (Key::RequestClaim(claims(named("request.auth.claims", "request.auth.claims[NAME]")?)), any)
        }
        _ if text.starts_with("experimental.envoy.filters.") => {
            let form = "experimental.envoy.filters.FILTER[KEY]";
            let fault = || PolicyFault::KeyForm { key: text.to_owned(), form };
            let rest = text.strip_prefix("experimental.").and_then(|rest| rest.strip_suffix(']')).ok_or_else(fault)?;
            let (filter, key) = rest.split_once('[').filter(|(_, key)| !key.is_empty()).ok_or_else(fault)?;
            (Key::FilterMetadata { filter: filter.to_owned(), key: key.to_owned() }, any)
        }
        _ => return Err(PolicyFault::UnknownKey { key: text.to_owned() }),
    })
}

/// `a][b` is the path a, b. Brackets that do not pair up belong to one name.
fn claims(inside: &str) -> Vec<String> {
    let parts: Vec<&str> = inside.split("][").collect();
    let odd = parts.iter().any(|part| part.contains(['[', ']']));
    if odd { vec![inside.to_owned()] } else { parts.into_iter().map(str::to_owned).collect() }
}

fn address(text: &str) -> Result<(), PolicyFault> {
    let (ip, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
    let valid = ip.parse::<IpAddr>().is_ok_and(|ip| {
        let max = if ip.is_ipv4() { 32 } else { 128 };
        let plain = |l: &str| l == "0" || (!l.starts_with('0') && l.bytes().all(|b| b.is_ascii_digit()));
        length.is_none_or(|length| plain(length) && length.parse::<u8>().is_ok_and(|length| length <= max))
    });
    if valid { Ok(()) } else { Err(PolicyFault::Address { value: text.to_owned() }) }
}

fn port(text: &str) -> Result<(), PolicyFault> {
    let valid = text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok();
    if valid { Ok(()) } else { Err(PolicyFault::Port { value: text.to_owned() }) }
}

/// Istio puts these into a regular expression as they are; names of Kubernetes have nothing that matters there.
fn service_account(text: &str) -> Result<(), PolicyFault> {
    let name = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    let valid =
        text.split_once('/').map_or_else(|| name(text), |(namespace, account)| name(namespace) && name(account));
    if valid { Ok(()) } else { Err(PolicyFault::ServiceAccount { value: text.to_owned() }) }
}

/// A path is a pattern unless it has `{*}` or `{**}`: then each of these is a whole segment, and nothing else in it has
/// a meaning.
fn path(text: &str) -> Result<(), PolicyFault> {
    if !text.contains("{*}") && !text.contains("{**}") {
        return Ok(());
    }
    let fault = |reason| Err(PolicyFault::PathTemplate { value: text.to_owned(), reason });
    let Some(rest) = text.strip_prefix('/') else { return fault("it must start with `/`") };
    let mut rest_matched = false;
    for segment in rest.split('/') {
        match segment {
            "{*}" | "{**}" if rest_matched => return fault("nothing but text can follow `{**}`"),
            "{*}" => {}
            "{**}" => rest_matched = true,
            text if text.contains(['*', '{', '}']) => {
                return fault("`{*}` and `{**}` are whole segments, and there are no others");
            }
            _ => {}
        }
    }
    Ok(())
}
