//! The configuration as it is written, and the check that it becomes.

use std::time::Duration;

use jose::{Key, Keys};
use plugwright_sdk::{ConfigError, Host, is_token};
use serde::Deserialize;

/// How far clocks may be apart at most, in seconds: more would make `exp` meaningless.
const MAX_SKEW: u64 = 600;

/// A shared key below this is weaker than the hash (RFC 7518, section 3.2).
const STRONG_SECRET: usize = 32;

/// The plugin's configuration. It has exactly one of `verification_key` and `verification_key_env`.
#[derive(Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars", extend("oneOf" = [
        {"required": ["verification_key"], "properties": {"verification_key": {"type": "string"}}},
        {"required": ["verification_key_env"], "properties": {"verification_key_env": {"type": "string"}}},
    ]))
)]
#[serde(deny_unknown_fields, expecting = "an object with read_header, verification_key and function")]
pub struct Config {
    /// The request header that holds the token.
    read_header: String,
    /// A public key in PEM (RSA is for RS256, P-256 for ES256), a public JSON Web Key, or a shared key for HS256.
    verification_key: Option<String>,
    /// The variable of the VM's environment that holds the key, so that it is not in the resource.
    verification_key_env: Option<String>,
    /// What the token must permit.
    function: String,
    /// The claim that holds what the token permits: one string, or a list of them.
    #[serde(default = "default_claim")]
    claim: String,
    /// What the token's `iss` must be.
    issuer: Option<String>,
    /// What the token's `aud` must be, or have among others.
    audience: Option<String>,
    /// How many seconds the signer's clock and the proxy's may be apart, up to 600.
    #[serde(default = "default_skew")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(max = 600)))]
    clock_skew_seconds: u64,
}

// The key may be a shared one.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("read_header", &self.read_header)
            .field("function", &self.function)
            .finish_non_exhaustive()
    }
}

fn default_claim() -> String {
    "function".to_owned()
}

fn default_skew() -> u64 {
    30
}

/// What a request's token is held against.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) header: String,
    pub(crate) keys: Keys,
    pub(crate) function: String,
    pub(crate) claim: String,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) skew: Duration,
}

impl Config {
    /// Checks everything that the types do not, or says which field is wrong.
    pub(crate) fn into_check(self, host: &impl Host) -> Result<Check, ConfigError> {
        if !is_token(&self.read_header) {
            return Err(ConfigError::new("is not a header's name").field("read_header"));
        }
        let named = [("function", Some(&self.function)), ("claim", Some(&self.claim))];
        let optional = [("issuer", self.issuer.as_ref()), ("audience", self.audience.as_ref())];
        for (field, value) in named.into_iter().chain(optional) {
            if value.is_some_and(String::is_empty) {
                return Err(ConfigError::new("is empty").field(field));
            }
        }
        if self.clock_skew_seconds > MAX_SKEW {
            return Err(ConfigError::new("is more than 600").field("clock_skew_seconds"));
        }
        let (field, text) = match (self.verification_key, self.verification_key_env) {
            (Some(text), None) => ("verification_key", text),
            (None, Some(name)) => match host.env(&name).filter(|text| !text.is_empty()) {
                Some(text) => ("verification_key_env", text),
                None => {
                    let reason = "names a variable that is not in the VM's environment; set it in vmConfig.env";
                    return Err(ConfigError::new(reason).field("verification_key_env"));
                }
            },
            (None, None) => return Err(ConfigError::new("is missing").field("verification_key")),
            (Some(_), Some(_)) => {
                return Err(ConfigError::new("is given beside verification_key").field("verification_key_env"));
            }
        };
        let key = Key::from_text(&text).map_err(|error| ConfigError::new(error.to_string()).field(field))?;
        if key.algorithm() == jose::Algorithm::Hs256 && text.len() < STRONG_SECRET {
            host.warn(&format!("{field}: the shared key has {} bytes; HS256 asks for 32 or more", text.len()));
        }
        Ok(Check {
            header: self.read_header,
            keys: Keys::from(key),
            function: self.function,
            claim: self.claim,
            issuer: self.issuer,
            audience: self.audience,
            skew: Duration::from_secs(self.clock_skew_seconds),
        })
    }
}
