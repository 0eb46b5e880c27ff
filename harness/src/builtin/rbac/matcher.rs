//! One condition of a rule against a request.

use std::net::IpAddr;

use mesh::policy::{Condition, Key};
use regex::Regex;
use serde_json::Value;

use super::path::Template;
use crate::builtin::JWT_AUTHN;
use crate::builtin::jwt::PAYLOAD;
use crate::stream::state::StreamState;

/// A condition made ready.
#[derive(Debug)]
pub(super) struct Matcher {
    key: Key,
    /// Any of these, if there are any.
    values: Vec<Pattern>,
    /// None of these.
    not_values: Vec<Pattern>,
}

/// What a value may be, by the form that the key's values have.
#[derive(Debug)]
enum Pattern {
    Present,
    Text(Text),
    Address(Range),
    Port(u16),
    Template(Template),
    /// `iss` and `sub`.
    Principal(Text, Text),
}

#[derive(Debug)]
enum Text {
    NotEmpty,
    Exact(String),
    Prefix(String),
    Suffix(String),
    Regex(Regex),
}

/// Addresses of one family whose first bits are these.
#[derive(Debug, Clone, Copy)]
struct Range {
    address: IpAddr,
    bits: u32,
}

impl Matcher {
    /// `namespace` is the policy's: a service account without one is in it.
    pub(super) fn new(condition: &Condition, namespace: &str) -> Result<Self, String> {
        let patterns = |values: &[String]| -> Result<Vec<Pattern>, String> {
            values.iter().map(|value| pattern(&condition.key, value, namespace)).collect()
        };
        Ok(Self {
            key: condition.key.clone(),
            values: patterns(&condition.values)?,
            not_values: patterns(&condition.not_values)?,
        })
    }

    /// It needs an identity that mTLS proves.
    pub(super) fn asks_for_peer(&self) -> bool {
        matches!(self.key, Key::SourcePrincipal | Key::SourceNamespace | Key::SourceServiceAccount)
    }

    pub(super) fn matches(&self, stream: &StreamState) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| found(&self.key, pattern, stream));
        (self.values.is_empty() || any(&self.values)) && !any(&self.not_values)
    }
}

fn pattern(key: &Key, value: &str, namespace: &str) -> Result<Pattern, String> {
    Ok(match key {
        Key::SourceIp | Key::RemoteIp | Key::DestinationIp => {
            Pattern::Address(Range::parse(value).ok_or_else(|| odd(value))?)
        }
        Key::DestinationPort => Pattern::Port(value.parse().map_err(|_| odd(value))?),
        Key::SourcePrincipal => Pattern::Text(principal(value)?),
        Key::SourceNamespace => Pattern::Text(regex(&format!(".*/ns/{}/.*", value.replace('*', ".*")))?),
        Key::SourceServiceAccount => {
            let (namespace, account) = value.split_once('/').unwrap_or((namespace, value));
            Pattern::Text(regex(&format!("spiffe://.+/ns/{namespace}/(.+/|)sa/{account}(/.+)?"))?)
        }
        Key::RequestPrincipal => {
            let (issuer, subject) = request_principal(value);
            Pattern::Principal(issuer, subject)
        }
        Key::Path => Template::parse(value).map_or_else(|| Pattern::Text(Text::parse(value)), Pattern::Template),
        Key::RequestHeader(_) | Key::Method | Key::Host if value == "*" => Pattern::Present,
        Key::Host => Pattern::Text(Text::parse(&value.to_ascii_lowercase())),
        Key::RequestHeader(_)
        | Key::Method
        | Key::RequestAudiences
        | Key::RequestPresenter
        | Key::RequestClaim(_)
        | Key::ConnectionSni => Pattern::Text(Text::parse(value)),
        // `[v]` is a list that has v.
        Key::FilterMetadata { .. } => Pattern::Text(Text::parse(value.trim_matches(['[', ']']))),
    })
}

fn odd(value: &str) -> String {
    format!("`{value}` is not of its key's form")
}

/// As Istio writes it, a `*` in front makes the rest a regular expression, unquoted.
fn principal(value: &str) -> Result<Text, String> {
    match value.strip_prefix('*') {
        Some("") => Ok(Text::NotEmpty),
        Some(rest) => regex(&format!("spiffe://.*{rest}")),
        None => Ok(Text::parse(&format!("spiffe://{value}"))),
    }
}

fn regex(pattern: &str) -> Result<Text, String> {
    let whole = format!("^(?:{pattern})$");
    Regex::new(&whole).map(Text::Regex).map_err(|_| format!("`{pattern}` is not a regular expression"))
}

/// `iss/sub`, where the issuer may have slashes. One side's `*` is the other's own.
fn request_principal(value: &str) -> (Text, Text) {
    let exact = |text: &str| Text::Exact(text.to_owned());
    let split = value.rsplit_once('/');
    match (value, split) {
        ("*", _) => (Text::NotEmpty, Text::NotEmpty),
        (_, Some((issuer, subject))) if value.starts_with('*') => (Text::parse_suffix(issuer), exact(subject)),
        (_, None) if value.starts_with('*') => (Text::NotEmpty, Text::parse_suffix(value)),
        (_, Some((issuer, subject))) if value.ends_with('*') => (exact(issuer), Text::parse_prefix(subject)),
        (_, None) if value.ends_with('*') => (Text::parse_prefix(value), Text::NotEmpty),
        (_, Some((issuer, subject))) => (exact(issuer), exact(subject)),
        (_, None) => (exact(value), exact("")),
    }
}

impl Text {
    /// Exact, `*suffix`, `prefix*`, or `*` for anything but nothing.
    fn parse(value: &str) -> Self {
        if value.starts_with('*') {
            Self::parse_suffix(value)
        } else if value.ends_with('*') {
            Self::parse_prefix(value)
        } else {
            Self::Exact(value.to_owned())
        }
    }

    fn parse_suffix(value: &str) -> Self {
        let rest = value.strip_prefix('*').unwrap_or(value);
        if rest.is_empty() { Self::NotEmpty } else { Self::Suffix(rest.to_owned()) }
    }

    fn parse_prefix(value: &str) -> Self {
        let rest = value.strip_suffix('*').unwrap_or(value);
        if rest.is_empty() { Self::NotEmpty } else { Self::Prefix(rest.to_owned()) }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::NotEmpty => !text.is_empty(),
            Self::Exact(expected) => text == expected,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(all), |bits| bits.parse().ok()).filter(|bits| *bits <= all)?;
        Some(Self { address, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        let prefix = |number: u128, width: u32| number.checked_shr(width - self.bits).unwrap_or(0);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                prefix(ours.to_bits().into(), 32) == prefix(theirs.to_bits().into(), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => prefix(ours.to_bits(), 128) == prefix(theirs.to_bits(), 128),
            _ => false,
        }
    }
}

fn found(key: &Key, pattern: &Pattern, stream: &StreamState) -> bool {
    match (key, pattern) {
        (Key::SourceIp, Pattern::Address(range)) => stream.source.is_some_and(|peer| range.contains(peer.ip())),
        (Key::RemoteIp, Pattern::Address(range)) => stream.remote.is_some_and(|remote| range.contains(remote)),
        (Key::DestinationIp, Pattern::Address(range)) => stream.destination.is_some_and(|to| range.contains(to.ip())),
        (Key::DestinationPort, Pattern::Port(port)) => {
            stream.proxy.port.or(stream.destination.map(|to| to.port())) == Some(*port)
        }
        (Key::SourcePrincipal | Key::SourceNamespace | Key::SourceServiceAccount, Pattern::Text(text)) => {
            stream.peer.as_deref().is_some_and(|peer| text.matches(peer))
        }
        (Key::RequestPrincipal, Pattern::Principal(issuer, subject)) => {
            let matches = |name: &str, text: &Text| {
                claim(stream, &[name]).and_then(Value::as_str).is_some_and(|value| text.matches(value))
            };
            matches("iss", issuer) && matches("sub", subject)
        }
        (Key::RequestAudiences, Pattern::Text(text)) => text_or_list(claim(stream, &["aud"]), text),
        (Key::RequestPresenter, Pattern::Text(text)) => text_or_list(claim(stream, &["azp"]), text),
        (Key::RequestClaim(path), Pattern::Text(text)) => text_or_list(claim(stream, path), text),
        (Key::FilterMetadata { filter, key }, Pattern::Text(text)) => {
            text_or_list(stream.dynamic_metadata.at(filter, &[key]), text)
        }
        (Key::RequestHeader(name), pattern) => header(stream, name, pattern, false),
        (Key::Method, pattern) => header(stream, ":method", pattern, false),
        (Key::Host, pattern) => header(stream, ":authority", pattern, true),
        (Key::Path, Pattern::Text(text)) => text.matches(stream.path()),
        (Key::Path, Pattern::Template(template)) => template.matches(stream.path()),
        // A plain connection names no server.
        (Key::ConnectionSni, Pattern::Text(text)) => text.matches(""),
        _ => false,
    }
}

/// A claim of the token that `jwt_authn` found good.
fn claim<'s>(stream: &'s StreamState, path: &[impl AsRef<str>]) -> Option<&'s Value> {
    let payload = stream.dynamic_metadata.at(JWT_AUTHN, &[PAYLOAD])?;
    path.iter().try_fold(payload, |value, name| value.get(name.as_ref()))
}

fn text_or_list(value: Option<&Value>, text: &Text) -> bool {
    let one = |value: &Value| value.as_str().is_some_and(|value| text.matches(value));
    value.is_some_and(|value| one(value) || value.as_array().is_some_and(|items| items.iter().any(one)))
}

/// Any of a header's values, each by itself: joined with others, one could be hidden.
fn header(stream: &StreamState, name: &str, pattern: &Pattern, ignore_case: bool) -> bool {
    let name = name.to_ascii_lowercase();
    let mut values = stream.request_headers.iter().filter(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value);
    values.any(|value| match pattern {
        Pattern::Present => true,
        Pattern::Text(text) if ignore_case => text.matches(&String::from_utf8_lossy(value).to_ascii_lowercase()),
        Pattern::Text(text) => text.matches(&String::from_utf8_lossy(value)),
        _ => false,
    })
}
