//! Tokens signed with keys of this test run's own, and the key sets that go with them.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use ring::{hmac, rand};
use serde_json::{Value, json};

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A key that signs.
pub(crate) enum Signer {
    Rsa(Box<RsaKeyPair>, Vec<u8>),
    Ec(EcdsaKeyPair, &'static str),
    Ed25519(Ed25519KeyPair),
    Hmac(Vec<u8>),
}

/// The private key of RFC 7515, appendix A.2: making an RSA key takes longer than all other tests.
fn rfc7515_rsa() -> (RsaKeyPair, Vec<u8>) {
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let n = part(
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-\
         pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2Cap\
         Hg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h\
         4FRWyuXpoQ",
    );
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: n.clone(), e: vec![1, 0, 1] },
        d: part(
            "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395I\
             W_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0Z\
             HHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSe\
             WjnczT0QU91p1DhOVRuOopznQ",
        ),
        p: part(
            "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7o\
             uZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
        ),
        q: part(
            "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDm\
             pe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
        ),
        dP: part(
            "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk\
             3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
        ),
        dQ: part(
            "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2\
             w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
        ),
        qInv: part(
            "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEd\
             fnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U",
        ),
    };
    (RsaKeyPair::from_components(&components).unwrap(), n)
}

impl Signer {
    /// A new key for an algorithm; for RS and PS it is always the same.
    pub(crate) fn new(alg: &str) -> Self {
        let random = SystemRandom::new();
        let ec = |algorithm, crv| {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap(), crv)
        };
        match alg {
            "ES256" => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            "ES384" => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            "EdDSA" => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Self::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
            }
            _ if alg.starts_with("HS") => Self::Hmac(rand::generate::<[u8; 32]>(&random).unwrap().expose().to_vec()),
            _ => {
                let (pair, n) = rfc7515_rsa();
                Self::Rsa(Box::new(pair), n)
            }
        }
    }

    /// The key as others may know it (for HS, as those must who check).
    pub(crate) fn jwk(&self, more: &Value) -> Value {
        let mut jwk = match self {
            Self::Rsa(_, n) => json!({"kty": "RSA", "n": encode(n), "e": "AQAB"}),
            Self::Ec(pair, crv) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y)})
            }
            Self::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key())}),
            Self::Hmac(key) => json!({"kty": "oct", "k": encode(key)}),
        };
        for (name, value) in more.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    }

    /// A key set with this key only.
    pub(crate) fn jwks(&self) -> String {
        json!({"keys": [self.jwk(&json!({}))]}).to_string()
    }

    pub(crate) fn token(&self, header: &Value, payload: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(payload.to_string()));
        let (random, message) = (SystemRandom::new(), signed.as_bytes());
        let alg = header["alg"].as_str().unwrap_or_default();
        let signature = match self {
            Self::Rsa(pair, _) => {
                let padding: &dyn signature::RsaEncoding = match alg {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair, _) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Hmac(key) => {
                let algorithm = match alg {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()
            }
        };
        format!("{signed}.{}", encode(signature))
    }
}

/// One key for tests that are not about keys: ES256, made once.
pub(crate) static KEY: LazyLock<Signer> = LazyLock::new(|| Signer::new("ES256"));

/// A token of [`KEY`], good for an hour unless the claims say otherwise.
pub(crate) fn token(claims: Value) -> String {
    let mut payload = json!({"exp": now() + 3600});
    for (name, value) in claims.as_object().unwrap() {
        payload[name] = value.clone();
    }
    KEY.token(&json!({"alg": "ES256"}), &payload)
}
