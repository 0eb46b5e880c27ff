//! JSON Web Keys (RFC 7517): one, or a set from somebody else's server.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use rsa::BoxedUint;

use crate::json::{JsonError, Object, Value};
use crate::{Algorithm, Key, KeyError, Keys};

/// How large a key set may be, in bytes.
pub const MAX_SET: usize = 256 * 1024;

/// How many keys of a set are looked at.
pub const MAX_KEYS: usize = 64;

/// Why a JSON Web Key, or a set of them, cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwkError {
    /// Not a JSON object, or not a good one.
    Json(JsonError),
    /// The set is larger than [`MAX_SET`] or has more keys than [`MAX_KEYS`].
    TooLarge,
    /// The set has no list `keys`.
    NoKeys,
    /// Another `kty`, `crv` or `alg` than those of RS256 and ES256. A symmetric key is one: it cannot be public.
    Unsupported,
    /// Its `use` or `key_ops` is not verifying.
    Purpose,
    /// Private parts are in it.
    Private,
    /// A member is missing or not what it should be.
    Invalid,
    /// An RSA modulus that is too small or too large.
    RsaSize,
}

impl fmt::Display for JwkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => error.fmt(f),
            Self::TooLarge => write!(f, "the key set has more than {MAX_SET} bytes or {MAX_KEYS} keys"),
            Self::NoKeys => f.write_str("the key set has no list `keys`"),
            Self::Unsupported => f.write_str("is a JSON Web Key that is neither for RS256 nor for ES256"),
            Self::Purpose => f.write_str("is a JSON Web Key that is not for verifying signatures"),
            Self::Private => f.write_str("is a private JSON Web Key; give the public one"),
            Self::Invalid => f.write_str("is not a valid JSON Web Key"),
            Self::RsaSize => KeyError::RsaSize.fmt(f),
        }
    }
}

impl std::error::Error for JwkError {}

impl Keys {
    /// Reads a key set (RFC 7517, section 5). A key that is unknown, broken or for something else is left out and counted:
    /// providers publish keys for others, too.
    pub fn from_set(text: &[u8]) -> Result<(Self, usize), JwkError> {
        if text.len() > MAX_SET {
            return Err(JwkError::TooLarge);
        }
        let set = Object::parse(text).map_err(JwkError::Json)?;
        let keys = set.list("keys").ok_or(JwkError::NoKeys)?;
        if keys.len() > MAX_KEYS {
            return Err(JwkError::TooLarge);
        }
        let usable: Vec<Key> = keys.iter().filter_map(Value::as_object).filter_map(|key| read(key).ok()).collect();
        let left_out = keys.len() - usable.len();
        Ok((Self(usable), left_out))
    }
}

pub(crate) fn read_text(text: &[u8]) -> Result<Key, JwkError> {
    if text.len() > MAX_SET {
        return Err(JwkError::TooLarge);
    }
    read(&Object::parse(text).map_err(JwkError::Json)?)
}

fn read(jwk: &Object) -> Result<Key, JwkError> {
    if ["d", "p", "q", "dp", "dq", "qi", "k"].iter().any(|name| jwk.has(name)) {
        return Err(if jwk.text("kty") == Some("oct") { JwkError::Unsupported } else { JwkError::Private });
    }
    let purpose = jwk.get("use").is_none_or(|used| used.as_text() == Some("sig"));
    let operations = !jwk.has("key_ops") || jwk.texts("key_ops").is_some_and(|ops| ops.contains(&"verify"));
    if !purpose || !operations {
        return Err(JwkError::Purpose);
    }
    let algorithm = match (jwk.text("kty"), jwk.text("crv")) {
        (Some("RSA"), _) => Algorithm::Rs256,
        (Some("EC"), Some("P-256")) => Algorithm::Es256,
        _ => return Err(JwkError::Unsupported),
    };
    if jwk.get("alg").is_some_and(|alg| alg.as_text() != Some(algorithm.name())) {
        return Err(JwkError::Unsupported);
    }
    let key = if algorithm == Algorithm::Rs256 { rsa(jwk)? } else { p256(jwk)? };
    match jwk.get("kid") {
        None => Ok(key),
        Some(id) => Ok(key.with_id(id.as_text().ok_or(JwkError::Invalid)?)),
    }
}

fn bytes(jwk: &Object, name: &str) -> Result<Vec<u8>, JwkError> {
    jwk.text(name).and_then(|text| Base64UrlUnpadded::decode_vec(text).ok()).ok_or(JwkError::Invalid)
}

fn rsa(jwk: &Object) -> Result<Key, JwkError> {
    let number = |name| Ok(BoxedUint::from_be_slice_vartime(&bytes(jwk, name)?));
    let (modulus, exponent) = (number("n")?, number("e")?);
    if !(crate::MIN_RSA_BITS..=crate::MAX_RSA_BITS).contains(&modulus.bit_width()) {
        return Err(JwkError::RsaSize);
    }
    let key = rsa::PublicKey::new(modulus, exponent).map_err(|_| JwkError::Invalid)?;
    Key::rsa(key).map_err(|_| JwkError::RsaSize)
}

fn p256(jwk: &Object) -> Result<Key, JwkError> {
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != 32 || y.len() != 32 {
        return Err(JwkError::Invalid);
    }
    Key::p256(&[&[4], x.as_slice(), y.as_slice()].concat()).map_err(|_| JwkError::Invalid)
}
