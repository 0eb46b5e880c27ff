//! When a token is valid (RFC 7519, sections 4.1.4 to 4.1.6).

use std::fmt;
use std::time::Duration;

use crate::json::Object;

/// The clock against which a token's times are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Now, since the Unix epoch.
    pub now: Duration,
    /// How far the issuer's clock and this one may be apart.
    pub skew: Duration,
}

/// Why a token is not valid now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeError {
    /// It has no `exp`, and would be valid for ever.
    NoExpiry,
    /// `exp`, `nbf` or `iat` is not a number of seconds.
    Malformed,
    /// `exp` is past.
    Expired,
    /// `nbf` is to come.
    NotYet,
    /// `iat` is to come.
    IssuedLater,
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoExpiry => "the token has no exp",
            Self::Malformed => "one of the token's exp, nbf, iat is not a number of seconds",
            Self::Expired => "the token is expired",
            Self::NotYet => "the token is not valid yet",
            Self::IssuedLater => "the token is issued in the future",
        })
    }
}

impl std::error::Error for TimeError {}

impl Validity {
    /// Tells whether a token with these claims is valid now: `exp` there and to come, `nbf` and `iat` past if there.
    ///
    /// A token is no longer valid in the second that `exp` names, give or take the skew.
    pub fn check(&self, claims: &Object) -> Result<(), TimeError> {
        let now = i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX);
        let skew = i64::try_from(self.skew.as_secs()).unwrap_or(i64::MAX);
        let time = |name: &str| match claims.get(name) {
            Some(_) => claims.integer(name).map(Some).ok_or(TimeError::Malformed),
            None => Ok(None),
        };
        let (expires, begins, issued) = (time("exp")?, time("nbf")?, time("iat")?);
        let expires = expires.ok_or(TimeError::NoExpiry)?;
        if expires.saturating_add(skew) <= now {
            return Err(TimeError::Expired);
        }
        let latest = now.saturating_add(skew);
        if begins.is_some_and(|begins| begins > latest) {
            return Err(TimeError::NotYet);
        }
        if issued.is_some_and(|issued| issued > latest) {
            return Err(TimeError::IssuedLater);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{TimeError, Validity};
    use crate::json::Object;

    #[track_caller]
    fn check(claims: &str, expected: Result<(), TimeError>) {
        let clock = Validity { now: Duration::from_millis(1_000_900), skew: Duration::from_mins(1) };
        assert_eq!(clock.check(&Object::parse(claims.as_bytes()).unwrap()), expected, "{claims}");
    }

    #[test]
    fn a_token_is_valid_until_just_before_its_exp_and_the_skew() {
        check(r#"{"exp":1001}"#, Ok(()));
        check(r#"{"exp":941}"#, Ok(()));
        check(r#"{"exp":940}"#, Err(TimeError::Expired));
        check(r#"{"exp":-1}"#, Err(TimeError::Expired));
        check(r#"{"exp":9223372036854775807}"#, Ok(()));
    }

    #[test]
    fn a_token_without_an_end_is_refused() {
        check("{}", Err(TimeError::NoExpiry));
        check(r#"{"nbf":1}"#, Err(TimeError::NoExpiry));
    }

    #[test]
    fn a_token_from_the_future_is_refused_beyond_the_skew() {
        check(r#"{"exp":2000,"nbf":1060,"iat":1060}"#, Ok(()));
        check(r#"{"exp":2000,"nbf":1061}"#, Err(TimeError::NotYet));
        check(r#"{"exp":2000,"iat":1061}"#, Err(TimeError::IssuedLater));
    }

    #[test]
    fn a_time_that_is_none_is_refused() {
        for claims in [r#"{"exp":"2000"}"#, r#"{"exp":2000,"nbf":null}"#, r#"{"exp":1e4}"#, r#"{"exp":2000,"iat":[]}"#]
        {
            check(claims, Err(TimeError::Malformed));
        }
    }
}
