//! Signatures for plugins: RSA (PKCS #1 v1.5) and ECDSA (P-256, P-384) over SHA-2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature as ring_signature;
use ring::signature::{EcdsaKeyPair, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm};

/// Content of the object identifiers of keys and curves.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 6;
const BIT_STRING: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
}

/// A public key from its `SubjectPublicKeyInfo`.
#[derive(Debug, Clone)]
pub(crate) struct PublicKey {
    kind: Kind,
    key: Vec<u8>,
}

/// A private key from its PKCS #8.
pub(crate) enum PrivateKey {
    Rsa(Box<RsaKeyPair>),
    P256(Vec<u8>),
    P384(Vec<u8>),
}

impl PublicKey {
    /// Reads a key in DER; `None` when it is none, or of a kind that is not supported.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        let mut outer = der;
        let mut info = element(&mut outer, SEQUENCE)?;
        let mut algorithm = element(&mut info, SEQUENCE)?;
        let kind = match element(&mut algorithm, OBJECT_IDENTIFIER)? {
            RSA => Kind::Rsa,
            EC => match element(&mut algorithm, OBJECT_IDENTIFIER)? {
                P256 => Kind::P256,
                P384 => Kind::P384,
                _ => return None,
            },
            _ => return None,
        };
        // The first octet is the number of unused bits: none.
        let key = element(&mut info, BIT_STRING)?.strip_prefix(&[0])?.to_vec();
        (outer.is_empty() && info.is_empty()).then_some(Self { kind, key })
    }

    /// Reads a key in PEM.
    pub(crate) fn from_pem(pem: &str) -> Option<Self> {
        Self::from_der(&from_pem(pem, "PUBLIC KEY")?)
    }

    /// Checks a signature; what is wrong is said in Envoy's words.
    pub(crate) fn verify(&self, hash: &str, signature: &[u8], text: &[u8]) -> Result<(), String> {
        let algorithm: &'static dyn VerificationAlgorithm = match (self.kind, hash.to_ascii_lowercase().as_str()) {
            (Kind::Rsa, "sha1") => &ring_signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
            (Kind::Rsa, "sha256") => &ring_signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            (Kind::Rsa, "sha384") => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
            (Kind::Rsa, "sha512") => &ring_signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
            (Kind::P256, "sha256") => &ring_signature::ECDSA_P256_SHA256_ASN1,
            (Kind::P256, "sha384") => &ring_signature::ECDSA_P256_SHA384_ASN1,
            (Kind::P384, "sha256") => &ring_signature::ECDSA_P384_SHA256_ASN1,
            (Kind::P384, "sha384") => &ring_signature::ECDSA_P384_SHA384_ASN1,
            _ => return Err(format!("{hash} is not supported.")),
        };
        UnparsedPublicKey::new(algorithm, &self.key)
            .verify(text, signature)
            .map_err(|_| "Failed to verify digest. Error code: 0".to_owned())
    }
}

impl PrivateKey {
    /// Reads a key in DER; `None` when it is none, or of a kind that is not supported.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        if let Ok(pair) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
            return Some(Self::Rsa(pair.into()));
        }
        let random = SystemRandom::new();
        let is_on = |curve| EcdsaKeyPair::from_pkcs8(curve, der, &random).is_ok();
        if is_on(&ring_signature::ECDSA_P256_SHA256_ASN1_SIGNING) {
            return Some(Self::P256(der.to_vec()));
        }
        is_on(&ring_signature::ECDSA_P384_SHA384_ASN1_SIGNING).then(|| Self::P384(der.to_vec()))
    }

    /// Reads a key in PEM.
    pub(crate) fn from_pem(pem: &str) -> Option<Self> {
        let der = from_pem(pem, "PRIVATE KEY").or_else(|| from_pem(pem, "RSA PRIVATE KEY"))?;
        Self::from_der(&der)
    }

    /// Signs a text.
    pub(crate) fn sign(&self, hash: &str, text: &[u8]) -> Result<Vec<u8>, String> {
        let random = SystemRandom::new();
        let unsupported = || format!("{hash} is not supported.");
        let failed = |_| "Failed to sign.".to_owned();
        let lower = hash.to_ascii_lowercase();
        match self {
            Self::Rsa(pair) => {
                let padding: &'static dyn ring_signature::RsaEncoding = match lower.as_str() {
                    "sha256" => &ring_signature::RSA_PKCS1_SHA256,
                    "sha384" => &ring_signature::RSA_PKCS1_SHA384,
                    "sha512" => &ring_signature::RSA_PKCS1_SHA512,
                    _ => return Err(unsupported()),
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, text, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Self::P256(pkcs8) | Self::P384(pkcs8) => {
                let algorithm = match (self, lower.as_str()) {
                    (Self::P256(_), "sha256") => &ring_signature::ECDSA_P256_SHA256_ASN1_SIGNING,
                    (Self::P384(_), "sha384") => &ring_signature::ECDSA_P384_SHA384_ASN1_SIGNING,
                    _ => return Err(unsupported()),
                };
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random).map_err(|_| unsupported())?;
                pair.sign(&random, text).map(|signature| signature.as_ref().to_vec()).map_err(failed)
            }
        }
    }
}

/// Takes one element of that tag off and returns its content.
fn element<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let [found, length, rest @ ..] = *der else { return None };
    if *found != tag {
        return None;
    }
    let (length, rest) = match length {
        short @ 0..=0x7f => (usize::from(*short), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), rest.get(2..)?),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *der = rest;
    Some(content)
}

fn from_pem(pem: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (content, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let content: String = content.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(content).ok()
}

#[cfg(test)]
mod tests {
    use ring::signature::KeyPair as _;

    use super::*;

    /// The `SubjectPublicKeyInfo` of a P-256 point.
    fn p256_info(point: &[u8]) -> Vec<u8> {
        let algorithm = [&[OBJECT_IDENTIFIER, 7][..], EC, &[OBJECT_IDENTIFIER, 8], P256].concat();
        let bits = [&[BIT_STRING, 66, 0][..], point].concat();
        let content = [&[SEQUENCE, 19][..], &algorithm, &bits].concat();
        [&[SEQUENCE, u8::try_from(content.len()).unwrap()][..], &content].concat()
    }

    #[test]
    fn what_is_signed_verifies_and_nothing_else_does() {
        let random = SystemRandom::new();
        let algorithm = &ring_signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let info = p256_info(pair.public_key().as_ref());
        let public = PublicKey::from_der(&info).unwrap();
        let signature = PrivateKey::from_der(pkcs8.as_ref()).unwrap().sign("SHA256", b"text").unwrap();
        assert_eq!(public.verify("sha256", &signature, b"text"), Ok(()));
        let wrong = Err("Failed to verify digest. Error code: 0".to_owned());
        assert_eq!(public.verify("sha256", &signature, b"other"), wrong);
        assert_eq!(public.verify("md5", &signature, b"text"), Err("md5 is not supported.".to_owned()));
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&info));
        assert_eq!(PublicKey::from_pem(&pem).unwrap().verify("sha256", &signature, b"text"), Ok(()));
        for cut in 0..info.len() {
            assert!(PublicKey::from_der(&info[..cut]).is_none());
        }
    }
}
