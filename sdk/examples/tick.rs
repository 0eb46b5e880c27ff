//! Ticks: a rate limit whose bucket is filled again every second.

use std::cell::Cell;
use std::time::Duration;

use plugwright_sdk::{ConfigError, Flow, Host, LocalResponse, Plugin};
use serde::Deserialize;

/// The configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many requests a worker lets pass in a second.
    per_second: u32,
}

/// Limits requests.
pub struct Limit {
    per_second: u32,
    left: Cell<u32>,
}

impl Plugin for Limit {
    type Config = Config;

    fn configure(config: Config, _: &mut impl Host) -> Result<Self, ConfigError> {
        if config.per_second == 0 {
            return Err(ConfigError::new("must be at least 1").field("per_second"));
        }
        Ok(Self { per_second: config.per_second, left: Cell::new(config.per_second) })
    }

    fn tick_period(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }

    fn on_tick(&self, _: &mut impl Host) {
        self.left.set(self.per_second);
    }

    fn on_request_headers(&self, _: &mut impl Host, _end_of_stream: bool) -> Flow {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Flow::Continue
            }
            None => Flow::Respond(LocalResponse::new(429).header("retry-after", "1").details("limited")),
        }
    }
}

plugwright_sdk::register!(Limit);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plugwright_sdk::testing::get;

    use super::Limit;

    #[test]
    fn every_second_there_is_room_again() {
        let setup = plugwright_sdk::proxy!(Limit, "examples/tick");
        let mut proxy = setup.configure(r#"{"per_second":2}"#).unwrap();
        let mut statuses = || -> Vec<_> {
            let statuses = (0..3).map(|_| proxy.send(get("/")).status()).collect();
            proxy.pass(Duration::from_millis(1001));
            statuses
        };
        assert_eq!(statuses(), [200, 200, 429]);
        assert_eq!(statuses(), [200, 200, 429]);
    }
}
