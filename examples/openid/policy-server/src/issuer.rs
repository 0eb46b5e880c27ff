//! Signs what a subject may do.

use std::time::Duration;

use hyper::header::HeaderValue;
use jose::{KeyError, Signer};

pub(crate) struct Issuer {
    signer: Signer,
    name: String,
    lifetime: u64,
    cache_control: HeaderValue,
}

#[derive(Debug, thiserror::Error)]
#[error("the key to sign with {0}")]
pub(crate) struct SignerError(KeyError);

impl Issuer {
    /// Takes a P-256 private key in PEM, or a shared key; the line's end is not part of it.
    pub(crate) fn new(key: &str, name: String, lifetime: u64) -> Result<Self, SignerError> {
        let signer = if key.contains("-----") {
            Signer::from_pem(key)
        } else {
            Signer::shared(key.trim_end_matches(['\r', '\n']).as_bytes())
        };
        // A kept token should still be good for as long again.
        let cache_control = HeaderValue::try_from(format!("private, max-age={}", lifetime / 2));
        Ok(Self {
            signer: signer.map_err(SignerError)?,
            name,
            lifetime,
            cache_control: cache_control.unwrap_or(HeaderValue::from_static("no-store")),
        })
    }

    pub(crate) fn permit(&self, subject: &str, functions: &[String], now: Duration) -> String {
        let now = now.as_secs();
        let claims = serde_json::json!({
            "iss": self.name, "sub": subject, "iat": now, "exp": now + self.lifetime, "function": functions,
        });
        self.signer.sign(&claims.to_string())
    }

    /// How long a proxy may keep the answer.
    pub(crate) fn cache_control(&self) -> HeaderValue {
        self.cache_control.clone()
    }
}
