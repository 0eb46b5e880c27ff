//! Credentials: read from the configuration and the request, compared in constant time.

use base64ct::{Base64Unpadded, Encoding};
use subtle::{Choice, ConstantTimeEq};

/// Every credential is padded to a multiple of this many bytes, so that its length does not show.
const BLOCK: usize = 64;

/// The credentials of one rule, each `user:password`.
pub(crate) struct Credentials {
    width: usize,
    padded: Vec<Padded>,
}

struct Padded {
    length: u32,
    bytes: Vec<u8>,
}

impl Credentials {
    /// Takes credentials as [`parse`] returns them.
    pub(crate) fn new(credentials: &[Vec<u8>]) -> Self {
        let longest = credentials.iter().map(Vec::len).max().unwrap_or(0);
        let width = longest.next_multiple_of(BLOCK);
        Self { width, padded: credentials.iter().map(|credential| pad(credential, width)).collect() }
    }

    /// Tells whether `presented` is one of the credentials.
    ///
    /// The time it takes shows neither which one, nor how much of one is right, nor how long one is below a block.
    pub(crate) fn contain(&self, presented: &[u8]) -> bool {
        self.any(presented, |a, b| a.bytes.ct_eq(&b.bytes) & a.length.ct_eq(&b.length))
    }

    fn any(&self, presented: &[u8], mut equal: impl FnMut(&Padded, &Padded) -> Choice) -> bool {
        let presented = pad(presented, self.width);
        let found = self.padded.iter().fold(Choice::from(0), |found, padded| found | equal(padded, &presented));
        found.into()
    }
}

// A secret is never printed.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Cuts or pads to `width`; the length is kept, so that two that differ only beyond it are still told apart.
fn pad(credential: &[u8], width: usize) -> Padded {
    let mut bytes = credential.to_vec();
    bytes.resize(width, 0);
    Padded { length: u32::try_from(credential.len()).unwrap_or(u32::MAX), bytes }
}

/// Reads a credential of the configuration: `user:password`, or base64 of one.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    let decoded = if text.contains(':') { Some(text.as_bytes().to_vec()) } else { decode(text.as_bytes()) };
    match decoded {
        Some(pair) if pair == b":" => Err("has neither a user nor a password"),
        Some(pair) if pair.iter().any(u8::is_ascii_control) => Err("has a control character"),
        Some(pair) if pair.contains(&b':') => Ok(pair),
        _ => Err("is neither `user:password` nor base64 of one"),
    }
}

/// What a request brings along.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Presented {
    /// No credentials, or those of another scheme.
    Missing,
    /// Basic credentials that cannot be read, or more than one header of them.
    Unreadable,
    /// Basic credentials, decoded.
    Pair(Vec<u8>),
}

/// Reads the values of all `authorization` headers of a request (RFC 7617, section 2).
pub(crate) fn present(values: &[Vec<u8>]) -> Presented {
    match values {
        [] => Presented::Missing,
        [value] => match basic(value) {
            Some(token) => decode(token).map_or(Presented::Unreadable, Presented::Pair),
            None => Presented::Missing,
        },
        // The upstream might heed another one than we do.
        _ => Presented::Unreadable,
    }
}

/// Returns what follows the scheme `Basic`, in any case.
fn basic(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.trim_ascii().split_at_checked(5)?;
    let separated = token.first().is_none_or(|b| *b == b' ');
    (scheme.eq_ignore_ascii_case(b"basic") && separated).then(|| token.trim_ascii())
}

/// Decodes base64, with its padding or with none.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let unpadded = text.trim_end_matches('=');
    let padded = text.len() != unpadded.len();
    if padded && (!text.len().is_multiple_of(4) || text.len() - unpadded.len() > 2) {
        return None;
    }
    Base64Unpadded::decode_vec(unpadded).ok()
}

#[cfg(test)]
mod tests {
    use subtle::Choice;

    use super::{Credentials, Presented, parse, present};

    fn credentials(pairs: &[&str]) -> Credentials {
        Credentials::new(&pairs.iter().map(|pair| pair.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn one_of_the_credentials_is_enough() {
        let credentials = credentials(&["ok:test", "admin3:admin3"]);
        assert!(credentials.contain(b"ok:test"));
        assert!(credentials.contain(b"admin3:admin3"));
    }

    #[test]
    fn nothing_less_and_nothing_more_than_a_credential_passes() {
        let long = format!("user:{}", "x".repeat(200));
        let credentials = credentials(&["ok:test", &long]);
        for wrong in ["", ":", "ok:tes", "ok:test1", "ok:test\0", "OK:test", "ok:", "ok:testuser:"] {
            assert!(!credentials.contain(wrong.as_bytes()), "{wrong:?}");
        }
        assert!(credentials.contain(long.as_bytes()));
        for length in 1..400 {
            assert!(!credentials.contain(format!("{long}{}", "x".repeat(length)).as_bytes()), "{length} more");
            assert!(!credentials.contain(format!("ok:test{}", "\0".repeat(length)).as_bytes()), "{length} NULs");
        }
    }

    #[test]
    fn every_credential_is_compared_in_full_whichever_matches() {
        let credentials = credentials(&["a:1", "a-much-longer-user:with-a-much-longer-password", "c:3"]);
        let long = "x".repeat(500);
        for presented in ["a:1", "c:3", "none", "", "a-much-longer-user:with-a-much-longer-password", long.as_str()] {
            let mut widths = Vec::new();
            credentials.any(presented.as_bytes(), |a, b| {
                widths.push((a.bytes.len(), b.bytes.len()));
                Choice::from(u8::from(a.bytes == b.bytes))
            });
            assert_eq!(widths, [(64, 64); 3], "{presented}");
        }
    }

    #[test]
    fn credentials_are_never_printed() {
        assert_eq!(format!("{:?}", credentials(&["ok:test"])), "<redacted>");
    }

    #[test]
    fn a_configured_credential_is_plain_or_base64() {
        assert_eq!(parse("ok:test"), Ok(b"ok:test".to_vec()));
        assert_eq!(parse("YWRtaW4zOmFkbWluMw=="), Ok(b"admin3:admin3".to_vec()));
        assert_eq!(parse("YWRtaW4zOmFkbWluMw"), Ok(b"admin3:admin3".to_vec()));
        assert_eq!(parse("user:"), Ok(b"user:".to_vec()));
        assert_eq!(parse("user:pass:word é"), Ok("user:pass:word é".as_bytes().to_vec()));
    }

    #[test]
    fn any_other_configured_credential_is_an_error() {
        for text in ["", ":", "user", "dXNlcg==", "YWRtaW4zOmFkbWluMw=", "Og==", "a:b\nc", "YTpiCg==", "!", "*:"] {
            assert_eq!(parse(text).is_err(), text != "*:", "{text:?}");
        }
    }

    #[test]
    fn the_scheme_is_basic_in_any_case() {
        let pair = Presented::Pair(b"ok:test".to_vec());
        for value in ["Basic b2s6dGVzdA==", "basic b2s6dGVzdA==", "BASIC   b2s6dGVzdA", " bAsIc b2s6dGVzdA== "] {
            assert_eq!(present(&[value.into()]), pair, "{value}");
        }
    }

    #[test]
    fn another_scheme_is_missing_and_a_broken_token_is_unreadable() {
        for value in ["", "Bearer abc", "Basi", "Basicb2s6dGVzdA==", "b2s6dGVzdA=="] {
            assert_eq!(present(&[value.into()]), Presented::Missing, "{value}");
        }
        for value in [
            "Basic b2s6dGVzdA=",
            "Basic b2s6dGVzdA==,Basic b2s6dGVzdA==",
            "Basic b2 s6",
            "Basic b2s6dGVzdA===",
            "Basic b2s6dGVzdDEy====",
            "Basic \u{e9}",
        ] {
            assert_eq!(present(&[value.into()]), Presented::Unreadable, "{value}");
        }
    }

    #[test]
    fn several_headers_are_unreadable_even_when_one_is_right() {
        let right = b"Basic b2s6dGVzdA==".to_vec();
        assert_eq!(present(&[right.clone(), right]), Presented::Unreadable);
    }
}
