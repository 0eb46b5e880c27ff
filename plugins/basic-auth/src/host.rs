//! Matches a request's host against a rule's patterns.

/// A rule's host pattern; all comparisons ignore case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `*.example.com`: hosts that end so.
    EndsWith(String),
    /// `example.*`: hosts that start so.
    StartsWith(String),
    /// `example.com`.
    Is(String),
}

impl Pattern {
    /// Takes a pattern, or says why it could never match a host and so would protect nothing.
    pub(crate) fn new(text: &str) -> Result<Self, &'static str> {
        let lower = text.to_ascii_lowercase();
        let (pattern, rest) = if let Some(end) = lower.strip_prefix('*') {
            (Self::EndsWith(end.to_owned()), end)
        } else if let Some(start) = lower.strip_suffix('*') {
            (Self::StartsWith(start.to_owned()), start)
        } else {
            (Self::Is(lower.clone()), lower.as_str())
        };
        if text.is_empty() {
            Err("is empty")
        } else if rest.contains('*') {
            Err("has a `*` that is neither its first nor its only last character")
        } else if !rest.bytes().all(|b| b.is_ascii_graphic()) || rest.contains(['/', '@']) {
            Err("has a character that no host has; an international name is written in its `xn--` form")
        } else if rest.contains(':') && !rest.starts_with('[') && !rest.ends_with(']')
            || rest.as_bytes().windows(2).any(|pair| pair == b"]:")
        {
            Err("has a port, which is removed before hosts are matched, or an IPv6 address without brackets")
        } else if rest.ends_with('.') && !matches!(pattern, Self::StartsWith(_)) {
            Err("ends with a dot, which is removed before hosts are matched")
        } else if matches!(pattern, Self::Is(_)) && normalize(Some(rest.as_bytes())).as_deref() != Some(rest.as_bytes())
        {
            Err("is not a host")
        } else {
            Ok(pattern)
        }
    }

    /// Tells whether the pattern matches a host as [`normalize`] returns it.
    pub(crate) fn matches(&self, host: &[u8]) -> bool {
        match self {
            Self::EndsWith(end) => host.ends_with(end.as_bytes()),
            Self::StartsWith(start) => host.starts_with(start.as_bytes()),
            Self::Is(name) => host == name.as_bytes(),
        }
    }
}

/// Returns the host of `:authority` in lower case, without user, port and trailing dot; none when there is none.
pub(crate) fn normalize(authority: Option<&[u8]>) -> Option<Vec<u8>> {
    let host = authority?.rsplit(|b| *b == b'@').next()?;
    let end = if host.starts_with(b"[") {
        // An IPv6 address has colons of its own; without its bracket nobody can say where it ends.
        host.iter().position(|b| *b == b']')? + 1
    } else {
        host.iter().position(|b| *b == b':').unwrap_or(host.len())
    };
    let host = host.get(..end)?;
    let host = host.strip_suffix(b".").unwrap_or(host);
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::{Pattern, normalize};

    #[track_caller]
    fn check(pattern: &str, hosts: &[&str], others: &[&str]) {
        let pattern = Pattern::new(pattern).unwrap();
        let matches = |host: &&str| pattern.matches(&normalize(Some(host.as_bytes())).unwrap());
        for host in hosts {
            assert!(matches(host), "{host} is let through");
        }
        for host in others {
            assert!(!matches(host), "{host} is caught");
        }
    }

    #[test]
    fn a_plain_pattern_is_the_whole_host_in_any_case() {
        check("Example.com", &["example.com", "EXAMPLE.COM"], &["a.example.com", "example.com.evil", "example.co"]);
    }

    #[test]
    fn a_leading_asterisk_matches_the_end() {
        check("*.Example.com", &["a.example.com", "A.B.EXAMPLE.COM:80"], &["example.com", "a.example.com.evil"]);
        check("*", &["anything", "[::1]:80"], &[]);
    }

    #[test]
    fn a_trailing_asterisk_matches_the_start() {
        check("example.*", &["example.com", "EXAMPLE.org:8080"], &["an.example.com", "example"]);
    }

    #[test]
    fn the_port_is_removed() {
        check("example.com", &["example.com:80", "example.com:", "example.com:80:90"], &["example.com80"]);
        check("[::1]", &["[::1]", "[::1]:8080"], &["[::2]:8080"]);
        check("[2001:DB8::1]", &["[2001:db8::1]:443"], &["[2001:db8::11]"]);
        check("[2001:db8:*", &["[2001:db8::1]:443"], &["[2001:db9::1]"]);
    }

    #[test]
    fn a_trailing_dot_and_a_user_are_removed() {
        check("example.com", &["example.com.", "example.com.:80", "user@example.com", "a@b@example.com:80"], &[]);
    }

    #[test]
    fn a_host_that_cannot_be_read_is_none() {
        for authority in [None, Some(""), Some(":80"), Some("."), Some("[::1"), Some("user@")] {
            assert_eq!(normalize(authority.map(str::as_bytes)), None, "{authority:?}");
        }
    }

    #[test]
    fn a_pattern_that_could_never_match_is_an_error() {
        for pattern in [
            "", "a*b", "*a*", "**", "a.com:80", "[::1]:80", "::1", "a b", "é.com", "http://a", "a@b", "a.", "[::1",
            "*:80",
        ] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }
}
