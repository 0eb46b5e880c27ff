//! The configuration: the clients, each with the digest of its token, so that nobody who reads it has a token.

use plugwright_sdk::{ConfigError, is_field_value};
use serde::Deserialize;

/// Who may pass.
#[derive(Debug, Deserialize)]
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
    clients: Vec<Entry>,
}

/// One client.
#[derive(Debug, Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars", rename = "Client")
)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// What the upstream gets in `x-client`.
    name: String,
    /// The SHA-256 digest of its bearer token, in hexadecimal. The token itself should be random, and 16 bytes or more.
    sha256: String,
}

fn default_realm() -> String {
    "plugin-name".to_owned()
}

/// A client that was checked.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) digest: [u8; 32],
}

impl Config {
    /// Returns the clients, or says which field is wrong.
    pub(crate) fn checked(self) -> Result<Vec<Client>, ConfigError> {
        if !is_field_value(&self.realm) {
            return Err(ConfigError::new("has a control character").field("realm"));
        }
        if self.clients.is_empty() {
            return Err(ConfigError::new("is empty: nobody could pass").field("clients"));
        }
        let mut clients: Vec<Client> = Vec::new();
        for (index, entry) in self.clients.into_iter().enumerate() {
            let client = entry.checked().map_err(|error| error.index(index).field("clients"))?;
            if clients.iter().any(|other| other.digest == client.digest) {
                return Err(ConfigError::new("is another client's too").field("sha256").index(index).field("clients"));
            }
            clients.push(client);
        }
        Ok(clients)
    }
}

impl Entry {
    fn checked(self) -> Result<Client, ConfigError> {
        if self.name.is_empty() || !is_field_value(&self.name) {
            return Err(ConfigError::new("is empty or has a control character").field("name"));
        }
        match digest(&self.sha256) {
            Some(digest) => Ok(Client { name: self.name, digest }),
            None => Err(ConfigError::new("is not 64 hexadecimal digits").field("sha256")),
        }
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}
