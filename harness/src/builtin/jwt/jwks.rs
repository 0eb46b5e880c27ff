//! JSON web keys (RFC 7517), and signatures checked with them.

use ring::hmac;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::{Map, Value};

use super::json;
use super::status::Status;
use super::token::{Token, base64url};

/// The keys that can be used. A key that cannot is left out, as in Envoy.
#[derive(Debug, Default)]
pub(super) struct Jwks(Vec<Jwk>);

struct Jwk {
    /// Empty when there is none.
    kid: String,
    /// Empty when there is none.
    alg: String,
    key: Key,
}

enum Key {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The uncompressed point.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    Oct(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

// A symmetric key is a secret.
impl std::fmt::Debug for Jwk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwk").field("kid", &self.kid).field("alg", &self.alg).finish_non_exhaustive()
    }
}

impl Jwks {
    /// Reads a key set. What is none has no keys, and then every token is refused.
    pub(super) fn parse(text: &str) -> Self {
        let set = json::object(text.as_bytes()).unwrap_or_default();
        let keys = set.get("keys").and_then(Value::as_array);
        Self(keys.into_iter().flatten().filter_map(Value::as_object).filter_map(Jwk::read).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is a map of key ids to X.509 certificates, which Envoy accepts as well.
    pub(super) fn is_certificates(text: &str) -> bool {
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return false };
        let certificate = |value: &Value| value.as_str().is_some_and(|text| text.starts_with("-----BEGIN CERTIFICATE"));
        !fields.is_empty() && fields.values().all(certificate)
    }

    /// Checks the signature with each key that it may be from.
    pub(super) fn verify(&self, token: &Token) -> Result<(), Status> {
        if self.0.is_empty() {
            return Err(Status::NoValidKeys);
        }
        let fits = |ours: &str, theirs: &str| ours.is_empty() || theirs.is_empty() || ours == theirs;
        let mut matched = false;
        for jwk in self.0.iter().filter(|jwk| fits(&jwk.kid, &token.kid) && fits(&jwk.alg, &token.alg)) {
            matched = true;
            if matches!(jwk.key, Key::Ed25519(_)) && token.signature.len() != 64 {
                return Err(Status::Ed25519Length);
            }
            if jwk.key.verifies(&token.alg, token.signed.as_bytes(), &token.signature) {
                return Ok(());
            }
        }
        Err(if matched { Status::VerificationFails } else { Status::NoMatchingKey })
    }
}

impl Jwk {
    fn read(fields: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let bytes = |name: &str| text(name).and_then(base64url);
        let (kid, alg) = (text("kid").unwrap_or_default(), text("alg").unwrap_or_default());
        let key = match text("kty")? {
            "RSA" if alg.is_empty() || alg.starts_with("RS") || alg.starts_with("PS") => {
                let (n, e) = (unpadded(bytes("n")?), unpadded(bytes("e")?));
                // BoringSSL refuses moduli that are even or have not 512 to 16384 bits, and Envoy other exponents.
                let odd = n.last().is_some_and(|last| last & 1 == 1);
                let exponent = e == [3] || e == [1, 0, 1];
                let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
                if !odd || !exponent || !(512..=16384).contains(&bits) {
                    return None;
                }
                Key::Rsa { n, e }
            }
            "EC" => {
                let curve = curve(alg, fields.get("crv").map_or(Some(""), Value::as_str)?)?;
                let mut point = vec![4];
                for coordinate in [bytes("x")?, bytes("y")?] {
                    let coordinate = unpadded(coordinate);
                    point.resize(point.len() + curve.size().checked_sub(coordinate.len())?, 0);
                    point.extend(coordinate);
                }
                Key::Ec { curve, point }
            }
            "oct" if matches!(alg, "" | "HS256" | "HS384" | "HS512") => {
                Key::Oct(bytes("k").filter(|key| !key.is_empty())?)
            }
            "OKP" if matches!(alg, "" | "EdDSA") && text("crv") == Some("Ed25519") => {
                Key::Ed25519(bytes("x").filter(|key| key.len() == 32)?)
            }
            _ => return None,
        };
        Some(Self { kid: kid.to_owned(), alg: alg.to_owned(), key })
    }
}

fn unpadded(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

fn curve(alg: &str, crv: &str) -> Option<Curve> {
    match (alg, crv) {
        ("ES256" | "", "P-256" | "") => Some(Curve::P256),
        ("ES384", "") | ("ES384" | "", "P-384") => Some(Curve::P384),
        ("ES512", "") | ("ES512" | "", "P-521") => Some(Curve::P521),
        _ => None,
    }
}

impl Curve {
    fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl Key {
    /// Whether the signature is this key's. A key of another kind than the algorithm's verifies nothing.
    fn verifies(&self, alg: &str, message: &[u8], signature: &[u8]) -> bool {
        let with = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match self {
            Self::Rsa { n, e } => {
                let short = n.len() < 256;
                let parameters = match (alg, short) {
                    ("RS256", false) => &signature::RSA_PKCS1_2048_8192_SHA256,
                    ("RS384", false) => &signature::RSA_PKCS1_2048_8192_SHA384,
                    ("RS512", false) => &signature::RSA_PKCS1_2048_8192_SHA512,
                    ("PS256", false) => &signature::RSA_PSS_2048_8192_SHA256,
                    ("PS384", false) => &signature::RSA_PSS_2048_8192_SHA384,
                    ("PS512", false) => &signature::RSA_PSS_2048_8192_SHA512,
                    // Envoy has no lower bound; these are the two that can be had.
                    ("RS256", true) => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
                    ("RS512", true) => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            Self::Ec { curve, point } => match (alg, curve) {
                ("ES256", Curve::P256) => with(&signature::ECDSA_P256_SHA256_FIXED, point),
                ("ES384", Curve::P384) => with(&signature::ECDSA_P384_SHA384_FIXED, point),
                _ => false,
            },
            Self::Oct(key) => {
                let algorithm = match alg {
                    "HS256" => hmac::HMAC_SHA256,
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => return false,
                };
                hmac::verify(&hmac::Key::new(algorithm, key), message, signature).is_ok()
            }
            Self::Ed25519(key) => alg == "EdDSA" && with(&signature::ED25519, key),
        }
    }
}
