//! Texts that nobody guesses.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use plugwright_sdk::{Host, HostError, LocalResponse};

/// There is no randomness to be had, so nothing that needs it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRandomness;

impl From<HostError> for NoRandomness {
    fn from(_: HostError) -> Self {
        Self
    }
}

impl From<NoRandomness> for LocalResponse {
    fn from(_: NoRandomness) -> Self {
        Self::new(500).details("openid_no_randomness")
    }
}

/// 32 bytes as base64url, which is also what PKCE asks of a verifier.
pub(crate) fn text(host: &impl Host) -> Result<String, NoRandomness> {
    let mut bytes = [0; 32];
    host.random(&mut bytes)?;
    Ok(Base64UrlUnpadded::encode_string(&bytes))
}
