//! Answering a challenge: Basic, or a bearer token from the realm (distribution's token and `OAuth2` specifications).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::Method;
use ureq::http::header::WWW_AUTHENTICATE;

use crate::credentials::{Credential, Secret};

use super::address::Reach;
use super::challenge::{self, Challenge};
use super::session::refused;
use super::tokens::Authorization;
use super::transport::{Answer, Body, Request};
use super::url::{Url, encoded, is_loopback};
use super::{Client, RegistryError};

const TOKEN_LIMIT: u64 = 1024 * 1024;
const CLIENT_ID: &str = "plugwright";

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// How long a token lasts whose endpoint does not say (distribution's token specification, "Token Response Fields").
const DEFAULT_LIFETIME: u64 = 60;

/// Give the `Authorization` that answers a 401, or `None` where there is nothing to show.
pub(super) fn answer(
    client: &Client,
    registry: &Url,
    refusal: &Answer,
    credential: Option<&Credential>,
    scopes: &[&str],
) -> Result<Option<Authorization>, RegistryError> {
    let lines = refusal.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges = challenge::parse(lines);
    let unanswerable = |reason| RegistryError::Challenge { url: refusal.place.url.clone(), reason };
    let bearer = challenges.iter().find_map(|challenge| match challenge {
        Challenge::Bearer { realm, service } => Some((realm, service.as_deref())),
        Challenge::Basic => None,
    });
    match (bearer, credential) {
        (Some(_), Some(Credential::RegistryToken(token))) => {
            Ok(Some(Authorization::lasting(prefixed("Bearer", token.expose()))))
        }
        (Some((realm, service)), _) => {
            let realm = check_realm(client, registry, realm)?;
            token(client, registry, realm, service, scopes, credential).map(Some)
        }
        (None, credential) if challenges.contains(&Challenge::Basic) => match credential {
            None => Ok(None),
            Some(Credential::Basic { username, password }) => {
                Ok(Some(Authorization::lasting(basic(username, password))))
            }
            Some(_) => Err(unanswerable("it asks for a password, and the credentials are a token")),
        },
        (None, _) => Err(unanswerable("there is neither a Basic nor a Bearer challenge in WWW-Authenticate")),
    }
}

fn prefixed(scheme: &str, text: &str) -> Secret {
    Secret::new(format!("{scheme} {text}"))
}

fn basic(username: &str, password: &Secret) -> Secret {
    prefixed("Basic", &STANDARD.encode(format!("{username}:{}", password.expose())))
}

/// The realm is the registry's choice: it must not make us send credentials in the clear, nor knock at doors that the
/// registry itself cannot reach. A realm on the registry's own host and port is one that the user has named.
fn check_realm(client: &Client, registry: &Url, realm: &str) -> Result<(Url, Reach), RegistryError> {
    let error = |realm: String, reason: &str| RegistryError::Realm {
        registry: registry.to_string(),
        realm,
        reason: reason.to_owned(),
    };
    let url = Url::parse(realm).map_err(|reason| error("its realm".to_owned(), &reason.to_string()))?;
    if !client.transport.may_lead(registry, &url) {
        return Err(error(url.to_string(), "credentials would go in the clear"));
    }
    let any = client.options.private_realms || is_loopback(&registry.host()) || url.same_server(registry);
    Ok((url, if any { Reach::Any } else { Reach::Public }))
}

fn token(
    client: &Client,
    registry: &Url,
    (realm, reach): (Url, Reach),
    service: Option<&str>,
    scopes: &[&str],
    credential: Option<&Credential>,
) -> Result<Authorization, RegistryError> {
    let mut pairs = Vec::new();
    pairs.extend(service.map(|service| ("service", service)));
    let (form, joined);
    let mut request = if let Some(Credential::IdentityToken(token)) = credential {
        joined = scopes.join(" ");
        pairs.push(("scope", &joined));
        pairs.extend([("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("refresh_token", token.expose())]);
        form = pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&");
        Request::new(Method::POST, realm)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(Body::Bytes(form.as_bytes()))
    } else {
        // One parameter for each, as all endpoints understand it.
        pairs.extend(scopes.iter().map(|scope| ("scope", *scope)));
        let url = realm.with_query(&pairs).map_err(|source| RegistryError::Realm {
            registry: registry.to_string(),
            realm: realm.to_string(),
            reason: source.to_string(),
        })?;
        Request::new(Method::GET, url)
    };
    request.follow = false;
    request.reach = reach;
    if let Some(Credential::Basic { username, password }) = credential {
        request.authorization = Some(basic(username, password));
    }
    let body = client.options.retry.run(client.progress(), || {
        let mut answer = client.transport.send(&request)?;
        if answer.status != 200 {
            return Err(refused(&mut answer, credential, request.authorization.as_ref()));
        }
        answer.read("the token", TOKEN_LIMIT)
    })?;
    let unusable = || request.place().protocol("the answer is not JSON with a token");
    let answer = serde_json::from_slice::<TokenAnswer>(&body).map_err(|_| unusable())?;
    let lifetime = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFETIME));
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or_else(unusable)?;
    Ok(Authorization::for_a_while(prefixed("Bearer", &token), lifetime))
}
