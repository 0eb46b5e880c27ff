//! Requests about one repository: authorized when challenged, retried where that is safe, refusals turned into errors.

use std::cell::RefCell;

use serde::Deserialize;
use ureq::http::Method;

use crate::credentials::{Credential, Secret};
use crate::reference::ImageReference;

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

pub(super) struct Session<'a> {
    pub(super) client: &'a Client,
    pub(super) image: &'a ImageReference,
    pub(super) base: Url,
    credential: Option<Credential>,
    scope: String,
    authorization: RefCell<Option<Secret>>,
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
        Ok(Self { client, image, base, credential, scope, authorization: RefCell::new(None) })
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
        let mut request = request.clone();
        let at_home = request.url.same_origin(&self.base);
        if at_home {
            request.authorization.clone_from(&self.authorization.borrow());
        }
        let mut answer = self.client.transport.send(&request)?;
        if answer.status == 401 && at_home && answer.url.same_origin(&self.base) {
            let shown = auth::answer(self.client, &self.base, &answer, self.credential.as_ref(), &self.scope)?;
            if shown.is_some() {
                request.authorization.clone_from(&shown);
                self.authorization.replace(shown);
                answer = self.client.transport.send(&request)?;
            }
        }
        if accept.contains(&answer.status) {
            return Ok(answer);
        }
        Err(refused(&mut answer, self.credential.as_ref(), self.authorization.borrow().as_ref()))
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
    let retry_after = answer.header("retry-after").and_then(|value| value.trim().parse().ok());
    let (method, url) = (answer.place.method, answer.place.url.clone());
    match answer.status {
        401 => RegistryError::Unauthorized { method, url, credentials: credential.is_some(), code, message },
        404 => RegistryError::NotFound { method, url, code, message },
        status => RegistryError::Status { method, url, status, code, message, retry_after },
    }
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
