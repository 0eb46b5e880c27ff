//! Checks an ID token (OpenID Connect Core, sections 3.1.3.7 and 12.2).

use std::fmt;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use jose::{Keys, TimeError, Token, TokenError, Validity};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// How long a subject may be (OpenID Connect Core, section 2).
const MAX_SUBJECT: usize = 255;

/// What an ID token has to say.
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) nonce: Nonce<'a>,
    /// The user that it has to be about, where one is known.
    pub(crate) subject: Option<&'a str>,
    /// The access token that came with it, where that is used.
    pub(crate) access_token: Option<&'a str>,
    pub(crate) now: Duration,
    pub(crate) skew: Duration,
}

pub(crate) enum Nonce<'a> {
    Required(&'a str),
    /// After a refresh it may be left out.
    IfThere(&'a str),
}

/// What is needed of an ID token that passed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IdToken {
    pub(crate) expires: u64,
    pub(crate) subject: String,
}

/// Why an ID token is not taken. It quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdTokenError {
    Token(TokenError),
    Time(TimeError),
    /// The claim that is missing or not the one that was expected.
    Claim(&'static str),
    /// It is another kind of token.
    Type,
}

impl fmt::Display for IdTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(error) => error.fmt(f),
            Self::Time(error) => error.fmt(f),
            Self::Claim(name) => write!(f, "the token's {name} is missing or not the expected one"),
            Self::Type => f.write_str("the token's typ is not JWT"),
        }
    }
}

impl IdTokenError {
    /// Whether the provider may have changed its keys since they were fetched.
    pub(crate) fn is_about_keys(self, text: &str) -> bool {
        match self {
            Self::Token(TokenError::UnknownKey) => true,
            // The first key of another kind has no id to be unknown by.
            Self::Token(TokenError::Algorithm) => {
                Token::parse(text).is_ok_and(|token| matches!(token.header().alg.as_str(), "RS256" | "ES256"))
            }
            _ => false,
        }
    }
}

pub(crate) fn check(text: &str, keys: &Keys, expected: &Expected<'_>) -> Result<IdToken, IdTokenError> {
    let token = Token::parse(text).map_err(IdTokenError::Token)?;
    if token.header().typ.as_ref().is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
        return Err(IdTokenError::Type);
    }
    let claims = token.verify(keys).map_err(IdTokenError::Token)?;
    let claim = |name: &'static str, good: bool| if good { Ok(()) } else { Err(IdTokenError::Claim(name)) };

    claim("iss", claims.text("iss") == Some(expected.issuer))?;
    let audiences = claims.texts("aud").unwrap_or_default();
    claim("aud", audiences.contains(&expected.client_id))?;
    let party = claims.text("azp");
    claim("azp", if claims.has("azp") { party == Some(expected.client_id) } else { audiences.len() == 1 })?;
    claim("iat", claims.integer("iat").is_some())?;
    Validity { now: expected.now, skew: expected.skew }.check(&claims).map_err(IdTokenError::Time)?;
    let expires = claims.integer("exp").and_then(|expires| u64::try_from(expires).ok());
    let expires = expires.ok_or(IdTokenError::Claim("exp"))?;

    let same = |one: &str, other: &str| bool::from(one.as_bytes().ct_eq(other.as_bytes()));
    let nonce = claims.text("nonce");
    claim(
        "nonce",
        match expected.nonce {
            Nonce::Required(expected) => nonce.is_some_and(|nonce| same(nonce, expected)),
            Nonce::IfThere(expected) => !claims.has("nonce") || nonce.is_some_and(|nonce| same(nonce, expected)),
        },
    )?;
    let subject = claims.text("sub").unwrap_or_default();
    claim("sub", !subject.is_empty() && subject.len() <= MAX_SUBJECT)?;
    claim("sub", expected.subject.is_none_or(|expected| subject == expected))?;
    if let (Some(access_token), true) = (expected.access_token, claims.has("at_hash")) {
        claim("at_hash", claims.text("at_hash") == Some(&hash(access_token)))?;
    }
    Ok(IdToken { expires, subject: subject.to_owned() })
}

/// The left half of an access token's hash; both algorithms have SHA-256.
fn hash(access_token: &str) -> String {
    let digest = Sha256::digest(access_token.as_bytes());
    Base64UrlUnpadded::encode_string(digest.get(..16).unwrap_or_default())
}
