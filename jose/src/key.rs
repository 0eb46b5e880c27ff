//! Keys, each with the one algorithm that it verifies.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use rsa::signature::Verifier as _;
use rsa::traits::PublicKeyParts as _;
use sha2::Sha256;

use crate::{Header, TokenError, jwk, pem};

/// How short a shared key may be, in bytes. RFC 7518 (section 3.2) asks for 32.
pub const MIN_SECRET: usize = 16;

/// How small an RSA modulus may be, in bits (RFC 7518, section 3.3).
pub const MIN_RSA_BITS: u32 = 2048;

/// How large an RSA modulus may be, in bits.
pub const MAX_RSA_BITS: u32 = 4096;

/// How many keys are tried when a token does not say which one it is signed with.
const MAX_TRIES: usize = 8;

/// A signature's algorithm (RFC 7518, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    /// The name that a token's `alg` has.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a key cannot be used. It never quotes the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// A shared key of fewer than [`MIN_SECRET`] bytes.
    Short,
    /// Meant for a shared key, but it is the base64 of a public or private key, or a key of SSH.
    Bare,
    /// Not one PEM block.
    Pem,
    /// A private key, which has no business here.
    Private,
    /// A certificate.
    Certificate,
    /// Neither an RSA key nor one on P-256.
    Unsupported,
    /// An RSA key outside [`MIN_RSA_BITS`] and [`MAX_RSA_BITS`].
    RsaSize,
    /// Damaged, or no point or modulus that its algorithm allows.
    Invalid,
    /// A JSON Web Key that is not one for verifying RS256 or ES256.
    Jwk(jwk::JwkError),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "has fewer than {MIN_SECRET} bytes"),
            Self::Bare => f.write_str("looks like a key without its PEM lines; as a shared key it would be no secret"),
            Self::Pem => f.write_str("is not one PEM block"),
            Self::Private => f.write_str("is a private key; give the public one"),
            Self::Certificate => f.write_str("is a certificate; give its public key"),
            Self::Unsupported => f.write_str("is neither an RSA nor a P-256 public key"),
            Self::RsaSize => write!(f, "is an RSA key that has not {MIN_RSA_BITS} to {MAX_RSA_BITS} bits"),
            Self::Invalid => f.write_str("is not a valid public key"),
            Self::Jwk(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for KeyError {}

/// A key that verifies with one algorithm.
#[derive(Clone)]
pub struct Key {
    pub(crate) id: Option<String>,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Shared(Hmac<Sha256>),
    Rsa(rsa::pkcs1v15::VerifyingKey<Sha256>),
    P256(p256::ecdsa::VerifyingKey),
}

// A shared key is a secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

impl Key {
    /// Takes a key as people write it: PEM is a public key, `{` begins a JSON Web Key, all else is a shared key.
    ///
    /// What was meant for a public key is never taken for a shared one, which would make everybody a signer.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let trimmed = text.trim();
        if trimmed.contains("-----") {
            return Self::from_pem(trimmed);
        }
        if trimmed.starts_with('{') {
            return Self::from_jwk(trimmed.as_bytes());
        }
        if pem::is_bare(trimmed) {
            return Err(KeyError::Bare);
        }
        Self::shared(text.as_bytes())
    }

    /// Takes a shared key for HS256.
    pub fn shared(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < MIN_SECRET {
            return Err(KeyError::Short);
        }
        let mac = Hmac::new_from_slice(secret).map_err(|_| KeyError::Invalid)?;
        Ok(Self { id: None, material: Material::Shared(mac) })
    }

    /// Takes a public key in PEM, `PUBLIC KEY` or `RSA PUBLIC KEY`: RSA is for RS256, P-256 for ES256.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        pem::read(text)
    }

    /// Takes one JSON Web Key for RS256 or ES256 (RFC 7517).
    pub fn from_jwk(text: &[u8]) -> Result<Self, KeyError> {
        jwk::read_text(text).map_err(KeyError::Jwk)
    }

    pub(crate) fn rsa(key: rsa::PublicKey) -> Result<Self, KeyError> {
        if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&key.n().bit_width()) {
            return Err(KeyError::RsaSize);
        }
        Ok(Self { id: None, material: Material::Rsa(rsa::pkcs1v15::VerifyingKey::new(key)) })
    }

    /// Takes a point as SEC 1 writes it.
    pub(crate) fn p256(point: &[u8]) -> Result<Self, KeyError> {
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| KeyError::Invalid)?;
        Ok(Self { id: None, material: Material::P256(key) })
    }

    /// Names the key, as a token's `kid` may.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// The only algorithm that the key is for.
    pub fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Shared(_) => Algorithm::Hs256,
            Material::Rsa(_) => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
        }
    }

    /// Whether `signature` over `message` is this key's, in constant time where the key is a secret.
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Shared(mac) => mac.clone().chain_update(message).verify_slice(signature).is_ok(),
            Material::Rsa(key) => rsa::pkcs1v15::Signature::try_from(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Material::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}

/// The keys that a token may be signed with.
#[derive(Clone, Debug, Default)]
pub struct Keys(pub(crate) Vec<Key>);

impl From<Key> for Keys {
    fn from(key: Key) -> Self {
        Self(vec![key])
    }
}

impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl Keys {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, so that nothing verifies.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A key whose id is the token's, if there is one; else those that have none. Of these, only the ones for its algorithm.
    pub(crate) fn verify(&self, header: &Header, message: &[u8], signature: &[u8]) -> Result<(), TokenError> {
        let named = header.kid.is_some() && self.0.iter().any(|key| key.id == header.kid);
        let meant = |key: &&Key| match &header.kid {
            None => true,
            Some(_) if named => key.id == header.kid,
            Some(_) => key.id.is_none(),
        };
        if !self.0.iter().any(|key| key.algorithm().name() == header.alg) {
            return Err(TokenError::Algorithm);
        }
        let mut keys = self.0.iter().filter(meant).peekable();
        if keys.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        let mut keys = keys.filter(|key| key.algorithm().name() == header.alg).take(MAX_TRIES).peekable();
        if keys.peek().is_none() {
            return Err(TokenError::Algorithm);
        }
        if keys.any(|key| key.verifies(message, signature)) { Ok(()) } else { Err(TokenError::Signature) }
    }
}
