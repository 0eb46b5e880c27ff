//! JSON documents one after another without a separator, as `jq` and `kubectl get -o json` in a loop write them.

use super::Part;

/// Cuts a part after each `}` that closes its outermost mapping and is followed by another `{`.
///
/// No YAML document goes on after its outermost mapping, so nothing that is valid as a whole is cut.
pub(super) fn parts(whole: Part<'_>) -> Vec<Part<'_>> {
    let mut found = Vec::new();
    let mut rest = whole;
    while let Some(end) = end_of_mapping(rest.text) {
        let (text, after) = rest.text.split_at(end);
        if !after.trim_start().starts_with('{') {
            break;
        }
        found.push(Part { text, ..rest });
        let lines = text.matches('\n').count();
        let last_line = text.rsplit('\n').next().unwrap_or_default();
        let columns_before = last_line.chars().count() + if lines == 0 { rest.columns_before } else { 0 };
        rest = Part { lines_before: rest.lines_before + lines, columns_before, text: after };
    }
    found.push(rest);
    found
}

/// The offset after the `}` of a mapping that the text starts with.
fn end_of_mapping(text: &str) -> Option<usize> {
    let start = text.len() - text.trim_start().len();
    if !text[start..].starts_with('{') {
        return None;
    }
    let mut depth = 0_usize;
    let mut quote = None;
    let mut before = ' ';
    let mut letters = text[start..].char_indices();
    while let Some((offset, letter)) = letters.next() {
        match (quote, letter) {
            (Some('"'), '\\') => _ = letters.next(),
            (Some(open), close) if open == close => quote = None,
            (None, '"') => quote = Some('"'),
            (None, '\'') if before.is_whitespace() || ",:[{".contains(before) => quote = Some('\''),
            (None, '#') if before.is_whitespace() => _ = letters.find(|(_, letter)| *letter == '\n'),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(start + offset + letter.len_utf8());
                }
            }
            (Some(_) | None, _) => {}
        }
        before = letter;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Value, documents};

    #[track_caller]
    fn check(text: &str, places: &[(usize, usize)]) {
        let documents = documents(text);
        let roots: Vec<_> = documents.iter().map(|document| document.root.as_ref().unwrap()).collect();
        assert_eq!(roots.iter().map(|root| (root.at.line, root.at.column)).collect::<Vec<_>>(), places, "{text}");
        assert!(roots.iter().all(|root| matches!(root.value, Value::Map(_))));
    }

    #[test]
    fn documents_follow_each_other_without_a_separator() {
        check(r#"{"a":1}{"b":2} {"c":3}"#, &[(1, 1), (1, 8), (1, 16)]);
        check("{\"a\": \"é}{\"}\n{\n \"b\": [{}]\n}\n{\"c\": \"\\\"}{\"}\n", &[(1, 1), (2, 1), (5, 1)]);
        check("{a: 1}{b: 1}\n---\n{c: 1}\n", &[(1, 1), (1, 7), (3, 1)]);
    }

    #[test]
    fn one_document_stays_one() {
        check("{a: 'x}{y', b: it's, c: \"}{\"} # }{\n", &[(1, 1)]);
        check("{a: b, # }\n# {\n c: d}\n", &[(1, 1)]);
        check("a: {b: c}\nd: {e: f}\n", &[(1, 1)]);
    }

    #[test]
    fn errors_after_a_cut_have_their_place() {
        let documents = documents("{\"a\": 1}{\"b\": }}");
        assert!(documents[0].root.is_ok());
        let (at, _) = documents[1].root.as_ref().unwrap_err();
        assert_eq!((at.line, at.column), (1, 16));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn as_many_documents_as_were_written(strings in prop::collection::vec("[{}\\[\\]\"'\\\\# a\n]{0,8}", 1..5)) {
            let text: String = strings.iter().map(|s| serde_json::json!({ "k": s }).to_string()).collect();
            let documents = documents(&text);
            prop_assert_eq!(documents.len(), strings.len());
            for (document, string) in documents.iter().zip(&strings) {
                let Ok(super::super::Node { value: Value::Map(entries), .. }) = &document.root else { panic!("a map") };
                prop_assert_eq!(&entries[0].value.value, &Value::String(string.clone()));
            }
        }
    }
}
