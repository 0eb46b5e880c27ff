//! The configuration: an object from header names to values, kept in its order.

use std::fmt;

use plugwright_sdk::{ConfigError, is_field_value, is_token};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// Headers that say where a message ends; a second one breaks the response for every client.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];

/// Names and values as they are written, in order; a name may occur more than once.
#[derive(Debug)]
pub struct Config(Vec<(String, String)>);

impl Config {
    /// Returns the headers, names in lower case, or says which one HTTP does not allow.
    pub fn into_headers(self) -> Result<Vec<(String, String)>, ConfigError> {
        self.0.into_iter().map(check).collect()
    }
}

fn check((name, value): (String, String)) -> Result<(String, String), ConfigError> {
    let lower = name.to_ascii_lowercase();
    let reason = if name.starts_with(':') {
        "is a pseudo-header, which cannot be added"
    } else if !is_token(&name) {
        "is not a valid header name"
    } else if FRAMING.contains(&lower.as_str()) {
        "frames the message, so it cannot be added"
    } else if !is_field_value(&value) {
        "has a value with a control character"
    } else {
        return Ok((lower, value));
    };
    Err(ConfigError::new(reason).field(&name))
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(not(target_family = "wasm"))]
impl plugwright_sdk::schemars::JsonSchema for Config {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Config".into()
    }

    fn json_schema(_: &mut plugwright_sdk::schemars::SchemaGenerator) -> plugwright_sdk::schemars::Schema {
        plugwright_sdk::schemars::json_schema!({
            "description": "Headers to add, by name.",
            "type": "object",
            "propertyNames": {"pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "not": {"enum": FRAMING}},
            "additionalProperties": {"type": "string"},
        })
    }
}

// A map type would lose the order, and one of two equal names.
struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from header names to values")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Config, M::Error> {
        let mut headers = Vec::new();
        while let Some(header) = map.next_entry()? {
            headers.push(header);
        }
        Ok(Config(headers))
    }
}
