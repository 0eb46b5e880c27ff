//! Tokens in the compact serialization (RFC 7515, section 7.1).

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding as _};

use crate::Keys;
use crate::json::{JsonError, Object};

/// How long a token may be, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Why a token is not taken. It never quotes the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN`].
    TooLong,
    /// Not three parts of base64url without padding.
    Format,
    /// The header is not a JSON object, or not a good one.
    Header(JsonError),
    /// The header has no `alg`, or an `alg`, `kid` or `typ` that is no string.
    HeaderField,
    /// The header has `crit`: it asks for an extension, and none is known here.
    Critical,
    /// No key that the token may be signed with is for its algorithm; `none` is nobody's.
    Algorithm,
    /// No key has the id that the token names. The keys may have been changed since.
    UnknownKey,
    /// The signature is not of a key.
    Signature,
    /// The claims are not a JSON object, or not a good one.
    Claims(JsonError),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the token is longer than {MAX_TOKEN} bytes"),
            Self::Format => f.write_str("the token is not three parts of base64url"),
            Self::Header(error) => write!(f, "the token's header: {error}"),
            Self::HeaderField => f.write_str("the token's header has no alg, or one of alg, kid, typ is no string"),
            Self::Critical => f.write_str("the token asks for an extension with crit"),
            Self::Algorithm => f.write_str("no key is for the token's algorithm"),
            Self::UnknownKey => f.write_str("no key has the id that the token names"),
            Self::Signature => f.write_str("the token's signature is wrong"),
            Self::Claims(error) => write!(f, "the token's claims: {error}"),
        }
    }
}

impl std::error::Error for TokenError {}

/// What a token says of itself, before anything is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The algorithm that it claims.
    pub alg: String,
    /// The id of the key that it claims.
    pub kid: Option<String>,
    /// The kind of token that it claims to be.
    pub typ: Option<String>,
}

/// A token whose signature nobody has looked at yet.
pub struct Token<'a> {
    header: Header,
    signed: &'a str,
    claims: &'a str,
    signature: Vec<u8>,
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("header", &self.header).finish_non_exhaustive()
    }
}

impl<'a> Token<'a> {
    /// Takes a token apart and reads its header.
    pub fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Format)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Format)?;
        // A second dot in the claims, as an encrypted token has, is no base64url.
        if claims.is_empty() || claims.contains('.') {
            return Err(TokenError::Format);
        }
        let (header, signature) = (decode(header)?, decode(signature)?);
        let header = Object::parse(&header).map_err(TokenError::Header)?;
        if header.has("crit") {
            return Err(TokenError::Critical);
        }
        let field = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(value) => value.as_text().map(|text| Some(text.to_owned())).ok_or(TokenError::HeaderField),
        };
        let alg = field("alg")?.ok_or(TokenError::HeaderField)?;
        Ok(Self { header: Header { alg, kid: field("kid")?, typ: field("typ")? }, signed, claims, signature })
    }

    /// What the token says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Verifies the signature, and only then reads the claims. Their meaning, times included, is the caller's to check.
    pub fn verify(&self, keys: &Keys) -> Result<Object, TokenError> {
        keys.verify(&self.header, self.signed.as_bytes(), &self.signature)?;
        Object::parse(&decode(self.claims)?).map_err(TokenError::Claims)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    Base64UrlUnpadded::decode_vec(part).map_err(|_| TokenError::Format)
}
