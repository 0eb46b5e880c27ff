//! The configuration: what a connection may carry.

use plugwright_sdk::ConfigError;
use serde::Deserialize;

/// The limits of each connection.
#[derive(Debug, Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars")
)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many bytes a client may send; without it as many as it likes.
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 1)))]
    pub(crate) max_upload: Option<u64>,
    /// How many bytes a server may send; without it as many as it likes.
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 1)))]
    pub(crate) max_download: Option<u64>,
}

impl Config {
    /// Says which field is wrong.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (name, most) in [("max_upload", self.max_upload), ("max_download", self.max_download)] {
            if most == Some(0) {
                return Err(ConfigError::new("is 0, with which no connection carries anything").field(name));
            }
        }
        Ok(())
    }
}
