//! Where tokens are in a request, and how they are taken out.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh::policy::JwtRule;

use crate::header_map::HeaderMap;

/// The places one provider's tokens may be in, each place once and in Envoy's order.
#[derive(Debug)]
pub(super) struct Extractor {
    /// Header and prefix by their concatenation.
    headers: BTreeMap<String, (String, String)>,
    params: Vec<String>,
    cookies: Vec<String>,
    /// What a client must not send, since it is said to come from a token.
    sanitized: Vec<String>,
    /// `None` allows any.
    issuer: Option<String>,
}

/// A token where it was found.
#[derive(Debug)]
pub(super) struct Found<'e> {
    pub(super) token: String,
    place: Place<'e>,
}

#[derive(Debug)]
enum Place<'e> {
    Header(&'e str),
    Param(&'e str),
    /// Envoy leaves cookies alone.
    Cookie,
}

impl Extractor {
    pub(super) fn new(rule: &JwtRule) -> Self {
        let mut headers: BTreeMap<_, _> = rule
            .from_headers
            .iter()
            .map(|header| (header.name.to_ascii_lowercase(), header.prefix.clone()))
            .map(|(name, prefix)| (format!("{name}{prefix}"), (name, prefix)))
            .collect();
        let mut params = rule.from_params.clone();
        if headers.is_empty() && params.is_empty() && rule.from_cookies.is_empty() {
            headers.insert("authorizationBearer ".to_owned(), ("authorization".to_owned(), "Bearer ".to_owned()));
            params.push("access_token".to_owned());
        }
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names.dedup();
            names
        };
        let claims = rule.output_claim_to_headers.iter().map(|output| &output.header);
        Self {
            headers,
            params: sorted(params),
            cookies: sorted(rule.from_cookies.clone()),
            sanitized: rule.output_payload_to_header.iter().chain(claims).cloned().collect(),
            issuer: Some(rule.issuer.clone()).filter(|issuer| !issuer.is_empty()),
        }
    }

    /// Whether tokens of that issuer may be in this provider's places.
    pub(super) fn allows(&self, issuer: &str) -> bool {
        self.issuer.as_deref().is_none_or(|ours| ours == issuer)
    }

    pub(super) fn sanitize(&self, headers: &mut HeaderMap) {
        for name in &self.sanitized {
            headers.remove(name.as_bytes());
        }
    }

    pub(super) fn extract(&self, headers: &HeaderMap) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for (name, prefix) in self.headers.values() {
            for (_, value) in headers.iter().filter(|(n, _)| *n == name.as_bytes()) {
                let value = String::from_utf8_lossy(value);
                if let Some(token) = after_prefix(&value, prefix) {
                    found.push(Found { token: token.to_owned(), place: Place::Header(name) });
                }
            }
        }
        let target = headers.text(":path").unwrap_or_default();
        for name in &self.params {
            let value = params(target).find(|(key, _)| key == name).map(|(_, value)| value);
            found.extend(value.map(|token| Found { token, place: Place::Param(name) }));
        }
        for name in &self.cookies {
            let value = cookie(headers, name);
            found.extend(value.map(|token| Found { token, place: Place::Cookie }));
        }
        found
    }
}

impl Found<'_> {
    /// Takes the token out of the request.
    pub(super) fn remove(&self, headers: &mut HeaderMap) {
        match self.place {
            Place::Header(name) => headers.remove(name.as_bytes()),
            Place::Param(name) => {
                let Some(target) = headers.text(":path") else { return };
                let without = without_param(target, name);
                // Shorter than what it replaces.
                let _ = headers.replace(b":path", without.as_bytes());
            }
            Place::Cookie => {}
        }
    }
}

/// What follows the prefix, wherever in the value that is, from the first character that a token can have. A value
/// without such a character is the token itself.
fn after_prefix<'v>(value: &'v str, prefix: &str) -> Option<&'v str> {
    if prefix.is_empty() {
        return Some(value);
    }
    let rest = &value[value.find(prefix)? + prefix.len()..];
    let starts = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    Some(rest.find(starts).map_or(value, |at| &rest[at..]))
}

/// The query's parameters, decoded.
fn params(target: &str) -> impl Iterator<Item = (String, String)> {
    let target = target.split('#').next().unwrap_or_default();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

fn without_param(target: &str, name: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let (query, fragment) = query.find('#').map_or((query, ""), |at| query.split_at(at));
    let kept: Vec<&str> =
        query.split('&').filter(|pair| decode(pair.split('=').next().unwrap_or_default()) != name).collect();
    let separator = if kept.is_empty() { "" } else { "?" };
    format!("{path}{separator}{}{fragment}", kept.join("&"))
}

/// Percent-encoding undone, `+` is a space; what is not well-formed stays.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()).filter(|hex| !hex.starts_with('+'));
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let values =
        headers.iter().filter(|(header, _)| *header == b"cookie").map(|(_, value)| Bytes::copy_from_slice(value));
    for value in values {
        let text = String::from_utf8_lossy(&value).into_owned();
        for pair in text.split(';') {
            if let Some((key, value)) = pair.split_once('=')
                && key.trim_start() == name
            {
                let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                return Some(quoted.unwrap_or(value).to_owned());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_follows_its_prefix() {
        let cases = [
            ("Bearer abc.d", "Bearer ", Some("abc.d")),
            ("Bearer   abc", "Bearer ", Some("abc")),
            ("x, Bearer abc", "Bearer ", Some("abc")),
            ("bearer abc", "Bearer ", None),
            ("Bearer ", "Bearer ", Some("Bearer ")),
            ("Token=abc", "Token=", Some("abc")),
            ("abc", "", Some("abc")),
        ];
        for (value, prefix, expected) in cases {
            assert_eq!(after_prefix(value, prefix), expected, "{value}");
        }
    }

    #[test]
    fn a_parameter_is_found_decoded_and_removed_alone() {
        assert_eq!(params("/a?x=1&to%6ben=a%2Eb+c#f").find(|(name, _)| name == "token").unwrap().1, "a.b c");
        let cases = [
            ("/a?token=1", "/a"),
            ("/a?b=%20&token=1&c", "/a?b=%20&c"),
            ("/a?to%6ben=1&token=2&z=1", "/a?z=1"),
            ("/a?token=1#f", "/a#f"),
            ("/a", "/a"),
        ];
        for (target, expected) in cases {
            assert_eq!(without_param(target, "token"), expected, "{target}");
        }
        assert_eq!(decode("%zz%4"), "%zz%4");
    }
}
