//! The provider's token endpoint (RFC 6749, sections 4.1.3 and 6): what is asked of it, and what its answer means.

use std::fmt;

use base64ct::{Base64, Encoding as _};
use jose::json::{JsonError, Object};
use plugwright_sdk::{Call, CallError, CallResponse, LocalResponse};

use crate::page::{self, Page};
use crate::provider::Provider;
use crate::settings::{Authentication, Settings};
use crate::url;

/// How large an answer may be, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// How long a refresh token may be, in bytes.
const MAX_REFRESH_TOKEN: usize = 8 * 1024;

/// What tokens are asked for with.
pub(crate) enum Grant<'a> {
    Code { code: &'a str, redirect_uri: &'a str, verifier: &'a str },
    Refresh { token: &'a str },
}

/// What the provider issued. It has no `Debug`.
pub(crate) struct Tokens {
    pub(crate) id_token: Option<String>,
    pub(crate) access_token: Option<String>,
    pub(crate) expires_in: Option<u64>,
    pub(crate) refresh_token: Option<String>,
}

/// Why there are no tokens. It quotes nothing of what was sent or received but the names that RFC 6749 gives errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokensError {
    /// The proxy did not make the call, or the connection failed.
    Call(CallError),
    /// The provider is unwell, or what the proxy says when it cannot be reached or takes too long.
    Status(u16),
    /// The code or the refresh token is not good any more.
    Grant,
    /// The client is not accepted, or asks for what it may not.
    Client(&'static str),
    /// The answer is larger than it may be.
    TooLarge,
    Json(JsonError),
    /// A field that is missing or cannot be used.
    Field(&'static str),
}

impl fmt::Display for TokensError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Status(status) => write!(f, "the token endpoint answered {status}"),
            Self::Grant => f.write_str("the token endpoint answered invalid_grant"),
            Self::Client(error) => write!(f, "the token endpoint answered {error}"),
            Self::TooLarge => write!(f, "the token endpoint's answer has more than {MAX_ANSWER} bytes"),
            Self::Json(error) => write!(f, "the token endpoint's answer: {error}"),
            Self::Field(field) => write!(f, "the token endpoint's answer: {field} is missing or cannot be used"),
        }
    }
}

impl TokensError {
    /// Whether to ask again later is of use.
    pub(crate) fn is_passing(self) -> bool {
        matches!(self, Self::Call(_) | Self::Status(_))
    }

    fn page(self) -> Page {
        match self {
            Self::Call(_) | Self::Status(_) => page::UNAVAILABLE,
            Self::Grant => page::CODE_REFUSED,
            Self::Client(_) => page::MISCONFIGURED,
            Self::TooLarge | Self::Json(_) | Self::Field(_) => page::TOKEN_REFUSED,
        }
    }

    pub(crate) fn answer(self, for_people: bool) -> LocalResponse {
        self.page().answer(for_people)
    }
}

/// Writes the call that asks for tokens.
pub(crate) fn call(settings: &Settings, provider: &Provider, grant: &Grant<'_>) -> Call {
    let id = settings.client.id.as_str();
    let mut form = match grant {
        Grant::Code { code, redirect_uri, verifier } => vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ],
        Grant::Refresh { token } => vec![("grant_type", "refresh_token"), ("refresh_token", token)],
    };
    let mut call = Call::post(&provider.token.authority, &provider.token.path)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .timeout(settings.timeout);
    match &settings.client.authentication {
        Authentication::Public => form.push(("client_id", id)),
        Authentication::Post(secret) => form.extend([("client_id", id), ("client_secret", secret.expose())]),
        Authentication::Basic(secret) => {
            // Both are encoded as in a form before they are joined (RFC 6749, section 2.3.1).
            let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encode(id), encode(secret.expose()));
            call = call.header("authorization", &format!("Basic {}", Base64::encode_string(pair.as_bytes())));
        }
    }
    call.body(url::form(form))
}

/// Reads the answer.
pub(crate) fn read(answer: Result<CallResponse, CallError>) -> Result<Tokens, TokensError> {
    let response = answer.map_err(TokensError::Call)?;
    let status = response.status();
    if !matches!(status, 200 | 400 | 401 | 403) {
        return Err(TokensError::Status(status));
    }
    if response.body().len() > MAX_ANSWER {
        return Err(TokensError::TooLarge);
    }
    let answer = Object::parse(response.body());
    if status != 200 {
        return Err(refusal(answer.ok().as_ref().and_then(|answer| answer.text("error")).unwrap_or_default()));
    }
    let answer = answer.map_err(TokensError::Json)?;
    if !answer.text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(TokensError::Field("token_type"));
    }
    let token = |name: &'static str, most: usize| match answer.get(name) {
        None => Ok(None),
        Some(value) => {
            let text = value.as_text().filter(|text| (1..=most).contains(&text.len()));
            let text = text.filter(|text| text.bytes().all(|b| b.is_ascii_graphic()));
            text.map(|text| Some(text.to_owned())).ok_or(TokensError::Field(name))
        }
    };
    Ok(Tokens {
        id_token: token("id_token", jose::MAX_TOKEN)?,
        access_token: token("access_token", jose::MAX_TOKEN)?,
        refresh_token: token("refresh_token", MAX_REFRESH_TOKEN)?,
        expires_in: answer.integer("expires_in").and_then(|seconds| u64::try_from(seconds).ok()),
    })
}

/// The errors of RFC 6749, section 5.2; others are not repeated.
fn refusal(error: &str) -> TokensError {
    const CLIENT: [&str; 5] =
        ["invalid_request", "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"];
    if error == "invalid_grant" {
        return TokensError::Grant;
    }
    TokensError::Client(CLIENT.into_iter().find(|known| *known == error).unwrap_or("an error without a known name"))
}
