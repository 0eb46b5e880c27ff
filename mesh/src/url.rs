//! The rules for a module's `url`.

use crate::fault::{Fault, is_sha256};

/// Checks a module URL as Istio's validation does, which reads it with Go's `net/url`.
pub(crate) fn check(url: &str) -> Result<(), Fault> {
    let syntax = |reason| Fault::UrlSyntax { url: shown_url(url), reason };
    if url.chars().any(|c| c.is_ascii_control()) {
        return Err(syntax("it has a control character"));
    }
    let (scheme, rest) = split_scheme(url).ok_or_else(|| syntax("nothing stands before the `:`"))?;
    match scheme.to_ascii_lowercase().as_str() {
        "oci" | "http" | "https" => {
            // Go reads `oci:x` as opaque and keeps it, but no fetcher can do anything with it.
            let authority = rest.strip_prefix("//").ok_or_else(|| syntax("`//` must follow the scheme"))?;
            check_authority(authority).map_err(syntax)?;
        }
        "file" if rest.strip_prefix("//").is_some_and(|path| !path.is_empty()) => {}
        "file" => return Err(syntax("a file URL is file:// and a path")),
        "" if rest.split('/').next().is_some_and(|first| first.contains(':')) => {
            return Err(Fault::UrlHostPort { url: shown_url(url) });
        }
        "" => {}
        _ if !rest.starts_with("//") => return Err(Fault::UrlHostPort { url: shown_url(url) }),
        _ => return Err(Fault::UrlScheme { url: shown_url(url), scheme: scheme.to_owned() }),
    }
    bad_escape(rest).map_or(Ok(()), |()| Err(syntax("a `%` is not followed by two hex digits")))
}

/// The URL as it may be shown: without a user's name and password, and without a query, which may be a signature that
/// works like a password.
///
/// ```
/// assert_eq!(mesh::shown_url("https://ann:pw@example.com/x?sig=1"), "https://<redacted>@example.com/x?<redacted>");
/// assert_eq!(mesh::shown_url("oci://example.com/x@sha256:ab"), "oci://example.com/x@sha256:ab");
/// ```
pub fn shown_url(url: &str) -> String {
    let (place, query) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    let start = place.find("://").map_or(0, |scheme| scheme + 3);
    let (scheme, rest) = place.split_at(start);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let shown = match authority.rsplit_once('@') {
        Some((_, host)) if !host.starts_with("sha256:") => format!("{scheme}<redacted>@{host}{path}"),
        _ => place.to_owned(),
    };
    if query.len() > 1 { format!("{shown}{}<redacted>", &query[..1]) } else { shown + query }
}

/// The digest after `@sha256:` in an OCI URL, without that prefix.
pub(crate) fn digest(url: &str) -> Option<&str> {
    let is_oci = !url.contains("://") || url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("oci://"));
    let (_, digest) = url.rsplit_once("@sha256:")?;
    (is_oci && is_sha256(digest)).then_some(digest)
}

/// Splits at the first `:` when a scheme can stand before it; `None` when nothing does.
fn split_scheme(url: &str) -> Option<(&str, &str)> {
    for (index, c) in url.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if index > 0 => {}
            ':' if index == 0 => return None,
            ':' => return Some((&url[..index], &url[index + 1..])),
            _ => break,
        }
    }
    Some(("", url))
}

fn check_authority(rest: &str) -> Result<(), &'static str> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']').ok_or("a `[` has no `]`")?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    if name.is_empty() {
        return Err("it has no host");
    }
    if name.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}']) {
        return Err("the host has a character that hosts cannot have");
    }
    let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if port_fits { Ok(()) } else { Err("the port is not a number") }
}

/// `Some` when a percent sign is not followed by two hex digits.
fn bad_escape(text: &str) -> Option<()> {
    let bytes = text.as_bytes();
    let hex = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_hexdigit);
    let bad = |(index, byte): (usize, &u8)| *byte == b'%' && !(hex(index + 1) && hex(index + 2));
    bytes.iter().enumerate().any(bad).then_some(())
}

#[cfg(test)]
mod tests {
    use super::{check as check_url, digest};

    #[track_caller]
    fn check(url: &str, expected: Result<(), &str>) {
        let result = check_url(url).map_err(|fault| {
            fault.to_string() + &fault.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default()
        });
        assert_eq!(result, expected.map_err(str::to_owned));
    }

    #[test]
    fn the_four_schemes_and_none_are_accepted() {
        for url in [
            "oci://ghcr.io/x/y:1",
            "oci://private-registry:5000/a/b:latest",
            "oci://[::1]:5000/a",
            "OCI://ghcr.io/x",
            "ghcr.io/x/y:1",
            "ghcr.io/x/y@sha256:aa",
            "plugin",
            "http://host/x.wasm",
            "https://user:pw@host:8443/x.wasm?a=%20",
            "file:///opt/filters/openid.wasm",
            "file://relative.wasm",
        ] {
            check(url, Ok(()));
        }
    }

    #[test]
    fn host_and_port_without_scheme_is_refused_with_the_fix() {
        let says = |url: &str| {
            format!(
                "Istio reads what stands before the first `:` of `{url}` as a URL scheme, and rejects it; \
                     hint: write `oci://{url}`"
            )
        };
        for url in [
            "registry:5000/x",
            "localhost:5000/a/b:1",
            "127.0.0.1:5000/x",
            "my_registry:5000/x",
            "registry:5000",
            "x@sha256:a",
            "x:latest",
        ] {
            check(url, Err(&says(url)));
        }
    }

    #[test]
    fn other_schemes_are_refused() {
        check("ftp://x/y", Err("scheme `ftp` is not one of oci, http, https, file (or none, which means oci)"));
        check(
            "docker://ghcr.io/x",
            Err("scheme `docker` is not one of oci, http, https, file (or none, which means oci); \
                 hint: write `oci://ghcr.io/x`"),
        );
    }

    #[test]
    fn what_is_no_url_is_refused() {
        check("://x", Err("`://x` is not a URL: nothing stands before the `:`"));
        check("oci:x", Err("`oci:x` is not a URL: `//` must follow the scheme"));
        check("oci:///x", Err("`oci:///x` is not a URL: it has no host"));
        check("oci://h:x/y", Err("`oci://h:x/y` is not a URL: the port is not a number"));
        check("oci://[::1/y", Err("`oci://[::1/y` is not a URL: a `[` has no `]`"));
        check("oci://h h/y", Err("`oci://h h/y` is not a URL: the host has a character that hosts cannot have"));
        check("http://h/%zz", Err("`http://h/%zz` is not a URL: a `%` is not followed by two hex digits"));
        check("oci://h/\n", Err("`oci://h/\n` is not a URL: it has a control character"));
        check("file:x.wasm", Err("`file:x.wasm` is not a URL: a file URL is file:// and a path"));
        check("file://", Err("`file://` is not a URL: a file URL is file:// and a path"));
    }

    #[test]
    fn nothing_secret_of_a_url_is_quoted() {
        for url in [
            "https://ann:hunter2@h:x/y",
            "https://ann:hunter2@/y",
            "https://ann:hunter2@h h/y",
            "ann:hunter2@h/y",
            "docker://ann:hunter2@h/y",
            "ftp://ann:hunter2@h/y",
            "https://h/%zz?sig=hunter2",
            "https://h:x/y#hunter2",
            "https://ann@hunter2@h:x/y",
        ] {
            let fault = check_url(url).unwrap_err();
            let said = format!("{fault} {fault:?} {:?}", fault.hint());
            assert!(!said.contains("hunter2"), "{url}: {said}");
        }
        let error = check_url("https://ann:hunter2@h:x/y").unwrap_err().to_string();
        assert_eq!(error, "`https://<redacted>@h:x/y` is not a URL: the port is not a number");
    }

    #[test]
    fn digests_are_found_in_oci_urls_only() {
        let hex = "a".repeat(64);
        assert_eq!(digest(&format!("oci://h/x@sha256:{hex}")), Some(hex.as_str()));
        assert_eq!(digest(&format!("h/x:tag@sha256:{hex}")), Some(hex.as_str()));
        assert_eq!(digest(&format!("https://h/x@sha256:{hex}")), None);
        assert_eq!(digest("oci://h/x:tag"), None);
    }
}
