//! What a document says that is printed, held against what was printed.
//!
//! A line that is `…` and nothing else stands for any lines, or none; within a line `…` stands for any text.

/// Whether all of it is as documented.
pub(crate) fn matches(expected: &str, actual: &str) -> bool {
    let (expected, actual): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    ends(&expected, &actual).contains(&actual.len())
}

/// The number of bytes up to the end of the first run of whole lines that are as documented.
pub(crate) fn find(expected: &str, actual: &str) -> Option<usize> {
    let whole = actual.rfind('\n').map_or("", |end| actual.get(..=end).unwrap_or_default());
    let (expected, lines): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), whole.lines().collect());
    let end =
        (0..lines.len()).find_map(|start| Some(start + ends(&expected, lines.get(start..)?).into_iter().min()?))?;
    Some(lines.iter().take(end).map(|line| line.len() + 1).sum())
}

/// After how many lines the documented ones can have ended.
fn ends(expected: &[&str], actual: &[&str]) -> Vec<usize> {
    let mut places = vec![0];
    for pattern in expected {
        let mut next: Vec<usize> = if *pattern == "…" {
            places.first().map(|&first| (first..=actual.len()).collect()).unwrap_or_default()
        } else {
            let fits = |place: &&usize| actual.get(**place).is_some_and(|line| line_matches(pattern, line));
            places.iter().filter(fits).map(|place| place + 1).collect()
        };
        next.sort_unstable();
        next.dedup();
        places = next;
    }
    places
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn an_ellipsis_is_any_text_of_a_line_or_any_lines() {
    for (expected, actual, fits) in [
        ("a\n", "a\n", true),
        ("a\n", "a\nb\n", false),
        ("a\n…\n", "a\n", true),
        ("a\n…\nd\n", "a\nb\nc\nd\n", true),
        ("…\nb\n", "a\nb\nc\n", false),
        ("…\nb\n…\nb\n", "b\n", false),
        ("a … c\n", "a b c\n", true),
        ("a … c\n", "a b d\n", false),
        ("a…a\n", "a\n", false),
        ("", "", true),
        ("", "a\n", false),
    ] {
        assert_eq!(matches(expected, actual), fits, "{expected:?} {actual:?}");
    }
    assert_eq!(find("b\n…\nd\n", "a\nb\nc\nd\ne\n"), Some(8));
    assert_eq!(find("b\n", "a\nb"), None);
    assert_eq!(find("b\nd\n", "b\nc\nb\nd\n"), Some(8));
}
