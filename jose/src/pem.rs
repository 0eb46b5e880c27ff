//! Public keys in PEM (RFC 7468), told apart by what they hold.

use base64ct::Encoding as _;
use rsa::pkcs1::DecodeRsaPublicKey as _;
use spki::der::Decode as _;
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use crate::{Key, KeyError};

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

pub(crate) fn read(text: &str) -> Result<Key, KeyError> {
    let text = text.trim();
    if text.matches("-----BEGIN").count() != 1 {
        return Err(KeyError::Pem);
    }
    let (label, der) = pem_rfc7468::decode_vec(text.as_bytes()).map_err(|_| KeyError::Pem)?;
    match label {
        "PUBLIC KEY" => public_key(&der),
        "RSA PUBLIC KEY" => Key::rsa(rsa::PublicKey::from_pkcs1_der(&der).map_err(|_| KeyError::Invalid)?),
        "CERTIFICATE" => Err(KeyError::Certificate),
        _ if label.ends_with("PRIVATE KEY") => Err(KeyError::Private),
        _ => Err(KeyError::Unsupported),
    }
}

fn public_key(der: &[u8]) -> Result<Key, KeyError> {
    let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::Invalid)?;
    let bits = info.subject_public_key.as_bytes().ok_or(KeyError::Invalid)?;
    let (algorithm, parameters) = info.algorithm.oids().map_err(|_| KeyError::Unsupported)?;
    match (algorithm, parameters) {
        (RSA_ENCRYPTION, None) => Key::rsa(rsa::PublicKey::from_pkcs1_der(bits).map_err(|_| KeyError::Invalid)?),
        (EC_PUBLIC_KEY, Some(P256)) => Key::p256(bits),
        _ => Err(KeyError::Unsupported),
    }
}

/// Whether the text is a key that has lost its armour: DER in base64, or a line of SSH.
pub(crate) fn is_bare(text: &str) -> bool {
    if text.starts_with("ssh-") || text.starts_with("ecdsa-sha2-") {
        return true;
    }
    let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let packed = packed.trim_end_matches('=');
    let decoded =
        base64ct::Base64Unpadded::decode_vec(packed).or_else(|_| base64ct::Base64UrlUnpadded::decode_vec(packed));
    // A SEQUENCE that is as long as the whole and begins with a SEQUENCE or an INTEGER: every key in DER is one, and a
    // random secret is not.
    decoded.is_ok_and(|der| {
        let (length, inner) = match der.as_slice() {
            [0x30, length @ 0..=0x7f, inner @ ..] | [0x30, 0x81, length, inner @ ..] => (usize::from(*length), inner),
            [0x30, 0x82, high, low, inner @ ..] => (usize::from(*high) << 8 | usize::from(*low), inner),
            _ => return false,
        };
        length == inner.len() && matches!(inner, [0x30 | 0x02, ..])
    })
}
