//! What goes wrong with a registry, as one type.

use std::io;

use crate::credentials::CredentialsError;
use crate::digest::Digest;

use super::address::ForbiddenAddress;
use super::url::{Url, UrlError};

/// Why talking to a registry failed. No variant holds a secret: URLs come without their query, texts from the registry
/// are bounded, stripped of control characters, and of the credentials that were shown to it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No answer: name, connection, TLS or timeout.
    #[error("{method} {url}: no answer from the registry{}", through(proxy.as_deref()))]
    Unreachable {
        /// HTTP method.
        method: &'static str,
        /// URL without its query.
        url: String,
        /// The proxy that was to be gone through, without its password.
        proxy: Option<String>,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address is one that is never dialled.
    #[error("{method} {url}: refused to connect")]
    Forbidden {
        /// HTTP method.
        method: &'static str,
        /// URL without its query.
        url: String,
        /// Which address, and what it is.
        source: ForbiddenAddress,
    },
    /// A name that is not asked for through a proxy: what it stands for there is not ours to look up.
    #[error("{method} {url}: refused to ask the proxy for `{host}`, a name of the network it is in")]
    ForbiddenName {
        /// HTTP method.
        method: &'static str,
        /// URL without its query.
        url: String,
        /// The host.
        host: String,
    },
    /// The answer's body broke off or stalled.
    #[error("{method} {url}: the answer broke off after {received} bytes")]
    Interrupted {
        /// HTTP method.
        method: &'static str,
        /// URL without its query.
        url: String,
        /// How much had come.
        received: u64,
        /// Why.
        source: io::Error,
    },
    /// 401: no credentials, or wrong ones.
    #[error("{method} {url}: unauthorized{}{}", shown(*credentials), said(code.as_deref(), message.as_deref()))]
    Unauthorized {
        /// HTTP method.
        method: &'static str,
        /// URL without its query.
        url: String,
        /// Whether credentials were shown.
        credentials: bool,
        /// The specification's error code.
        code: Option<String>,
        /// What the registry said.
        message: Option<String>,
    },
    /// 404.
    #[error("{method} {url}: not found{}", said(code.as_deref(), message.as_deref()))]
    NotFound {
        /// HTTP method.
        method: &'static str,
        /// URL without its query.
        url: String,
        /// The specification's error code.
        code: Option<String>,
        /// What the registry said.
        message: Option<String>,
    },
    /// Any other status that the operation does not allow.
    #[error("{method} {url}: status {status}{}", said(code.as_deref(), message.as_deref()))]
    Status {
        /// HTTP method.
        method: &'static str,
        /// URL without its query.
        url: String,
        /// HTTP status.
        status: u16,
        /// The specification's error code.
        code: Option<String>,
        /// What the registry said.
        message: Option<String>,
        /// `Retry-After` in seconds, where the registry gave one.
        retry_after: Option<u64>,
    },
    /// Content is not what its digest says.
    #[error("{what} has another digest than expected\n  expected {expected}\n  actual   {actual}")]
    DigestMismatch {
        /// What was read.
        what: String,
        /// The digest asked for or declared.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// Content has another size than its descriptor says.
    #[error("{what} has another size than expected\n  expected {expected} bytes\n  actual   {}", received(*expected, *actual))]
    SizeMismatch {
        /// What was read.
        what: String,
        /// The descriptor's size.
        expected: u64,
        /// What came; where that is more than expected, reading stopped there.
        actual: u64,
    },
    /// `Docker-Content-Digest` contradicts the content.
    #[error("{method} {url}: the header Docker-Content-Digest lies\n  header   {header}\n  content  {content}")]
    LyingDigestHeader {
        /// HTTP method.
        method: &'static str,
        /// URL without its query.
        url: String,
        /// What the header says.
        header: String,
        /// The digest of the content.
        content: Digest,
    },
    /// More than is accepted.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What was being read.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A manifest that cannot be used.
    #[error("the manifest of {reference} is unusable: {reason}")]
    Manifest {
        /// Whose manifest.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An index without the platform that Istio asks for.
    #[error("{reference} is an image index without a manifest for linux/amd64")]
    NoPlatform {
        /// The index.
        reference: String,
    },
    /// The `WWW-Authenticate` header cannot be answered.
    #[error("{url}: the registry's challenge cannot be answered: {reason}")]
    Challenge {
        /// URL without its query.
        url: String,
        /// Why not.
        reason: &'static str,
    },
    /// The realm is one to which nothing is sent.
    #[error("{registry}: refused to ask {realm} for a token: {reason}")]
    Realm {
        /// The registry that names the realm.
        registry: String,
        /// The realm without its query.
        realm: String,
        /// Why.
        reason: String,
    },
    /// A redirect that is not followed.
    #[error("{method} {url}: refused to follow the redirect: {reason}")]
    Redirect {
        /// HTTP method.
        method: &'static str,
        /// URL without its query.
        url: String,
        /// Why.
        reason: String,
    },
    /// An answer that the distribution specification does not allow.
    #[error("{method} {url}: {reason}")]
    Protocol {
        /// HTTP method.
        method: &'static str,
        /// URL without its query.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The reference's registry does not make a URL.
    #[error("`{registry}` does not make a URL")]
    Registry {
        /// The registry as in the reference.
        registry: String,
        /// Why.
        source: UrlError,
    },
    /// A CA file that cannot be used.
    #[error("the CA certificates are unusable: {reason}")]
    Certificates {
        /// Why.
        reason: String,
    },
    /// Credentials could not be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Content on this machine could not be read or written.
    #[error("failed to {action}")]
    Local {
        /// What was being done.
        action: String,
        /// Why.
        source: io::Error,
    },
}

impl RegistryError {
    /// Whether what was asked for is bad in itself; otherwise it is the network, the registry or the set-up.
    pub fn is_bad_content(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::DigestMismatch { .. }
                | Self::SizeMismatch { .. }
                | Self::LyingDigestHeader { .. }
                | Self::TooLarge { .. }
                | Self::Manifest { .. }
                | Self::NoPlatform { .. }
        )
    }

    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unauthorized { credentials: false, .. } => {
                "log in with `docker login REGISTRY`, or name another config folder with `--docker-config DIR`".into()
            }
            Self::Unauthorized { credentials: true, .. } => "the stored credentials were refused: log in again".into(),
            Self::Unreachable { proxy: Some(_), source, .. } if !is_tls_trouble(&**source) => {
                "name hosts that are met without the proxy in NO_PROXY".into()
            }
            Self::Unreachable { url, source, .. } if url.starts_with("https:") => {
                let text = source.to_string();
                if text.contains("UnknownIssuer") {
                    "name the registry's certificate authority with `--ca-file PEM`".into()
                } else if text.contains("InvalidContentType") || text.contains("corrupt message") {
                    "the registry does not speak TLS; `--plain-http` allows plain HTTP".into()
                } else {
                    return None;
                }
            }
            Self::Status { status: 401, .. } => {
                "nobody shows a web server credentials for a module: let it be had without, or publish it as an image"
                    .into()
            }
            Self::Status { status: 400, url, .. } if url.starts_with("http:") => {
                "the registry may want TLS: name its certificate authority with `--ca-file PEM`".into()
            }
            Self::Status { status: 429, .. } => {
                "the registry limits requests; `docker login REGISTRY` often raises the limit".into()
            }
            Self::NoPlatform { reference } => {
                format!("make a plain image of it: `cargo xtask package --from {reference} --format compat`")
            }
            _ => return None,
        })
    }

    pub(super) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether trying again may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !is_tls_trouble(&**source),
            Self::Interrupted { .. } => true,
            Self::Status { status, .. } => is_transient(*status),
            _ => false,
        }
    }
}

/// A certificate that is not trusted stays so.
fn is_tls_trouble(error: &(dyn std::error::Error + 'static)) -> bool {
    // Rustls reports a failed handshake as invalid data.
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData)
        || matches!(error.downcast_ref(), Some(ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_)))
}

/// 429, and those of 5xx that may pass; 501, 505 and 511 will not.
pub(super) fn is_transient(status: u16) -> bool {
    status == 429 || (status >= 500 && !matches!(status, 501 | 505 | 511))
}

/// Which request an error belongs to.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) method: &'static str,
    pub(super) url: String,
}

impl Place {
    pub(super) fn new(method: &'static str, url: &Url) -> Self {
        Self { method, url: url.to_string() }
    }

    pub(super) fn protocol(self, reason: impl Into<String>) -> RegistryError {
        RegistryError::Protocol { method: self.method, url: self.url, reason: reason.into() }
    }
}

fn shown(credentials: bool) -> &'static str {
    if credentials { "; the credentials were refused" } else { "; no credentials were found" }
}

fn said(code: Option<&str>, message: Option<&str>) -> String {
    match (code, message) {
        (Some(code), Some(message)) => format!(" ({code}: {message})"),
        (Some(text), None) | (None, Some(text)) => format!(" ({text})"),
        (None, None) => String::new(),
    }
}

fn through(proxy: Option<&str>) -> String {
    proxy.map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default()
}

fn received(expected: u64, actual: u64) -> String {
    if actual > expected { format!("at least {actual} bytes") } else { format!("{actual} bytes") }
}

/// Text from outside, for a message: at most `limit` characters, with nothing that a terminal would obey.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let mut printable = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == limit {
            printable.push('…');
            break;
        }
        // The Unicode ranges reorder what follows them on the screen.
        let obeyed = character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if obeyed {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_harmless_and_bounded() {
        assert_eq!(printable("a\u{1b}[31m\n\u{202e}é", 100), "a\\u{1b}[31m\\n\\u{202e}é");
        assert_eq!(printable("abcdef", 3), "abc…");
    }

    #[test]
    fn statuses_that_never_pass_are_not_retried() {
        assert!([429, 500, 502, 503, 504].into_iter().all(is_transient));
        assert!(![200, 400, 401, 403, 404, 501, 505, 511].into_iter().any(is_transient));
    }
}
