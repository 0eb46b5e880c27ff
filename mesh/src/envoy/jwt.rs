//! `envoy.filters.http.jwt_authn` as Istio's control plane writes it for `RequestAuthentication`.

use serde_json::{Map, Value, json};

use super::upstream::Endpoint;
use super::{EnvoyError, filter};
use crate::policy::JwtRule;

const NAME: &str = "envoy.filters.http.jwt_authn";
const KIND: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";

/// The filter, and the clusters that its keys come from.
pub(super) fn jwt_authn(rules: &[JwtRule]) -> Result<(Value, Vec<Value>), EnvoyError> {
    let mut providers = Map::new();
    let mut clusters = Vec::new();
    let mut each = Vec::new();
    let mut lenient = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let name = format!("origins-{index}");
        providers.insert(name.clone(), provider(rule, &name, &mut clusters)?);
        each.push(json!({"provider_name": name}));
        lenient.push(json!({"requires_any": {"requirements": [{"provider_name": name}, {"allow_missing": {}}]}}));
    }
    // A token that is there must be good. Rules that look in one place accept a token of any of them.
    let requires = match lenient.as_slice() {
        [only] => only.clone(),
        _ => {
            each.push(json!({"requires_all": {"requirements": lenient}}));
            json!({"requires_any": {"requirements": each}})
        }
    };
    let config = json!({
        "providers": providers,
        "rules": [{"match": {"prefix": "/"}, "requires": requires}],
        "bypass_cors_preflight": true,
    });
    Ok((filter(NAME, KIND, config), clusters))
}

fn provider(rule: &JwtRule, name: &str, clusters: &mut Vec<Value>) -> Result<Value, EnvoyError> {
    let mut spaced = vec!["scope", "permission"];
    spaced.extend(rule.space_delimited_claims.iter().map(String::as_str));
    let headers = rule.from_headers.iter().map(|from| json!({"name": from.name, "value_prefix": from.prefix}));
    let claims = rule.output_claim_to_headers.iter();
    let mut provider = json!({
        "issuer": rule.issuer,
        "audiences": rule.audiences,
        "forward": rule.forward_original_token,
        "forward_payload_header": rule.output_payload_to_header.clone().unwrap_or_default(),
        "payload_in_metadata": "payload",
        "normalize_payload_in_metadata": {"space_delimited_claims": spaced},
        "from_headers": headers.collect::<Vec<_>>(),
        "from_params": rule.from_params,
        "from_cookies": rule.from_cookies,
        "claim_to_headers":
            claims.map(|to| json!({"header_name": to.header, "claim_name": to.claim})).collect::<Vec<_>>(),
    });
    if let Some(jwks) = &rule.jwks {
        provider["local_jwks"] = json!({"inline_string": jwks});
    } else if let Some(uri) = &rule.jwks_uri {
        let cluster = format!("jwks-{name}");
        let authority = uri.find("://").and_then(|scheme| uri[scheme + 3..].find('/').map(|at| scheme + 3 + at));
        let origin = &uri[..authority.unwrap_or(uri.len())];
        clusters.push(Endpoint::parse(&format!("the jwksUri of {}", rule.policy), origin)?.cluster(&cluster));
        provider["remote_jwks"] = json!({
            "http_uri": {"uri": uri, "cluster": cluster, "timeout": milliseconds(rule.timeout.unwrap_or(5000))},
            "cache_duration": "300s",
            "async_fetch": {"fast_listener": false},
        });
    } else {
        let filter =
            format!("a rule of RequestAuthentication {} whose keys are found by OpenID discovery", rule.policy);
        return Err(EnvoyError::NotTranslated { filter });
    }
    Ok(provider)
}

fn milliseconds(count: u64) -> String {
    format!("{}.{:03}s", count / 1000, count % 1000)
}
