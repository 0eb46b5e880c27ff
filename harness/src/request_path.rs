//! Path normalisation as Istio configures it: RFC 3986 dot segments, unreserved octets decoded, others that a path may
//! not have escaped, `\` is `/`.

use std::fmt::Write as _;

/// Whether a request target is seen at a glance to be normalised: as nearly all are.
pub(crate) fn is_normal(target: &str) -> bool {
    let path = target.as_bytes().split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    path.starts_with(b"/")
        && !path.windows(2).any(|pair| pair == b"/.")
        && !path.iter().any(|byte| matches!(byte, b'%' | b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}'))
}

/// Normalises the path of a request target and leaves its query alone. `None` when it cannot be.
pub(crate) fn normalize(target: &str) -> Option<String> {
    let (path, query) = match target.find(['?', '#']) {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    if !path.starts_with('/') {
        return (target == "*").then(|| target.to_owned());
    }
    let decoded = escaped(path)?;
    Some(format!("{}{query}", without_dots(&decoded)))
}

/// A path without its dot segments (RFC 3986, section 5.2.4). It begins with `/`.
pub(crate) fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    segments.pop();
                }
                if last {
                    segments.push("");
                }
            }
            part => segments.push(part),
        }
    }
    format!("/{}", segments.join("/"))
}

fn escaped(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        let hex = rest.strip_prefix('%').and_then(|r| r.get(..2)).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (c, hex) {
            ('%', Some(0)) => return None,
            ('%', Some(byte)) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(char::from(byte));
                rest = &rest[3..];
                continue;
            }
            ('\\', _) => out.push('/'),
            ('"' | '<' | '>' | '^' | '`' | '{' | '|' | '}', _) => {
                // Writing to a text does not fail.
                let _ = write!(out, "%{:02X}", u32::from(c));
            }
            (c, _) => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: &str, expected: Option<&str>) {
        assert_eq!(normalize(target).as_deref(), expected);
        assert!(!is_normal(target) || expected == Some(target), "{target}");
    }

    #[test]
    fn paths_are_normalised_and_queries_are_not() {
        check("/a/./b/../c?x=/../%41", Some("/a/c?x=/../%41"));
        check("/a/%2e%2E/admin", Some("/admin"));
        check("/%61dmin%2Fx", Some("/admin%2Fx"));
        check("\\admin", None);
        check("/a\\..\\b", Some("/b"));
        check("/../..", Some("/"));
        check("/a/..", Some("/"));
        check("/a/b/.", Some("/a/b/"));
        check("//a", Some("//a"));
        check("/a|b\"{x}^?a|b", Some("/a%7Cb%22%7Bx%7D%5E?a|b"));
        check("/a[b]'(c)!$&*+,;=:@~", Some("/a[b]'(c)!$&*+,;=:@~"));
        check("/%00", None);
        check("/100%", Some("/100%"));
        check("*", Some("*"));
        check("a", None);
        check("/a//b/c.d?x=%41#y", Some("/a//b/c.d?x=%41#y"));
        assert!(is_normal("/a//b/c.d?x=%41#y"));
    }
}
