//! How an upstream or a cluster is named: `http://`, `h2c://`, `https://` or `tcp://`, a host and a port.

/// What is spoken to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// HTTP/1.1 in the clear.
    Http,
    /// HTTP/2 in the clear, without asking first.
    H2c,
    /// TLS; the server chooses HTTP/2 or HTTP/1.1.
    Https,
    /// Bytes.
    Tcp,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) scheme: Scheme,
    /// The name or address, an IPv6 one without brackets: what its certificate must be for.
    pub(crate) host: String,
    /// `HOST:PORT`, which can be dialled.
    pub(crate) authority: String,
}

impl Address {
    /// Reads `SCHEME://HOST[:PORT]`. Only `tcp` must have a port. `None` when it is anything else.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (scheme, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Scheme::Http, Some(80)),
            "h2c" => (Scheme::H2c, Some(80)),
            "https" => (Scheme::Https, Some(443)),
            "tcp" => (Scheme::Tcp, None),
            _ => return None,
        };
        let authority: http::uri::Authority = rest.strip_suffix('/').unwrap_or(rest).parse().ok()?;
        let host = authority.host();
        if host.is_empty() || authority.as_str().contains('@') {
            return None;
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok()?,
            // The name alone: a colon that is followed by no port is a mistake.
            None if authority.as_str() == host => port?,
            None => return None,
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(Self { scheme, host: bare.to_owned(), authority: format!("{host}:{port}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Option<(Scheme, &str, &str)>) {
        let expected = expected.map(|(scheme, host, authority)| Address {
            scheme,
            host: host.to_owned(),
            authority: authority.to_owned(),
        });
        assert_eq!(Address::parse(url), expected, "{url}");
    }

    #[test]
    fn servers_are_named_by_scheme_host_and_port() {
        check("http://example.com", Some((Scheme::Http, "example.com", "example.com:80")));
        check("http://example.com:8080/", Some((Scheme::Http, "example.com", "example.com:8080")));
        check("HTTPS://[::1]", Some((Scheme::Https, "::1", "[::1]:443")));
        check("h2c://127.0.0.1:9", Some((Scheme::H2c, "127.0.0.1", "127.0.0.1:9")));
        check("tcp://db:5432", Some((Scheme::Tcp, "db", "db:5432")));
    }

    #[test]
    fn anything_else_is_refused() {
        for url in [
            "",
            "example.com:80",
            "tcp://db",
            "ftp://h",
            "http://",
            "http:///x",
            "http://h/x",
            "http://h?q",
            "http://u:p@h",
            "http://h:",
            "http://h:x",
            "http://h:70000",
        ] {
            check(url, None);
        }
    }
}
