//! `importPublicKey` and `verifySignature`: RSA (PKCS #1 v1.5) and ECDSA (DER) over a DER `SubjectPublicKeyInfo`.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

/// A key that a script imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    kind: KeyKind,
    /// RSA: `RSAPublicKey` (RFC 8017); EC: the point.
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa { bits: usize },
    P256,
    P384,
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum VerifyError {
    /// Not one of Envoy's names.
    #[error("{0} is not supported.")]
    UnknownHash(String),
    /// Envoy has it, this host does not.
    #[error("verifySignature() with {hash} and {key} is not available here")]
    NotHere { hash: String, key: &'static str },
    #[error("Failed to verify digest. Error code: 0")]
    Wrong,
}

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

/// Takes one DER element with this tag off the front: its content.
fn element<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&found, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    (found == tag).then_some(content)
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7). `None`: it is none, or of a kind that is not read.
    pub(super) fn import(der: &[u8]) -> Option<Self> {
        let mut input = der;
        let mut info = element(&mut input, 0x30)?;
        let mut algorithm = element(&mut info, 0x30)?;
        let (&unused_bits, key) = element(&mut info, 0x03)?.split_first()?;
        if unused_bits != 0 || !input.is_empty() || !info.is_empty() {
            return None;
        }
        let kind = match element(&mut algorithm, 0x06)? {
            RSA => {
                let mut rsa = key;
                let mut numbers = element(&mut rsa, 0x30)?;
                let modulus = element(&mut numbers, 0x02)?;
                let leading = modulus.iter().take_while(|byte| **byte == 0).count();
                KeyKind::Rsa { bits: (modulus.len() - leading) * 8 }
            }
            EC => match element(&mut algorithm, 0x06)? {
                P256 => KeyKind::P256,
                P384 => KeyKind::P384,
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { kind, bytes: key.to_vec() })
    }

    /// Verifies a signature of `data` under a hash by one of Envoy's names.
    pub(super) fn verify(&self, hash: &str, signature: &[u8], data: &[u8]) -> Result<(), VerifyError> {
        let known = hash.to_ascii_lowercase();
        let algorithm: Option<&dyn VerificationAlgorithm> = match (self.kind, known.as_str()) {
            (_, unknown) if !["sha1", "sha224", "sha256", "sha384", "sha512"].contains(&unknown) => {
                return Err(VerifyError::UnknownHash(hash.to_owned()));
            }
            (KeyKind::Rsa { .. }, "sha1") => Some(&signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
            (KeyKind::Rsa { .. }, "sha256") => Some(&signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
            (KeyKind::Rsa { bits: 2048.. }, "sha384") => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            (KeyKind::Rsa { .. }, "sha512") => Some(&signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
            (KeyKind::P256, "sha256") => Some(&signature::ECDSA_P256_SHA256_ASN1),
            (KeyKind::P256, "sha384") => Some(&signature::ECDSA_P256_SHA384_ASN1),
            (KeyKind::P384, "sha256") => Some(&signature::ECDSA_P384_SHA256_ASN1),
            (KeyKind::P384, "sha384") => Some(&signature::ECDSA_P384_SHA384_ASN1),
            _ => None,
        };
        let key = match self.kind {
            KeyKind::Rsa { .. } => "an RSA key",
            KeyKind::P256 => "a P-256 key",
            KeyKind::P384 => "a P-384 key",
        };
        let algorithm = algorithm.ok_or_else(|| VerifyError::NotHere { hash: hash.to_owned(), key })?;
        UnparsedPublicKey::new(algorithm, &self.bytes).verify(data, signature).map_err(|_| VerifyError::Wrong)
    }
}
