//! `envoy.filters.http.jwt_authn` as Istio configures it: a request without a token passes, one with a token only if
//! the token is good.

mod extract;
mod json;
mod jwks;
pub(crate) mod keys;
mod status;
mod token;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use mesh::policy::JwtRule;
use serde_json::{Map, Value};

use super::JWT_AUTHN;
use crate::header_map::HeaderMap;
use crate::native::{Action, NativeFilter, NativePlugin, NativeWorker, Services, StreamHandle};
use crate::nature::Nature;
use crate::stream::state::{Direction, LocalReply};
use extract::{Extractor, Found};
use jwks::Jwks;
use keys::Keys;
use status::Status;
use token::Token;

/// The key of the metadata that has a good token's claims.
pub(crate) const PAYLOAD: &str = "payload";
/// More of a request's URL than this is not repeated in its answer.
const MAX_REALM: usize = 256;

pub(crate) struct Filter {
    providers: Arc<Vec<Provider>>,
    keys: Keys,
    nature: Arc<dyn Nature>,
}

struct Provider {
    rule: JwtRule,
    extractor: Extractor,
    /// Without scheme and trailing slash.
    audiences: Vec<String>,
}

impl Filter {
    pub(crate) fn new(rules: &[JwtRule], keys: Keys, nature: Arc<dyn Nature>) -> Self {
        let provider = |rule: &JwtRule| Provider {
            extractor: Extractor::new(rule),
            audiences: rule.audiences.iter().map(|audience| bare(audience).to_owned()).collect(),
            rule: rule.clone(),
        };
        Self { providers: Arc::new(rules.iter().map(provider).collect()), keys, nature }
    }
}

impl NativePlugin for Filter {
    fn name(&self) -> &str {
        JWT_AUTHN
    }

    fn start(&self, _: &Rc<Services>) -> Result<Rc<dyn NativeWorker>, String> {
        let (providers, keys, nature) = (self.providers.clone(), self.keys.clone(), self.nature.clone());
        Ok(Rc::new(Worker { providers, keys, nature, current: RefCell::default() }))
    }
}

struct Worker {
    providers: Arc<Vec<Provider>>,
    keys: Keys,
    nature: Arc<dyn Nature>,
    /// The keys as this worker has them, with their version.
    current: RefCell<(u64, Vec<Arc<Jwks>>)>,
}

impl NativeWorker for Worker {
    fn stream(self: Rc<Self>, handle: StreamHandle) -> Box<dyn NativeFilter> {
        Box::new(OneRequest { worker: self, handle })
    }
}

struct OneRequest {
    worker: Rc<Worker>,
    handle: StreamHandle,
}

impl NativeFilter for OneRequest {
    fn headers(&mut self, direction: Direction, _: bool) -> Action {
        if direction == Direction::Response {
            return Action::Continue;
        }
        let answer = {
            let mut current = self.worker.current.borrow_mut();
            let (version, keys) = &mut *current;
            if let Some(newer) = self.worker.keys.newer(version) {
                *keys = newer;
            }
            let mut state = self.handle.state();
            if is_cors_preflight(&state.request_headers) {
                return Action::Continue;
            }
            let realm = realm(&state.request_headers);
            let now = self.worker.nature.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let mut request = Verification {
                providers: &self.worker.providers,
                keys,
                now,
                headers: &mut state.request_headers,
                payload: None,
            };
            let outcome = request.verify();
            if let Some(payload) = request.payload {
                state.dynamic_metadata.put(JWT_AUTHN, PAYLOAD, Value::Object(payload));
            }
            outcome.err().map(|status| refusal(status, &realm))
        };
        if let Some(reply) = answer {
            self.handle.reply(reply);
        }
        Action::Continue
    }
}

/// A browser asks without credentials whether it may ask with them.
fn is_cors_preflight(headers: &HeaderMap) -> bool {
    let given = |name: &[u8]| headers.get(name).is_some_and(|value| !value.is_empty());
    headers.text(":method") == Some("OPTIONS") && given(b"origin") && given(b"access-control-request-method")
}

fn realm(headers: &HeaderMap) -> String {
    let text =
        |name: &[u8]| headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default();
    let path: String = text(b":path").chars().take(MAX_REALM).collect();
    format!("{}://{}{path}", text(b":scheme"), text(b":authority"))
}

fn refusal(status: Status, realm: &str) -> LocalReply {
    let text = status.to_string();
    let code = if status == Status::AudienceNotAllowed { 403 } else { 401 };
    let error = if status == Status::Missing { "" } else { ", error=\"invalid_token\"" };
    let challenge = format!("Bearer realm=\"{realm}\"{error}");
    let details = format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"));
    LocalReply {
        headers: vec![(Bytes::from_static(b"www-authenticate"), Bytes::from(challenge))],
        ..LocalReply::new(code, text, details)
    }
}

/// An audience as it is compared: `https://a.b/` is `a.b`.
fn bare(audience: &str) -> &str {
    let rest = audience.strip_prefix("http://").or_else(|| audience.strip_prefix("https://")).unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// One request against the requirement that Istio's control plane writes: `{P or missing}` for one provider; for several
/// `P1 or P2 or … or all of {Pn or missing}`.
struct Verification<'a> {
    providers: &'a [Provider],
    keys: &'a [Arc<Jwks>],
    now: u64,
    headers: &'a mut HeaderMap,
    /// The claims of the last good token.
    payload: Option<Map<String, Value>>,
}

impl Verification<'_> {
    fn verify(&mut self) -> Result<(), Status> {
        for provider in self.providers {
            provider.extractor.sanitize(self.headers);
        }
        if let [_] = self.providers {
            return self.token_if_any_of(0);
        }
        // Of several reasons the one counts that is about a token of the provider's own.
        let mut reason = Status::Missing;
        for provider in 0..=self.providers.len() {
            let outcome =
                if provider < self.providers.len() { self.tokens_of(provider) } else { self.tokens_if_any_of_all() };
            match outcome {
                Ok(()) => return Ok(()),
                Err(status) => {
                    let telling = !matches!(status, Status::Missing | Status::UnknownIssuer);
                    if telling || reason == Status::Missing {
                        reason = status;
                    }
                }
            }
        }
        Err(reason)
    }

    fn tokens_if_any_of_all(&mut self) -> Result<(), Status> {
        (0..self.providers.len()).try_for_each(|provider| self.token_if_any_of(provider))
    }

    fn token_if_any_of(&mut self, provider: usize) -> Result<(), Status> {
        match self.tokens_of(provider) {
            Err(Status::Missing) => Ok(()),
            outcome => outcome,
        }
    }

    /// The tokens in one provider's places: there must be one, and all must be good.
    fn tokens_of(&mut self, provider: usize) -> Result<(), Status> {
        let providers = self.providers;
        let extractor = &providers[provider].extractor;
        // Once more, as in Envoy: what a token said whose provider did not like another one is not said.
        extractor.sanitize(self.headers);
        let found = extractor.extract(self.headers);
        if found.is_empty() {
            return Err(Status::Missing);
        }
        found.into_iter().rev().try_for_each(|found| self.token(provider, &found))
    }

    fn token(&mut self, provider: usize, found: &Found<'_>) -> Result<(), Status> {
        let token = Token::parse(&found.token)?;
        let Provider { rule, extractor, audiences } = &self.providers[provider];
        if !extractor.allows(&token.issuer) {
            return Err(Status::UnknownIssuer);
        }
        token.check_time(self.now)?;
        let allowed = |audience: &String| audiences.iter().any(|ours| ours == bare(audience));
        if !audiences.is_empty() && !token.audiences.iter().any(allowed) {
            return Err(Status::AudienceNotAllowed);
        }
        self.keys.get(provider).ok_or(Status::NoValidKeys)?.verify(&token)?;
        let mut add = |name: &str, value: &str| {
            // The map has the same bound for everyone: what does not fit is left out.
            let _ = self.headers.add(name.as_bytes(), value.as_bytes());
        };
        if let Some(name) = &rule.output_payload_to_header {
            add(name, &token.encoded_payload);
        }
        for output in &rule.output_claim_to_headers {
            if let Some(text) = token.claim_text(&output.claim) {
                add(&output.header, &text);
            }
        }
        if !rule.forward_original_token {
            found.remove(self.headers);
        }
        self.payload = Some(normalized(token.payload, &rule.space_delimited_claims));
        Ok(())
    }
}

/// Claims of several words become lists.
fn normalized(mut payload: Map<String, Value>, further: &[String]) -> Map<String, Value> {
    for name in ["scope", "permission"].into_iter().chain(further.iter().map(String::as_str)) {
        if let Some(value) = payload.get_mut(name)
            && let Value::String(words) = value
        {
            *value = words.split(' ').filter(|word| !word.is_empty()).collect();
        }
    }
    payload
}
