//! `pluginConfig` as the bytes that reach the plugin.

use std::fmt::Write as _;

use crate::fault::Fault;
use crate::fields::{Field, Report};
use crate::yaml::{Node, Value};

/// Writes a `pluginConfig` as Istio does: a protobuf Struct as compact JSON.
///
/// - Numbers are doubles: `1.0` is written `1`, and integers beyond 2^53 lose digits.
/// - **Keys are sorted** in every mapping, since a Struct's fields are a map. A plugin that walks its configuration
///   in order (header-append, say) walks it in alphabetical order, whatever order the resource was written in. Only a
///   list keeps its order.
/// - `<`, `>` and `&` are written as `\u003c`, `\u003e` and `\u0026`, which a JSON reader does not notice.
///
/// `None` for `{}`: the plugin's configuration then has size 0, as when the field is absent.
pub(crate) fn plugin_config(field: &Field<'_>, report: &mut Report<'_>) -> Option<String> {
    let object = field.object(report)?;
    if object.entries.is_empty() {
        return None;
    }
    let mut json = String::new();
    write_value(field, &mut json, report);
    Some(json)
}

fn write_value(field: &Field<'_>, json: &mut String, report: &mut Report<'_>) {
    match &field.node.value {
        Value::Null => json.push_str("null"),
        Value::Bool(value) => json.push_str(if *value { "true" } else { "false" }),
        #[expect(clippy::cast_precision_loss, reason = "a Struct's numbers are doubles")]
        Value::Int(value) => write_number(*value as f64, json),
        Value::Float(value) if value.is_finite() => write_number(*value, json),
        Value::Float(value) => {
            let value = if value.is_nan() { ".nan" } else { ".inf" };
            field.error(report, Fault::NotFinite { value });
        }
        Value::String(text) => write_text(text, json),
        Value::List(items) => write_list(field, items, json, report),
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            json.push('{');
            for (index, entry) in entries.into_iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write_text(&entry.key, json);
                json.push(':');
                let path = format!("{}.{}", field.path, entry.key);
                write_value(&Field { node: &entry.value, path }, json, report);
            }
            json.push('}');
        }
    }
}

fn write_list(field: &Field<'_>, items: &[Node], json: &mut String, report: &mut Report<'_>) {
    json.push('[');
    for (index, node) in items.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write_value(&Field { node, path: format!("{}[{index}]", field.path) }, json, report);
    }
    json.push(']');
}

/// Writes a double as Go's `encoding/json` does, which is ECMAScript's form.
fn write_number(value: f64, json: &mut String) {
    // The API server reads `-0` as the integer 0.
    let value = if value == 0.0 { 0.0 } else { value };
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        match text.split_once('e') {
            Some((mantissa, exponent)) if !exponent.starts_with('-') => _ = write!(json, "{mantissa}e+{exponent}"),
            _ => json.push_str(&text),
        }
    } else {
        _ = write!(json, "{value}");
    }
}

/// Writes a string as Go's `encoding/json` does: HTML's and JavaScript's special characters are escaped as well.
fn write_text(text: &str, json: &mut String) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => _ = write!(json, "\\u{:04x}", u32::from(c)),
            _ => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::plugin_config;
    use crate::fields::{Field, Report};
    use crate::yaml::documents;

    fn convert(yaml: &str) -> (Option<String>, Vec<String>) {
        let documents = documents(yaml);
        let mut report = Report::new("f", 0);
        let field = Field { node: documents[0].root.as_ref().unwrap(), path: "spec.pluginConfig".to_owned() };
        let json = plugin_config(&field, &mut report);
        (json, report.errors.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn check(yaml: &str, expected: &str) {
        assert_eq!(convert(yaml), (Some(expected.to_owned()), vec![]));
    }

    #[track_caller]
    fn check_error(yaml: &str, expected: &[&str]) {
        assert_eq!(convert(yaml).1, expected);
    }

    #[test]
    fn keys_are_sorted_and_lists_keep_their_order() {
        check("b: [2, 1]\na: {z: 1, A: 2}\n", r#"{"a":{"A":2,"z":1},"b":[2,1]}"#);
    }

    #[test]
    fn numbers_are_doubles() {
        check("{a: 1, b: 1.0, c: 0.1, d: -0.0, e: -5}", r#"{"a":1,"b":1,"c":0.1,"d":0,"e":-5}"#);
        check("{a: 9007199254740993}", r#"{"a":9007199254740992}"#);
        check(
            "{a: 123456789012345678901, b: 1e21, c: 1.5e300}",
            r#"{"a":123456789012345680000,"b":1e+21,"c":1.5e+300}"#,
        );
        check("{a: 0.000001, b: 0.0000001, c: 1.25e-9}", r#"{"a":0.000001,"b":1e-7,"c":1.25e-9}"#);
    }

    #[test]
    fn text_is_escaped_as_go_escapes_it() {
        check(
            r#"{a: "x\"\\\n\t\u0001\u007f<>&\u2028é"}"#,
            "{\"a\":\"x\\\"\\\\\\n\\t\\u0001\u{7f}\\u003c\\u003e\\u0026\\u2028é\"}",
        );
    }

    #[test]
    fn yaml_1_1_scalars_are_typed_as_kubectl_types_them() {
        check("{a: yes, b: 012, c: ~, d: '012', e: 12:30}", r#"{"a":true,"b":10,"c":null,"d":"012","e":"12:30"}"#);
        check("{1: a, true: b}", r#"{"1":"a","true":"b"}"#);
    }

    #[test]
    fn empty_is_absent() {
        assert_eq!(convert("{}"), (None, vec![]));
    }

    #[test]
    fn nan_and_infinity_are_refused_by_path() {
        check_error(
            "{a: [1, .nan], b: -.inf}",
            &[
                "f:1:9: `spec.pluginConfig.a[1]`: .nan has no JSON form",
                "f:1:19: `spec.pluginConfig.b`: .inf has no JSON form",
            ],
        );
    }

    #[test]
    fn anything_but_a_mapping_is_refused() {
        check_error("[1]", &["f:1:1: `spec.pluginConfig`: must be a mapping, is a list"]);
        check_error("~", &["f:1:1: `spec.pluginConfig`: must be a mapping, is null"]);
    }
}
