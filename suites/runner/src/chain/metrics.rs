//! Metrics as a proxy tells them, in Prometheus' text format.

use std::collections::BTreeMap;

/// One line of metrics.
#[derive(Debug, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

/// As the format has a name.
pub(super) fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// Reads Prometheus' text format.
pub(super) fn series(text: &str) -> Vec<Series> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(one).collect()
}

fn one(line: &str) -> Option<Series> {
    let (key, value) = line.rsplit_once(' ')?;
    let (name, mut rest) = key.split_once('{').unwrap_or((key, ""));
    let mut labels = BTreeMap::new();
    while let Some((label, after)) = rest.split_once("=\"") {
        let (mut value, mut escaped, mut length) = (String::new(), false, 0);
        for character in after.chars() {
            length += character.len_utf8();
            match (character, escaped) {
                ('\\', false) => escaped = true,
                ('"', false) => break,
                ('n', true) => {
                    value.push('\n');
                    escaped = false;
                }
                _ => {
                    value.push(character);
                    escaped = false;
                }
            }
        }
        labels.insert(label.trim_start_matches(',').to_owned(), value);
        rest = after.get(length..).unwrap_or_default();
    }
    Some(Series { name: name.to_owned(), labels, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_with_their_labels() {
        let found = series("# TYPE a counter\na 3\nb{x=\"1\",y=\"q\\\"r\"} 4\nbroken\n");
        let labels = BTreeMap::from([("x".to_owned(), "1".to_owned()), ("y".to_owned(), "q\"r".to_owned())]);
        assert_eq!(
            found,
            [
                Series { name: "a".to_owned(), labels: BTreeMap::new(), value: 3.0 },
                Series { name: "b".to_owned(), labels, value: 4.0 },
            ]
        );
    }
}
