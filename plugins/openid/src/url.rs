//! URLs of the provider and origins of the site, as far as the plugin needs to understand them.

use http::Uri;
use http::uri::Scheme;

/// How long a URL may be, in bytes.
const MAX_URL: usize = 2048;

/// Whether a URL may be without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secure {
    /// Yes.
    Preferred,
    /// No.
    Required,
}

/// A URL of the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) is_https: bool,
    /// In lower case, without the port that the scheme has anyway.
    pub(crate) authority: String,
    pub(crate) path_and_query: String,
}

impl Endpoint {
    /// Reads an absolute `http` or `https` URL without user and fragment.
    pub(crate) fn parse(text: &str, secure: Secure) -> Option<Self> {
        if text.len() > MAX_URL || text.contains('#') || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let uri: Uri = text.parse().ok()?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP && secure == Secure::Preferred => false,
            _ => return None,
        };
        let authority = authority(uri.authority()?.as_str())?;
        let port = if is_https { ":443" } else { ":80" };
        let authority = authority.strip_suffix(port).unwrap_or(&authority).to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        // A query alone has no path in front of it.
        let path_and_query = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Some(Self { is_https, authority, path_and_query })
    }

    /// What Istio calls the cluster of a service on this host.
    pub(crate) fn default_cluster(&self) -> String {
        let (host, port) = match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (self.authority.as_str(), if self.is_https { "443" } else { "80" }),
        };
        format!("outbound|{port}||{host}")
    }
}

/// Reads a host with or without a port, in lower case.
pub(crate) fn authority(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'[' | b']');
    if text.is_empty() || text.len() > 255 || !text.bytes().all(plain) {
        return None;
    }
    let parsed: http::uri::Authority = text.parse().ok()?;
    if parsed.host().is_empty() || (text.contains(':') && parsed.port().is_none() && !text.ends_with(']')) {
        return None;
    }
    Some(text.to_ascii_lowercase())
}

/// A scheme and an authority: what browsers keep apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin(String);

impl Origin {
    /// Reads what is only an origin.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        Self::new(scheme, rest)
    }

    /// The origin of a request.
    pub(crate) fn new(scheme: &str, host: &str) -> Option<Self> {
        if !matches!(scheme, "http" | "https") {
            return None;
        }
        Some(Self(format!("{scheme}://{}", authority(host)?)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Adds parameters to a URL that may have some.
pub(crate) fn with_query<'a>(url: &str, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::from(url);
    match url.split_once('?') {
        None => out.push('?'),
        Some((_, query)) if query.is_empty() || query.ends_with('&') => {}
        Some(_) => out.push('&'),
    }
    out.push_str(&form(parameters));
    out
}

/// Writes parameters as a form does.
pub(crate) fn form<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Origin, Secure, authority, with_query};

    #[test]
    fn endpoints_are_absolute_and_plain() {
        let endpoint = Endpoint::parse("https://Login.Example.com:443/a/b?c=d", Secure::Required).unwrap();
        assert_eq!((endpoint.authority.as_str(), endpoint.path_and_query.as_str()), ("login.example.com", "/a/b?c=d"));
        assert_eq!(endpoint.default_cluster(), "outbound|443||login.example.com");
        let endpoint = Endpoint::parse("http://[::1]:8080", Secure::Preferred).unwrap();
        assert_eq!(endpoint.path_and_query, "/");
        assert_eq!(endpoint.default_cluster(), "outbound|8080||[::1]");
        assert_eq!(
            Endpoint::parse("http://[::1]/", Secure::Preferred).unwrap().default_cluster(),
            "outbound|80||[::1]"
        );
        for text in [
            "",
            "/relative",
            "login.example.com/x",
            "ftp://x/",
            "javascript:alert(1)",
            "https://user:pass@x/",
            "https://x/#f",
            "https:///x",
            "https://x/ y",
            "https://x/\r\nset-cookie:a",
            "https://xé/",
        ] {
            assert_eq!(Endpoint::parse(text, Secure::Preferred), None, "{text}");
        }
        assert_eq!(Endpoint::parse("http://x/", Secure::Required), None);
        assert_eq!(Endpoint::parse(&format!("https://x/{}", "a".repeat(2048)), Secure::Required), None);
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        assert_eq!(authority("A.example:80").as_deref(), Some("a.example:80"));
        assert_eq!(authority("[::1]").as_deref(), Some("[::1]"));
        for text in ["", "a b", "a/b", "a@b", "a:b", "a:", "a?b", "a\\b", "é", "a:99999"] {
            assert_eq!(authority(text), None, "{text}");
        }
    }

    #[test]
    fn an_origin_has_no_path() {
        assert_eq!(Origin::parse("https://a.example").unwrap().as_str(), "https://a.example");
        for text in ["https://a.example/", "a.example", "ftp://a", "https://a?b", "https://"] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }

    #[test]
    fn parameters_join_those_that_are_there() {
        assert_eq!(with_query("https://x/a", [("b", "c d&e")]), "https://x/a?b=c+d%26e");
        assert_eq!(with_query("https://x/a?p=q", [("b", "c")]), "https://x/a?p=q&b=c");
        assert_eq!(with_query("https://x/a?", [("b", "c")]), "https://x/a?b=c");
    }
}
