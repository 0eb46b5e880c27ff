//! URLs of registries and token endpoints: joined as RFC 3986 says, shown without query and credentials.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;
use ureq::http::uri::{Authority, Scheme};

/// An absolute `http` or `https` URL without user information.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url(Uri);

/// Why a text is not a URL that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL at all.
    #[error("it is not a valid URL")]
    Malformed,
    /// Neither `http` nor `https`.
    #[error("its scheme is neither http nor https")]
    Scheme,
    /// `user:password@`.
    #[error("it carries credentials")]
    Credentials,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {}
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Malformed),
        }
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => Err(UrlError::Credentials),
            Some(authority) if !authority.host().is_empty() => Ok(Self(uri)),
            _ => Err(UrlError::Malformed),
        }
    }

    /// Resolve a `Location` against this URL.
    pub(crate) fn join(&self, location: &str) -> Result<Self, UrlError> {
        let location = location.split('#').next().unwrap_or_default();
        let scheme = if self.is_tls() { "https" } else { "http" };
        let authority = self.authority();
        if location.contains("://") && !location.starts_with(['/', '?']) {
            Self::parse(location)
        } else if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Self::parse(&format!("{scheme}://{authority}{location}"))
        } else {
            let path = self.0.path();
            let base = if location.starts_with('?') {
                path
            } else {
                path.rsplit_once('/').map_or("/", |(folder, _)| &path[..=folder.len()])
            };
            Self::parse(&format!("{scheme}://{authority}{base}{location}"))
        }
    }

    /// Add query parameters, keeping those that are there.
    pub(crate) fn with_query(&self, pairs: &[(&str, &str)]) -> Result<Self, UrlError> {
        let mut text = self.0.to_string();
        for (name, value) in pairs {
            text.push(if text.contains('?') { '&' } else { '?' });
            text.push_str(&encoded(name));
            text.push('=');
            text.push_str(&encoded(value));
        }
        Self::parse(&text)
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    fn authority(&self) -> &str {
        self.0.authority().map_or("", Authority::as_str)
    }

    /// Host without port and brackets, in lower case.
    pub(crate) fn host(&self) -> String {
        host_of(self.authority())
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 })
    }

    /// Whether both have the same scheme, host and port, so that credentials for one may be shown to the other.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        self.is_tls() == other.is_tls() && self.same_server(other)
    }

    pub(crate) fn same_server(&self, other: &Self) -> bool {
        self.host() == other.host() && self.port() == other.port()
    }
}

/// Host of `host:port` or `[v6]:port`, without brackets, in lower case.
pub(crate) fn host_of(authority: &str) -> String {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.to_ascii_lowercase()
}

/// Whether a host names this machine by itself, without asking a name server.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Percent-encode everything but RFC 3986's unreserved characters.
pub(crate) fn encoded(text: &str) -> String {
    use fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(byte as char);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Without the query, which often holds a signature or a state that works like a password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls() { "https" } else { "http" };
        let path = super::error::printable(self.0.path(), 512);
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(location: &str, expected: &str) {
        let base = Url::parse("https://r.io:5000/v2/x/blobs/uploads/?a=b").unwrap();
        assert_eq!(base.join(location).unwrap().uri().to_string(), expected);
    }

    #[test]
    fn locations_are_resolved() {
        check("/v2/x/1?_state=a%3D", "https://r.io:5000/v2/x/1?_state=a%3D");
        check("https://cdn.io/y?z", "https://cdn.io/y?z");
        check("//cdn.io/y", "https://cdn.io/y");
        check("uuid", "https://r.io:5000/v2/x/blobs/uploads/uuid");
        check("?q=1", "https://r.io:5000/v2/x/blobs/uploads/?q=1");
        check("/y?to=http://z", "https://r.io:5000/y?to=http://z");
    }

    #[test]
    fn a_query_is_kept_and_never_shown() {
        let url = Url::parse("https://r.io/u?_state=s").unwrap().with_query(&[("digest", "sha256:0")]).unwrap();
        assert_eq!(url.uri().to_string(), "https://r.io/u?_state=s&digest=sha256%3A0");
        assert_eq!(format!("{url} {url:?}"), "https://r.io/u https://r.io/u");
    }

    #[test]
    fn only_plain_http_urls_are_taken() {
        assert_eq!(Url::parse("ftp://r.io/").unwrap_err(), UrlError::Scheme);
        assert_eq!(Url::parse("https://u:p@r.io/").unwrap_err(), UrlError::Credentials);
        assert_eq!(Url::parse("/path").unwrap_err(), UrlError::Malformed);
        assert_eq!(Url::parse("https://r.io/\u{7}").unwrap_err(), UrlError::Malformed);
    }

    #[test]
    fn origin_is_scheme_host_and_port() {
        let url = |text| Url::parse(text).unwrap();
        assert!(url("https://R.io/a").same_origin(&url("https://r.io:443/b")));
        assert!(!url("https://r.io/").same_origin(&url("http://r.io/")));
        assert!(!url("https://r.io/").same_origin(&url("https://r.io:8443/")));
        assert!(!url("https://r.io/").same_origin(&url("https://r.io.evil/")));
    }

    #[test]
    fn loopback_is_told_by_name_alone() {
        for (host, expected) in
            [("localhost", true), ("127.0.0.9", true), ("::1", true), ("::ffff:127.0.0.1", true), ("10.0.0.1", false)]
        {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
        assert_eq!(host_of("[::1]:5000"), "::1");
    }
}
