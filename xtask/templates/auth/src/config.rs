//! The configuration: the clients, and what makes a token good enough. It has no `Debug`, since it holds secrets.

use plugwright_sdk::{ConfigError, is_field_value};
use serde::Deserialize;

/// Shorter tokens can be guessed.
const LEAST: usize = 16;

/// Who may pass.
#[derive(Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars")
)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The realm that a client without a token is told.
    #[serde(default = "default_realm")]
    pub(crate) realm: String,
    /// Those who may pass; there must be one.
    pub(crate) clients: Vec<Client>,
}

/// One client.
#[derive(Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars")
)]
#[serde(deny_unknown_fields)]
pub(crate) struct Client {
    /// What the upstream gets in `x-client`.
    pub(crate) name: String,
    /// Its bearer token: 16 or more of the characters that HTTP allows in one.
    pub(crate) token: String,
}

fn default_realm() -> String {
    "plugin-name".to_owned()
}

impl Config {
    /// Says which field is wrong, and never what is in it.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !is_field_value(&self.realm) {
            return Err(ConfigError::new("has a control character").field("realm"));
        }
        if self.clients.is_empty() {
            return Err(ConfigError::new("is empty: nobody could pass").field("clients"));
        }
        for (index, client) in self.clients.iter().enumerate() {
            let error = if client.name.is_empty() || !is_field_value(&client.name) {
                ConfigError::new("is empty or has a control character").field("name")
            } else if client.token.len() < LEAST || !client.token.bytes().all(is_of_a_token) {
                ConfigError::new("is shorter than 16 characters or has one that no bearer token has").field("token")
            } else if self.clients.iter().take(index).any(|other| other.token == client.token) {
                ConfigError::new("is another client's too").field("token")
            } else {
                continue;
            };
            return Err(error.index(index).field("clients"));
        }
        Ok(())
    }
}

/// RFC 6750, section 2.1.
fn is_of_a_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}
