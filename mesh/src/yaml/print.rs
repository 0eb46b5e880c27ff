//! Writes a tree as YAML in block style, so that reading it back gives the same tree.

use std::fmt::Write as _;

use super::{Entry, Node, Value};
use crate::scalar::{self, Scalar};

/// Writes a document. Every line ends with a line end.
pub(crate) fn document(node: &Node) -> String {
    let mut text = String::new();
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => map(entries, 0, &mut text),
        Value::List(items) if !items.is_empty() => list(items, 0, &mut text),
        value => {
            scalar(value, 0, &mut text);
            text.push('\n');
        }
    }
    text
}

/// Writes one entry of a mapping at a column.
pub(crate) fn entry(key: &str, value: &Value, column: usize) -> String {
    let mut text = " ".repeat(column);
    text.push_str(&string(key));
    text.push(':');
    after_key(value, column, &mut text);
    text
}

/// Writes a string on one line, quoted where it must be.
pub(crate) fn string(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/'))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./:@+-".contains(&b))
        && !text.ends_with(':')
        && scalar::resolve(text) == Scalar::Text;
    if plain { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            ' '..='~' => quoted.push(c),
            c if c.is_alphanumeric() => quoted.push(c),
            c if u32::from(c) > 0xffff => _ = write!(quoted, "\\U{:08x}", u32::from(c)),
            c => _ = write!(quoted, "\\u{:04x}", u32::from(c)),
        }
    }
    quoted.push('"');
    quoted
}

fn map(entries: &[Entry], column: usize, text: &mut String) {
    for one in entries {
        text.push_str(&entry(&one.key, &one.value.value, column));
    }
}

fn after_key(value: &Value, column: usize, text: &mut String) {
    match value {
        Value::Map(entries) if !entries.is_empty() => {
            text.push('\n');
            map(entries, column + 2, text);
        }
        Value::List(items) if !items.is_empty() => {
            text.push('\n');
            list(items, column, text);
        }
        value => {
            text.push(' ');
            scalar(value, column + 2, text);
            text.push('\n');
        }
    }
}

fn list(items: &[Node], column: usize, text: &mut String) {
    for item in items {
        let start = text.len();
        match &item.value {
            Value::Map(entries) if !entries.is_empty() => map(entries, column + 2, text),
            Value::List(items) if !items.is_empty() => list(items, column + 2, text),
            value => {
                text.push_str(&" ".repeat(column + 2));
                scalar(value, column + 2, text);
                text.push('\n');
            }
        }
        // The item was written two columns further in, which leaves room for its dash.
        text.replace_range(start + column..=start + column, "-");
    }
}

fn scalar(value: &Value, column: usize, text: &mut String) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => _ = write!(text, "{value}"),
        Value::Int(value) => _ = write!(text, "{value}"),
        Value::Float(value) if value.is_nan() => text.push_str(".nan"),
        Value::Float(value) if value.is_infinite() => text.push_str(if *value > 0.0 { ".inf" } else { "-.inf" }),
        Value::Float(value) => _ = write!(text, "{value:?}"),
        Value::String(value) if is_block(value) => block(value, column, text),
        Value::String(value) => text.push_str(&string(value)),
        Value::List(_) => text.push_str("[]"),
        Value::Map(_) => text.push_str("{}"),
    }
}

/// Whether several lines can stand as they are.
fn is_block(text: &str) -> bool {
    let printable = |c: char| matches!(c, '\n' | ' '..='~') || c.is_alphanumeric();
    text.contains('\n')
        && text.starts_with(|c: char| !c.is_whitespace())
        && text.chars().all(printable)
        && text.lines().all(|line| !line.ends_with(' '))
        && !text.ends_with("\n\n")
}

fn block(value: &str, column: usize, text: &mut String) {
    text.push_str(if value.ends_with('\n') { "|" } else { "|-" });
    for line in value.lines() {
        text.push('\n');
        if !line.is_empty() {
            text.push_str(&" ".repeat(column));
            text.push_str(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Entry, Mark, Node, Value, documents};
    use super::document;

    const AT: Mark = Mark { line: 1, column: 1 };

    fn node(value: Value) -> Node {
        Node { at: AT, value }
    }

    /// The same tree without its places.
    fn placeless(node: &Node) -> Node {
        let value = match &node.value {
            Value::List(items) => Value::List(items.iter().map(placeless).collect()),
            Value::Map(entries) => {
                let entry = |one: &Entry| Entry { key: one.key.clone(), key_at: AT, value: placeless(&one.value) };
                Value::Map(entries.iter().map(entry).collect())
            }
            other => other.clone(),
        };
        Node { at: AT, value }
    }

    fn trees() -> impl Strategy<Value = Node> {
        let text = prop_oneof![
            "[a-z]{0,6}",
            "[ -~]{0,10}",
            "[-:#\n\t 'a-c{}]{0,12}",
            any::<String>(),
            Just("on".to_owned()),
            Just("012".to_owned()),
            Just("<<".to_owned())
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_filter("NaN differs from itself", |value| !value.is_nan()).prop_map(Value::Float),
            text.clone().prop_map(Value::String),
        ];
        leaf.prop_map(node).prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|items| node(Value::List(items))),
                prop::collection::btree_map(text.clone(), inner, 0..4).prop_map(|entries| {
                    let entry = |(key, value)| Entry { key, key_at: AT, value };
                    node(Value::Map(entries.into_iter().map(entry).collect()))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_printed_is_read_back(tree in trees()) {
            let text = document(&tree);
            let documents = documents(&text);
            prop_assert_eq!(documents.len(), 1, "{}", text);
            let read = documents[0].root.as_ref().map(placeless).map_err(|(at, fault)| format!("{at:?} {fault}"));
            prop_assert_eq!(read, Ok(tree), "{}", text);
        }
    }

    #[test]
    fn texts_keep_their_lines_and_lists_their_dashes() {
        let text = "a:\n- b: 1\n  c: |\n    function f()\n      x = \"y\"\n\n    end\n- - on: \"on\"\n  - []\nd: {}\n";
        assert_eq!(document(documents(text)[0].root.as_ref().unwrap()), text.replace("on: \"", "\"true\": \""));
    }
}
