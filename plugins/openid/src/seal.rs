//! Sealing of what browsers keep: XChaCha20-Poly1305 under keys that are derived for one use each.

use base64ct::{Base64, Base64Unpadded, Base64Url, Base64UrlUnpadded, Encoding as _};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use plugwright_sdk::Host;

use crate::random::NoRandomness;

const NONCE: usize = 24;
const MIN_KEY: usize = 32;
const MAX_KEYS: usize = 8;

/// What a sealed text is for. One that was sealed for another use does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Session,
    Login,
    Refreshed,
}

impl Use {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Session => b"session",
            Self::Login => b"login",
            Self::Refreshed => b"refreshed",
        }
    }
}

/// Seals with the first key and opens with any. It has no `Debug`.
pub(crate) struct Sealer {
    keys: Vec<XChaCha20Poly1305>,
}

impl Sealer {
    /// Takes keys in base64, and what they are bound to: another issuer's or client's cookies do not open.
    ///
    /// An error says which key it is about.
    pub(crate) fn new(keys: &[String], bound_to: &[&str]) -> Result<Self, (usize, &'static str)> {
        if keys.len() > MAX_KEYS {
            return Err((MAX_KEYS, "is one key too many: there may be 8"));
        }
        let derive = |(index, text): (usize, &String)| {
            let key = decode(text).ok_or((index, "is not base64"))?;
            if key.len() < MIN_KEY {
                return Err((index, "is base64 of fewer than 32 bytes: `openssl rand -base64 32` makes a key"));
            }
            let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| (index, "is not a key"))?;
            mac.update(b"plugwright openid cookie 1");
            for part in bound_to {
                mac.update(&(part.len() as u64).to_be_bytes());
                mac.update(part.as_bytes());
            }
            let key: [u8; 32] = mac.finalize().into_bytes().into();
            Ok(XChaCha20Poly1305::new(&key.into()))
        };
        Ok(Self { keys: keys.iter().enumerate().map(derive).collect::<Result<_, _>>()? })
    }

    /// Seals bytes as base64url.
    pub(crate) fn seal(&self, used: Use, plain: &[u8], host: &impl Host) -> Result<String, NoRandomness> {
        let mut nonce = [0; NONCE];
        host.random(&mut nonce)?;
        let key = self.keys.first().ok_or(NoRandomness)?;
        let payload = Payload { msg: plain, aad: used.label() };
        let sealed = key.encrypt(&XNonce::from(nonce), payload).map_err(|_| NoRandomness)?;
        Ok(Base64UrlUnpadded::encode_string(&[&nonce, sealed.as_slice()].concat()))
    }

    /// Opens what a key of these sealed for this use; none when it was not, or was changed.
    pub(crate) fn open(&self, used: Use, sealed: &str) -> Option<Vec<u8>> {
        let bytes = Base64UrlUnpadded::decode_vec(sealed).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>()?;
        let nonce = XNonce::from(*nonce);
        self.keys.iter().find_map(|key| key.decrypt(&nonce, Payload { msg: sealed, aad: used.label() }).ok())
    }
}

/// Either alphabet, with or without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text)
        .or_else(|_| Base64Unpadded::decode_vec(text))
        .or_else(|_| Base64Url::decode_vec(text))
        .or_else(|_| Base64UrlUnpadded::decode_vec(text))
        .ok()
}

#[cfg(test)]
mod tests {
    use plugwright_sdk::testing::InMemoryHost;

    use super::{Sealer, Use};

    const ONE: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    const TWO: &str = "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI";

    fn sealer(keys: &[&str]) -> Sealer {
        let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        Sealer::new(&keys, &["issuer", "client"]).ok().unwrap()
    }

    #[test]
    fn what_was_sealed_opens_with_any_of_the_keys() {
        let sealed = sealer(&[ONE]).seal(Use::Session, b"text", &InMemoryHost::default()).unwrap();
        assert_eq!(sealer(&[ONE]).open(Use::Session, &sealed).as_deref(), Some(&b"text"[..]));
        assert_eq!(sealer(&[TWO, ONE]).open(Use::Session, &sealed).as_deref(), Some(&b"text"[..]));
        assert_eq!(sealer(&[TWO]).open(Use::Session, &sealed), None);
    }

    #[test]
    fn a_changed_or_shortened_text_does_not_open() {
        let one = sealer(&[ONE]);
        let sealed = one.seal(Use::Session, b"text", &InMemoryHost::default()).unwrap();
        for index in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(one.open(Use::Session, &String::from_utf8(changed).unwrap()), None, "byte {index}");
            assert_eq!(one.open(Use::Session, &sealed[..index]), None, "up to {index}");
        }
    }

    #[test]
    fn a_text_for_one_use_does_not_open_for_another() {
        let sealed = sealer(&[ONE]).seal(Use::Login, b"text", &InMemoryHost::default()).unwrap();
        assert_eq!(sealer(&[ONE]).open(Use::Session, &sealed), None);
    }

    #[test]
    fn another_clients_text_does_not_open() {
        let sealed = sealer(&[ONE]).seal(Use::Session, b"text", &InMemoryHost::default()).unwrap();
        for bound_to in [["issuer", "other"], ["issuerclient", ""]] {
            let other = Sealer::new(&[ONE.to_owned()], &bound_to).ok().unwrap();
            assert_eq!(other.open(Use::Session, &sealed), None);
        }
    }

    #[test]
    fn the_same_text_is_never_sealed_alike() {
        let (sealer, host) = (sealer(&[ONE]), InMemoryHost::default());
        let seal = || sealer.seal(Use::Session, b"text", &host).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn a_weak_key_is_refused_with_its_place() {
        let error = |keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
            Sealer::new(&keys, &[]).err().unwrap().0
        };
        assert_eq!(error(&["!"]), 0);
        assert_eq!(error(&[ONE, "c2hvcnQ="]), 1);
        assert_eq!(error(&[ONE; 9]), 8);
    }
}
