//! The configuration: where the policy server is, and what is taken from its answer.

use std::time::Duration;

use plugwright_sdk::{ConfigError, is_field_value, is_token};
use serde::Deserialize;

/// The client is held meanwhile.
const MOST_MILLISECONDS: u64 = 10_000;

/// Headers that say where a message goes or ends.
const NOT_TO_COPY: [&str; 4] = ["connection", "content-length", "host", "transfer-encoding"];

/// Where the policy server is.
#[derive(Debug, Deserialize)]
#[cfg_attr(
    not(target_family = "wasm"),
    derive(plugwright_sdk::schemars::JsonSchema),
    schemars(crate = "plugwright_sdk::schemars")
)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The proxy's name of its cluster; Istio's is `outbound|PORT||HOST`.
    cluster: String,
    /// The host that it is asked as, `HOST` or `HOST:PORT`.
    authority: String,
    /// The path that it is asked for.
    #[serde(default = "default_path")]
    path: String,
    /// How long its answer may take, in milliseconds.
    #[serde(default = "default_timeout")]
    #[cfg_attr(not(target_family = "wasm"), schemars(range(min = 1, max = 10_000)))]
    timeout_ms: u64,
    /// Headers of its answer that the upstream gets; from the client they are not taken.
    #[serde(default)]
    copy: Vec<String>,
}

fn default_path() -> String {
    "/".to_owned()
}

fn default_timeout() -> u64 {
    500
}

/// A configuration that was checked.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) cluster: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) timeout: Duration,
    pub(crate) copy: Vec<String>,
}

impl Config {
    /// Says which field is wrong.
    pub(crate) fn checked(self) -> Result<Policy, ConfigError> {
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.cluster.is_empty() || !is_field_value(&self.cluster) {
            return Err(ConfigError::new("is not a cluster's name").field("cluster"));
        }
        if !plain(&self.authority) || self.authority.contains(['/', '@']) {
            return Err(ConfigError::new("is not HOST or HOST:PORT").field("authority"));
        }
        if !plain(&self.path) || !self.path.starts_with('/') {
            return Err(ConfigError::new("is not a path that starts with a slash").field("path"));
        }
        if !(1..=MOST_MILLISECONDS).contains(&self.timeout_ms) {
            return Err(ConfigError::new("is not 1 to 10000").field("timeout_ms"));
        }
        for (index, name) in self.copy.iter().enumerate() {
            let frames = NOT_TO_COPY.iter().any(|other| name.eq_ignore_ascii_case(other));
            if frames || !is_token(name) {
                return Err(ConfigError::new("is not a header that can be copied").index(index).field("copy"));
            }
        }
        let timeout = Duration::from_millis(self.timeout_ms);
        Ok(Policy { cluster: self.cluster, authority: self.authority, path: self.path, timeout, copy: self.copy })
    }
}
