//! The configuration: what is written, and what HTTP allows of it.

use std::collections::BTreeMap;

use plugwright_sdk::{ConfigError, is_field_value, is_token};
use serde::Deserialize;

/// Headers that say where a message goes or ends: another one breaks it for whoever reads it next.
const NOT_TO_TOUCH: [&str; 4] = ["connection", "content-length", "host", "transfer-encoding"];

/// Which headers are set and removed.
#[derive(Debug, Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars")
)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Request headers by name. What the client sent under such a name is replaced.
    #[serde(default)]
    pub(crate) set_on_request: BTreeMap<String, String>,
    /// Names of response headers, in any case, that the client does not get.
    #[serde(default)]
    pub(crate) remove_from_response: Vec<String>,
}

impl Config {
    /// Says which header HTTP does not allow.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (name, value) in &self.set_on_request {
            let checked = check(name).and_then(|()| {
                if is_field_value(value) { Ok(()) } else { Err(ConfigError::new("has a value with a control character")) }
            });
            checked.map_err(|error| error.field(name).field("set_on_request"))?;
        }
        for (index, name) in self.remove_from_response.iter().enumerate() {
            check(name).map_err(|error| error.index(index).field("remove_from_response"))?;
        }
        Ok(())
    }
}

fn check(name: &str) -> Result<(), ConfigError> {
    if !is_token(name) {
        return Err(ConfigError::new("is not a header's name"));
    }
    if NOT_TO_TOUCH.iter().any(|other| name.eq_ignore_ascii_case(other)) {
        return Err(ConfigError::new("is a header that frames or routes the message"));
    }
    Ok(())
}
