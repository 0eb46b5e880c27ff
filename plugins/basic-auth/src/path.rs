//! Matches a request's path against a rule's pattern, however the path is written.
//!
//! Proxies and upstreams disagree on what `%2e%2e`, `//`, `\` or `;x` mean, and a rule must hold for all of them. So a
//! path is read in every way that an upstream plausibly reads it, and a rule applies when one reading matches.

/// How many layers of percent-encoding are undone. A path with more is not read at all.
const MAX_DECODINGS: usize = 3;

/// A rule's pattern, as written and as an upstream reads it.
#[derive(Debug)]
pub(crate) struct Pattern {
    kind: Kind,
    written: Vec<u8>,
    decoded: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Prefix,
    Suffix,
    Exact,
}

impl Pattern {
    /// Takes a pattern, or says why it could never match a path and so would protect nothing.
    pub(crate) fn new(kind: Kind, text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("is empty");
        }
        if kind != Kind::Suffix && !text.starts_with('/') {
            return Err("does not start with `/`, as every path does");
        }
        if text.contains(['?', '#']) {
            return Err("has a `?` or `#`, but only the path without its query is matched");
        }
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err("has a space or control character, which no path has");
        }
        let mut decoded = text.as_bytes().to_vec();
        for _ in 0..MAX_DECODINGS {
            decoded = decode(&decoded);
        }
        let decoded = slashes(&decoded);
        if decoded.split(|b| *b == b'/').any(|segment| matches!(segment, b"." | b"..")) {
            return Err("has a `.` or `..` segment, which is resolved before paths are matched");
        }
        Ok(Self { kind, written: text.as_bytes().to_vec(), decoded })
    }

    /// Tells whether the pattern matches one of the readings, or the path cannot be read.
    pub(crate) fn matches(&self, path: &RequestPath) -> bool {
        match path {
            RequestPath::Unreadable => true,
            RequestPath::Readings { written, decoded } => {
                self.matches_one(&self.written, written)
                    || decoded.iter().any(|reading| self.matches_one(&self.decoded, reading))
            }
        }
    }

    fn matches_one(&self, pattern: &[u8], path: &[u8]) -> bool {
        // Upstreams serve `/a` and `/a/` alike, and resolving `/a/.` gives either.
        match self.kind {
            Kind::Prefix => path.starts_with(pattern),
            Kind::Suffix => path.ends_with(pattern) || trimmed(path).ends_with(trimmed(pattern)),
            Kind::Exact => trimmed(path) == trimmed(pattern),
        }
    }
}

/// A request's path in all its readings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestPath {
    /// Missing, or written so that nobody can say what an upstream makes of it: every rule applies.
    Unreadable,
    /// The path without its query, and what it may mean.
    Readings { written: Vec<u8>, decoded: Vec<Vec<u8>> },
}

impl RequestPath {
    /// Reads the value of `:path`.
    pub(crate) fn new(path: Option<&[u8]>) -> Self {
        let Some(path) = path else { return Self::Unreadable };
        let written = path.split(|b| *b == b'?').next().unwrap_or_default();
        if !written.starts_with(b"/") && written != b"*" || written.contains(&b'#') {
            return Self::Unreadable;
        }
        let mut decoded: Vec<Vec<u8>> = Vec::new();
        let mut layer = written.to_vec();
        for _ in 0..=MAX_DECODINGS {
            if layer.contains(&0) {
                return Self::Unreadable;
            }
            for variant in [layer.clone(), without_parameters(&layer)] {
                // `/a//../b` is `/b` to those that merge slashes first, and `/a/b` to those that do it last.
                for reading in [resolve(&slashes(&variant)), slashes(&resolve(&variant))] {
                    if !decoded.contains(&reading) {
                        decoded.push(reading);
                    }
                }
            }
            let inner = decode(&layer);
            if inner == layer {
                return Self::Readings { written: written.to_vec(), decoded };
            }
            layer = inner;
        }
        Self::Unreadable
    }
}

/// Undoes one layer of percent-encoding; what is no escape stays as it is.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if let (b'%', [high, low, after @ ..]) = (byte, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(byte);
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Turns `\` into `/`, and several `/` into one.
fn slashes(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    for &byte in path {
        let byte = if byte == b'\\' { b'/' } else { byte };
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
    }
    out
}

/// Resolves `.` and `..` segments (RFC 3986, section 5.2.4); `..` at the root stays there.
fn resolve(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut open = false;
    for (index, segment) in path.split(|b| matches!(b, b'/' | b'\\')).enumerate() {
        open = matches!(segment, b"." | b"..");
        if segment == b".." {
            out.truncate(out.iter().rposition(|b| *b == b'/').unwrap_or(0));
        } else if !open {
            if index > 0 {
                out.push(b'/');
            }
            out.extend_from_slice(segment);
        }
    }
    if open || out.is_empty() {
        out.push(b'/');
    }
    out
}

/// Drops `;parameters` from every segment, as servlet containers do.
fn without_parameters(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut dropping = false;
    for &byte in path {
        dropping = match byte {
            b'/' | b'\\' => false,
            b';' => true,
            _ => dropping,
        };
        if !dropping {
            out.push(byte);
        }
    }
    out
}

/// Drops slashes from the end of a path that is more than slashes.
fn trimmed(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|b| *b != b'/') {
        Some(last) => path.get(..=last).unwrap_or(path),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Pattern, RequestPath};

    #[track_caller]
    fn check(kind: Kind, pattern: &str, paths: &[&str], others: &[&str]) {
        let pattern = Pattern::new(kind, pattern).unwrap();
        for path in paths {
            assert!(pattern.matches(&RequestPath::new(Some(path.as_bytes()))), "{path} is let through");
        }
        for path in others {
            assert!(!pattern.matches(&RequestPath::new(Some(path.as_bytes()))), "{path} is caught");
        }
    }

    #[test]
    fn a_prefix_matches_where_the_path_starts() {
        check(Kind::Prefix, "/api", &["/api", "/api/", "/api/x", "/apiary", "/api?x"], &["/", "/x/api", "/ap", "/API"]);
        check(Kind::Prefix, "/", &["/", "/x", "//"], &["*"]);
    }

    #[test]
    fn exact_and_suffix_leave_the_query_out() {
        check(Kind::Exact, "/api", &["/api", "/api?x", "/api?", "/api?/../x"], &["/api/x", "/x?/api", "/apis"]);
        check(Kind::Suffix, ".php", &["/a.php", "/a.php?x=1"], &["/a.html?x=.php", "/a.phpx"]);
    }

    #[test]
    fn exact_and_suffix_leave_a_trailing_slash_out() {
        check(Kind::Exact, "/api", &["/api/", "/api//", "/api/.", "/api/x/.."], &["/api/x"]);
        check(Kind::Exact, "/api/", &["/api"], &[]);
        check(Kind::Exact, "/", &["/", "//", "/."], &["/x"]);
        check(Kind::Suffix, "/edit", &["/a/edit/"], &["/a/edits"]);
    }

    #[test]
    fn slashes_are_merged() {
        check(Kind::Prefix, "/a/b", &["//a/b", "/a//b", "/a///b", "/%2fa/b", "/a%2Fb", "/a/%2f/b"], &["/a/c"]);
    }

    #[test]
    fn backslashes_are_slashes() {
        check(Kind::Prefix, "/a/b", &["/a\\b", "/\\a/b", "/a%5cb", "/a%5Cb", "/x\\..\\a\\b"], &[]);
    }

    #[test]
    fn dot_segments_are_resolved() {
        let paths = ["/./a/b", "/x/../a/b", "/a/./b", "/a/x/../b", "/../a/b", "/x/y/../../a/b", "/x/..//a/b"];
        check(Kind::Prefix, "/a/b", &paths, &["/x/a/b", "/a/..b", "/a/.b"]);
        check(Kind::Prefix, "/a/", &["/q/../a/.", "/q/../a/x/.."], &["/a"]);
        check(Kind::Exact, "/x/a", &["/x//../a"], &[]);
        check(Kind::Exact, "/a", &["/x//../a"], &[]);
    }

    #[test]
    fn escapes_are_decoded_in_either_case() {
        let paths = ["/%61/b", "/a/%62", "/a%2fb", "/x/%2e%2e/a/b", "/x/%2E%2E/a/b", "/x/.%2e/a/b", "/%2e/a/b"];
        check(Kind::Prefix, "/a/b", &paths, &["/a%2", "/a%2x", "/a%zzb"]);
        check(Kind::Exact, "/J", &["/%4A", "/%4a"], &[]);
    }

    #[test]
    fn encodings_are_decoded_three_deep_and_deeper_ones_always_match() {
        check(
            Kind::Exact,
            "/admin",
            &["/%2561dmin", "/%252561dmin", "/x/%252e%252e/admin"],
            &["/%2562dmin", "/%252562dmin"],
        );
        check(Kind::Exact, "/admin", &["/%25252561dmin", "/unrelated/%25252561"], &[]);
    }

    #[test]
    fn escapes_in_a_pattern_match_the_decoded_path_too() {
        check(Kind::Exact, "/my%20page", &["/my%20page", "/m%79%20page", "/my%2520page"], &["/my%21page"]);
    }

    #[test]
    fn a_path_that_some_upstreams_leave_as_it_is_still_matches() {
        let paths = ["/a/%2e%2e/x", "/a/../x", "/q/../a/%2e%2e/x", "/a/..;/x"];
        check(Kind::Prefix, "/a", &paths, &["/q/../x"]);
    }

    #[test]
    fn parameters_of_a_segment_are_seen_both_ways() {
        check(Kind::Exact, "/admin", &["/admin;x=1", "/;x/admin", "/q/..;/admin", "/ad%3bx/../admin"], &["/x;/admin;"]);
        check(Kind::Exact, "/admin;x", &["/admin;x", "/admin%3Bx"], &["/admin;y"]);
    }

    /// Rewrites `/a/b` by chance into something that still means it.
    fn disguised(random: &mut impl FnMut(usize) -> usize) -> String {
        let mut path = String::new();
        for name in ["a", "b"] {
            for _ in 0..random(3) {
                path.push_str(["/.", "/", "/x/..", "/%2e", "/x/%2E.", "/;p", "/x/..;p", "\\."][random(8)]);
            }
            path.push_str(["/", "//", "\\", "%2f", "%5C"][if path.is_empty() { 0 } else { random(5) }]);
            path.push_str(name);
            path.push_str(["", ";p=1"][random(2)]);
        }
        for _ in 0..random(2) {
            path =
                path.bytes().map(|b| if random(2) == 0 { format!("%{b:02x}") } else { char::from(b).into() }).collect();
        }
        if path.starts_with('/') { path } else { format!("/{path}") }
    }

    #[test]
    fn no_disguise_slips_past_an_exact_pattern() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
        };
        let pattern = Pattern::new(Kind::Exact, "/a/b").unwrap();
        for _ in 0..5000 {
            let path = disguised(&mut random);
            assert!(pattern.matches(&RequestPath::new(Some(path.as_bytes()))), "{path} is let through");
        }
    }

    #[test]
    fn a_path_that_cannot_be_read_matches_every_pattern() {
        for path in [None, Some(""), Some("x"), Some("http://host/x"), Some("/x#/y"), Some("/x%00"), Some("/x\0")] {
            assert_eq!(RequestPath::new(path.map(str::as_bytes)), RequestPath::Unreadable, "{path:?}");
        }
        assert!(Pattern::new(Kind::Exact, "/a").unwrap().matches(&RequestPath::Unreadable));
    }

    #[test]
    fn the_asterisk_of_options_is_a_path_of_its_own() {
        check(Kind::Suffix, "*", &["*"], &["/"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_do_no_harm() {
        let pattern = Pattern::new(Kind::Prefix, "/é").unwrap();
        assert!(pattern.matches(&RequestPath::new(Some(b"/%c3%a9"))));
        assert!(!pattern.matches(&RequestPath::new(Some(b"/\xff%ff%"))));
    }

    #[test]
    fn a_pattern_that_could_never_match_is_an_error() {
        for (kind, text) in [
            (Kind::Prefix, ""),
            (Kind::Suffix, ""),
            (Kind::Exact, ""),
            (Kind::Prefix, "api"),
            (Kind::Exact, "*"),
            (Kind::Exact, "/a?b"),
            (Kind::Suffix, "#x"),
            (Kind::Prefix, "/a b"),
            (Kind::Prefix, "/a\nb"),
            (Kind::Prefix, "/a/../b"),
            (Kind::Prefix, "/a/%2e%2E/b"),
            (Kind::Suffix, "/."),
        ] {
            assert!(Pattern::new(kind, text).is_err(), "{text:?}");
        }
    }
}
