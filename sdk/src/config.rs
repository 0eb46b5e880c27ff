//! The error of a plugin's configuration: where it is and why.

use std::fmt;

use serde::de::{Expected, Unexpected};

/// Says which field of the configuration is wrong, and why.
///
/// The path is built from the inside out: whoever knows a field's name or an item's index adds it with
/// [`field`](Self::field) or [`index`](Self::index) on the way up. It never quotes a value: configurations carry
/// secrets, and errors go to the proxy's log.
///
/// ```
/// use plugwright_sdk::ConfigError;
///
/// let error = ConfigError::new("is empty").index(0).field("credentials").index(1).field("basic_auth_rules");
/// assert_eq!(error.to_string(), "basic_auth_rules[1].credentials[0]: is empty");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    reason: String,
}

impl ConfigError {
    /// Creates an error about the configuration as a whole; `reason` is a lowercase fragment.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { path: String::new(), reason: reason.into() }
    }

    /// Places the error in the field `name` of an object.
    #[must_use]
    pub fn field(self, name: &str) -> Self {
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'.' | b'['));
        if plain { self.within(name) } else { self.within(&escaped(name)) }
    }

    /// Places the error in the item at `index`, counted from 0, of a list.
    #[must_use]
    pub fn index(self, index: usize) -> Self {
        self.within(&format!("[{index}]"))
    }

    /// Returns the path of the field, empty when the error is about the whole configuration.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the reason without the path.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    fn within(mut self, outer: &str) -> Self {
        if !self.path.is_empty() && !self.path.starts_with('[') {
            self.path.insert(0, '.');
        }
        self.path.insert_str(0, outer);
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            f.write_str(&self.path)?;
            f.write_str(": ")?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConfigError {}

impl serde::de::Error for ConfigError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::new(reason.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, got {}", kind(unexpected)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("is missing").field(field)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("is not a field here; known are {}", expected.join(", "))).field(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new("is given twice").field(field)
    }
}

/// Quotes a name that could break a line of the log or hide in the path. `{:?}` would carry tables of Unicode along.
fn escaped(name: &str) -> String {
    let safe = name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    crate::quoted(&safe.collect::<String>())
}

/// Names the kind of a value and not the value, which may be a secret, and costs a float formatter to print.
fn kind(unexpected: Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a list",
        Unexpected::Map => "an object",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::ConfigError;

    #[test]
    fn names_that_could_break_the_log_are_quoted() {
        assert_eq!(ConfigError::new("no").field("a\nb").to_string(), "\"a\u{fffd}b\": no");
        assert_eq!(ConfigError::new("no").field("").to_string(), r#""": no"#);
        assert_eq!(ConfigError::new("no").field("a.b").field("c").to_string(), r#"c."a.b": no"#);
    }

    #[test]
    fn indexes_join_without_a_dot() {
        assert_eq!(ConfigError::new("no").field("x").index(2).index(0).to_string(), "[0][2].x: no");
    }

    #[test]
    fn an_error_of_the_whole_has_no_path() {
        assert_eq!(ConfigError::new("not JSON").to_string(), "not JSON");
    }
}
