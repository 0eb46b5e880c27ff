//! Requests about one repository: authorized when challenged, retried where that is safe, refusals turned into errors.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use ureq::http::Method;
use ureq::http::header::WWW_AUTHENTICATE;

use crate::credentials::{Credential, Secret};
use crate::reference::ImageReference;

use super::tokens::Key;
use super::transport::{Answer, Request};
use super::url::Url;
use super::{Client, RegistryError, auth, printable};

const ERROR_LIMIT: u64 = 64 * 1024;

/// What is going to be done, and thus which scope a token has to cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actions {
    Pull,
    Push,
}

/// Several threads may use one at a time.
pub(super) struct Session<'a> {
    pub(super) client: &'a Client,
    pub(super) image: &'a ImageReference,
    pub(super) base: Url,
    credential: Option<Credential>,
    scope: String,
}

impl<'a> Session<'a> {
    pub(super) fn open(client: &'a Client, image: &'a ImageReference, actions: Actions) -> Result<Self, RegistryError> {
        let host = image.api_host();
        let scheme = if client.options.plain_http.allows(host) { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/"))
            .map_err(|source| RegistryError::Registry { registry: host.to_owned(), source })?;
        let credential = client.options.credentials.lookup(image)?;
        let actions = match actions {
            Actions::Pull => "pull",
            Actions::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", image.repository());
        Ok(Self { client, image, base, credential, scope })
    }

    /// A request to `/v2/<repository>/<path>`.
    pub(super) fn request<'b>(&self, method: Method, path: &str) -> Result<Request<'b>, RegistryError> {
        let url = self
            .base
            .join(&format!("{}/{path}", self.image.repository()))
            .map_err(|source| RegistryError::Registry { registry: self.image.name(), source })?;
        Ok(Request::new(method, url))
    }

    /// Send, and again after a failure that may pass.
    pub(super) fn call(&self, request: &Request<'_>, accept: &[u16]) -> Result<Answer, RegistryError> {
        self.client.options.retry.run(self.client.progress(), || self.once(request, accept))
    }

    /// Send once; answer a challenge once. Any status outside `accept` is an error.
    pub(super) fn once(&self, request: &Request<'_>, accept: &[u16]) -> Result<Answer, RegistryError> {
        self.scoped(request, accept, &[])
    }

    /// The same where the request touches another repository of the registry too: `more` are the scopes for that.
    pub(super) fn scoped(
        &self,
        request: &Request<'_>,
        accept: &[u16],
        more: &[String],
    ) -> Result<Answer, RegistryError> {
        let scopes: Vec<&str> = std::iter::once(&self.scope).chain(more).map(String::as_str).collect();
        let key = Key::new(&self.base, &scopes);
        let tokens = &self.client.tokens;
        let mut request = request.clone();
        let at_home = request.url.same_origin(&self.base);
        if at_home {
            request.authorization = tokens.get(&key);
        }
        let mut answer = self.client.transport.send(&request)?;
        if answer.status == 401 && at_home && answer.url.same_origin(&self.base) {
            let challenges = answer.headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
            self.client.objections.note(&self.base.to_string(), challenges);
            let shown = tokens.renew(&key, request.authorization.as_ref(), || {
                auth::answer(self.client, &self.base, &answer, self.credential.as_ref(), &scopes)
            })?;
            if shown.is_some() {
                // The body of the refusal is read, so that the connection can be used again.
                let _ = answer.read("the error", ERROR_LIMIT);
                drop(answer);
                request.authorization = shown;
                answer = self.client.transport.send(&request)?;
            }
        }
        if accept.contains(&answer.status) {
            return Ok(answer);
        }
        Err(refused(&mut answer, self.credential.as_ref(), request.authorization.as_ref()))
    }
}

impl Client {
    /// What Istio's agent has against the registry of an image, as far as this client has been asked to show credentials
    /// there: a challenge whose realm it refuses, and with it every answer to it.
    pub fn refused_by_istio(&self, image: &ImageReference) -> Result<Option<String>, RegistryError> {
        let session = Session::open(self, image, Actions::Pull)?;
        Ok(self.objections.of(&session.base.to_string()))
    }
}

/// `{"errors": [{"code": …, "message": …}]}` of the distribution specification, or the token endpoint's `error`.
#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    error_description: Option<String>,
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// The error for an answer whose status is not welcome. What the registry says is kept, without what it was shown.
pub(super) fn refused(
    answer: &mut Answer,
    credential: Option<&Credential>,
    authorization: Option<&Secret>,
) -> RegistryError {
    let body = answer.read("the error", ERROR_LIMIT).unwrap_or_default();
    let (code, message) = match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => match body.errors.into_iter().next() {
            Some(entry) => (entry.code, entry.message),
            None => (body.error, body.error_description.or(body.details)),
        },
        Err(_) => (None, None),
    };
    let clean = |text: String, limit| {
        let text = without(text, credential, authorization);
        Some(printable(text.trim(), limit)).filter(|text| !text.is_empty())
    };
    let code = code.and_then(|code| clean(code, 64));
    let message = message.and_then(|message| clean(message, 256));
    let retry_after = answer.header("retry-after").and_then(|value| retry_after(value, SystemTime::now()));
    let (method, url) = (answer.place.method, answer.place.url.clone());
    match answer.status {
        401 => RegistryError::Unauthorized { method, url, credentials: credential.is_some(), code, message },
        404 => RegistryError::NotFound { method, url, code, message },
        status => RegistryError::Status { method, url, status, code, message, retry_after },
    }
}

/// Seconds from `now` (RFC 9110, section 10.2.3): a number of them, or a date, rounded up.
fn retry_after(value: &str, now: SystemTime) -> Option<u64> {
    let value = value.trim();
    value.parse().ok().or_else(|| {
        let pause = httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default();
        Some(pause.as_secs() + u64::from(pause > Duration::from_secs(pause.as_secs())))
    })
}

/// A registry that repeats what it was shown must not get it into a log.
fn without(text: String, credential: Option<&Credential>, authorization: Option<&Secret>) -> String {
    let shown = authorization.and_then(|authorization| authorization.expose().split_once(' ')).map(|(_, shown)| shown);
    let stored = credential.map(|credential| match credential {
        Credential::Basic { password, .. } => password.expose(),
        Credential::IdentityToken(token) | Credential::RegistryToken(token) => token.expose(),
    });
    [shown, stored]
        .into_iter()
        .flatten()
        .filter(|secret| !secret.is_empty())
        .fold(text, |text, secret| text.replace(secret, "<redacted>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_770_500);
        for (value, expected) in [
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), expected, "{value}");
        }
    }
}
