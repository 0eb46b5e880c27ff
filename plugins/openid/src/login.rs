//! A sign-in under way: what the browser keeps of it until it comes back.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use plugwright_sdk::Host;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::asked::{Asked, Route};
use crate::cookie::{self, Cookies};
use crate::provider::Provider;
use crate::random::{self, NoRandomness};
use crate::seal::Use;
use crate::session::{Reader, Writer};
use crate::settings::Settings;
use crate::url;

/// How long a sign-in may take, in seconds.
const MAX_AGE: u64 = 600;

/// How many a browser may have under way, one per tab.
const MAX_LOGINS: usize = 5;
/// Cookies that one response takes away.
const MAX_EXPIRED: usize = 256;

/// How long the address may be that a browser is sent back to.
const MAX_RETURN: usize = 2000;

/// A sign-in, as it is in its cookie.
pub(crate) struct Login {
    begun: u64,
    state: String,
    pub(crate) nonce: String,
    /// The secret behind the challenge of PKCE (RFC 7636).
    pub(crate) verifier: String,
    origin: String,
    /// Path and query on the same origin.
    pub(crate) target: String,
}

impl Login {
    /// Begins one that will come back to what was asked for.
    pub(crate) fn begin(asked: &Asked, settings: &Settings, now: u64, host: &impl Host) -> Result<Self, NoRandomness> {
        let wanted = asked.target.as_str();
        let good = wanted.starts_with('/') && wanted.len() <= MAX_RETURN && asked.route(settings) == Route::Site;
        let target = if good && wanted.bytes().all(|b| b.is_ascii_graphic()) { wanted } else { "/" };
        Ok(Self {
            begun: now,
            state: random::text(host)?,
            nonce: random::text(host)?,
            verifier: random::text(host)?,
            origin: asked.origin.as_str().to_owned(),
            target: target.to_owned(),
        })
    }

    /// The URL of the provider that the browser is sent to.
    pub(crate) fn url(&self, provider: &Provider, settings: &Settings) -> String {
        let challenge = Base64UrlUnpadded::encode_string(&Sha256::digest(self.verifier.as_bytes()));
        let redirect_uri = self.redirect_uri(settings);
        let own = [
            ("response_type", "code"),
            ("client_id", &settings.client.id),
            ("redirect_uri", &redirect_uri),
            ("scope", &settings.scope),
            ("state", &self.state),
            ("nonce", &self.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let more = settings.authorization_parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        url::with_query(&provider.authorization, own.into_iter().chain(more))
    }

    pub(crate) fn redirect_uri(&self, settings: &Settings) -> String {
        format!("{}{}", self.origin, settings.callback_path)
    }

    /// The `set-cookie` headers that keep it, and those that take away what is too much.
    pub(crate) fn cookies(
        &self,
        settings: &Settings,
        present: &Cookies,
        host: &impl Host,
    ) -> Result<Vec<String>, NoRandomness> {
        let mut writer = Writer(Vec::new());
        writer.number(self.begun);
        for text in [&self.state, &self.nonce, &self.verifier, &self.origin, &self.target] {
            writer.text(text);
        }
        let sealed = settings.sealer.seal(Use::Login, &writer.0, host)?;
        let mut headers = vec![cookie::set(&name(&settings.cookie_name, &self.state), &sealed, MAX_AGE)];
        headers.extend(superfluous(settings, present, self.begun).iter().map(|name| cookie::expire(name)));
        Ok(headers)
    }

    /// Finds the one that a browser comes back from, by the state that the provider returned.
    pub(crate) fn find(state: &str, asked: &Asked, settings: &Settings, now: u64) -> Option<Self> {
        let sealed = asked.cookies.get(&name(&settings.cookie_name, state))?;
        let login = Self::open(settings, sealed)?;
        let same_state = bool::from(login.state.as_bytes().ct_eq(state.as_bytes()));
        let in_time = now.saturating_sub(login.begun) <= MAX_AGE;
        (same_state && in_time && login.origin == asked.origin.as_str()).then_some(login)
    }

    fn open(settings: &Settings, sealed: &str) -> Option<Self> {
        let plain = settings.sealer.open(Use::Login, sealed)?;
        let mut reader = Reader(&plain);
        let begun = reader.number()?;
        let mut text = || reader.text();
        let (state, nonce, verifier) = (text()?, text()?, text()?);
        Some(Self { begun, state, nonce, verifier, origin: text()?, target: text()? })
    }

    /// The `set-cookie` header that ends it.
    pub(crate) fn end(&self, settings: &Settings) -> String {
        cookie::expire(&name(&settings.cookie_name, &self.state))
    }
}

/// The cookie's name has a part of the state, so that tabs do not get in each other's way.
fn name(cookie_name: &str, state: &str) -> String {
    format!("{}{}", prefix(cookie_name), state.get(..8).unwrap_or_default())
}

fn prefix(cookie_name: &str) -> String {
    format!("{cookie_name}-login-")
}

/// The cookies of sign-ins that do not open or are over, and of the oldest where there are too many.
fn superfluous<'a>(settings: &Settings, present: &'a Cookies, now: u64) -> Vec<&'a str> {
    let prefix = prefix(&settings.cookie_name);
    let (mut open, mut gone) = (Vec::new(), Vec::new());
    for (name, sealed) in present.iter().filter(|(name, _)| name.starts_with(&prefix)) {
        match Login::open(settings, sealed) {
            Some(login) if now.saturating_sub(login.begun) <= MAX_AGE => open.push((login.begun, name)),
            _ => gone.push(name),
        }
    }
    open.sort_unstable();
    let too_many = (open.len() + 1).saturating_sub(MAX_LOGINS);
    gone.extend(open.into_iter().take(too_many).map(|(_, name)| name));
    // A name is no header's to break, whatever a client sent.
    gone.retain(|name| plugwright_sdk::is_token(name));
    // Proxies take a bounded number of headers; what is left goes the next time.
    gone.truncate(MAX_EXPIRED);
    gone
}
