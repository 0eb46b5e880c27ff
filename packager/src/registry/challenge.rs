//! The `WWW-Authenticate` header (RFC 9110, section 11.6.1; distribution's token specification).

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// The challenges of all header lines that are understood, in order.
pub(super) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    headers.flat_map(parse_line).collect()
}

fn parse_line(line: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '=' | ',' | '"')).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        let value = after.trim_start().strip_prefix('=').map(str::trim_start);
        match value {
            Some(text) if !text.starts_with('=') => {
                let (value, after) = parse_value(text);
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.push((word.to_ascii_lowercase(), value));
                }
                rest = after;
            }
            _ => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, &parameters)).collect()
}

fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service") }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[Challenge]) {
        assert_eq!(parse(std::iter::once(line)), expected, "{line}");
    }

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) }
    }

    #[test]
    fn challenges_are_read_in_every_notation() {
        check("Basic realm=\"Registry, the \\\"one\\\"\"", &[Challenge::Basic]);
        check(
            r#"Bearer realm="https://a.io/token",service="r.io",scope="repository:x:pull,push""#,
            &[bearer("https://a.io/token", Some("r.io"))],
        );
        check(r#"bearer  service = r.io , realm = "https://a.io""#, &[bearer("https://a.io", Some("r.io"))]);
        check(
            r#"Negotiate, Basic realm="x", Bearer realm="https://a.io""#,
            &[Challenge::Basic, bearer("https://a.io", None)],
        );
    }

    #[test]
    fn nonsense_gives_no_challenge() {
        for line in ["", ",,,", "Bearer", "=", "\"", "Bearer realm", "Digest realm=\"x\"", "a==b", "Bearer scope=\"x"] {
            check(line, &[]);
        }
    }
}
