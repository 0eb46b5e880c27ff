//! Why a token is not good, in Envoy's words.

/// An outcome other than success. The texts are response bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Status {
    #[error("Jwt is missing")]
    Missing,
    #[error("Jwt not yet valid")]
    NotYetValid,
    #[error("Jwt is expired")]
    Expired,
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    BadFormat,
    #[error("Jwt header is an invalid Base64url encoded")]
    HeaderBase64,
    #[error("Jwt header is an invalid JSON")]
    HeaderJson,
    #[error("Jwt header [alg] field is required and must be a string")]
    HeaderAlg,
    #[error("Jwt header [alg] is not supported")]
    HeaderAlgUnknown,
    #[error("Jwt header [kid] field is not a string")]
    HeaderKid,
    #[error("Jwt payload is an invalid Base64url encoded")]
    PayloadBase64,
    #[error("Jwt payload is an invalid JSON")]
    PayloadJson,
    #[error("Jwt payload [{0}] field is not a string")]
    NotString(&'static str),
    #[error("Jwt payload [{0}] field is not an integer")]
    NotInteger(&'static str),
    #[error("Jwt payload [{0}] field is not a positive 64 bit integer")]
    OutOfRange(&'static str),
    #[error("Jwt payload [aud] field is not a string or string list")]
    Audience,
    #[error("Jwt signature is an invalid Base64url encoded")]
    SignatureBase64,
    #[error("Jwt ED25519 signature is wrong length")]
    Ed25519Length,
    #[error("Jwt issuer is not configured")]
    UnknownIssuer,
    #[error("Audiences in Jwt are not allowed")]
    AudienceNotAllowed,
    #[error("Jwt verification fails")]
    VerificationFails,
    #[error("Jwks doesn't have any valid public key")]
    NoValidKeys,
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoMatchingKey,
}
