//! Shared data: a quota that all workers count against, with compare-and-swap and another try.

use plugwright_sdk::{ConfigError, Flow, Host, LocalResponse, Plugin, SharedData};
use serde::Deserialize;

const USED: SharedData = SharedData::new("quota.used");

/// The configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many requests may pass.
    requests: u64,
}

/// Lets so many requests pass and no more.
pub struct Quota {
    requests: u64,
}

impl Plugin for Quota {
    type Config = Config;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        Ok(Self { requests: config.requests })
    }

    fn on_request_headers(&self, host: &mut impl Host, _end_of_stream: bool) -> Flow {
        let used = |value: Option<&[u8]>| value.and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes);
        let one_more = |value: Option<&[u8]>| {
            let used = used(value);
            (used < self.requests).then(|| (used + 1).to_le_bytes().to_vec())
        };
        match USED.update(host, one_more) {
            Ok(Some(_)) => Flow::Continue,
            Ok(None) => Flow::Respond(LocalResponse::new(429).details("quota_used_up")),
            Err(error) => {
                host.error(&error.to_string());
                Flow::Respond(LocalResponse::new(503).details("quota_unknown"))
            }
        }
    }
}

plugwright_sdk::register!(Quota);

#[cfg(test)]
mod tests {
    use plugwright_sdk::testing::get;

    use super::Quota;

    #[test]
    fn so_many_requests_pass_and_no_more() {
        let setup = plugwright_sdk::proxy!(Quota, "examples/shared_data");
        let mut proxy = setup.configure(r#"{"requests":2}"#).unwrap();
        let statuses: Vec<_> = (0..4).map(|_| proxy.send(get("/")).status()).collect();
        assert_eq!(statuses, [200, 200, 429, 429]);
    }
}
