//! `jwtRules` of a `RequestAuthentication`.

use super::fault::PolicyFault;
use super::model::{ClaimHeader, JwtHeader, JwtRule};
use super::read::{any, boolean, present, texts};
use crate::fields::{Field, Object, Report};
use crate::url::shown_url;

const MAX_RULES: usize = 4096;
const FIELDS: [&str; 13] = [
    "issuer",
    "audiences",
    "jwks",
    // The older name of `jwksUri`, which the CRD still has.
    "jwks_uri",
    "jwksUri",
    "timeout",
    "fromHeaders",
    "fromParams",
    "fromCookies",
    "forwardOriginalToken",
    "outputPayloadToHeader",
    "outputClaimToHeaders",
    "spaceDelimitedClaims",
];

pub(super) fn read(spec: &Object<'_>, policy: &str, report: &mut Report<'_>) -> Vec<JwtRule> {
    spec.only(&["selector", "targetRef", "targetRefs", "jwtRules"], report);
    let Some(rules) = present(spec, "jwtRules") else { return Vec::new() };
    let rules = rules.list_of_at_most(MAX_RULES, report);
    rules.iter().filter_map(|field| rule(field, policy, report)).collect()
}

fn rule(field: &Field<'_>, policy: &str, report: &mut Report<'_>) -> Option<JwtRule> {
    let object = field.object(report)?;
    object.only(&FIELDS, report);
    let issuer = optional(&object, "issuer", report).unwrap_or_default();
    let uri = ["jwksUri", "jwks_uri"].iter().find_map(|name| present(&object, name));
    let jwks_uri = uri.as_ref().and_then(|field| {
        let text = field.text_of(1, 2048, report)?;
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let host = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':', '?', '#']));
        if !host || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            field.error(report, PolicyFault::Uri { value: shown_url(text) }.into());
        }
        Some(text.to_owned())
    });
    let jwks = present(&object, "jwks").and_then(|field| jwks(&field, report));
    match (&uri, present(&object, "jwks")) {
        (Some(uri), Some(_)) => uri.error(report, PolicyFault::JwksAndUri.into()),
        (None, _) if issuer.is_empty() => field.error(report, PolicyFault::IssuerOrUri.into()),
        _ => {}
    }
    let timeout = present(&object, "timeout").and_then(|field| {
        let text = field.text(report)?;
        let milliseconds = milliseconds(text);
        if milliseconds.is_none() {
            field.error(report, PolicyFault::Duration { value: text.to_owned() }.into());
        }
        milliseconds
    });
    Some(JwtRule {
        policy: policy.to_owned(),
        issuer,
        audiences: texts(&object, "audiences", any, report),
        jwks,
        jwks_uri,
        timeout,
        from_headers: list(&object, "fromHeaders", report).iter().filter_map(|field| header(field, report)).collect(),
        from_params: texts(&object, "fromParams", any, report),
        from_cookies: texts(&object, "fromCookies", any, report),
        forward_original_token: boolean(&object, "forwardOriginalToken", report),
        output_payload_to_header: optional(&object, "outputPayloadToHeader", report).filter(|name| !name.is_empty()),
        output_claim_to_headers: list(&object, "outputClaimToHeaders", report)
            .iter()
            .filter_map(|field| claim_header(field, report))
            .collect(),
        space_delimited_claims: texts(&object, "spaceDelimitedClaims", any, report),
    })
}

/// An empty text is as good as none.
fn optional(object: &Object<'_>, name: &str, report: &mut Report<'_>) -> Option<String> {
    present(object, name)?.text(report).map(str::to_owned)
}

fn list<'n>(object: &Object<'n>, name: &str, report: &mut Report<'_>) -> Vec<Field<'n>> {
    present(object, name).and_then(|field| field.list(report)).unwrap_or_default()
}

/// Which keys are usable is Envoy's to say at run time; that it is a key set at all is Istio's webhook's.
fn jwks(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = field.text(report)?;
    if text.is_empty() {
        return None;
    }
    let reason = match serde_json::from_str::<serde_json::Value>(text) {
        Err(error) => format!("line {} column {} is not JSON", error.line(), error.column()),
        Ok(value) if !value.is_object() => "it is not a JSON object".to_owned(),
        Ok(_) => return Some(text.to_owned()),
    };
    field.error(report, PolicyFault::Jwks { reason }.into());
    None
}

fn header(field: &Field<'_>, report: &mut Report<'_>) -> Option<JwtHeader> {
    let object = field.object(report)?;
    object.only(&["name", "prefix"], report);
    let name = object.required("name", report)?;
    let name = header_name(&name, report)?;
    Some(JwtHeader { name, prefix: optional(&object, "prefix", report).unwrap_or_default() })
}

fn claim_header(field: &Field<'_>, report: &mut Report<'_>) -> Option<ClaimHeader> {
    let object = field.object(report)?;
    object.only(&["header", "claim"], report);
    let header = object.required("header", report).and_then(|field| header_name(&field, report));
    let claim = object.required("claim", report).and_then(|field| field.text_of(1, usize::MAX, report));
    Some(ClaimHeader { header: header?, claim: claim?.to_owned() })
}

fn header_name(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = field.text_of(1, usize::MAX, report)?;
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        field.error(report, PolicyFault::HeaderName { value: text.to_owned() }.into());
        return None;
    }
    Some(text.to_owned())
}

/// A protobuf duration's JSON form: decimal seconds and an `s`.
fn milliseconds(text: &str) -> Option<u64> {
    let seconds = text.strip_suffix('s')?;
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 || seconds.ends_with('.') {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let total = whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths)?;
    (total > 0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn durations_are_seconds() {
        let cases = [("5s", Some(5000)), ("0.25s", Some(250)), ("1.5s", Some(1500)), ("0s", None), ("0.0001s", None)];
        for (text, expected) in cases {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
        for text in ["", "s", "5", "5m", "-1s", "1.s", ".5s", "5 s", "1e3s"] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }
}
