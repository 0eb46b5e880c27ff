//! Signs tokens, for servers and tests. It is not in modules.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::DecodePrivateKey as _;
use sha2::Sha256;

use crate::{Algorithm, KeyError, MIN_SECRET};

/// A key that signs: HS256 with a shared key, or ES256.
///
/// RS256 is not here: signing with RSA in constant time is what the `rsa` crate does not promise (RUSTSEC-2023-0071).
pub struct Signer {
    id: Option<String>,
    secret: Secret,
}

enum Secret {
    Shared(Hmac<Sha256>),
    P256(p256::ecdsa::SigningKey),
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("id", &self.id).field("secret", &"<redacted>").finish()
    }
}

impl Signer {
    /// Takes a shared key.
    pub fn shared(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < MIN_SECRET {
            return Err(KeyError::Short);
        }
        let mac = Hmac::new_from_slice(secret).map_err(|_| KeyError::Invalid)?;
        Ok(Self { id: None, secret: Secret::Shared(mac) })
    }

    /// Takes a P-256 private key in PEM, `PRIVATE KEY` (PKCS #8).
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let (label, der) = pem_rfc7468::decode_vec(text.trim().as_bytes()).map_err(|_| KeyError::Pem)?;
        if label != "PRIVATE KEY" {
            return Err(KeyError::Unsupported);
        }
        let key = p256::SecretKey::from_pkcs8_der(&der).map_err(|_| KeyError::Unsupported)?;
        Ok(Self { id: None, secret: Secret::P256(key.into()) })
    }

    /// Names the key in the tokens' `kid`.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.secret {
            Secret::Shared(_) => Algorithm::Hs256,
            Secret::P256(_) => Algorithm::Es256,
        }
    }

    /// Signs claims, which are JSON and are taken as they are.
    pub fn sign(&self, claims: &str) -> String {
        let id = self.id.as_deref().map(|id| format!(r#","kid":{}"#, quoted(id))).unwrap_or_default();
        self.sign_with_header(&format!(r#"{{"alg":"{}","typ":"JWT"{id}}}"#, self.algorithm()), claims)
    }

    /// Signs claims under a header of the caller's, whatever that says: for tests of those who read it.
    pub fn sign_with_header(&self, header: &str, claims: &str) -> String {
        let encode = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = match &self.secret {
            Secret::Shared(mac) => encode(&mac.clone().chain_update(signed.as_bytes()).finalize().into_bytes()),
            Secret::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(signed.as_bytes());
                encode(&signature.to_bytes())
            }
        };
        format!("{signed}.{signature}")
    }
}

/// Writes a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.extend(format!("\\u{:04x}", u32::from(c)).chars()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
