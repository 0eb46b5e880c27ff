//! Path templates: Envoy's URI templates as Istio uses them.

/// A template with `{*}` for one segment and `{**}` for the rest, slashes included.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Segment,
    Rest,
}

impl Template {
    /// `None` when it is no template but a pattern.
    pub(super) fn parse(path: &str) -> Option<Self> {
        if !path.contains("{*}") && !path.contains("{**}") {
            return None;
        }
        let mut parts = Vec::new();
        let mut rest = path;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("{**}") {
                parts.push(Part::Rest);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{*}") {
                parts.push(Part::Segment);
                rest = after;
            } else {
                let ends = [rest.find("{**}"), rest.find("{*}")].into_iter().flatten().min().unwrap_or(rest.len());
                let (text, after) = rest.split_at(ends);
                parts.push(Part::Text(text.to_owned()));
                rest = after;
            }
        }
        Some(Self(parts))
    }

    /// Whether the whole path, without its query, has this form.
    pub(super) fn matches(&self, path: &str) -> bool {
        matches(&self.0, path.as_bytes())
    }
}

/// Wildcards are whole segments and only text follows a `Rest`, so that there is at most one place to try again from.
fn matches(parts: &[Part], path: &[u8]) -> bool {
    match parts {
        [] => path.is_empty(),
        [Part::Text(text), rest @ ..] => path.strip_prefix(text.as_bytes()).is_some_and(|path| matches(rest, path)),
        [Part::Segment, rest @ ..] => {
            let end = path.iter().position(|byte| !in_segment(*byte)).unwrap_or(path.len());
            end > 0 && matches(rest, &path[end..])
        }
        [Part::Rest, rest @ ..] => {
            let end = path.iter().position(|byte| !in_segment(*byte) && *byte != b'/').unwrap_or(path.len());
            (0..=end).any(|at| matches(rest, &path[at..]))
        }
    }
}

/// What Envoy lets a wildcard match: RFC 3986's `pchar`, as it is written.
fn in_segment(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;:@=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_segments() {
        let cases = [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/bar/baz", false),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{*}/baz", "/foo/bar/baz", true),
            ("/foo/{*}/baz", "/foo//baz", false),
            ("/{*}/baz/{**}", "/foo/baz/x/y", true),
            ("/{*}/baz/{**}", "/foo/baz/", true),
            ("/{*}/baz/{**}", "/foo/baz", false),
            ("/foo/{**}/bar", "/foo/a/b/bar", true),
            ("/foo/{**}/bar", "/foo/a/b/baz", false),
            ("/foo/{**}/", "/foo/a/b/", true),
            ("/foo/{**}/", "/foo/a/b", false),
            ("/{**}", "/", true),
            ("/{*}", "/a*b", true),
            ("/{*}", "/a[b", false),
            ("/{*}", "/a%20b", true),
        ];
        for (template, path, expected) in cases {
            assert_eq!(Template::parse(template).unwrap().matches(path), expected, "{template} {path}");
        }
        assert_eq!(Template::parse("/foo/*"), None);
    }
}
