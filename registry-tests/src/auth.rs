//! What clients have to show: nothing, a password, or a token from the token endpoint.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use serde_json::json;

use crate::reply::{self, Reply};
use crate::route::{Operation, Route};
use crate::server::{queries, query};
use crate::store::lock;

/// What clients have to show.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Nothing.
    #[default]
    Open,
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// A bearer token, given for a password or an identity token.
    Bearer {
        /// User name.
        username: String,
        /// Password.
        password: String,
        /// Refresh token of the `OAuth2` flow, where that is supported.
        identity_token: Option<String>,
        /// Whether whoever asks gets a token to pull.
        anonymous_pull: bool,
        /// Another realm than this registry's own token endpoint.
        realm: Option<String>,
    },
}

/// Tokens that were given out, and the scope of each.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<String, String>>);

const SERVICE: &str = "plugwright-registry";

impl Auth {
    /// A refusal, where the request may not go on.
    pub(crate) fn check(
        &self,
        tokens: &Tokens,
        route: &Route<'_>,
        wanted: &[(String, &str)],
        authorization: Option<&str>,
        own: &str,
    ) -> Option<Reply> {
        if route.operation == Operation::Token {
            return None;
        }
        let challenge = match self {
            Self::Open => return None,
            Self::Basic { username, password } => {
                if authorization == Some(&basic(username, password)) {
                    return None;
                }
                "Basic realm=\"plugwright\"".to_owned()
            }
            Self::Bearer { realm, .. } => {
                let token = authorization.and_then(|text| text.strip_prefix("Bearer "));
                let granted = token.and_then(|token| lock(&tokens.0).get(token).cloned());
                if granted.is_some_and(|granted| wanted.iter().all(|(name, action)| covers(&granted, name, action))) {
                    return None;
                }
                let realm = realm.clone().unwrap_or_else(|| format!("http://{own}/token"));
                let scope = match wanted.first() {
                    Some((name, "pull")) => format!(",scope=\"repository:{name}:pull\""),
                    Some((name, "delete")) => format!(",scope=\"repository:{name}:delete\""),
                    Some((name, _)) => format!(",scope=\"repository:{name}:pull,push\""),
                    None => String::new(),
                };
                format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"{scope}")
            }
        };
        let mut refusal = reply::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
        if let Ok(challenge) = challenge.parse() {
            refusal.headers_mut().insert("www-authenticate", challenge);
        }
        Some(refusal)
    }

    /// The token endpoint. `form` is the body of a POST.
    pub(crate) fn token(
        &self,
        tokens: &Tokens,
        lifetime: u64,
        parameters: &str,
        form: Option<&str>,
        shown: Option<&str>,
    ) -> Reply {
        let Self::Bearer { username, password, identity_token, anonymous_pull, .. } = self else {
            return reply::error(StatusCode::NOT_FOUND, "UNSUPPORTED", "this registry gives no tokens");
        };
        let parameters = form.unwrap_or(parameters);
        // Repeated, or several in one.
        let scope = queries(parameters, "scope").collect::<Vec<_>>().join(" ");
        if query(parameters, "service").as_deref() != Some(SERVICE) {
            return reply::error(StatusCode::BAD_REQUEST, "DENIED", "unknown service");
        }
        let known = match form {
            Some(_) => identity_token.is_some() && query(parameters, "refresh_token") == *identity_token,
            None => shown == Some(&basic(username, password)),
        };
        let only_pull = scope.split(' ').all(|scope| scope.ends_with(":pull"));
        if !(known || form.is_none() && shown.is_none() && *anonymous_pull && only_pull) {
            return reply::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "incorrect username or password");
        }
        let mut tokens = lock(&tokens.0);
        let token = format!("token-{}-{:016x}", tokens.len(), crate::server::random());
        tokens.insert(token.clone(), scope);
        let field = if form.is_some() { "access_token" } else { "token" };
        reply::json(&[], &json!({field: token, "expires_in": lifetime}))
    }
}

/// What a request must be allowed: an action in its repository, and to pull from the one it mounts from.
pub(crate) fn scopes<'a>(route: &Route<'_>, parameters: &str) -> Vec<(String, &'a str)> {
    let own = route.operation.action().map(|action| (route.name.to_owned(), action));
    let mounts = route.operation == Operation::UploadStart && query(parameters, "mount").is_some();
    let from = query(parameters, "from").filter(|_| mounts).map(|from| (from, "pull"));
    own.into_iter().chain(from).collect()
}

fn covers(granted: &str, name: &str, action: &str) -> bool {
    granted.split(' ').any(|scope| {
        scope
            .strip_prefix("repository:")
            .and_then(|rest| rest.rsplit_once(':'))
            .is_some_and(|(granted, actions)| granted == name && actions.split(',').any(|one| one == action))
    })
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}
