//! Verifies the JWT and tells whose it is. The keys of a URL are fetched when they are needed, and kept.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jose::{Key, Keys, MAX_SET, Token, TokenError, Validity};

/// How far the provider's clock and this one may be apart.
const SKEW: Duration = Duration::from_secs(30);

/// How long keys are used before they are fetched again.
const FRESH: Duration = Duration::from_mins(5);

/// How often at most, in that time, they are fetched for a token that they do not fit: it may be signed with a new one,
/// or by nobody.
const RETRIES: u32 = 10;

const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Verifier {
    source: Source,
    issuer: Option<String>,
    audience: Option<String>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    keys: Option<Keys>,
    fetched: Option<Instant>,
    retries: u32,
}

enum Source {
    Url { url: String, agent: ureq::Agent },
    File,
}

/// Why there is no subject.
pub(crate) enum Rejected {
    /// The token is not good.
    Token(String),
    /// There are no keys to tell.
    Keys(String),
}

impl From<TokenError> for Rejected {
    fn from(error: TokenError) -> Self {
        Self::Token(error.to_string())
    }
}

impl Verifier {
    pub(crate) fn new(from: String, issuer: Option<String>, audience: Option<String>) -> Result<Self, String> {
        if from.starts_with("http://") || from.starts_with("https://") {
            let agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).max_redirects(0).build();
            let source = Source::Url { url: from, agent: agent.into() };
            return Ok(Self { source, issuer, audience, kept: Mutex::default() });
        }
        let text = std::fs::read_to_string(&from).map_err(|error| format!("failed to read {from}: {error}"))?;
        let keys = match Keys::from_set(text.as_bytes()) {
            Ok((keys, _)) if !keys.is_empty() => keys,
            Ok(_) => return Err(format!("{from}: no key of the set can be used")),
            Err(_) => Keys::from(Key::from_text(&text).map_err(|error| format!("{from}: {error}"))?),
        };
        let kept = Mutex::new(Kept { keys: Some(keys), ..Kept::default() });
        Ok(Self { source: Source::File, issuer, audience, kept })
    }

    /// The subject of a token that is good.
    pub(crate) fn subject(&self, token: &str, now: Duration) -> Result<String, Rejected> {
        let token = Token::parse(token)?;
        let claims = match token.verify(&self.keys(false)?) {
            Err(TokenError::UnknownKey | TokenError::Signature | TokenError::Algorithm) => {
                token.verify(&self.keys(true)?)
            }
            verified => verified,
        }?;
        let rejected = |reason: &str| Rejected::Token(reason.to_owned());
        Validity { now, skew: SKEW }.check(&claims).map_err(|error| Rejected::Token(error.to_string()))?;
        if self.issuer.is_some() && claims.text("iss") != self.issuer.as_deref() {
            return Err(rejected("the token has another iss"));
        }
        let meant = |audience: &String| claims.texts("aud").is_some_and(|texts| texts.contains(&audience.as_str()));
        if !self.audience.iter().all(meant) {
            return Err(rejected("the token has another aud"));
        }
        claims.text("sub").map(str::to_owned).ok_or_else(|| rejected("the token has no sub"))
    }

    /// The keys, fetched again when they are old, or do not fit.
    fn keys(&self, unfit: bool) -> Result<Keys, Rejected> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Source::Url { url, agent } = &self.source {
            let fresh = kept.keys.is_some() && kept.fetched.is_some_and(|at| at.elapsed() < FRESH);
            if !fresh {
                kept.retries = 0;
            }
            if !fresh || (unfit && kept.retries < RETRIES) {
                kept.retries += u32::from(unfit);
                kept.fetched = Some(Instant::now());
                match fetch(agent, url) {
                    Ok(keys) => kept.keys = Some(keys),
                    // A provider that is away for a while does not make its old keys wrong.
                    Err(_) if kept.keys.is_some() => {}
                    Err(reason) => return Err(Rejected::Keys(format!("failed to fetch {url}: {reason}"))),
                }
            }
        }
        Ok(kept.keys.clone().unwrap_or_default())
    }
}

fn fetch(agent: &ureq::Agent, url: &str) -> Result<Keys, String> {
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    let limit = u64::try_from(MAX_SET).unwrap_or(u64::MAX);
    let body = response.body_mut().with_config().limit(limit).read_to_vec().map_err(|error| error.to_string())?;
    Keys::from_set(&body).map(|(keys, _)| keys).map_err(|error| error.to_string())
}
