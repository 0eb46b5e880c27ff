//! What HTTP allows in a header field (RFC 9110, section 5).

/// Tells whether `name` is a token: what a header's name or a request's method may be (RFC 9110, section 5.6.2).
pub fn is_token(name: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(tchar)
}

/// Tells whether `value` may be a header's value: no control character but the tab (RFC 9110, section 5.5).
///
/// An empty value may be. Text beyond ASCII may be, and travels as UTF-8.
pub fn is_field_value(value: &str) -> bool {
    !value.chars().any(|c| c.is_control() && c != '\t')
}

/// Writes `text` as a quoted string, with `"` and `\` escaped (RFC 9110, section 5.6.4).
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::{is_field_value, is_token, quoted};

    #[test]
    fn a_token_has_no_separator_and_is_not_empty() {
        for name in ["x", "X-Y_z", "!#$%&'*+-.^_`|~09"] {
            assert!(is_token(name), "{name}");
        }
        for name in ["", ":status", "a b", "a:", "a\n", "(", "é", "a\"", "a/b", "a\0"] {
            assert!(!is_token(name), "{name}");
        }
    }

    #[test]
    fn a_field_value_has_no_control_character_but_the_tab() {
        for value in ["", "a b", "a\tb", "é", "\"\\"] {
            assert!(is_field_value(value), "{value}");
        }
        for value in ["a\r\nb: c", "\n", "\0", "\u{7f}", "\u{1b}", "\u{85}"] {
            assert!(!is_field_value(value), "{value:?}");
        }
    }

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
    }
}
