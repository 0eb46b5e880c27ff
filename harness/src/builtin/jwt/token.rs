//! A JSON web token taken apart, as Envoy does it: RFC 7519 with Envoy's leniencies.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::json;
use super::status::Status;

/// Clocks may differ by this many seconds.
const CLOCK_SKEW: u64 = 60;

const ALGORITHMS: [&str; 13] = [
    "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
];

/// Padding and what the last digit has beyond a byte do not matter, and neither does white space.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) fn base64url(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    BASE64URL.decode(digits).ok()
}

/// A token whose parts are well-formed. Nothing about it is proven.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) alg: String,
    /// Empty when there is none.
    pub(super) kid: String,
    pub(super) payload: Map<String, Value>,
    /// The payload as it was sent.
    pub(super) encoded_payload: String,
    /// Empty when there is none.
    pub(super) issuer: String,
    pub(super) audiences: Vec<String>,
    not_before: u64,
    /// 0 is never.
    expires: u64,
    /// What the signature is of.
    pub(super) signed: String,
    pub(super) signature: Vec<u8>,
}

impl Token {
    pub(super) fn parse(text: &str) -> Result<Self, Status> {
        let parts: Vec<&str> = text.split('.').filter(|part| !part.is_empty()).collect();
        let [header_part, payload_part, signature_part] = parts[..] else { return Err(Status::BadFormat) };
        let header = base64url(header_part).ok_or(Status::HeaderBase64)?;
        let header = json::object(&header).ok_or(Status::HeaderJson)?;
        let alg = header.get("alg").and_then(Value::as_str).ok_or(Status::HeaderAlg)?;
        if !ALGORITHMS.contains(&alg) {
            return Err(Status::HeaderAlgUnknown);
        }
        let kid = match header.get("kid") {
            None => "",
            Some(kid) => kid.as_str().ok_or(Status::HeaderKid)?,
        };
        let payload = base64url(payload_part).ok_or(Status::PayloadBase64)?;
        let payload = json::object(&payload).ok_or(Status::PayloadJson)?;
        let issuer = text_claim(&payload, "iss")?.to_owned();
        text_claim(&payload, "sub")?;
        seconds(&payload, "iat")?;
        let not_before = seconds(&payload, "nbf")?;
        let expires = seconds(&payload, "exp")?;
        text_claim(&payload, "jti")?;
        let audiences = audiences(&payload).ok_or(Status::Audience)?;
        let signature = base64url(signature_part).ok_or(Status::SignatureBase64)?;
        Ok(Self {
            alg: alg.to_owned(),
            kid: kid.to_owned(),
            encoded_payload: payload_part.to_owned(),
            issuer,
            audiences,
            not_before,
            expires,
            signed: format!("{header_part}.{payload_part}"),
            signature,
            payload,
        })
    }

    /// Checks `nbf` and `exp` against the time in seconds since the Unix epoch.
    pub(super) fn check_time(&self, now: u64) -> Result<(), Status> {
        if now.saturating_add(CLOCK_SKEW) < self.not_before {
            return Err(Status::NotYetValid);
        }
        if self.expires != 0 && now > self.expires.saturating_add(CLOCK_SKEW) {
            return Err(Status::Expired);
        }
        Ok(())
    }

    /// A claim as text for a header; `path` has dots between the names. Lists and objects are JSON in base64; nothing
    /// for null.
    pub(super) fn claim_text(&self, path: &str) -> Option<String> {
        let mut names = path.split('.');
        let first = self.payload.get(names.next()?)?;
        let text = match names.try_fold(first, |value, name| value.as_object()?.get(name))? {
            Value::String(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number_text(number.as_f64()?),
            json @ (Value::Array(_) | Value::Object(_)) => STANDARD.encode(json.to_string()),
            Value::Null => return None,
        };
        (!text.is_empty()).then_some(text)
    }
}

/// Numbers are doubles: whole ones without a point, others with six digits after it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, as checked")]
fn number_text(number: f64) -> String {
    if (0.0..18_446_744_073_709_551_616.0).contains(&number) && number.fract() == 0.0 {
        (number as u64).to_string()
    } else {
        format!("{number:.6}")
    }
}

fn text_claim<'p>(payload: &'p Map<String, Value>, name: &'static str) -> Result<&'p str, Status> {
    payload.get(name).map_or(Ok(""), |value| value.as_str().ok_or(Status::NotString(name)))
}

/// 0 when there is none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, as checked")]
fn seconds(payload: &Map<String, Value>, name: &'static str) -> Result<u64, Status> {
    let Some(value) = payload.get(name) else { return Ok(0) };
    let value = value.as_f64().ok_or(Status::NotInteger(name))?;
    if (0.0..18_446_744_073_709_551_616.0).contains(&value) { Ok(value as u64) } else { Err(Status::OutOfRange(name)) }
}

fn audiences(payload: &Map<String, Value>) -> Option<Vec<String>> {
    match payload.get("aud") {
        None => Some(Vec::new()),
        Some(Value::String(one)) => Some(vec![one.clone()]),
        Some(Value::Array(several)) => several.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn encode(value: &str) -> String {
        BASE64URL.encode(value)
    }

    fn parse(header: &str, payload: &str) -> Result<Token, Status> {
        Token::parse(&format!("{}.{}.c2ln", encode(header), encode(payload)))
    }

    #[track_caller]
    fn refused(header: &str, payload: &str, expected: &str) {
        assert_eq!(parse(header, payload).unwrap_err().to_string(), expected, "{header} {payload}");
    }

    #[test]
    fn each_part_is_checked_with_envoys_words() {
        let good = r#"{"alg": "RS256"}"#;
        refused("x", "{}", "Jwt header is an invalid JSON");
        refused("[]", "{}", "Jwt header is an invalid JSON");
        refused(r#"{"alg": "RS256", "alg": "HS256"}"#, "{}", "Jwt header is an invalid JSON");
        refused(good, r#"{"a": [{"b": 1, "b": 1}]}"#, "Jwt payload is an invalid JSON");
        refused("{}", "{}", "Jwt header [alg] field is required and must be a string");
        refused(r#"{"alg": 1}"#, "{}", "Jwt header [alg] field is required and must be a string");
        refused(r#"{"alg": "none"}"#, "{}", "Jwt header [alg] is not supported");
        refused(r#"{"alg": "rs256"}"#, "{}", "Jwt header [alg] is not supported");
        refused(r#"{"alg": "RS256", "kid": 1}"#, "{}", "Jwt header [kid] field is not a string");
        refused(good, "x", "Jwt payload is an invalid JSON");
        refused(good, r#"{"iss": 1}"#, "Jwt payload [iss] field is not a string");
        refused(good, r#"{"sub": null}"#, "Jwt payload [sub] field is not a string");
        refused(good, r#"{"iat": "1"}"#, "Jwt payload [iat] field is not an integer");
        refused(good, r#"{"nbf": -1}"#, "Jwt payload [nbf] field is not a positive 64 bit integer");
        refused(good, r#"{"exp": 1e30}"#, "Jwt payload [exp] field is not a positive 64 bit integer");
        refused(good, r#"{"jti": 1}"#, "Jwt payload [jti] field is not a string");
        refused(good, r#"{"aud": [1]}"#, "Jwt payload [aud] field is not a string or string list");
        let form = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
        for text in ["", "a", "a.b", "a.b.", "a.b.c.d", "a..b"] {
            assert_eq!(Token::parse(text).unwrap_err().to_string(), form, "{text}");
        }
        assert_eq!(Token::parse("a!.b.c").unwrap_err(), Status::HeaderBase64);
        assert_eq!(Token::parse(&format!("{}.!.c", encode(good))).unwrap_err(), Status::PayloadBase64);
        let unsigned = format!("{}.{}.!", encode(good), encode("{}"));
        assert_eq!(Token::parse(&unsigned).unwrap_err(), Status::SignatureBase64);
    }

    #[test]
    fn clocks_may_differ_by_a_minute() {
        let token = parse(r#"{"alg": "RS256"}"#, r#"{"nbf": 1000, "exp": 2000.5}"#).unwrap();
        let cases = [
            (939, Err(Status::NotYetValid)),
            (940, Ok(())),
            (2060, Ok(())),
            (2061, Err(Status::Expired)),
            (u64::MAX, Err(Status::Expired)),
        ];
        for (now, expected) in cases {
            assert_eq!(token.check_time(now), expected, "{now}");
        }
        assert_eq!(parse(r#"{"alg": "RS256"}"#, "{}").unwrap().check_time(u64::MAX), Ok(()));
    }

    #[test]
    fn claims_become_text() {
        let payload = json!({
            "s": "x", "n": 7, "f": 1.5, "neg": -2, "b": false, "l": ["x"], "z": null, "e": "", "o": {"p": {"q": "deep"}}
        });
        let token = parse(r#"{"alg": "RS256"}"#, &payload.to_string()).unwrap();
        let cases = [
            ("s", Some("x")),
            ("n", Some("7")),
            ("f", Some("1.500000")),
            ("neg", Some("-2.000000")),
            ("b", Some("false")),
            ("l", Some("WyJ4Il0=")),
            ("z", None),
            ("e", None),
            ("o.p", Some("eyJxIjoiZGVlcCJ9")),
            ("o.p.q", Some("deep")),
            ("o.x", None),
            ("s.t", None),
        ];
        for (path, expected) in cases {
            assert_eq!(token.claim_text(path).as_deref(), expected, "{path}");
        }
    }
}
