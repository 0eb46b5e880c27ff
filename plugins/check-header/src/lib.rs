//! Lets only requests pass whose header holds a signed token that permits a certain function.
//!
//! Everything that is in doubt is a 403: a token that is missing, there twice, unreadable, signed by somebody else,
//! signed otherwise than the key says, not valid now, or for something else.

mod config;

use std::time::UNIX_EPOCH;

use jose::{TimeError, Token, TokenError, Validity};
use plugwright_sdk::{ConfigError, Flow, Host, LocalResponse, MapType, Plugin};

use self::config::Check;
pub use self::config::Config;

/// Guards everything behind it.
#[derive(Debug)]
pub struct CheckHeader {
    check: Check,
}

impl Plugin for CheckHeader {
    type Config = Config;

    fn configure(config: Config, host: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self { check: config.into_check(host)? })
    }

    fn on_request_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        match self.permitted(host) {
            Ok(()) => Flow::Continue,
            Err(details) => Flow::Respond(LocalResponse::new(403).details(details)),
        }
    }
}

impl CheckHeader {
    /// Tells whether the request's token permits the function, or what the access log shall say.
    fn permitted(&self, host: &impl Host) -> Result<(), &'static str> {
        let Check { header, keys, function, claim, issuer, audience, skew } = &self.check;
        let values = host.header_values(MapType::RequestHeaders, header).map_err(|_| "check_header_unavailable")?;
        let value = match values.as_slice() {
            [] => return Err("check_header_missing"),
            [value] => std::str::from_utf8(value).map_err(|_| "check_header_malformed_token")?,
            // The upstream might heed another one than we do.
            _ => return Err("check_header_several"),
        };
        let claims = Token::parse(value).and_then(|token| token.verify(keys)).map_err(|error| match error {
            TokenError::Algorithm => "check_header_wrong_algorithm",
            TokenError::Signature | TokenError::UnknownKey => "check_header_wrong_signature",
            _ => "check_header_malformed_token",
        })?;
        let now = host.now().ok().and_then(|now| now.duration_since(UNIX_EPOCH).ok());
        let now = now.ok_or("check_header_unavailable")?;
        Validity { now, skew: *skew }.check(&claims).map_err(|error| match error {
            TimeError::Expired => "check_header_expired",
            TimeError::NotYet | TimeError::IssuedLater => "check_header_not_yet_valid",
            TimeError::NoExpiry | TimeError::Malformed => "check_header_malformed_token",
        })?;
        if issuer.is_some() && claims.text("iss") != issuer.as_deref() {
            return Err("check_header_wrong_issuer");
        }
        let among = |name, wanted: &String| claims.texts(name).is_some_and(|texts| texts.contains(&wanted.as_str()));
        if audience.as_ref().is_some_and(|audience| !among("aud", audience)) {
            return Err("check_header_wrong_audience");
        }
        if among(claim, function) { Ok(()) } else { Err("check_header_not_permitted") }
    }
}

plugwright_sdk::register!(CheckHeader);
