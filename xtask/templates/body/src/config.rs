//! The configuration: how long a request may be, and which words give way to what.

use plugwright_sdk::ConfigError;
use serde::Deserialize;

/// What Envoy keeps of a body unless it is told otherwise; a longer one it refuses itself.
const MOST: usize = 1024 * 1024;

/// What is done to bodies.
#[derive(Debug, Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars")
)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Requests with longer bodies are answered with 413.
    #[serde(default = "default_max")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(max = 1_048_576)))]
    pub(crate) max_request_bytes: usize,
    /// Words of responses that are replaced, in exactly this spelling.
    #[serde(default)]
    words: Vec<String>,
    /// What stands in their place.
    #[serde(default = "default_replacement")]
    replacement: String,
}

fn default_max() -> usize {
    64 * 1024
}

fn default_replacement() -> String {
    "***".to_owned()
}

impl Config {
    /// Says which field is wrong.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.max_request_bytes > MOST {
            return Err(ConfigError::new("is more than 1048576, which the proxy keeps at most").field("max_request_bytes"));
        }
        match self.words.iter().position(String::is_empty) {
            Some(index) => Err(ConfigError::new("is empty").index(index).field("words")),
            None => Ok(()),
        }
    }

    /// The text with the words replaced, or none when it has none of them.
    pub(crate) fn replaced(&self, text: &str) -> Option<String> {
        let mut replaced = None;
        for word in &self.words {
            let text = replaced.as_deref().unwrap_or(text);
            if text.contains(word.as_str()) {
                replaced = Some(text.replace(word.as_str(), &self.replacement));
            }
        }
        replaced
    }
}
