//! Asks a policy server what a request's JWT permits, and passes the signed answer on in a header.
//!
//! What a client writes into that header never gets further. A request goes on only when the policy server has said so:
//! no answer, one in time or one that makes sense is a 503.

mod cache;
mod config;

use std::cell::Cell;

use jose::Token;
use plugwright_sdk::{Answer, AsyncPlugin, Call, CallError, CallResponse, ConfigError, Host, LocalResponse, Request};

use self::cache::{Cache, lifetime, question};
pub use self::config::Config;
use self::config::Policy;

/// How long a policy server's token may be, in bytes. Upstreams commonly take 8 KiB of headers.
const MAX_ANSWER: usize = 8 * 1024;

/// Asks about every request.
#[derive(Debug)]
pub struct AclCheck {
    policy: Policy,
    cache: Cache,
    /// The last call came to nothing, and the log says so already.
    failing: Cell<bool>,
}

impl AsyncPlugin for AclCheck {
    type Config = Config;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self { policy: config.into_policy()?, cache: Cache::default(), failing: Cell::new(false) })
    }

    async fn on_request(&self, mut request: Request) -> Answer {
        remove(&mut request, &self.policy.header)?;
        let token = bearer(&request)?;
        let parts = ["method", "authority", "path"].map(|name| request.header(&format!(":{name}")));
        let [Some(method), Some(authority), Some(path)] = parts else {
            return Err(LocalResponse::new(400).details("acl_malformed_request"));
        };
        let caches = !self.policy.cache.is_zero();
        let asked = caches.then(|| question([&token, &method, &authority, &path]));
        if let (Some(asked), Ok(now)) = (&asked, request.host().now())
            && let Some(kept) = self.cache.get(asked, now)
        {
            request.set_header(&self.policy.header, &kept)?;
            return Ok(());
        }
        let call = Call::get(&self.policy.server.authority, &self.policy.server.path)
            .header("authorization", &format!("Bearer {token}"))
            .header("accept", "application/jwt")
            .header("x-forwarded-method", &method)
            .header("x-forwarded-host", &authority)
            .header("x-forwarded-uri", &path)
            .timeout(self.policy.timeout);
        let answer = request.call(&self.policy.server.cluster, call).await;
        let (permission, cache_control) = self.judge(&request.host(), answer)?;
        if let (Some(asked), Ok(now)) = (asked, request.host().now()) {
            let lifetime = lifetime(cache_control.as_deref(), self.policy.cache);
            self.cache.put(asked, &permission, now, lifetime);
        }
        request.set_header(&self.policy.header, &permission)?;
        Ok(())
    }
}

impl AclCheck {
    /// Makes the policy server's token of its answer, or what the client is told.
    fn judge(
        &self,
        host: &impl Host,
        answer: Result<CallResponse, CallError>,
    ) -> Result<(String, Option<String>), LocalResponse> {
        let answer = match answer {
            Ok(answer) => answer,
            // A header of the client's that no call may carry; the policy server is not to blame.
            Err(CallError::Invalid) => return Err(LocalResponse::new(400).details("acl_malformed_request")),
            Err(error) => return Err(self.failed(host, "acl_server_unreachable", &error.to_string())),
        };
        match answer.status() {
            200 => match token(answer.body()) {
                Some(token) => {
                    self.works(host);
                    Ok((token.to_owned(), answer.header("cache-control").map(str::to_owned)))
                }
                None => Err(self.failed(host, "acl_server_malformed_answer", "its answer is not a signed token")),
            },
            401 => {
                self.works(host);
                Err(unauthorized("acl_token_refused", r#"Bearer error="invalid_token""#))
            }
            403 => {
                self.works(host);
                Err(LocalResponse::new(403).details("acl_denied"))
            }
            status => Err(self.failed(host, "acl_server_failed", &format!("it answered {status}"))),
        }
    }

    /// Says once that the policy server fails, not with every request.
    fn failed(&self, host: &impl Host, details: &str, reason: &str) -> LocalResponse {
        if !self.failing.replace(true) {
            let cluster = &self.policy.server.cluster;
            host.error(&format!("policy server {cluster}: {reason}; requests get 503 until it does better"));
        }
        LocalResponse::new(503).details(details)
    }

    fn works(&self, host: &impl Host) {
        if self.failing.replace(false) {
            host.info("the policy server answers again");
        }
    }
}

/// Removes what the client sent as `header`, also where `-` is written for `_`: upstreams that hand headers on as
/// variables (CGI, WSGI) take one for the other.
fn remove(request: &mut Request, header: &str) -> Answer {
    let same = |a: u8, b: u8| a.eq_ignore_ascii_case(&b) || (matches!(a, b'-' | b'_') && matches!(b, b'-' | b'_'));
    for (name, _) in request.headers()? {
        if name.len() == header.len() && name.iter().zip(header.bytes()).all(|(a, b)| same(*a, b)) {
            request.remove_header(&String::from_utf8_lossy(&name))?;
        }
    }
    Ok(())
}

/// The one JWT of the request (RFC 6750, section 2.1).
fn bearer(request: &Request) -> Result<String, LocalResponse> {
    let values = request.header_values("authorization")?;
    let malformed = || unauthorized("acl_malformed_token", r#"Bearer error="invalid_token""#);
    let missing = || unauthorized("acl_no_token", "Bearer");
    let value = match values.as_slice() {
        [] => return Err(missing()),
        [value] => std::str::from_utf8(value).map_err(|_| malformed())?,
        _ => return Err(malformed()),
    };
    let (scheme, token) = value.trim().split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    let token = token.trim();
    Token::parse(token).map_err(|_| malformed())?;
    Ok(token.to_owned())
}

/// The token that is all there is of an answer.
fn token(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= MAX_ANSWER)?.trim_ascii();
    Token::parse(text).is_ok().then_some(text)
}

fn unauthorized(details: &str, challenge: &str) -> LocalResponse {
    LocalResponse::new(401).details(details).header("www-authenticate", challenge)
}

plugwright_sdk::register!(async AclCheck);
