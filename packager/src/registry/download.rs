//! Plain downloads over HTTP, for modules that are not in a registry.

use std::fs::File;
use std::time::Duration;

use ureq::http::Method;

use super::session::refused;
use super::transport::Request;
use super::url::Url;
use super::{Client, RegistryError, Retry};

/// Istio's `DefaultHTTPRequestMaxRetries`, which counts the first one too.
const ATTEMPTS: u32 = 5;
/// Istio's `initialBackoff`.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

impl Client {
    /// Download what a URL names, at most `limit` bytes, without credentials, into an empty file. An `http` URL is spoken to without TLS,
    /// since it is its writer's choice; a redirect from `https` never leads to one. Tried again is what Istio tries again: no
    /// answer, and 5xx but 501, 505 and 511; neither 429 nor an answer that breaks off.
    pub fn download(&self, url: &str, limit: u64, into: &mut File) -> Result<(), RegistryError> {
        let parsed = Url::parse(url).map_err(|source| RegistryError::Registry {
            registry: url.split('?').next().unwrap_or_default().to_owned(),
            source,
        })?;
        let what = parsed.to_string();
        let mut request = Request::new(Method::GET, parsed).expect(limit);
        request.plain = true;
        let retry = Retry { attempts: ATTEMPTS, first_pause: FIRST_PAUSE, ..self.options.retry.clone() };
        retry.run_while(is_tried_again, self.progress(), || {
            let mut answer = self.transport.send(&request)?;
            if answer.status != 200 {
                return Err(without_credentials(refused(&mut answer, None, None)));
            }
            answer.save(&what, limit, into)
        })
    }
}

/// Nobody can log in here: none are shown, by Istio neither.
fn without_credentials(error: RegistryError) -> RegistryError {
    match error {
        RegistryError::Unauthorized { method, url, code, message, .. } => {
            RegistryError::Status { method, url, status: 401, code, message, retry_after: None }
        }
        other => other,
    }
}

/// As in `pkg/wasm/httpfetcher.go`.
fn is_tried_again(error: &RegistryError) -> bool {
    match error {
        RegistryError::Unreachable { .. } => error.is_transient(),
        RegistryError::Status { status, .. } => *status >= 500 && error.is_transient(),
        _ => false,
    }
}
