//! Signed JSON Web Tokens (RFC 7515, 7517, 7518, 7519): read within bounds, verified with keys that decide how.
//!
//! A [`Key`] has one algorithm, and a token that names another is refused: a public key can never be taken for a shared
//! one. Claims are not to be had before the signature is verified.
//!
//! ```
//! use jose::{Key, Keys, Token, Validity};
//! use std::time::Duration;
//!
//! let signer = jose::Signer::shared(b"a secret of at least 32 bytes: more").unwrap();
//! let text = signer.sign(r#"{"sub":"alice","exp":1300}"#);
//!
//! let keys = Keys::from(Key::shared(b"a secret of at least 32 bytes: more").unwrap());
//! let claims = Token::parse(&text).unwrap().verify(&keys).unwrap();
//! assert_eq!(claims.text("sub"), Some("alice"));
//! let clock = Validity { now: Duration::from_secs(1000), skew: Duration::from_secs(60) };
//! assert!(clock.check(&claims).is_ok());
//! ```
//!
//! In a module, everything here together is about 170 kB: check-header has some 290 kB, where basic-auth, which has the
//! same SDK and no cryptography, has 117.

mod claims;
pub mod json;
mod jwk;
mod key;
mod pem;
#[cfg(not(target_family = "wasm"))]
mod sign;
mod token;

pub use claims::{TimeError, Validity};
pub use jwk::{JwkError, MAX_KEYS, MAX_SET};
pub use key::{Algorithm, Key, KeyError, Keys, MAX_RSA_BITS, MIN_RSA_BITS, MIN_SECRET};
#[cfg(not(target_family = "wasm"))]
pub use sign::Signer;
pub use token::{Header, MAX_TOKEN, Token, TokenError};
